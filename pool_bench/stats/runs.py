"""What passes between the parts: a generator's snapshots and a finished run.

Plain data, no I/O. Generators send `Snapshot`s, the runner turns them into a `RunResult`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pool_bench.stats.calibration import ClientShare
from pool_bench.stats.checkouts import CheckoutStats
from pool_bench.stats.client_time import ClientState
from pool_bench.stats.generators import GeneratorPart, apart_words, worst_of
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.hosts import HostPart
from pool_bench.stats.operations import BenchStats, ClientUsage
from pool_bench.stats.server import ServerObservation
from pool_bench.stats.server_cpu import mean_cpu
from pool_bench.stats.starvation import starver_words
from pool_bench.stats.walls import Wall


class Stage(StrEnum):
    """Where a run is.

    Connect cycles go through `WARMUP`, `MEASURE` (only operations begun in it count) and `GRACE`;
    connections that are held through `OPEN`, `HOLD` and `CLOSE`.
    """

    WARMUP = "warmup"
    MEASURE = "measure"
    GRACE = "grace"
    OPEN = "open"
    HOLD = "hold"
    CLOSE = "close"
    DONE = "done"


@dataclass(slots=True)
class Snapshot:
    """What one generator did since its previous snapshot.

    Attributes:
        stage: the stage the generator was in when it took the snapshot.
        elapsed_s: seconds since measuring began; negative during the warm-up.
        seconds: length of the time this snapshot covers.
        targets: measured operations that ended in it, one `BenchStats` for each target; each
            holds one `Interval` ending at `elapsed_s` while measuring.
        warmup: operations that were begun during the warm-up, over all targets.
        in_flight: operations under way now.
        backing_off: workers that wait because their target fails.
        waiting: operations that are due and have not begun, None in a closed loop.
        client: what the generator cost since its previous snapshot.
        final: no further snapshot follows.
        hold: what happened to held connections, in a run that holds any.
        checkout: what a pool showed, in a run that puts one under load.
        began_ns: when `elapsed_s` was 0, perf_counter_ns, which all processes of a machine share.
    """

    stage: Stage
    elapsed_s: float
    seconds: float
    targets: tuple[BenchStats, ...]
    warmup: BenchStats
    in_flight: int
    backing_off: int
    client: ClientUsage
    final: bool = False
    hold: HoldStats | None = None
    waiting: int | None = None
    checkout: CheckoutStats | None = None
    began_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSetting:
    """What load a pool was put under.

    Attributes:
        name, scenario: as on the command line.
        clients: tasks that asked for connections.
        size: connections the pool might have.
        reset: `own`, `always` or `never`.
        prepared: whether the pool might prepare statements.
        min_size: connections it kept without a load, None where that was all of them.
        query: what each operation ran, None for nothing.
        hold_s, timeout_s: how long a connection was kept after the query, and the bound on an acquire.
        round: which repetition this was, from 1.
    """

    name: str
    scenario: str
    clients: int
    size: int
    reset: str
    query: str | None
    hold_s: float
    timeout_s: float
    round: int
    prepared: bool = True
    min_size: int | None = None

    @property
    def size_words(self) -> str:
        """Its size, `10`, or from which to which, `5-10`."""
        return f"{self.size:,}" if self.min_size is None else f"{self.min_size:,}-{self.size:,}"

    @property
    def label(self) -> str:
        """What tells it from others under the same load: the pool, and its sizes where there are two."""
        return self.name if self.min_size is None else f"{self.name} {self.size_words}"


@dataclass(slots=True)
class RunResult:
    """One setting, measured once.

    Attributes:
        label: names the setting in tables and plots.
        concurrency: workers; in an open loop, operations in flight at most.
        driver: how connections were opened.
        targets: the targets' printable names, no passwords.
        warmup_s, duration_s: as measured, seconds.
        per_target: statistics of each of `targets`, without intervals.
        total: statistics of all targets together, with the timeline.
        warmup: operations begun during the warm-up; not part of `total`.
        client: what the generators cost while measuring.
        event_loop: the generators' event loop, such as `uvloop`.
        interrupted: the run was ended before its time.
        hold: what happened to the connections, in a run that holds them; `total` is then their opening.
        asked: connections the user asked for; None where `concurrency`, what was to be opened, is all.
        server_side: what was seen of the server during the run, None where nobody looked.
        embedded: the target is the embedded server, which shares the client's cores.
        own: what of it is this client, where that was calibrated.
        rate: operations that were due a second, on average, in an open loop; None in a closed one.
        round: which repetition of its setting it is, from 1; None where settings are measured once.
        setting: how it differs from the session's other settings, "" where it does not.
        pool: what load which pool was put under, in a run that does so; `driver` is then the pool's name.
        checkout: what the pool showed.
        parameters: what it was asked to do, plain values by name (`load.parameters`); {} where not known.
        not_started: why it could not even begin, in words; "" where it did.
        by_address: results are wanted by address also where there is only one.
        wall: what connections met when they stopped growing, None where they did not.
        generators: what each of several generator processes did; empty where there is one.
        per_process: results are wanted by process, too.
        hosts: the workers of a cluster whose generators they were; empty where these ran here.
    """

    label: str
    concurrency: int
    driver: str
    targets: tuple[str, ...]
    warmup_s: float = 0.0
    duration_s: float = 0.0
    per_target: tuple[BenchStats, ...] = ()
    total: BenchStats = field(default_factory=BenchStats)
    warmup: BenchStats = field(default_factory=BenchStats)
    client: ClientUsage = field(default_factory=ClientUsage)
    event_loop: str = ""
    interrupted: bool = False
    hold: HoldStats | None = None
    asked: int | None = None
    server_side: ServerObservation | None = None
    embedded: bool = False
    own: ClientShare | None = None
    rate: float | None = None
    round: int | None = None
    setting: str = ""
    pool: PoolSetting | None = None
    checkout: CheckoutStats | None = None
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    not_started: str = ""
    by_address: bool = False
    wall: Wall | None = None
    generators: tuple[GeneratorPart, ...] = ()
    per_process: bool = False
    hosts: tuple[HostPart, ...] = ()

    @property
    def throughput(self) -> float:
        """Successful operations begun while measuring, per second of measuring."""
        return self.total.ok / self.duration_s if self.duration_s else 0.0

    @property
    def worst(self) -> GeneratorPart:
        """The generator process that was furthest from being on time."""
        if self.generators:
            return worst_of(list(self.generators))
        return GeneratorPart(client=self.client, stats=self.total)

    @property
    def client_limits(self) -> str | None:
        """Where a client was at a limit, in words, whatever the cause; None where none was."""
        worst = self.worst
        reasons = " and ".join(worst.limits)
        return f"{apart_words(worst, self.generators)}{reasons}" if reasons else None

    @property
    def client_trouble(self) -> str | None:
        """How a client was at a limit, its schedule included, in words; None where none was."""
        worst = self.worst
        reasons = " and ".join(worst.trouble)
        return f"{apart_words(worst, self.generators)}{reasons}" if reasons else None

    @property
    def client_state(self) -> ClientState:
        """What kept the client from being on time, by the kernel's account; of several, the worst one."""
        return self.worst.state

    @property
    def saturation(self) -> str | None:
        """Why the client was the bottleneck, in words; None where it was not, as where it had no core."""
        own = (ClientState.SATURATED, ClientState.BLOCKED)
        return self.client_trouble if self.client_state in own else None

    @property
    def starved_by(self) -> str:
        """Who had the cores that the client waited for, in words; "" where that is not known."""
        side = self.server_side
        client = self.worst.client
        length_s = self.duration_s + client.time.suspended_s
        server = None if side is None else mean_cpu(side.seconds, side.origin_s or 0.0, length_s)[0].server
        siblings = max(self.client.cpu_share - client.cpu_share, 0.0) if self.generators else 0.0
        return starver_words(client, server, embedded=self.embedded, siblings=siblings)

    @property
    def cpu_us_per_op(self) -> float | None:
        """Client CPU time for each operation that ended, microseconds."""
        ended = self.total.ok + self.total.failed
        return self.client.cpu_s / ended * 1e6 if ended else None
