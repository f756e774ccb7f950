"""What a server of known behaviour is to do, and what it says it did: plain data."""

import math
import random
from dataclasses import dataclass, field
from typing import Protocol

from pool_bench.errors import Phase
from pool_bench.stats.histogram import Histogram


class Delay(Protocol):
    """How long a step of the server takes."""

    def draw(self, rng: random.Random) -> int:
        """The next delay, nanoseconds."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always `seconds`."""

    seconds: float

    def draw(self, rng: random.Random) -> int:
        """The next delay, nanoseconds."""
        return round(self.seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Bimodal:
    """`slow` seconds for a `share` (0 to 1) of the draws, at random, and `fast` seconds for the others."""

    fast: float
    slow: float
    share: float

    def draw(self, rng: random.Random) -> int:
        """The next delay, nanoseconds."""
        return round((self.slow if rng.random() < self.share else self.fast) * 1e9)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal around a `median` in seconds; `sigma` is the deviation of the logarithm."""

    median: float
    sigma: float

    def draw(self, rng: random.Random) -> int:
        """The next delay, nanoseconds."""
        return round(rng.lognormvariate(math.log(self.median), self.sigma) * 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """The whole server does nothing at all for a while.

    Attributes:
        at_s: when it begins, seconds after the server's first connection has arrived.
        for_s: how long it lasts, seconds.
    """

    at_s: float
    for_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the server does; without any of it, it answers everything at once.

    Attributes:
        auth: from the StartupMessage to AuthenticationOk.
        ready: from AuthenticationOk to ReadyForQuery.
        query: from a Query to its result.
        close: from Terminate to the end of the connection.
        accept: between two connections taken from the accept queue.
        stall: a pause of the whole server.
        cold: so many of the first connections take `cold_auth` instead of `auth`.
        reset_share: share of the connections, 0 to 1, that are reset (RST) instead of being answered, evenly
            spread, so that their number is exact.
        max_connections: what is over it is refused with SQLSTATE 53300; None for no bound.
        backlog: length of the accept queue, listen(2).
        seed: makes random delays repeatable.
    """

    auth: Delay | None = None
    ready: Delay | None = None
    query: Delay | None = None
    close: Delay | None = None
    accept: Delay | None = None
    stall: Stall | None = None
    cold: int = 0
    cold_auth: Delay | None = None
    reset_share: float = 0.0
    max_connections: int | None = None
    backlog: int = 4096
    seed: int = 1


@dataclass(slots=True)
class Truth:
    """What the server did, by its own clock; durations are what it achieved, not what it was told.

    Attributes:
        accepted: connections taken from the accept queue.
        served: those that were answered and ended by Terminate.
        queries: results sent.
        resets: connections it reset.
        refused: connections it refused with 53300.
        abandoned: connections whose client left without Terminate.
        open_peak: most connections open at once, refused ones not counted.
        phases: from what came in to the answer's sending, of each phase; `tcp` is the gap between two
            connections taken from the accept queue, where it was to keep one.
        total: from taking a connection to closing it, over HTTP to the last answer, of those served.
        late: how much longer delays took than they were to.
        lag: how late a timer every 10 ms was: what else ran on this machine, or the server's own load.
        stall_ns: how long it stalled, 0 without a stall.
        cpu_s: CPU time it used, seconds.
        wall_s: over how long, seconds.
    """

    accepted: int = 0
    served: int = 0
    queries: int = 0
    resets: int = 0
    refused: int = 0
    abandoned: int = 0
    open_peak: int = 0
    phases: dict[Phase, Histogram] = field(default_factory=dict)
    total: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    stall_ns: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def cpu_share(self) -> float:
        """CPU time over wall time of one core."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0
