"""What a run came to, in plain text of at most 100 columns.

Figures come straight from the record of the run; this file only lays them out. Percentiles that rest on a
handful of operations are marked, and where the client was the bottleneck a sentence says so:
a number without its doubt is worse than none.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from pool_bench.analysis.verdict import FEWEST_BEYOND, NoteCode, ReasonCode, is_thin
from pool_bench.errors import Phase
from pool_bench.report.buckets import log_bars
from pool_bench.report.summary.addresses import address_lines
from pool_bench.report.summary.generators import generator_lines
from pool_bench.report.summary.unfinished import hanging_words
from pool_bench.report.summary.verdict import (
    lag_words,
    own_lines,
    pauses_words,
    suspects_of,
    verdict_line,
    wall_words,
)
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
from pool_bench.results.parts import SummaryRecord
from pool_bench.results.run import NO_WARMUP, RunRecord, VerdictRecord
from pool_bench.stats.histogram import PERCENTILES, Histogram
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


def run_summary(run: RunRecord, *, colour: bool = False) -> str:
    """Everything about one run.

    Args:
        run: the finished run.
        colour: use ANSI colours.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    sections = [
        [*_headline(run, paint), verdict_line(run.judgement, paint), *wall_lines(run, paint)],
        response_lines(run, paint),
        phase_lines(run, paint),
        target_lines(run, paint),
        address_lines(run, paint, width=WIDTH),
        generator_lines(run, paint, width=WIDTH),
        failure_lines(run, paint),
        _histogram(run.histogram, paint),
        _client(run, paint),
        _notes(run, run.judgement, paint),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _headline(run: RunRecord, paint: Paint) -> list[str]:
    setting = " · ".join((clean(run.label), run.driver, format_duration(run.duration_s)))
    if run.interrupted:
        setting += " · interrupted"
    begun = [f"{run.attempts:,} attempts"]
    if run.rate is not None:
        offered = run.offered or 0
        rate = offered / run.duration_s if run.duration_s else 0.0
        begun = [f"of {format_rate(rate)}/s due", f"{offered:,} due"]
    counts = [
        paint(f"{format_rate(run.throughput)} conn/s", "bold", "green" if run.ok else "red"),
        *begun,
        f"{run.ok:,} ok",
        paint(f"{run.failed:,} failed", *(("red",) if run.failed else ())),
        paint(f"{run.unfinished:,} unfinished", *(("yellow",) if run.unfinished else ())),
        f"success {format_percent(run.success_rate)}",
    ]
    if run.rate is not None:
        counts.insert(-1, paint(f"{run.dropped or 0:,} dropped", *(("red",) if run.dropped else ())))
    lines = [paint(ellipsize(setting, WIDTH), "bold"), "  ".join(counts)]
    before = run.warmup or NO_WARMUP
    if run.warmup_s or before.ok or before.failed or before.unfinished:
        warmup = f"warm-up: {before.ok:,} ok, {before.failed:,} failed"
        if before.unfinished:
            warmup += f", {before.unfinished:,} unfinished"
        lines.append(paint(f"{warmup}, not counted", "dim"))
    return lines


def response_lines(run: RunRecord, paint: Paint) -> list[str]:
    """Latency; in an open loop the response times and the service times under each other."""
    if run.service_ms is None or not run.ok:
        return latency_lines(run.latency_ms, run.ok, paint)
    words = "response: from when an operation was due; service: from when it began"
    return [
        *latency_lines(run.latency_ms, run.ok, paint, title="response, ms"),
        *latency_lines(run.service_ms, run.ok, paint, title="service, ms "),
        paint(words, "dim"),
    ]


def latency_lines(
    latency: SummaryRecord, count: int, paint: Paint, *, title: str = "latency, ms"
) -> list[str]:
    """Percentiles, mean and deviation of `count` successes."""
    if not count:
        return [paint("No operation succeeded: there is no latency to show.", "red")]
    heads, thin = ["min"], False
    for percentile in PERCENTILES:
        mark = is_thin(percentile, count)
        thin = thin or mark
        heads.append(f"p{percentile:g}{' ~' if mark else ''}")
    heads.append("max")
    cells = [format_ms(value) for value in (latency.min, *latency.percentiles, latency.max)]
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
    lines.append(f"{'':{len(title) + 2}}mean {format_ms(latency.mean)}, stdev {format_ms(latency.stdev)}")
    if thin:
        lines.append(paint(_FOOTNOTE, "dim"))
    return lines


def phase_lines(run: RunRecord, paint: Paint, *, bars: int = _BAR) -> list[str]:
    """A row for each phase that was seen, and one for what they leave; none where there was none.

    Args:
        bars: columns of the bar of a phase that is all of an operation.
    """
    phases = [
        (name, run.phases_ms[name], run.phase_histograms[name].count)
        for name in map(str, Phase)
        if name in run.phases_ms and name in run.phase_histograms and run.phase_histograms[name].count
    ]
    # Phases begin with the operation, not when it was due.
    mean = (run.latency_ms if run.service_ms is None else run.service_ms).mean
    whole_ms = (mean or 0.0) * run.ok
    if not phases or not whole_ms:
        return []
    rows = [["phases, ms", "count", "p50", "p90", "p99", "max", "share of mean"]]
    for name, summary, count in phases:
        # A phase that only some operations go through weighs as much as the time spent in it.
        share = (summary.mean or 0.0) * count / whole_ms
        rows.append(
            [
                name,
                f"{count:,}",
                *map(format_ms, (summary.p50, summary.p90, summary.p99, summary.max)),
                f"{share:.1%}",
                bar(share, bars),
            ]
        )
    rest = 1 - sum((summary.mean or 0.0) * count for _, summary, count in phases) / whole_ms
    if rest >= _LEAST_REST:
        rows.append(["in between", *[""] * 5, f"{rest:.1%}", bar(rest, bars)])
    lines = table(rows, left=(0, 7))
    if rest >= _LEAST_REST:
        lines.append(
            paint("in between: this client's own work, and steps that were due while it served others", "dim")
        )
    lines[0] = paint(lines[0], "bold")
    return lines


def target_lines(run: RunRecord, paint: Paint, *, width: int = WIDTH) -> list[str]:
    """A row of at most `width` columns for each target, where there are several."""
    if len(run.targets) < 2:
        return []
    rows = [["conn/s", "ok", "failed", "unfinished", "success", "p50 ms", "p99 ms", "max ms"]]
    for target in run.targets:
        counts = (f"{target.ok:,}", f"{target.failed:,}", f"{target.unfinished:,}")
        latency = map(format_ms, (target.latency_ms.p50, target.latency_ms.p99, target.latency_ms.max))
        rows.append([format_rate(target.throughput), *counts, format_percent(target.success_rate), *latency])
    figures = table(rows, left=(), gap=1)
    # Names get what the figures leave of the line.
    room = width - max(map(len, figures)) - 2
    names = ["target", *(ellipsize(clean(target.target), room) for target in run.targets)]
    lines = table([[name, figure] for name, figure in zip(names, figures, strict=True)], left=(0, 1))
    lines[0] = paint(lines[0], "bold")
    if run.rate is None and run.hold is None:
        lines += [paint(line, "dim") for line in wrap(SHARED_WORKERS_NOTE, "  ")]
    return lines


def failure_lines(run: RunRecord, paint: Paint, *, width: int = WIDTH) -> list[str]:
    """Failures by kind, phase and SQLSTATE with a message of each; none where nothing failed.

    Where none has an SQLSTATE, as with SurrealDB, there is no column for it.
    """
    if not run.failures:
        return []
    rows = [["failures", "phase", "sqlstate", "count", "of failed"]]
    for failure in run.failures:
        share = failure.count / run.failed if run.failed else None
        rows.append(
            [
                failure.kind,
                failure.phase,
                clean(failure.sqlstate or "") or "-",
                f"{failure.count:,}",
                format_percent(share),
            ]
        )
    rows = without_column(rows, "sqlstate")
    drawn = table(rows, left=range(len(rows[0]) - 2))
    lines = [paint(drawn[0], "bold")]
    for line, failure in zip(drawn[1:], run.failures, strict=True):
        lines.append(paint(line, "red"))
        lines.append(paint(f"    e.g. {ellipsize(clean(failure.sample), width - 9)}", "dim"))
    if run.failure_ms is not None:
        p50, p99 = map(format_ms, (run.failure_ms.p50, run.failure_ms.p99))
        lines.append(f"time to fail: p50 {p50} ms, p99 {p99} ms (not part of the latency above)")
    return lines


def _histogram(latency: Histogram, paint: Paint) -> list[str]:
    bars = log_bars(latency, at_most=_HISTOGRAM_ROWS)
    if not bars:
        return []
    top = max(bucket.count for bucket in bars)
    rows: list[list[str]] = []
    for index, bucket in enumerate(bars):
        # A long empty stretch between two modes is one line, not twenty.
        if not bucket.count and index and not bars[index - 1].count:
            if rows[-1] != ["", "…"]:
                rows[-1] = ["", "…"]
            continue
        share = bucket.count / latency.count
        low, high = format_edge(bucket.low_ms), format_edge(bucket.high_ms)
        rows.append(
            [f"{low} - {high}", f"{bucket.count:,}", format_percent(share), bar(bucket.count / top, 50)]
        )
    head = paint("latency histogram, successes", "bold")
    return [head, *table(rows, left=(3,))]


def _client(run: RunRecord, paint: Paint) -> list[str]:
    client = run.client
    per_op = "-" if client.cpu_us_per_op is None else f"{client.cpu_us_per_op:,.0f}"
    late = run.schedule_error_ms
    schedule = "  schedule error p50 {}, p99 {}, max {} ms: how late operations began that had room"
    processes = f" · {run.processes} processes" if run.processes > 1 else ""
    return [
        paint("client", "bold"),
        f"  CPU {client.cpu_words} of a core, {per_op} us per operation"
        f" · RSS {client.rss_mb or 0:,.0f} MB{processes}",
        *wrap(f"  loop lag {lag_words(client)} · {pauses_words(client)}", "    "),
        *([] if late is None else [schedule.format(*map(format_ms, (late.p50, late.p99, late.max)))]),
        *own_lines(run),
    ]


def _notes(run: RunRecord, verdict: VerdictRecord, paint: Paint) -> list[str]:
    lines = verdict_lines(verdict, paint)
    lines += [paint(line, "yellow") for words in hanging_words(run) for line in wrap(words, "  ")]
    if run.unfinished:
        note = (
            "What was still open when the grace period ended counts as attempts, not as successes, and how "
            "long it would have taken is not in the "
            "figures above: the highest percentiles are too low by that."
        )
        lines += [paint(line, "yellow") for line in wrap(note, "  ")]
    codes = {reason.code for reason in (*verdict.reasons, *verdict.notes)}
    if run.dropped and ReasonCode.RATE_NOT_ACHIEVED not in codes:
        note = (
            f"{run.dropped:,} operations were due and never began, because all {run.concurrency:,} "
            "connections that are allowed were in use (--max-in-flight). Their response times are not in the "
            "figures above: the highest percentiles are too low by them."
        )
        lines += [paint(line, "yellow") for line in wrap(note, "  ")]
    if run.rate is None and NoteCode.HIDDEN_PAUSE not in codes:
        lines += [paint(line, "dim") for line in wrap(CLOSED_LOOP_NOTE, "  ")]
    return lines


def verdict_lines(verdict: VerdictRecord, paint: Paint) -> list[str]:
    """A paragraph for each reason to doubt a run and each note, with what helps."""
    return [
        paint(line, "yellow")
        for reason in (*verdict.reasons, *verdict.notes)
        for line in wrap(reason.paragraph, "  ")
    ]


def sweep_table(runs: Sequence[RunRecord], *, colour: bool = False) -> str:
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
        summary = run.latency_ms
        marks = []
        if run is best and run.ok:
            marks.append("highest")
        if not run.ok:
            marks.append("no success")
        if run.interrupted:
            marks.append("cut short")
        latency = map(format_ms, (summary.p50, summary.p95, summary.p99, summary.max))
        outcome = (format_percent(run.success_rate), f"{run.failed:,}")
        cpu = f"{run.client.cpu_words}{' !' if run.client.saturated else '  '}"
        rate = format_rate(run.throughput)
        rows.append([f"{run.concurrency:,}", rate, *latency, *outcome, cpu, ", ".join(marks)])
    drawn = table(rows, left=(9,), gap=1)
    lines = [paint(drawn[0], "bold")]
    for line, run in zip(drawn[1:], runs, strict=True):
        style = ("red",) if not run.ok else ("green",) if run is best else ()
        lines.append(paint(line, *style))
    if any(run.client.saturated for run in runs):
        lines.append("! the client was the bottleneck: the target may do better than this level shows")
    suspects = suspects_of(runs)
    if suspects:
        lines += [paint(line, "yellow") for line in wrap(suspects, "  ")]
    if best.ok:
        lines.append(
            f"Highest throughput: {format_rate(best.throughput)} conn/s at concurrency {best.concurrency:,}."
        )
    else:
        lines.append(paint("No level had a success.", "red"))
    return "\n".join(lines)


def wall_lines(run: RunRecord, paint: Paint) -> list[str]:
    """What connections met when they stopped growing, as lines of at most 80 columns; none where nothing."""
    return [paint(line, "yellow") for line in wrap(wall_words(run.wall), "  ")]


def wrap(text: str, indent: str) -> list[str]:
    """`text` in lines of at most 80 columns, all but the first behind `indent`."""
    return textwrap.wrap(
        text, _TERMINAL, subsequent_indent=indent, break_long_words=True, break_on_hyphens=False
    )
