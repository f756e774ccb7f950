"""What reports say about how far figures can be trusted, in the same words."""

from collections.abc import Sequence

from pool_bench.analysis.verdict import ReasonCode, short_words
from pool_bench.report.text import Paint, clean, format_percent, format_rate
from pool_bench.results.client import ClientRecord
from pool_bench.results.run import RunRecord, VerdictRecord, WallRecord
from pool_bench.stats.walls import Wall
from pool_bench.units import format_ms


def verdict_line(verdict: VerdictRecord, paint: Paint) -> str:
    """`verdict: valid`, or `verdict: suspect: warm-up not over; too few samples`."""
    return paint(f"verdict: {verdict.words}", "green" if verdict.valid else "yellow")


def wall_words(wall: Wall | WallRecord | None) -> str:
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


def suspects_of(runs: Sequence[RunRecord]) -> str:
    """`suspects_words` of finished runs."""
    return suspects_words([(run.label, [reason.code for reason in run.judgement.reasons]) for run in runs])


def lag_words(client: ClientRecord) -> str:
    """How late the event loop was, and which: `p50 0.1, p99 0.4, max 2.0 ms (uvloop)`."""
    lag = client.loop_lag_ms
    p50, p99, top = map(format_ms, (None,) * 3 if lag is None else (lag.p50, lag.p99, lag.max))
    loop = f" ({clean(client.event_loop)})" if client.event_loop else ""
    return f"p50 {p50}, p99 {p99}, max {top} ms{loop}"


def pauses_words(client: ClientRecord) -> str:
    """What garbage collection took: `12 GC pauses, max 0.8 ms`."""
    gc = client.gc
    if gc is None or not gc.pauses:
        return "no GC pause"
    return f"{gc.pauses:,} GC pause{'' if gc.pauses == 1 else 's'}, max {format_ms(gc.max_ms)} ms"


def own_lines(run: RunRecord) -> list[str]:
    """What of the latency and of the rate is this client, where it was calibrated."""
    own = run.calibration
    if own is None or own.floor_ms.p50 is None or not run.ok:
        return []
    # Of the medians only: higher percentiles of a sum are not the sum of percentiles.
    whole, mine = run.latency_ms.p50, own.floor_ms.p50
    ceiling = own.ceiling
    concurrency = run.concurrency if own.concurrency is None else own.concurrency
    share = f", {format_percent(run.throughput / ceiling)} of it used" if ceiling else ""
    return [
        f"  of {format_ms(whole)} ms p50, {format_ms(mine)} ms is this client (calibrated with one worker)",
        f"  it could do {format_rate(ceiling)} conn/s at concurrency {concurrency:,}{share}",
    ]
