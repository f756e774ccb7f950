"""The answer of a run in two or three lines: rate, latency, failures, and whether and why to believe it."""

from typing import Final

from pool_bench.report.summary.hold_words import kinds_words
from pool_bench.report.summary.outcome import State, outcome_of
from pool_bench.report.summary.run import wall_lines, wrap
from pool_bench.report.text import Paint, format_percent, format_rate
from pool_bench.results.run import NO_WARMUP, RunRecord
from pool_bench.units import format_duration, format_ms

_STYLES: Final[dict[State, str]] = {"valid": "green", "suspect": "yellow", "failed": "red"}


def headline(run: RunRecord, paint: Paint, *, name: str = "") -> list[str]:
    """What one run came to; lines of at most 80 columns.

    Args:
        name: what it is the answer for, in front of it, where there were several settings.
    """
    style = (
        "bold",
        "green" if run.ok and not run.failed else "yellow" if run.ok else "red",
    )
    return [
        *(paint(line, *style) for line in wrap(f"{name}{figures(run)}", "  ")),
        *verdict_lines(run, paint),
    ]


def verdict_lines(run: RunRecord, paint: Paint) -> list[str]:
    """The wall that a run met, and verdict and limit in one sentence, as lines of at most 80 columns."""
    outcome = outcome_of(run)
    return [
        *wall_lines(run, paint),
        *(paint(line, _STYLES[outcome.state]) for line in wrap(outcome.sentence, "  ")),
    ]


def figures(run: RunRecord) -> str:
    """`1,170 conn/s, p50 41.7 ms, p99 79.2 ms, 0 of 11,700 failed`."""
    parts = []
    if run.ok:
        due = ""
        if run.offered is not None and run.duration_s:
            due = f" of {format_rate(run.offered / run.duration_s)}/s due"
        parts += [
            f"{format_rate(run.throughput)} conn/s{due}",
            f"p50 {format_ms(run.latency_ms.p50)} ms",
            f"p99 {format_ms(run.latency_ms.p99)} ms",
        ]
    else:
        parts.append("0 conn/s")
    parts.append(failed_words(run))
    if run.interrupted:
        parts.append(f"interrupted after {format_duration(run.duration_s)}")
    return ", ".join(parts)


def failed_words(run: RunRecord) -> str:
    """`222 of 20,225 failed (1.1%: refused 222), 3 unfinished`."""
    words = f"{run.failed:,} of {run.attempts:,} failed"
    kinds = kinds_words(run.failures)
    if kinds:
        share = format_percent(run.failed / run.attempts) if run.attempts else "-"
        words += f" ({share}: {kinds})"
    if run.unfinished:
        words += f", {run.unfinished:,} unfinished"
    if hung := (run.warmup or NO_WARMUP).unfinished:
        words += f", {hung:,} hung since the warm-up"
    if run.dropped:
        words += f", {run.dropped:,} dropped"
    return words
