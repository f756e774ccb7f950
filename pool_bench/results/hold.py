"""Held connections in the result file: `runs[].hold`."""

from dataclasses import dataclass, replace
from typing import Annotated, Self

from msgspec import Meta

from pool_bench.results.parts import (
    Count,
    Counts,
    ExtremesRecord,
    FailureRecord,
    Number,
    SummaryRecord,
    Text,
    errors_of,
    failures_of,
    figure,
    nothing_kept,
    record,
    rounded,
)
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import Ages, DropCount, HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, FailureKey


def ranked_drops(hold: HoldStats) -> list[tuple[FailureKey, DropCount]]:
    """Sorts of drops, the most frequent first."""
    return sorted(hold.drops.items(), key=lambda item: (-item[1].count, item[0]))


def lifetimes_s(ages: Ages) -> tuple[float, float, float] | None:
    """The shortest, the median (nearest rank) and the longest of `ages`, seconds; None of none."""
    items = ages.items_s()
    if not items:
        return None
    middle, seen = (ages.total + 1) // 2, 0
    for age_s, count in items:
        seen += count
        if seen >= middle:
            return items[0][0], age_s, items[-1][0]
    return None


@dataclass(frozen=True, slots=True)
class DropRecord:
    """One way in which connections were dropped, and how long they had lived, seconds."""

    kind: Text
    phase: Text
    count: Count
    sample: Text
    sqlstate: Text | None = None
    lifetime_s: ExtremesRecord | None = None

    @classmethod
    def of(cls, key: FailureKey, drop: DropCount) -> Self:
        """The record of a sort of drops."""
        lived = ExtremesRecord.of(lifetimes_s(drop.ages))
        return cls(str(key.kind), str(key.phase), drop.count, drop.sample, key.sqlstate or None, lived)


@dataclass(frozen=True, slots=True)
class SurvivalRecord:
    """At the age of `age_s` seconds a share of `share` (0 to 1) was still open."""

    age_s: Number
    share: Annotated[float, Meta(ge=-1e-9, le=1 + 1e-9)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldIntervalRecord:
    """One entry of `hold.timeline`: seconds, counts, milliseconds."""

    t: Number
    seconds: Number
    stage: Text
    held: Count
    held_peak: Count
    opened: Count
    dropped: Count
    closed: Count
    keepalives: Count
    keepalive_p50: Number | None
    keepalive_max: Number | None
    actives: Count
    active_p50: Number | None
    active_p99: Number | None

    @classmethod
    def of(cls, interval: HoldInterval) -> Self:
        """The record of `interval`, which may still be open and stays so."""
        sealed = replace(interval)
        sealed.seal()
        return record(cls, sealed)


@dataclass(frozen=True, slots=True)
class ReconnectsRecord:
    """Attempts to replace dropped connections."""

    ok: Count
    failed: Count
    errors: Counts
    failures: tuple[FailureRecord, ...]
    latency_ms: SummaryRecord
    histogram: Histogram

    @classmethod
    def of(cls, stats: BenchStats) -> Self:
        """The record of `stats`."""
        return cls(
            stats.ok,
            stats.failed,
            errors_of(stats),
            failures_of(stats),
            SummaryRecord.of(stats.latency),
            stats.latency.bucketed(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord:
    """What happened to held connections; names and units as in `HoldStats`.

    Attributes:
        asked: how many the user asked for.
        connections: how many the run was to open: fewer where the guard kept slots free.
        survival: the share still open by age.
        cpu_s, cpu_share: CPU time of the generator while holding, seconds and share of a core.
    """

    asked: Count
    connections: Count
    opened: Count
    reopened: Count
    closed: Count
    forced: Count
    dropped: Count
    drops: tuple[DropRecord, ...]
    reconnects: ReconnectsRecord
    query_failures: tuple[FailureRecord, ...]
    held_peak: Count
    emptied: bool
    open_s: Number
    hold_s: Number
    close_s: Number
    gave_up_s: Number = 0.0
    keepalive_ms: SummaryRecord
    keepalive_histogram: Histogram
    active_ms: SummaryRecord
    active_histogram: Histogram
    survival: tuple[SurvivalRecord, ...]
    timeline: tuple[HoldIntervalRecord, ...]
    base_rss_bytes: Count
    held_rss_bytes: Count
    client_bytes_each: Number | None
    cpu_s: Number
    cpu_share: Number | None

    @classmethod
    def of(cls, hold: HoldStats, *, connections: int, asked: int | None, courses: bool = True) -> Self:
        """The record of `hold`.

        Args:
            connections: how many the run was to open.
            asked: how many the user asked for, None for `connections`.
            courses: with timeline, histograms, survival and sorts of drops, which take time.
        """
        points = hold.survival() if courses else ()
        keep = Histogram.bucketed if courses else nothing_kept
        return record(
            cls,
            hold,
            asked=connections if asked is None else asked,
            connections=connections,
            drops=tuple(DropRecord.of(key, drop) for key, drop in ranked_drops(hold)) if courses else (),
            reconnects=ReconnectsRecord.of(hold.reconnects),
            query_failures=failures_of(hold.query_failures),
            keepalive_ms=SummaryRecord.of(hold.keepalive),
            keepalive_histogram=keep(hold.keepalive),
            active_ms=SummaryRecord.of(hold.active),
            active_histogram=keep(hold.active),
            survival=tuple(SurvivalRecord(point.age_s, point.share) for point in points),
            timeline=tuple(map(HoldIntervalRecord.of, hold.intervals)) if courses else (),
            cpu_s=figure(hold.hold_cpu_s),
            cpu_share=rounded(hold.hold_cpu_share),
        )
