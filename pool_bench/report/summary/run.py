"""What a run came to, in plain text of at most 100 columns.

Figures come straight from the statistics; this file only lays them out. Percentiles that rest on a
handful of operations are marked, and where the client was the bottleneck a sentence says so:
a number without its doubt is worse than none.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from pool_bench.analysis.verdict import FEWEST_BEYOND, NoteCode, ReasonCode, Verdict, is_thin, judge
from pool_bench.errors import Phase
from pool_bench.report.buckets import log_bars
from pool_bench.report.summary.addresses import address_lines
from pool_bench.report.summary.unfinished import hanging_words
from pool_bench.report.summary.verdict import own_lines, pauses_words, suspects_of, verdict_line, wall_words
from pool_bench.report.text import (
    Paint,
    bar,
    clean,
    ellipsize,
    format_edge,
    format_percent,
    format_rate,
    table,
    without_column,
)
from pool_bench.stats.histogram import PERCENTILES, Histogram
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_duration, format_ms

WIDTH: Final = 100
_HISTOGRAM_ROWS: Final = 22
_BAR: Final = 16
# Percentiles and sentences, which most people read, must not be broken by a terminal of the usual width.
_TERMINAL: Final = 80
# What the phases leave of an operation is worth a row from here on.
_LEAST_REST: Final = 0.02
CLOSED_LOOP_NOTE: Final = (
    "A closed loop: while the server stalls, its workers wait and ask nothing, so a stall shows as one slow "
    "operation of each and not as all that users would have begun (coordinated omission). --rate shows those."
)
SHARED_WORKERS_NOTE: Final = (
    "Workers go to the targets in turn, so their rates are equal whatever they could do: compare latencies "
    "and failures, or measure them with --interleave."
)
_FOOTNOTE: Final = f"~ fewer than {FEWEST_BEYOND} samples beyond it"


def run_summary(run: RunResult, *, colour: bool = False) -> str:
    """Everything about one run.

    Args:
        run: the finished run.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    verdict = judge(run)
    sections = [
        [*_headline(run, paint), verdict_line(verdict, paint), *wall_lines(run, paint)],
        response_lines(run, paint),
        phase_lines(run.total, paint),
        target_lines(run, paint),
        address_lines(run, paint, width=WIDTH),
        failure_lines(run.total, paint),
        _histogram(run.total.latency, paint),
        _client(run, paint),
        _notes(run, verdict, paint),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _headline(run: RunResult, paint: Paint) -> list[str]:
    total = run.total
    setting = " · ".join((clean(run.label), run.driver, format_duration(run.duration_s)))
    if run.interrupted:
        setting += " · interrupted"
    begun = [f"{total.attempts:,} attempts"]
    if run.rate is not None:
        offered = total.offered / run.duration_s if run.duration_s else 0.0
        begun = [f"of {format_rate(offered)}/s due", f"{total.offered:,} due"]
    counts = [
        paint(f"{format_rate(run.throughput)} conn/s", "bold", "green" if total.ok else "red"),
        *begun,
        f"{total.ok:,} ok",
        paint(f"{total.failed:,} failed", *(("red",) if total.failed else ())),
        paint(f"{total.unfinished:,} unfinished", *(("yellow",) if total.unfinished else ())),
        f"success {format_percent(total.success_rate)}",
    ]
    if run.rate is not None:
        counts.insert(-1, paint(f"{total.dropped:,} dropped", *(("red",) if total.dropped else ())))
    lines = [paint(ellipsize(setting, WIDTH), "bold"), "  ".join(counts)]
    if run.warmup_s or run.warmup.attempts:
        warmup = f"warm-up: {run.warmup.ok:,} ok, {run.warmup.failed:,} failed"
        if run.warmup.unfinished:
            warmup += f", {run.warmup.unfinished:,} unfinished"
        lines.append(paint(f"{warmup}, not counted", "dim"))
    return lines


def response_lines(run: RunResult, paint: Paint) -> list[str]:
    """Latency; in an open loop the response times and the service times under each other."""
    if run.rate is None or not run.total.latency.count:
        return latency_lines(run.total.latency, paint)
    words = "response: from when an operation was due; service: from when it began"
    return [
        *latency_lines(run.total.latency, paint, title="response, ms"),
        *latency_lines(run.total.service, paint, title="service, ms "),
        paint(words, "dim"),
    ]


def latency_lines(latency: Histogram, paint: Paint, *, title: str = "latency, ms") -> list[str]:
    """Percentiles, mean and deviation of successes."""
    if not latency.count:
        return [paint("No operation succeeded: there is no latency to show.", "red")]
    heads, values, thin = ["min"], [latency.percentile_ms(0)], False
    for percentile, value in zip(PERCENTILES, latency.percentiles_ms(PERCENTILES), strict=True):
        mark = is_thin(percentile, latency.count)
        thin = thin or mark
        heads.append(f"p{percentile:g}{' ~' if mark else ''}")
        values.append(value)
    summary = latency.summary_ms()
    values[0] = summary["min"]
    heads.append("max")
    values.append(summary["max"])
    cells = [format_ms(value) for value in values]
    lines, start = [], 0
    while start < len(heads):
        head = "" if start else title
        drawn: list[str] = []
        for stop in range(start + 1, len(heads) + 1):
            longer = table([[head, *heads[start:stop]], ["".ljust(len(title)), *cells[start:stop]]])
            if drawn and max(map(len, longer)) > _TERMINAL:
                break
            drawn, end = longer, stop
        lines += [paint(drawn[0], "bold"), drawn[1]]
        start = end
    lines.append(
        f"{'':{len(title) + 2}}mean {format_ms(summary['mean'])}, stdev {format_ms(summary['stdev'])}"
    )
    if thin:
        lines.append(paint(_FOOTNOTE, "dim"))
    return lines


def phase_lines(total: BenchStats, paint: Paint, *, bars: int = _BAR) -> list[str]:
    """A row for each phase that was seen, and one for what they leave; none where there was none.

    Args:
        bars: columns of the bar of a phase that is all of an operation.
    """
    phases = [
        (phase, total.phases[phase]) for phase in Phase if phase in total.phases and total.phases[phase].count
    ]
    # Phases begin with the operation, not when it was due.
    whole_s = total.service.total_s if total.service.count else total.latency.total_s
    if not phases or not whole_s:
        return []
    rows = [["phases, ms", "count", "p50", "p90", "p99", "max", "share of mean"]]
    for phase, histogram in phases:
        # A phase that only some operations go through weighs as much as the time spent in it.
        share = histogram.total_s / whole_s
        p50, p90, p99, top = histogram.percentiles_ms((50, 90, 99, 100))
        rows.append(
            [
                str(phase),
                f"{histogram.count:,}",
                *map(format_ms, (p50, p90, p99, top)),
                f"{share:.1%}",
                bar(share, bars),
            ]
        )
    rest = 1 - sum(histogram.total_s for _, histogram in phases) / whole_s
    if rest >= _LEAST_REST:
        rows.append(["in between", *[""] * 5, f"{rest:.1%}", bar(rest, bars)])
    lines = table(rows, left=(0, 7))
    if rest >= _LEAST_REST:
        lines.append(
            paint("in between: this client's own work, and steps that were due while it served others", "dim")
        )
    lines[0] = paint(lines[0], "bold")
    return lines


def target_lines(run: RunResult, paint: Paint, *, width: int = WIDTH) -> list[str]:
    """A row of at most `width` columns for each target, where there are several."""
    if len(run.per_target) < 2:
        return []
    rows = [["conn/s", "ok", "failed", "unfinished", "success", "p50 ms", "p99 ms", "max ms"]]
    for stats in run.per_target:
        p50, p99, top = stats.latency.percentiles_ms((50, 99, 100))
        rate = stats.ok / run.duration_s if run.duration_s else 0.0
        counts = (f"{stats.ok:,}", f"{stats.failed:,}", f"{stats.unfinished:,}")
        latency = map(format_ms, (p50, p99, top))
        rows.append([format_rate(rate), *counts, format_percent(stats.success_rate), *latency])
    figures = table(rows, left=(), gap=1)
    # Names get what the figures leave of the line.
    room = width - max(map(len, figures)) - 2
    names = ["target", *(ellipsize(clean(name), room) for name in run.targets)]
    lines = table([[name, figure] for name, figure in zip(names, figures, strict=True)], left=(0, 1))
    lines[0] = paint(lines[0], "bold")
    if run.rate is None and run.hold is None:
        lines += [paint(line, "dim") for line in wrap(SHARED_WORKERS_NOTE, "  ")]
    return lines


def failure_lines(total: BenchStats, paint: Paint, *, width: int = WIDTH) -> list[str]:
    """Failures by kind, phase and SQLSTATE with a message of each; none where nothing failed.

    Where none has an SQLSTATE, as with SurrealDB, there is no column for it.
    """
    if not total.failures:
        return []
    ranked = sorted(total.failures.items(), key=lambda item: (-item[1].count, item[0]))
    rows = [["failures", "phase", "sqlstate", "count", "of failed"]]
    for key, failure in ranked:
        share = failure.count / total.failed if total.failed else None
        rows.append(
            [
                str(key.kind),
                str(key.phase),
                clean(key.sqlstate) or "-",
                f"{failure.count:,}",
                format_percent(share),
            ]
        )
    rows = without_column(rows, "sqlstate")
    drawn = table(rows, left=range(len(rows[0]) - 2))
    lines = [paint(drawn[0], "bold")]
    for line, (_, failure) in zip(drawn[1:], ranked, strict=True):
        lines.append(paint(line, "red"))
        lines.append(paint(f"    e.g. {ellipsize(clean(failure.sample), width - 9)}", "dim"))
    p50, p99 = total.failure_latency.percentiles_ms((50, 99))
    lines.append(
        f"time to fail: p50 {format_ms(p50)} ms, p99 {format_ms(p99)} ms (not part of the latency above)"
    )
    return lines


def _histogram(latency: Histogram, paint: Paint) -> list[str]:
    bars = log_bars(latency, at_most=_HISTOGRAM_ROWS)
    if not bars:
        return []
    top = max(one.count for one in bars)
    rows: list[list[str]] = []
    for index, one in enumerate(bars):
        # A long empty stretch between two modes is one line, not twenty.
        if not one.count and index and not bars[index - 1].count:
            if rows[-1] != ["", "…"]:
                rows[-1] = ["", "…"]
            continue
        share = one.count / latency.count
        low, high = format_edge(one.low_ms), format_edge(one.high_ms)
        rows.append([f"{low} - {high}", f"{one.count:,}", format_percent(share), bar(one.count / top, 50)])
    head = paint("latency histogram, successes", "bold")
    return [head, *table(rows, left=(3,))]


def _client(run: RunResult, paint: Paint) -> list[str]:
    client = run.client
    p50, p99, top = client.lag.percentiles_ms((50, 99, 100))
    per_op = "-" if run.cpu_us_per_op is None else f"{run.cpu_us_per_op:,.0f}"
    lag = f"loop lag p50 {format_ms(p50)}, p99 {format_ms(p99)}, max {format_ms(top)} ms"
    loop = f" ({clean(run.event_loop)})" if run.event_loop else ""
    late = run.total.schedule_error.percentiles_ms((50, 99, 100))
    schedule = "  schedule error p50 {}, p99 {}, max {} ms: how late operations began that had room"
    processes = f" · {client.processes} processes" if client.processes > 1 else ""
    return [
        paint("client", "bold"),
        f"  CPU {client.cpu_share:.0%} of a core, {per_op} us per operation"
        f" · RSS {client.rss_bytes / 2**20:,.0f} MB{processes}",
        *wrap(f"  {lag}{loop} · {pauses_words(client)}", "    "),
        *([schedule.format(*map(format_ms, late))] if run.rate is not None else []),
        *own_lines(run),
    ]


def _notes(run: RunResult, verdict: Verdict, paint: Paint) -> list[str]:
    lines = verdict_lines(verdict, paint)
    lines += [paint(line, "yellow") for words in hanging_words(run) for line in wrap(words, "  ")]
    if run.total.unfinished:
        note = (
            "What was still open when the grace period ended counts as attempts, not as successes, and how "
            "long it would have taken is not in the "
            "figures above: the highest percentiles are too low by that."
        )
        lines += [paint(line, "yellow") for line in wrap(note, "  ")]
    codes = {one.code for one in (*verdict.reasons, *verdict.notes)}
    if run.total.dropped and ReasonCode.RATE_NOT_ACHIEVED not in codes:
        note = (
            f"{run.total.dropped:,} operations were due and never began, because all {run.concurrency:,} "
            "connections that are allowed were in use (--max-in-flight). Their response times are not in the "
            "figures above: the highest percentiles are too low by them."
        )
        lines += [paint(line, "yellow") for line in wrap(note, "  ")]
    if run.rate is None and NoteCode.HIDDEN_PAUSE not in codes:
        lines += [paint(line, "dim") for line in wrap(CLOSED_LOOP_NOTE, "  ")]
    return lines


def verdict_lines(verdict: Verdict, paint: Paint) -> list[str]:
    """A paragraph for each reason to doubt a run and each note, with what helps."""
    return [
        paint(line, "yellow")
        for one in (*verdict.reasons, *verdict.notes)
        for line in wrap(one.paragraph, "  ")
    ]


def saturation_note(run: RunResult) -> str:
    """What it means that the client was the bottleneck, and what to do; "" where it was not."""
    return next((r.paragraph for r in judge(run).reasons if r.code == ReasonCode.CLIENT_SATURATED), "")


def sweep_table(runs: Sequence[RunResult], *, colour: bool = False) -> str:
    """One row for each level of a sweep, the highest throughput and saturated levels marked.

    Returns:
        Lines of at most 100 columns, without a line break at the end; "" for no runs.
    """
    if not runs:
        return ""
    paint = Paint(colour=colour)
    best = max(runs, key=lambda run: run.throughput)
    rows = [
        [
            "concurrency",
            "conn/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "max ms",
            "success",
            "failed",
            "client CPU",
            "",
        ]
    ]
    for run in runs:
        p50, p95, p99, top = run.total.latency.percentiles_ms((50, 95, 99, 100))
        marks = []
        if run is best and run.total.ok:
            marks.append("highest")
        if not run.total.ok:
            marks.append("no success")
        if run.interrupted:
            marks.append("cut short")
        latency = map(format_ms, (p50, p95, p99, top))
        outcome = (format_percent(run.total.success_rate), f"{run.total.failed:,}")
        cpu = f"{run.client.cpu_share:.0%}{' !' if run.saturation else '  '}"
        rate = format_rate(run.throughput)
        rows.append([f"{run.concurrency:,}", rate, *latency, *outcome, cpu, ", ".join(marks)])
    drawn = table(rows, left=(9,), gap=1)
    lines = [paint(drawn[0], "bold")]
    for line, run in zip(drawn[1:], runs, strict=True):
        style = ("red",) if not run.total.ok else ("green",) if run is best else ()
        lines.append(paint(line, *style))
    if any(run.saturation for run in runs):
        lines.append("! the client was the bottleneck: the target may do better than this level shows")
    suspects = suspects_of(runs)
    if suspects:
        lines += [paint(line, "yellow") for line in wrap(suspects, "  ")]
    if best.total.ok:
        lines.append(
            f"Highest throughput: {format_rate(best.throughput)} conn/s at concurrency {best.concurrency:,}."
        )
    else:
        lines.append(paint("No level had a success.", "red"))
    return "\n".join(lines)


def wall_lines(run: RunResult, paint: Paint) -> list[str]:
    """What connections met when they stopped growing, as lines of at most 80 columns; none where nothing."""
    return [paint(line, "yellow") for line in wrap(wall_words(run.wall), "  ")]


def wrap(text: str, indent: str) -> list[str]:
    """`text` in lines of at most 80 columns, all but the first behind `indent`."""
    return textwrap.wrap(
        text, _TERMINAL, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False
    )
