"""What happens to connections that are held: plain data.

`HoldStats` merges exactly, as `BenchStats` does: seconds of one generator, and generators of one
run. How many are held is never stored but follows from what was opened, dropped and closed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pool_bench.stats.histogram import Histogram
from pool_bench.stats.memory_cost import client_cost_each
from pool_bench.stats.operations import MAX_SAMPLE_CHARACTERS, BenchStats, FailureKey, key_among
from pool_bench.stats.timeline import Timeline, in_a_row, require_unsealed

_DIGITS: Final = 3


class Ages:
    """How many connections reached which age, to three significant digits of milliseconds.

    A histogram ends at an hour; connections are held for days. The number of different ages is
    bounded (900 for each power of ten), whatever the number of connections.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def add(self, age_ns: int, count: int = 1) -> None:
        """Add connections of this age, nanoseconds."""
        ms = max(age_ns // 1_000_000, 0)
        if ms >= 1000:
            step = 10 ** (int(math.log10(ms)) + 1 - _DIGITS)
            ms = ms // step * step
        self.counts[ms] = self.counts.get(ms, 0) + count

    def merge(self, other: "Ages") -> None:
        """Add all of `other`."""
        for ms, count in other.counts.items():
            self.counts[ms] = self.counts.get(ms, 0) + count

    @property
    def total(self) -> int:
        """How many connections."""
        return sum(self.counts.values())

    def items_s(self) -> list[tuple[float, int]]:
        """Ages in seconds, ascending, and how many connections reached each."""
        return [(ms / 1000, self.counts[ms]) for ms in sorted(self.counts)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ages) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]  # it changes while it fills


@dataclass(frozen=True, slots=True)
class SurvivalPoint:
    """At the age of `age_s` seconds a share of `share` (0 to 1) was still open."""

    age_s: float
    share: float


def survival(dropped: Iterable[tuple[float, int]], open_: Iterable[tuple[float, int]]) -> list[SurvivalPoint]:
    """The share of connections still open by age, from ages at the drop and ages of those never dropped.

    Kaplan and Meier (1958): one that was still open when the run ended counts for as long as it was
    seen, and says nothing about later.

    Args:
        dropped: age in seconds and count of connections that were dropped.
        open_: the same of those that were open until we closed them.

    Returns:
        Steps from age 0 to the highest age seen; empty where there was no connection.
    """
    deaths, censored = dict(dropped), dict(open_)
    at_risk = sum(deaths.values()) + sum(censored.values())
    if not at_risk:
        return []
    share, points = 1.0, [SurvivalPoint(0.0, 1.0)]
    for age in sorted({*deaths, *censored}):
        died = deaths.get(age, 0)
        if died:
            share *= 1 - died / at_risk
            points.append(SurvivalPoint(age, share))
        at_risk -= died + censored.get(age, 0)
    last = max({*deaths, *censored})
    if points[-1].age_s < last:
        points.append(SurvivalPoint(last, share))
    return points


@dataclass(slots=True)
class HoldInterval:
    """One second (about) of a run that holds connections.

    Attributes:
        t: its end, seconds since opening began.
        seconds: its exact length.
        stage: `open`, `hold` or `close`.
        held: connections open at its end; `held_peak` the most during it.
        opened, dropped, closed: connections that were so in it; `opened` includes replacements.
        keepalive, active: latency of the queries answered in it; None once sealed.
        keepalives, actives: how many those were.
        keepalive_p50, keepalive_max, active_p50, active_p99: milliseconds, None without an answer; set
            when sealed.
    """

    t: float
    seconds: float
    stage: str
    held: int
    held_peak: int
    opened: int
    dropped: int
    closed: int
    keepalive: Histogram | None = None
    active: Histogram | None = None
    keepalives: int = 0
    actives: int = 0
    keepalive_p50: float | None = None
    keepalive_max: float | None = None
    active_p50: float | None = None
    active_p99: float | None = None

    def seal(self) -> None:
        """Read the percentiles and let the histograms go, so that a long run stays small."""
        if self.keepalive is not None:
            self.keepalives = self.keepalive.count
            self.keepalive_p50, self.keepalive_max = self.keepalive.percentiles_ms((50, 100))
            self.keepalive = None
        if self.active is not None:
            self.actives = self.active.count
            self.active_p50, self.active_p99 = self.active.percentiles_ms((50, 99))
            self.active = None

    def merge(self, other: "HoldInterval") -> None:
        """Add the same second of another generator; the peaks add up to an upper bound.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        require_unsealed(self, other)
        self.seconds = max(self.seconds, other.seconds)
        self.held += other.held
        self.held_peak += other.held_peak
        self.opened += other.opened
        self.dropped += other.dropped
        self.closed += other.closed
        self.keepalive = Histogram.merged((self.keepalive, other.keepalive))
        self.active = Histogram.merged((self.active, other.active))

    @property
    def is_sealed(self) -> bool:
        """Whether its histograms are gone."""
        return self.keepalive is None or self.active is None

    @property
    def sort(self) -> str:
        """Its stage: opening, holding and closing stay apart."""
        return self.stage

    def joined(self, later: "HoldInterval") -> "HoldInterval":
        """This stretch and the one after it as one; neither is changed.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        whole = in_a_row(self, later)
        whole.held = later.held
        whole.seconds = self.seconds + later.seconds
        whole.held_peak = max(self.held_peak, later.held_peak)
        return whole


@dataclass(slots=True)
class DropCount:
    """How often connections were dropped in one way, one message of it, and how long they had lived."""

    count: int = 0
    sample: str = ""
    ages: Ages = field(default_factory=Ages)


@dataclass(slots=True)
class HoldStats:
    """What happened to held connections: in one second, or in a whole run.

    Attributes:
        opened: connections of the first opening that became ready.
        reopened: replacements of dropped ones that did (`--reconnect`).
        closed: connections that we closed, `forced` of them without the server's own end in time.
        drops: connections that ended without our asking, by kind, phase and SQLSTATE.
        reconnects: attempts to replace dropped ones: counts, latency, failures by kind.
        survivors: ages of the connections that were open until we closed them.
        keepalive: latency of keep-alive queries of otherwise idle connections.
        active: latency of the queries of connections that never rest.
        query_failures: queries that failed on connections that stayed open.
        intervals: second by second.
        open_s: how long the first opening took, seconds, until the last one was open or had failed.
        hold_s, close_s: how long holding and closing took, seconds.
        gave_up_s: for how long none had opened when opening was given up, seconds; 0 where it was not.
        emptied: holding ended early because no connection was left and none could come back.
        base_rss_bytes, held_rss_bytes: the generator's resident size before the first connection
            and at the end of opening.
        hold_cpu_s: its CPU time while holding, seconds.
    """

    opened: int = 0
    reopened: int = 0
    closed: int = 0
    forced: int = 0
    drops: dict[FailureKey, DropCount] = field(default_factory=dict)
    reconnects: BenchStats = field(default_factory=BenchStats)
    survivors: Ages = field(default_factory=Ages)
    keepalive: Histogram = field(default_factory=Histogram)
    active: Histogram = field(default_factory=Histogram)
    query_failures: BenchStats = field(default_factory=BenchStats)
    intervals: Timeline[HoldInterval] = field(default_factory=Timeline)
    open_s: float = 0.0
    hold_s: float = 0.0
    close_s: float = 0.0
    gave_up_s: float = 0.0
    emptied: bool = False
    base_rss_bytes: int = 0
    held_rss_bytes: int = 0
    hold_cpu_s: float = 0.0

    @property
    def dropped(self) -> int:
        """Connections that ended without our asking."""
        return sum(drop.count for drop in self.drops.values())

    @property
    def held(self) -> int:
        """Connections open at the end of what these statistics cover, counted from its beginning."""
        return self.opened + self.reopened - self.dropped - self.closed

    @property
    def held_peak(self) -> int:
        """The most connections open at once."""
        return max((interval.held_peak for interval in self.intervals), default=0)

    @property
    def client_bytes_each(self) -> float | None:
        """Client memory for each held connection over the baseline, bytes.

        None where too few were held, or too little grew, to say.
        """
        if not self.held_rss_bytes:
            return None
        return client_cost_each(self.held_rss_bytes - self.base_rss_bytes, self.held_peak)

    @property
    def hold_cpu_share(self) -> float | None:
        """CPU time while holding over wall time of one core, 0 to 1; None where nothing was held."""
        return self.hold_cpu_s / self.hold_s if self.hold_s else None

    def count_drop(self, key: FailureKey, message: str, age_ns: int) -> None:
        """Add one dropped connection, which may come to stand without its SQLSTATE; see `key_among`."""
        drop = self._drop_of(key, message)
        drop.count += 1
        drop.ages.add(age_ns)

    def _drop_of(self, key: FailureKey, message: str) -> DropCount:
        return self.drops.setdefault(
            key_among(self.drops, key), DropCount(sample=message[:MAX_SAMPLE_CHARACTERS])
        )

    def dropped_ages(self) -> Ages:
        """Ages at which connections were dropped, all kinds together."""
        ages = Ages()
        for drop in self.drops.values():
            ages.merge(drop.ages)
        return ages

    def survival(self) -> list[SurvivalPoint]:
        """The share of connections still open by age."""
        return survival(self.dropped_ages().items_s(), self.survivors.items_s())

    def merge(self, other: "HoldStats") -> None:
        """Add all of `other`; intervals that end at the same `t` become one."""
        self.opened += other.opened
        self.reopened += other.reopened
        self.closed += other.closed
        self.forced += other.forced
        for key, drop in other.drops.items():
            mine = self._drop_of(key, drop.sample)
            mine.count += drop.count
            mine.ages.merge(drop.ages)
        self.reconnects.merge(other.reconnects)
        self.survivors.merge(other.survivors)
        self.keepalive.merge(other.keepalive)
        self.active.merge(other.active)
        self.query_failures.merge(other.query_failures)
        self.intervals.merge(other.intervals)
        self.open_s = max(self.open_s, other.open_s)
        self.hold_s = max(self.hold_s, other.hold_s)
        self.close_s = max(self.close_s, other.close_s)
        self.gave_up_s = max(self.gave_up_s, other.gave_up_s)
        self.emptied = self.emptied or other.emptied
        self.base_rss_bytes = max(self.base_rss_bytes, other.base_rss_bytes)
        self.held_rss_bytes = max(self.held_rss_bytes, other.held_rss_bytes)
        self.hold_cpu_s += other.hold_cpu_s
