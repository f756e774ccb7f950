"""What passes between the parts: a generator's snapshots, a finished run, a whole session.

Plain data, no I/O. Generators send `Snapshot`s, the runner turns them into a `RunResult`,
reports and the result file are made from a `Session` of those.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pool_bench.checkouts import CheckoutStats
from pool_bench.errors import FailureKind
from pool_bench.holds import HoldStats, ServerSide
from pool_bench.sizing import Sizing
from pool_bench.stats import BenchStats, ClientUsage

# A client that uses more of its core, or whose loop is later than this, was part of what it measured.
SATURATED_CPU_SHARE = 0.90
SATURATED_LAG_P99_MS = 10.0


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
        client: what the generator cost since its previous snapshot.
        final: no further snapshot follows.
        hold: what happened to held connections, in a run that holds any.
        checkout: what a pool showed, in a run that puts one under load.
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
    checkout: CheckoutStats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSetting:
    """What load a pool was put under.

    Attributes:
        name, scenario: as on the command line.
        clients: tasks that asked for connections.
        size: connections the pool might have.
        reset: `own`, `always` or `never`.
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


@dataclass(slots=True)
class RunResult:
    """One setting, measured once.

    Attributes:
        label: names the setting in tables and plots.
        concurrency: workers.
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
        server_side: what was seen of the server during the run, None where nobody looked.
        pool: what load which pool was put under, in a run that does so; `driver` is then the pool's name.
        checkout: what the pool showed.
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
    server_side: ServerSide | None = None
    pool: PoolSetting | None = None
    checkout: CheckoutStats | None = None

    @property
    def throughput(self) -> float:
        """Successful operations begun while measuring, per second of measuring."""
        return self.total.ok / self.duration_s if self.duration_s else 0.0

    @property
    def saturation(self) -> str | None:
        """Why the client was the bottleneck, in words; None where it was not."""
        reasons = []
        if self.client.cpu_share > SATURATED_CPU_SHARE * self.client.processes:
            reasons.append(f"it used {self.client.cpu_share:.0%} of a core")
        lag = self.client.lag.percentile_ms(99)
        if lag is not None and lag > SATURATED_LAG_P99_MS:
            reasons.append(f"its event loop was {lag:.1f} ms late (p99)")
        return " and ".join(reasons) or None

    @property
    def cpu_us_per_op(self) -> float | None:
        """Client CPU time for each operation that ended, microseconds."""
        ended = self.total.ok + self.total.failed
        return self.client.cpu_s / ended * 1e6 if ended else None

    def errors(self) -> dict[FailureKind, int]:
        """Failures by kind over all targets."""
        return self.total.errors


@dataclass(slots=True)
class Session:
    """All that one command did: what the result file holds.

    Attributes:
        tool: the command, such as `pg-connection-bench`.
        name: the user's name for it, "" without one.
        started_at, finished_at: UTC.
        argv: the command line with secrets removed.
        target: the first target; `targets` all of them; no passwords.
        server: product, version and what else the server said, {} where it could not be asked.
        config: the settings in force.
        sizing: what a sweep of pool sizes allows to be said, in a session that is one.
    """

    tool: str
    name: str
    started_at: datetime
    argv: tuple[str, ...]
    targets: tuple[str, ...]
    server: dict[str, str] = field(default_factory=dict)
    config: dict[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)
    runs: list[RunResult] = field(default_factory=list)
    finished_at: datetime | None = None
    interrupted: bool = False
    sizing: Sizing | None = None
