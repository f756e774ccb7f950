"""A pool under load in the result file: `runs[].checkout`.

How long callers waited is `runs[].phases_ms.checkout`.
"""

from dataclasses import dataclass, replace
from typing import Self

from pool_bench.results.parts import (
    Count,
    ExtremesRecord,
    Number,
    SummaryRecord,
    Text,
    finite,
    record,
)
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats, Fairness, Recovery
from pool_bench.stats.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessRecord:
    """Who was served when; names as in `Fairness`.

    Attributes:
        client_waits_ms: mean wait of the client that waited least, the median one, the one that waited
            most; None where nobody was served.
    """

    granted: Count
    overtaken: Count
    starved: Count
    index: Number | None
    neighbours_ms: SummaryRecord | None = None
    neighbours_histogram: Histogram
    client_waits_ms: ExtremesRecord | None = None

    @classmethod
    def of(cls, fairness: Fairness) -> Self:
        """The record of `fairness`."""
        return cls(
            granted=fairness.granted,
            overtaken=fairness.overtaken,
            starved=fairness.starved,
            index=finite(fairness.index),
            neighbours_ms=SummaryRecord.of(fairness.neighbours),
            neighbours_histogram=fairness.neighbours.bucketed(),
            client_waits_ms=ExtremesRecord.of(fairness.client_waits_ms()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryRecord:
    """How clients came through a restart of their server; names and units as in `Recovery`."""

    stopping_s: Number
    down_s: Number | None
    up_s: Number | None
    first_s: Number | None
    all_s: Number | None
    recovered: Count
    clients: Count
    opening_peak: Count
    opened: Count
    failed: Count

    @classmethod
    def of(cls, recovery: Recovery) -> Self:
        """The record of `recovery`."""
        return record(cls, recovery)

    @property
    def away_s(self) -> float | None:
        """How long the server was away; None where it did not come back."""
        return None if self.up_s is None else self.up_s - self.stopping_s

    def after_up_s(self, moment_s: float | None) -> float | None:
        """How long after the server was ready; never negative, as `up_s` is known a little late."""
        return None if moment_s is None or self.up_s is None else max(moment_s - self.up_s, 0.0)


@dataclass(frozen=True, slots=True)
class CheckoutIntervalRecord:
    """One entry of `checkout.timeline`: seconds, counts, milliseconds."""

    t: Number
    clients: Count
    connections: Count
    opened: Count
    wait_p50: Number | None
    wait_p99: Number | None

    @classmethod
    def of(cls, interval: CheckoutInterval) -> Self:
        """The record of `interval`, which may still be open and stays so."""
        sealed = replace(interval)
        sealed.seal()
        return record(cls, sealed)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutRecord:
    """A pool under load; names and units as in `CheckoutStats`."""

    version: Text
    manner: Text
    opened: Count
    open_failed: Count
    opening_peak: Count
    size_peak: Count
    open_s: Number
    close_s: Number
    base_rss_bytes: Count
    dead_met: Count | None = None
    leaked: Count | None = None
    left_open: Count | None = None
    connection_bytes: Count | None = None
    waiter_bytes: Count | None = None
    close_failure: Text = ""
    fairness: FairnessRecord
    bursts_ms: SummaryRecord | None = None
    bursts_histogram: Histogram
    recovery: RecoveryRecord | None = None
    timeline: tuple[CheckoutIntervalRecord, ...]

    @classmethod
    def of(cls, stats: CheckoutStats, *, courses: bool = True) -> Self:
        """The record of `stats`; without `courses` there is no timeline, which takes time."""
        return record(
            cls,
            stats,
            manner=stats.behaviour,
            fairness=FairnessRecord.of(stats.fairness),
            bursts_ms=SummaryRecord.of(stats.bursts),
            bursts_histogram=stats.bursts.bucketed(),
            recovery=None if stats.recovery is None else RecoveryRecord.of(stats.recovery),
            timeline=tuple(map(CheckoutIntervalRecord.of, stats.intervals)) if courses else (),
        )
