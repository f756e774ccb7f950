"""Each of several generator processes in the result file: `runs[].generators`."""

from dataclasses import dataclass
from typing import Self

from pool_bench.results.client import LagRecord
from pool_bench.results.parts import Count, Number, SummaryRecord, Text, figure, rounded
from pool_bench.stats.generators import GeneratorPart
from pool_bench.stats.hosts import HostPart
from pool_bench.stats.runs import RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorRecord:
    """One generator process; names as in `GeneratorPart`.

    Attributes:
        cpu_percent: of one core.
        why: how it was at a limit, None where it was not.
        lost: how it was lost before its time, None where it was not.
        started_late_ms: after the common instant; None where it did not say, or had not to wait.
    """

    number: Count
    host: Text = ""
    ok: Count
    failed: Count
    unfinished: Count
    throughput: Number
    latency_ms: SummaryRecord
    cpu_percent: Number
    rss_mb: Number
    loop_lag_ms: LagRecord
    state: Text
    why: Text | None = None
    lost: Text | None = None
    started_late_ms: Number | None = None
    missing: Count = 0

    @classmethod
    def of(cls, part: GeneratorPart, duration_s: float) -> Self:
        """The record of `part`, in a run that measured for so long."""
        stats, client = part.stats, part.client
        return cls(
            number=part.number,
            host=part.host,
            ok=stats.ok,
            failed=stats.failed,
            unfinished=stats.unfinished,
            throughput=figure(stats.ok / duration_s if duration_s else 0.0),
            latency_ms=SummaryRecord.of(stats.latency),
            cpu_percent=figure(client.cpu_share * 100),
            rss_mb=figure(client.rss_bytes / 2**20),
            loop_lag_ms=LagRecord(*map(rounded, client.lag.percentiles_ms((50, 99, 100)))),
            state=str(part.state),
            why=" and ".join(part.trouble) or None,
            lost=part.lost or None,
            started_late_ms=None if part.late_ns is None else figure(part.late_ns / 1e6),
            missing=part.missing,
        )

    @classmethod
    def all_of(cls, run: RunResult) -> tuple[Self, ...]:
        """The records of `run`; none where nobody asked."""
        if not run.per_process:
            return ()
        parts = run.generators or (run.worst,)
        return tuple(cls.of(part, run.duration_s) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker of a cluster; names as in `HostPart`.

    Attributes:
        clock_offset_ms: what its clock said more than ours; clocks of machines begin when they boot.
        clock_uncertainty_ms: by how much that may be wrong, half the shortest of 32 round trips.
        clock_drift_ms: by how much the offset had changed at the end, None where that was not seen.
    """

    name: Text
    address: Text
    processes: Count
    clock_offset_ms: Number
    clock_uncertainty_ms: Number
    clock_drift_ms: Number | None = None

    @classmethod
    def of(cls, host: HostPart) -> Self:
        """The record of `host`."""
        return cls(
            name=host.name,
            address=host.address,
            processes=host.processes,
            clock_offset_ms=figure(host.clock.offset_ns / 1e6),
            clock_uncertainty_ms=figure(host.clock.uncertainty_ns / 1e6),
            clock_drift_ms=None if host.drift_ns is None else figure(host.drift_ns / 1e6),
        )
