"""What reports say about how far figures can be trusted, in the same words."""

from collections.abc import Sequence

from pool_bench.analysis.verdict import ReasonCode, Verdict, judge, short_words
from pool_bench.report.text import Paint, clean, format_percent, format_rate
from pool_bench.stats.operations import ClientUsage
from pool_bench.stats.runs import RunResult
from pool_bench.stats.walls import Wall
from pool_bench.units import format_ms


def verdict_line(verdict: Verdict, paint: Paint) -> str:
    """`verdict: valid`, or `verdict: suspect: warm-up not over; too few samples`."""
    return paint(f"verdict: {verdict.words}", "green" if verdict.valid else "yellow")


def wall_words(wall: Wall | None) -> str:
    """`wall at 97 connections: max_connections 100 ...`; "" where none was met."""
    if wall is None:
        return ""
    where = f" at {wall.held:,} connections" if wall.held else ""
    return f"wall{where}: {clean(wall.words)}"


def suspects_words(runs: Sequence[tuple[str, Sequence[str]]], most: int | None = None) -> str:
    """`suspect: warm-up not over (c16, c32); too few samples (c1)`; "" where every run is valid.

    A single run without a success is `failed: ...`.

    Args:
        runs: label and codes of the reasons of each run. The labels are left out where there is one run only.
        most: so many runs are named for each reason, and the others counted; None names all.
    """
    labels: dict[str, list[str]] = {}
    for label, codes in runs:
        for code in codes:
            labels.setdefault(code, []).append(label)
    if not labels:
        return ""
    parts = []
    for code, found in labels.items():
        where = f" ({_some(found, most)})" if len(runs) > 1 else ""
        parts.append(f"{short_words(code)}{where}")
    state = "failed" if len(runs) == 1 and ReasonCode.NO_SUCCESS in labels else "suspect"
    return f"{state}: {'; '.join(parts)}"


def _some(labels: Sequence[str], most: int | None) -> str:
    if most is None or len(labels) <= most:
        return ", ".join(labels)
    if not most:
        return f"{len(labels)} run{'s' if len(labels) > 1 else ''}"
    return f"{', '.join(labels[:most])} and {len(labels) - most} more"


def suspects_of(runs: Sequence[RunResult]) -> str:
    """`suspects_words` of finished runs."""
    return suspects_words([(run.label, [reason.code for reason in judge(run).reasons]) for run in runs])


def pauses_words(client: ClientUsage) -> str:
    """What garbage collection took: `12 GC pauses, max 0.8 ms`."""
    if not client.pauses.count:
        return "no GC pause"
    plural = "" if client.pauses.count == 1 else "s"
    return f"{client.pauses.count:,} GC pause{plural}, max {format_ms(client.pauses.max_ns / 1e6)} ms"


def own_lines(run: RunResult) -> list[str]:
    """What of the latency and of the rate is this client, where it was calibrated."""
    own, latency = run.own, run.total.latency
    if own is None or not own.alone.latency.count or not latency.count:
        return []
    # Of the medians only: higher percentiles of a sum are not the sum of percentiles.
    whole, mine = latency.percentile_ms(50), own.alone.latency.percentile_ms(50)
    ceiling = own.ceiling.throughput
    share = f", {format_percent(run.throughput / ceiling)} of it used" if ceiling else ""
    return [
        f"  of {format_ms(whole)} ms p50, {format_ms(mine)} ms is this client (calibrated with one worker)",
        f"  it could do {format_rate(ceiling)} conn/s at concurrency {own.ceiling.concurrency:,}{share}",
    ]
