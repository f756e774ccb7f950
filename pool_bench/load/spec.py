"""What a generator is to do: frozen and picklable, so that it can be sent to any process."""

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pool_bench.contenders.base import ContenderName, ResetMode
from pool_bench.drivers.base import DriverName
from pool_bench.load.arrivals import Profile, Spacing
from pool_bench.load.share import Share
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import AuthMode, SurrealTarget

_Sort = TypeVar("_Sort", PostgresTarget, SurrealTarget)

ScenarioName = Literal[
    "churn", "query", "burst", "sustained", "ramp", "spike", "stress", "naive", "reconnect", "size"
]
"""`size` is one run of `pool-bench size`: `sustained`, for many sizes."""

SCENARIO_NAMES: Final[tuple[ScenarioName, ...]] = (
    "churn",
    "query",
    "burst",
    "sustained",
    "ramp",
    "spike",
    "stress",
    "naive",
    "reconnect",
)

# What a scenario means when it is the reader who has to know.
MEANINGS: Final[dict[ScenarioName, str]] = {
    "churn": "acquire, one turn of the event loop, release, without a query: what handing over costs",
    "query": "acquire, one query, release, at once again: the throughput of an application that only queries",
    "burst": "all clients ask in the same moment, once each: how long until the last one is served",
    "sustained": "every client asks again at once and keeps its connection a while: an endless queue",
    "ramp": "clients join step by step until all are there: where latency begins to grow",
    "spike": "a tenth of the clients, then all, then a tenth again: what a rush does, how fast it is over",
    "stress": "the same work by 1,000 and by 10,000 clients: what waiting itself costs",
    "naive": "as many clients as connections, each with a connection for every query, beside pooled ones: "
    "what pooling buys",
    "reconnect": "the server restarts in the middle: how long until clients succeed again, and at what price",
    "size": "every client asks again at once: how throughput depends on the size of the pool",
}

# Those whose clients ask again and again, which may as well ask when they are due.
OPEN_SCENARIOS: Final[tuple[ScenarioName, ...]] = ("churn", "query", "sustained")

STRESS_CLIENTS: Final = (1_000, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Operations become due on a schedule, whether or not earlier ones have finished.

    Attributes:
        profile: arrivals a second from the beginning of measuring on; its first rate holds in the warm-up.
        spacing: how arrivals of that rate are spread.
    """

    profile: Profile
    spacing: Spacing = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Connecting:
    """Settings of whatever opens connections itself.

    Attributes:
        targets: where to, all of the sort that `driver` opens connections to.
        driver: how connections are opened.
        connect_timeout_s: bound on one connect, seconds.
        auth: how SurrealDB learns who we are.
        scram_cache: keep derived SCRAM keys between connections.
        source_ips: local addresses to connect from in turn; empty leaves the choice to the system.
        by_address: count by the address that was used also where there can be only one.
        tick_s: seconds between snapshots.
        seed: makes the jitter and random arrivals repeatable.
        processes: how many generator processes do it together; each has a part, see `division.py`.
        cpus: cores that these run on, in turn; empty leaves the choice to the system.
        share: which part this is, where it is one.
    """

    targets: tuple[Target, ...]
    driver: DriverName = "wire"
    connect_timeout_s: float = 30.0
    auth: AuthMode = "signin"
    scram_cache: bool = True
    source_ips: tuple[str, ...] = ()
    by_address: bool = False
    tick_s: float = 1.0
    seed: int | None = None
    processes: int = 1
    cpus: tuple[int, ...] = ()
    share: Share | None = None

    @property
    def postgres_targets(self) -> tuple[PostgresTarget, ...]:
        """`targets`, where the driver is one of PostgreSQL's."""
        return _all_of(PostgresTarget, self.targets)

    @property
    def surreal_targets(self) -> tuple[SurrealTarget, ...]:
        """`targets`, where the driver is one of SurrealDB's."""
        return _all_of(SurrealTarget, self.targets)


def _all_of(sort: type[_Sort], targets: tuple[Target, ...]) -> tuple[_Sort, ...]:
    fit = tuple(target for target in targets if isinstance(target, sort))
    if len(fit) < len(targets):
        raise TypeError(f"not all targets are of {sort.__name__}: {', '.join(map(str, targets))}")
    return fit


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectSpec(_Connecting):
    """Open and close connections, in a closed loop or as they become due.

    Attributes:
        targets: used round-robin; all of the sort that `driver` opens connections to.
        concurrency: workers, each with one connection at a time; in an open loop, connections at most.
        open_loop: when operations are due, None for a closed loop.
        warmup_s: operations begun (in an open loop: due) in the first so many seconds do not count.
        duration_s: how long to measure, seconds; 0 until told to stop.
        grace_s: how long operations under way at the end may take to finish, seconds.
        connect_timeout_s: bound on one operation, seconds; in an open loop also on waiting to begin.
        query: SQL to run on each connection, None for none.
        resolve_once: look names up once, not for every connection.
    """

    concurrency: int = 10
    open_loop: OpenLoop | None = None
    warmup_s: float = 1.0
    duration_s: float = 10.0
    grace_s: float = 5.0
    query: str | None = None
    resolve_once: bool = False

    @property
    def interval_s(self) -> float:
        """The length of one entry of the timeline, seconds."""
        return self.tick_s


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSpec(_Connecting):
    """Open connections, hold them, and close them again.

    Attributes:
        targets: where to, all of the sort that `driver` opens connections to; connections are spread over
            them in turn.
        connections: how many to each of `targets`.
        duration_s: how long to hold once all are open or have failed, seconds; 0 until told to stop.
        batch_size: connections that are opened together; the next batch begins when all have ended.
        batch_pause_s: seconds between two batches.
        rate: connections to begin a second instead of in batches, None for batches.
        open_concurrency: connects under way at once, at most.
        keepalive_s: seconds between two keep-alive queries of one connection, 0 for none.
        keepalive_query: the query of keep-alives, and of those that are active; "" is the driver's ping.
        active: share of the connections, 0 to 1, that run `keepalive_query` without a pause.
        reconnect: whether a dropped connection is replaced.
        give_up_s: opening ends where so long connections were tried and none opened, seconds; 0 for never.
        connect_timeout_s: bound on one connect and on one keep-alive, seconds.
        close_s: bound on closing all connections politely, seconds.
    """

    connections: tuple[int, ...]
    duration_s: float = 60.0
    batch_size: int = 20
    batch_pause_s: float = 0.0
    rate: float | None = None
    open_concurrency: int = 50
    keepalive_s: float = 0.0
    keepalive_query: str = "SELECT 1"
    active: float = 0.0
    reconnect: bool = False
    give_up_s: float = 0.0
    close_s: float = 5.0

    @property
    def concurrency(self) -> int:
        """Connections to all targets together."""
        return sum(self.connections)

    @property
    def grace_s(self) -> float:
        """How long the run may go on after its end, seconds."""
        return self.close_s

    @property
    def warmup_s(self) -> float:
        """None: opening belongs to what is measured."""
        return 0.0

    @property
    def open_loop(self) -> OpenLoop | None:
        """None: connections are begun as `rate` or `batch_size` says."""
        return None

    @property
    def resolve_once(self) -> bool:
        """No: names are looked up for every connection."""
        return False

    @property
    def interval_s(self) -> float:
        """The length of one entry of the timeline, seconds."""
        return self.tick_s


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """Put one pool under one load.

    Attributes:
        targets: the one target.
        pool: the contender's name.
        scenario: the shape of the load.
        clients: tasks that ask for connections, at most at once; in an open loop, those in flight at most.
        open_loop: when operations are due, None where clients ask again by themselves; of `OPEN_SCENARIOS`.
        size: connections the pool may have.
        min_size: connections it keeps without a load, None for all of them.
        timeout_s: bound on one acquire, seconds; in an open loop also on waiting to begin.
        reset: what happens to connections on their return.
        prepared: whether the pool may prepare statements as it does by itself.
        query: what each operation runs, None for nothing.
        hold_s: how long an operation keeps its connection after the query, seconds.
        round: which repetition this is, from 1.
        warmup_s: operations begun in the first so many seconds do not count.
        duration_s: how long to measure, seconds.
        grace_s: how long operations under way at the end may take to finish, seconds.
        interval_s: the length of one entry of the timeline, seconds.
        tick_s: seconds between snapshots.
        seed: makes the jitter and random arrivals repeatable.
        processes: how many generator processes do it together; each has such a pool and its clients.
        cpus: cores that these run on, in turn; empty leaves the choice to the system.
        share: which part this is, where it is one.
    """

    targets: tuple[Target, ...]
    pool: ContenderName
    scenario: ScenarioName
    clients: int
    size: int
    timeout_s: float = 5.0
    reset: ResetMode = "own"
    prepared: bool = True
    query: str | None = None
    hold_s: float = 0.0
    round: int = 1
    warmup_s: float = 1.0
    duration_s: float = 5.0
    grace_s: float = 5.0
    interval_s: float = 0.25
    tick_s: float = 1.0
    seed: int | None = None
    open_loop: OpenLoop | None = None
    min_size: int | None = None
    processes: int = 1
    cpus: tuple[int, ...] = ()
    share: Share | None = None

    @property
    def source_ips(self) -> tuple[str, ...]:
        """None: a pool leaves the choice to the system."""
        return ()

    @property
    def concurrency(self) -> int:
        """`clients`, as other runs call it."""
        return self.clients

    @property
    def driver(self) -> str:
        """`pool`, as other runs call it."""
        return self.pool

    @property
    def connect_timeout_s(self) -> float:
        """`timeout_s`, as other runs call it, seconds."""
        return self.timeout_s

    @property
    def by_address(self) -> bool:
        """No: a pool does not tell where its connections lead."""
        return False


Spec = ConnectSpec | HoldSpec | PoolSpec
