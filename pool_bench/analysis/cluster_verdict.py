"""Reasons to doubt a run whose generators were on several machines: lost, late, apart in time, not heard."""

from typing import Final

from pool_bench.analysis.reasons import Reason, ReasonCode
from pool_bench.stats.hosts import MOST_SKEW_NS
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_ms

_MS: Final = 1e6


def cluster_reasons(run: RunResult) -> tuple[Reason | None, ...]:
    """What went wrong between machines; nothing where the generators ran here."""
    if not run.hosts:
        return ()
    return _worker_lost(run), _missing(run), _late(run), _skewed(run)


def _worker_lost(run: RunResult) -> Reason | None:
    lost = [part for part in run.generators if part.worker_lost]
    if not lost:
        return None
    who = "; ".join(f"process {part.number} on {part.host}: {part.lost}" for part in lost)
    return Reason(
        ReasonCode.WORKER_LOST,
        f"{len(lost)} of {len(run.generators)} generator processes were lost with their worker ({who}). What "
        "had arrived of them counts. Nothing was begun again elsewhere: the others went on, with less load "
        "than was asked for.",
        "find out why the worker ended (its log, the scheduler's, the out-of-memory killer); measure again",
    )


def _missing(run: RunResult) -> Reason | None:
    parts = [part for part in run.generators if part.missing]
    if not parts:
        return None
    who = ", ".join(f"{part.missing:,} of process {part.number} on {part.host}" for part in parts)
    return Reason(
        ReasonCode.SNAPSHOTS_MISSING,
        f"Not all that generators sent has arrived ({who}): operations of those seconds are not counted.",
        "look for a scheduler that is short of CPU or memory; measure again",
    )


def _late(run: RunResult) -> Reason | None:
    late = [
        f"process {part.number} on {part.host}: {format_ms(part.late_ns / _MS)} ms"
        for part in run.generators
        if part.late_ns is not None and part.late_ns > MOST_SKEW_NS
    ]
    if not late:
        return None
    return Reason(
        ReasonCode.STARTED_LATE,
        f"{len(late)} generator processes began more than {MOST_SKEW_NS / _MS:.0f} ms after the moment at "
        f"which all were to begin ({'; '.join(late)}): until then the load was less than was asked for.",
        "give the workers cores of their own; look for a slow network between scheduler and workers",
    )


def _skewed(run: RunResult) -> Reason | None:
    skewed = [host for host in run.hosts if host.skew_ns > MOST_SKEW_NS]
    if not skewed:
        return None
    who = "; ".join(f"{host.name}: {format_ms(host.skew_ns / _MS)} ms" for host in skewed)
    return Reason(
        ReasonCode.CLOCK_SKEW,
        f"Seconds of some workers may be off ours by more than {MOST_SKEW_NS / _MS:.0f} ms ({who}), so they "
        "did not begin together, and the course over time mixes neighbouring seconds. Latencies are not "
        "concerned: each was measured by one clock.",
        "look for a slow way to the workers, or one whose clock was set or that slept",
    )
