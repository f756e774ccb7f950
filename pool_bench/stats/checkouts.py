"""What happens to those who ask a pool for a connection: fairness, connections, recovery. Plain data.

`CheckoutStats` merges exactly, as `BenchStats` does. How long callers waited is not here: it is the
phase `checkout` of the operations in `BenchStats`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pool_bench.stats.histogram import Histogram, Int64Array
from pool_bench.stats.timeline import Timeline, in_a_row, require_unsealed

# A later arrival that is served this much earlier has overtaken; below it is the order in which the
# event loop runs those it has woken in one turn.
OVERTAKING_NS: Final = 1_000_000


def _nobody() -> Int64Array:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Fairness:
    """Who was served when, compared with when they asked.

    Attributes:
        granted: checkouts that were granted.
        overtaken: those of them for which somebody who asked later was served more than 1 ms earlier.
        starved: callers that timed out although somebody who had asked later was served meanwhile.
        neighbours: by how much the waits of two callers who asked one after the other differed.
        grants: checkouts of each client, by its number.
        waits_ns: the sum of their waits.
    """

    granted: int = 0
    overtaken: int = 0
    starved: int = 0
    neighbours: Histogram = field(default_factory=Histogram)
    grants: Int64Array = field(default_factory=_nobody)
    waits_ns: Int64Array = field(default_factory=_nobody)

    @property
    def overtaken_share(self) -> float | None:
        """`overtaken` of `granted`, 0 to 1; None where nothing was granted."""
        return self.overtaken / self.granted if self.granted else None

    @property
    def index(self) -> float | None:
        """Jain's index of checkouts by client: 1 where all had as many, 1/n where one had all.

        Jain, Chiu, Hawe: A Quantitative Measure of Fairness (DEC-TR-301, 1984). None where nobody had any.
        """
        counts = self.grants.astype(np.float64)
        squares = float(np.square(counts).sum())
        return float(counts.sum()) ** 2 / (len(counts) * squares) if squares else None

    def client_waits_ms(self) -> tuple[float, float, float] | None:
        """The mean wait of the client that waited least, of the median one, and of the one that waited most.

        Milliseconds; of clients that were served at all, None where there was none.
        """
        served = self.grants > 0
        if not served.any():
            return None
        means = self.waits_ns[served] / self.grants[served] / 1e6
        return float(means.min()), float(np.median(means)), float(means.max())

    def merge(self, other: "Fairness") -> None:
        """Add all of `other`."""
        self.granted += other.granted
        self.overtaken += other.overtaken
        self.starved += other.starved
        self.neighbours.merge(other.neighbours)
        self.grants = _added(self.grants, other.grants)
        self.waits_ns = _added(self.waits_ns, other.waits_ns)


def _added(first: Int64Array, other: Int64Array) -> Int64Array:
    """The sum of two arrays (shapes n and m) by index; shape max(n, m)."""
    total = np.zeros(max(len(first), len(other)), dtype=np.int64)
    total[: len(first)] += first
    total[: len(other)] += other
    return total


@dataclass(slots=True)
class CheckoutInterval:
    """What went on beside the operations in one stretch of the timeline.

    Attributes:
        t: its end, seconds since measuring began.
        clients: clients that were at work.
        connections: what the pool held at its end.
        opened: connections that were opened in it.
        waits: how long checkouts granted in it had waited; None once sealed.
        wait_p50, wait_p99: milliseconds, None where none was granted; set when sealed.
    """

    t: float
    clients: int
    connections: int
    opened: int
    waits: Histogram | None = None
    wait_p50: float | None = None
    wait_p99: float | None = None

    def seal(self) -> None:
        """Read the percentiles and let the histogram go."""
        if self.waits is not None:
            self.wait_p50, self.wait_p99 = self.waits.percentiles_ms((50, 99))
            self.waits = None

    def merge(self, other: "CheckoutInterval") -> None:
        """Add the same stretch of another generator.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        require_unsealed(self, other)
        self.clients += other.clients
        self.connections += other.connections
        self.opened += other.opened
        self.waits = Histogram.merged((self.waits, other.waits))

    @property
    def is_sealed(self) -> bool:
        """Whether its histogram is gone."""
        return self.waits is None

    @property
    def sort(self) -> str:
        """All stretches are alike."""
        return ""

    def joined(self, later: "CheckoutInterval") -> "CheckoutInterval":
        """This stretch and the one after it as one; neither is changed.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        whole = in_a_row(self, later)
        whole.clients, whole.connections = later.clients, later.connections
        return whole


@dataclass(slots=True)
class Recovery:
    """How clients came through a restart of their server; times are seconds since measuring began.

    Attributes:
        stopping_s: the server was told to stop.
        down_s: it had stopped; whatever succeeds later is the work of its successor.
        up_s: it was ready again.
        first_s, all_s: the first client, and the last of them, had succeeded again; None where not.
        recovered: clients that succeeded again, of `clients`.
        opening_peak: connections that were being opened at once since it was told to stop.
        opened: connections opened since then.
        failed: operations that failed since then.
    """

    stopping_s: float
    down_s: float | None = None
    up_s: float | None = None
    first_s: float | None = None
    all_s: float | None = None
    recovered: int = 0
    clients: int = 0
    opening_peak: int = 0
    opened: int = 0
    failed: int = 0

    @staticmethod
    def together(parts: Iterable["Recovery"]) -> "Recovery | None":
        """What clients of several generators came through; None where there is none.

        The peaks add up to an upper bound.
        """
        known = list(parts)
        if not known:
            return None
        firsts = [part.first_s for part in known if part.first_s is not None]
        lasts = [part.all_s for part in known if part.all_s is not None]
        return Recovery(
            stopping_s=min(part.stopping_s for part in known),
            down_s=min((part.down_s for part in known if part.down_s is not None), default=None),
            up_s=max((part.up_s for part in known if part.up_s is not None), default=None),
            first_s=min(firsts, default=None),
            all_s=max(lasts) if len(lasts) == len(known) else None,
            recovered=sum(part.recovered for part in known),
            clients=sum(part.clients for part in known),
            opening_peak=sum(part.opening_peak for part in known),
            opened=sum(part.opened for part in known),
            failed=sum(part.failed for part in known),
        )


@dataclass(slots=True)
class CheckoutStats:
    """What a run of a pool showed beside its operations: of one second, or of the whole run.

    Attributes:
        version: of the package that the pool is from.
        behaviour: what the pool does on checkout and on return, in words.
        fairness: who was served when.
        opened: connections that were opened since the pool was made, the opening of the pool included.
        open_failed: attempts to open one that failed.
        opening_peak: the most connections that were being opened at once.
        size_peak: the most connections the pool held at any look.
        open_s: how long the pool took to open, seconds.
        close_s: how long it took to close.
        bursts: how long each burst took until its last client was done.
        recovery: what became of a restart, where there was one.
        base_rss_bytes: resident size before the pool was opened.
        dead_met: operations that failed because their connection was gone when they came to use it.
        leaked: connections that were still leased when no client was left, by the pool's own count.
        left_open: connections to anywhere that this process still had after it had closed the pool.
        connection_bytes: what an idle connection took of Python's memory, with its part of the pool's own.
        waiter_bytes: what a caller took that waited for one, beyond its task.
            These five are None where nobody looked, or nobody can.
        close_failure: why the pool could not be closed; "" where it was.
        intervals: the timeline.
    """

    version: str = ""
    behaviour: str = ""
    fairness: Fairness = field(default_factory=Fairness)
    opened: int = 0
    open_failed: int = 0
    opening_peak: int = 0
    size_peak: int = 0
    open_s: float = 0.0
    close_s: float = 0.0
    bursts: Histogram = field(default_factory=Histogram)
    recovery: Recovery | None = None
    base_rss_bytes: int = 0
    dead_met: int | None = None
    leaked: int | None = None
    left_open: int | None = None
    connection_bytes: int | None = None
    waiter_bytes: int | None = None
    close_failure: str = ""
    intervals: Timeline[CheckoutInterval] = field(default_factory=Timeline)

    def merge(self, other: "CheckoutStats") -> None:
        """Add all of `other`; peaks of several generators are those of the highest one."""
        self.version = self.version or other.version
        self.behaviour = self.behaviour or other.behaviour
        self.fairness.merge(other.fairness)
        self.opened += other.opened
        self.open_failed += other.open_failed
        self.opening_peak = max(self.opening_peak, other.opening_peak)
        self.size_peak = max(self.size_peak, other.size_peak)
        self.open_s = max(self.open_s, other.open_s)
        self.close_s = max(self.close_s, other.close_s)
        self.bursts.merge(other.bursts)
        self.recovery = other.recovery or self.recovery
        self.base_rss_bytes = max(self.base_rss_bytes, other.base_rss_bytes)
        self.dead_met = _sum(self.dead_met, other.dead_met)
        self.leaked = _sum(self.leaked, other.leaked)
        self.left_open = _sum(self.left_open, other.left_open)
        self.connection_bytes = _highest(self.connection_bytes, other.connection_bytes)
        self.waiter_bytes = _highest(self.waiter_bytes, other.waiter_bytes)
        self.close_failure = self.close_failure or other.close_failure
        self.intervals.merge(other.intervals)


def _sum(one: int | None, other: int | None) -> int | None:
    """Of what is known; None where nothing is."""
    return other if one is None else one if other is None else one + other


def _highest(one: int | None, other: int | None) -> int | None:
    """Of what is known; None where nothing is."""
    return other if one is None else one if other is None else max(one, other)
