"""`runs[].addresses`: results by the address that was really used."""

from dataclasses import dataclass
from typing import Self

from pool_bench.results.parts import Count, Counts, Number, SummaryRecord, Text, figure, finite, record
from pool_bench.stats.addresses import UNKNOWN, AddressStats
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import errors_by_name
from pool_bench.stats.runs import RunResult


def addresses_of(run: RunResult) -> list[tuple[str, AddressStats]]:
    """What is known of each address, by address; empty where there was one and nobody asked."""
    rows = sorted((name, row) for name, row in run.total.addresses.items() if not row.is_empty)
    known = [name for name, _ in rows if name != UNKNOWN]
    if not known or (len(known) < 2 and not run.by_address):
        return []
    # What is not known comes last.
    return sorted(rows, key=lambda row: row[0] == UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRecord:
    """One address; names as in `AddressStats`.

    Attributes:
        address: None where it is not known.
        dropped, dropped_errors, reopened, reopen_failed: of connections that were held, else None.
        trouble_share: what of all that was tried there came to nothing, 0 to 1.
    """

    address: Text | None
    ok: Count
    failed: Count
    unfinished: Count
    passed_over: Count
    throughput: Number
    errors: Counts
    passed_over_errors: Counts
    latency_ms: SummaryRecord
    histogram: Histogram
    dropped: Count | None = None
    dropped_errors: Counts | None = None
    reopened: Count | None = None
    reopen_failed: Count | None = None
    trouble_share: Number | None

    @property
    def kinds(self) -> dict[str, int]:
        """All that went wrong there by kind, most frequent first."""
        counts: dict[str, int] = {}
        for part in (self.errors, self.passed_over_errors, self.dropped_errors or {}):
            for kind, count in part.items():
                counts[kind] = counts.get(kind, 0) + count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @classmethod
    def of(cls, run: RunResult, name: str, stats: AddressStats) -> Self:
        """The record of one address of `run`."""
        hold = run.hold
        again = None if hold is None else hold.reconnects.addresses.get(name, AddressStats())
        return record(
            cls,
            stats,
            address=name or None,
            throughput=figure(stats.ok / run.duration_s if run.duration_s else 0.0),
            errors=errors_by_name(stats.errors),
            passed_over_errors=errors_by_name(stats.passed_over_errors),
            latency_ms=SummaryRecord.of(stats.latency),
            histogram=stats.latency.bucketed(),
            dropped=None if again is None else stats.dropped,
            dropped_errors=None if again is None else errors_by_name(stats.dropped_errors),
            reopened=None if again is None else again.ok,
            reopen_failed=None if again is None else again.failed,
            trouble_share=finite(stats.trouble_share),
        )

    @classmethod
    def all_of(cls, run: RunResult) -> tuple[Self, ...]:
        """The records of `run`; none where there was one address and nobody asked."""
        return tuple(cls.of(run, name, stats) for name, stats in addresses_of(run))
