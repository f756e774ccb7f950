"""What a generator is to do to a pool, and the scenarios there are."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from pool_bench.contenders.base import ContenderName, ResetMode
from pool_bench.load.spec import OpenLoop
from pool_bench.targets.surreal import Target

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
_RAMP_STEPS: Final = 10
_SPIKE_BASE: Final = 0.1


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


@dataclass(frozen=True, slots=True)
class ClientStep:
    """From `t` seconds after measuring began on, `clients` are at work."""

    t: float
    clients: int


def client_steps(spec: PoolSpec) -> tuple[ClientStep, ...]:
    """How many clients are at work when: ascending steps, the first at 0, which is also the warm-up's."""
    everybody = spec.clients
    if spec.scenario == "ramp":
        shares = [(step + 1) / _RAMP_STEPS for step in range(_RAMP_STEPS)]
        steps = [
            ClientStep(spec.duration_s * step / _RAMP_STEPS, max(1, round(everybody * share)))
            for step, share in enumerate(shares)
        ]
        # Fewer clients than steps: some steps add nobody.
        return (steps[0], *(b for a, b in pairwise(steps) if b.clients > a.clients))
    if spec.scenario == "spike":
        few = max(1, round(everybody * _SPIKE_BASE))
        third = spec.duration_s / 3
        return (ClientStep(0.0, few), ClientStep(third, everybody), ClientStep(2 * third, few))
    return (ClientStep(0.0, everybody),)
