"""An entry of `runs` in the result file: one setting, measured once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from pool_bench.analysis.reasons import Reason
from pool_bench.analysis.server_limit import limit_of
from pool_bench.analysis.unfinished import hanging_of
from pool_bench.analysis.verdict import Verdict, judge, verdict_words
from pool_bench.results.addresses import AddressRecord
from pool_bench.results.checkout import CheckoutRecord
from pool_bench.results.client import ClientRecord
from pool_bench.results.generators import GeneratorRecord, WorkerRecord
from pool_bench.results.hold import HoldRecord
from pool_bench.results.parts import (
    Count,
    Counts,
    FailureRecord,
    Name,
    Number,
    Settings,
    SummaryRecord,
    Text,
    errors_of,
    failures_of,
    figure,
    finite,
    finite_settings,
    nothing_kept,
    record,
    rounded,
)
from pool_bench.results.server import ServerSideRecord
from pool_bench.stats.calibration import ClientShare
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats, Interval
from pool_bench.stats.runs import PoolSetting, RunResult
from pool_bench.stats.walls import Wall


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRecord:
    """One entry of the timeline: seconds, counts, milliseconds; the last ones of an open loop only."""

    t: Number
    seconds: Number = 1.0
    ok: Count
    failed: Count
    in_flight: Count
    p50: Number | None
    p95: Number | None = None
    p99: Number | None
    max: Number | None
    lag_ms: Number | None
    cpu_s: Number | None = None
    offered: Count | None = None
    dropped: Count | None = None
    service_p50: Number | None = None
    service_p99: Number | None = None
    late_ms: Number | None = None

    @classmethod
    def of(cls, interval: Interval, *, open_loop: bool) -> Self:
        """The record of `interval`, which may still be open and stays so."""
        p50, p95, p99, top = interval.p50, interval.p95, interval.p99, interval.max
        if interval.latency is not None:
            p50, p95, p99, top = interval.latency.percentiles_ms((50, 95, 99, 100))
        service_p50, service_p99 = interval.service_p50, interval.service_p99
        if open_loop and interval.service is not None:
            service_p50, service_p99 = interval.service.percentiles_ms((50, 99))
        return record(
            cls,
            interval,
            seconds=figure(interval.seconds),
            p50=rounded(p50),
            p95=rounded(p95),
            p99=rounded(p99),
            max=rounded(top),
            offered=interval.offered if open_loop else None,
            dropped=interval.dropped if open_loop else None,
            service_p50=rounded(service_p50) if open_loop else None,
            service_p99=rounded(service_p99) if open_loop else None,
            late_ms=rounded(interval.late_ms) if open_loop else None,
        )


@dataclass(frozen=True, slots=True)
class ReasonRecord:
    """One reason to doubt a run, or a note on it."""

    code: Text
    text: Text
    remedy: Text

    @property
    def paragraph(self) -> str:
        """Text and remedy."""
        return f"{self.text} What helps: {self.remedy}."

    @classmethod
    def of(cls, reason: Reason) -> Self:
        """The record of `reason`."""
        return cls(str(reason.code), reason.text, reason.remedy)


@dataclass(frozen=True, slots=True)
class VerdictRecord:
    """What to think of a run."""

    valid: bool
    reasons: tuple[ReasonRecord, ...]
    notes: tuple[ReasonRecord, ...] = ()

    @property
    def words(self) -> str:
        """`valid`, `suspect: warm-up not over; too few samples`, or `failed: no operation succeeded`."""
        return verdict_words([reason.code for reason in self.reasons])

    @classmethod
    def of(cls, verdict: Verdict) -> Self:
        """The record of `verdict`."""
        reasons, notes = (tuple(map(ReasonRecord.of, part)) for part in (verdict.reasons, verdict.notes))
        return cls(verdict.valid, reasons, notes)


_NO_DOUBT: Final = VerdictRecord(valid=True, reasons=())


@dataclass(frozen=True, slots=True)
class WarmupRecord:
    """Operations begun during the warm-up."""

    ok: Count
    failed: Count
    unfinished: Count
    failures: tuple[FailureRecord, ...] = ()


NO_WARMUP: Final = WarmupRecord(0, 0, 0)


@dataclass(frozen=True, slots=True)
class MedianRecord:
    """A median, milliseconds; None where nothing was recorded."""

    p50: Number | None


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """What of a run is the client: its floor, and the operations a second that it cannot exceed.

    Attributes:
        concurrency: at which it cannot; None in files of older versions, where it is mostly the run's own.
    """

    floor_ms: MedianRecord
    ceiling: Number
    concurrency: Count | None = None

    @classmethod
    def of(cls, own: ClientShare) -> Self:
        """The record of `own`."""
        floor = MedianRecord(rounded(own.alone.latency.percentile_ms(50)))
        return cls(floor, figure(own.ceiling.throughput), own.ceiling.concurrency)


@dataclass(frozen=True, slots=True)
class HangingRecord:
    """Operations that never ended, by the step they hung in; names as in `Hanging`."""

    begun: Text
    phase: Text | None
    count: Count
    limit: Text | None
    limit_s: Number | None


@dataclass(frozen=True, slots=True)
class WallRecord:
    """What connections met when they stopped growing; names as in `Wall`."""

    kind: Text
    words: Text
    limit: Count | None
    used: Count | None
    t: Number
    held: Count

    @classmethod
    def of(cls, wall: Wall) -> Self:
        """The record of `wall`."""
        return cls(str(wall.kind), wall.words, wall.limit, wall.used, figure(wall.t), wall.held)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What an open loop adds to a run, whose latency is then the response time.

    Attributes:
        rate: operations that were to be due a second, on average.
        offered: operations that were due; dropped: those of them that were never begun.
        service_ms: successes from when they were begun.
        schedule_error_ms: how late this client began what was due and had room.
    """

    rate: float
    offered: int
    dropped: int
    service_ms: SummaryRecord
    schedule_error_ms: SummaryRecord
    service_histogram: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """One of several targets of a run; the last ones of an open loop only."""

    target: Text
    ok: Count
    failed: Count
    unfinished: Count
    success_rate: Number | None = None
    throughput: Number
    errors: Counts
    failures: tuple[FailureRecord, ...] = ()
    latency_ms: SummaryRecord
    histogram: Histogram
    offered: Count | None = None
    dropped: Count | None = None
    service_ms: SummaryRecord | None = None
    schedule_error_ms: SummaryRecord | None = None
    service_histogram: Histogram | None = None
    schedule_error_histogram: Histogram | None = None

    @classmethod
    def of(cls, target: str, stats: BenchStats, *, duration_s: float, open_loop: bool) -> Self:
        """The record of one target's `stats`."""
        return cls(
            target=target,
            ok=stats.ok,
            failed=stats.failed,
            unfinished=stats.unfinished,
            success_rate=finite(stats.success_rate),
            throughput=figure(stats.ok / duration_s if duration_s else 0.0),
            errors=errors_of(stats),
            failures=failures_of(stats),
            latency_ms=SummaryRecord.of(stats.latency),
            histogram=stats.latency.bucketed(),
            offered=stats.offered if open_loop else None,
            dropped=stats.dropped if open_loop else None,
            service_ms=SummaryRecord.of(stats.service) if open_loop else None,
            schedule_error_ms=SummaryRecord.of(stats.schedule_error) if open_loop else None,
            service_histogram=stats.service.bucketed() if open_loop else None,
            schedule_error_histogram=stats.schedule_error.bucketed() if open_loop else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One setting, measured once.

    Fields that are None or empty by default are only in the file where they say something: those from `pool`
    to `timeout_s` where a pool was put under load, those from `offered` to `schedule_error_histogram` in an
    open loop.

    Attributes:
        rate: operations due a second, None in a closed loop.
        driver: how connections were opened, or the pool that lent them.
        target: printable names of its targets, "" in files of older versions.
        round: which repetition of its setting it is, from 1; None where settings are measured once.
        setting: how it differs from the session's other settings, "" where it does not.
        set_aside: operations that saw this client suspended.
        pool, scenario, clients, size, min_size, reset, prepared, query, hold_s, timeout_s: as `PoolSetting`
            has them.
        parameters: what it was asked to do; {} in files of older versions.
        not_started: why it could not even begin; "" where it did.
    """

    label: Text
    concurrency: Count
    rate: Number | None = None
    processes: Count = 1
    driver: Text
    target: Text = ""
    round: Count | None = None
    setting: Text = ""
    warmup_s: Number
    duration_s: Number
    interrupted: bool = False
    ok: Count
    failed: Count
    unfinished: Count
    set_aside: Count = 0
    closed_by_us: Count = 0
    success_rate: Number | None = None
    errors: Counts
    failures: tuple[FailureRecord, ...] = ()
    throughput: Number
    latency_ms: SummaryRecord
    failure_ms: SummaryRecord | None = None
    phases_ms: Mapping[Name, SummaryRecord]
    warmup: WarmupRecord | None = None
    client: ClientRecord
    verdict: VerdictRecord | None = None
    calibration: ShareRecord | None = None
    offered: Count | None = None
    dropped: Count | None = None
    service_ms: SummaryRecord | None = None
    schedule_error_ms: SummaryRecord | None = None
    hold: HoldRecord | None = None
    pool: Text | None = None
    scenario: Text = ""
    clients: Count | None = None
    size: Count | None = None
    min_size: Count | None = None
    reset: Text | None = None
    prepared: bool = True
    query: Text | None = None
    hold_s: Number | None = None
    timeout_s: Number | None = None
    checkout: CheckoutRecord | None = None
    server_side: ServerSideRecord | None = None
    phase_histograms: Mapping[Name, Histogram] = field(default_factory=dict)
    histogram: Histogram
    failure_histogram: Histogram = field(default_factory=Histogram)
    service_histogram: Histogram | None = None
    schedule_error_histogram: Histogram | None = None
    timeline: tuple[IntervalRecord, ...]
    parameters: Settings = field(default_factory=dict)
    hanging: tuple[HangingRecord, ...] = ()
    wall: WallRecord | None = None
    not_started: Text = ""
    addresses: tuple[AddressRecord, ...] = ()
    generators: tuple[GeneratorRecord, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    targets: tuple[TargetRecord, ...] = ()

    @classmethod
    def of(cls, run: RunResult, *, courses: bool = True) -> Self:
        """The record of `run`.

        Args:
            courses: with timelines, histograms, survival and what it was by target and address; without them
                it is cheap enough for every second of a run.
        """
        total, open_loop, pool = run.total, run.rate is not None, run.pool
        keep = Histogram.bucketed if courses else nothing_kept
        checkout = run.checkout if pool is not None else None
        pool = pool if checkout is not None else None
        return record(
            cls,
            run,
            processes=max(len(run.generators), 1),
            target=", ".join(run.targets),
            round=run.round if pool is None else pool.round,
            ok=total.ok,
            failed=total.failed,
            unfinished=total.unfinished,
            set_aside=total.aside,
            closed_by_us=total.closed_by_us,
            success_rate=finite(total.success_rate),
            errors=errors_of(total),
            failures=failures_of(total),
            latency_ms=SummaryRecord.of(total.latency),
            failure_ms=SummaryRecord.of(total.failure_latency),
            phases_ms={str(phase): SummaryRecord.of(part) for phase, part in sorted(total.phases.items())},
            warmup=WarmupRecord(
                run.warmup.ok, run.warmup.failed, run.warmup.unfinished, failures_of(run.warmup)
            ),
            client=ClientRecord.of(run),
            verdict=VerdictRecord.of(judge(run)),
            calibration=None if run.own is None else ShareRecord.of(run.own),
            offered=total.offered if open_loop else None,
            dropped=total.dropped if open_loop else None,
            service_ms=SummaryRecord.of(total.service) if open_loop else None,
            schedule_error_ms=SummaryRecord.of(total.schedule_error) if open_loop else None,
            hold=None
            if run.hold is None
            else HoldRecord.of(run.hold, connections=run.concurrency, asked=run.asked, courses=courses),
            pool=None if pool is None else pool.name,
            scenario="" if pool is None else pool.scenario,
            clients=None if pool is None else pool.clients,
            size=None if pool is None else pool.size,
            min_size=None if pool is None else pool.min_size,
            reset=None if pool is None else pool.reset,
            prepared=True if pool is None else pool.prepared,
            query=None if pool is None else pool.query,
            hold_s=None if pool is None else figure(pool.hold_s),
            timeout_s=None if pool is None else figure(pool.timeout_s),
            checkout=None if checkout is None else CheckoutRecord.of(checkout, courses=courses),
            server_side=None
            if run.server_side is None
            else ServerSideRecord.of(run.server_side, limit_of(run), courses=courses),
            phase_histograms={str(phase): keep(part) for phase, part in sorted(total.phases.items())},
            histogram=keep(total.latency),
            failure_histogram=keep(total.failure_latency),
            service_histogram=keep(total.service) if open_loop else None,
            schedule_error_histogram=keep(total.schedule_error) if open_loop else None,
            timeline=tuple(IntervalRecord.of(interval, open_loop=open_loop) for interval in total.intervals)
            if courses
            else (),
            parameters=finite_settings(run.parameters),
            hanging=tuple(
                HangingRecord(
                    hanging.begun,
                    None if hanging.phase is None else str(hanging.phase),
                    hanging.count,
                    hanging.limit or None,
                    rounded(hanging.limit_s),
                )
                for hanging in hanging_of(run)
            ),
            wall=None if run.wall is None else WallRecord.of(run.wall),
            addresses=AddressRecord.all_of(run) if courses else (),
            generators=GeneratorRecord.all_of(run) if courses else (),
            workers=tuple(map(WorkerRecord.of, run.hosts)),
            targets=tuple(
                TargetRecord.of(name, stats, duration_s=run.duration_s, open_loop=open_loop)
                for name, stats in zip(run.targets, run.per_target, strict=True)
            )
            if courses and len(run.per_target) > 1
            else (),
        )

    @property
    def judgement(self) -> VerdictRecord:
        """The verdict; no reason to doubt is known in files of older versions."""
        return self.verdict or _NO_DOUBT

    @property
    def attempts(self) -> int:
        """Operations that were begun, however they ended."""
        return self.ok + self.failed + self.unfinished

    @property
    def open_loop(self) -> OpenLoop | None:
        """What an open loop adds, None in a closed one."""
        service, error, histogram = self.service_ms, self.schedule_error_ms, self.service_histogram
        if self.offered is None or service is None or error is None or histogram is None:
            return None
        return OpenLoop(self.rate or 0.0, self.offered, self.dropped or 0, service, error, histogram)

    @property
    def pool_setting(self) -> PoolSetting | None:
        """What load which pool was put under, None where none was."""
        if self.pool is None or self.checkout is None:
            return None
        return PoolSetting(
            name=self.pool,
            scenario=self.scenario,
            clients=self.clients or 0,
            size=self.size or 0,
            reset=self.reset or "",
            query=self.query,
            hold_s=self.hold_s or 0.0,
            timeout_s=self.timeout_s or 0.0,
            round=self.round or 1,
            prepared=self.prepared,
            min_size=self.min_size,
        )
