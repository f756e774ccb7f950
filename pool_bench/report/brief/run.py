"""The last screen of commands that open and close connections: one run, a sweep, a search."""

from collections.abc import Sequence
from typing import Final

from pool_bench.analysis.verdict import NoteCode
from pool_bench.report.brief.headline import figures, headline
from pool_bench.report.brief.screen import COLUMNS, ROWS, Brief, Part
from pool_bench.report.summary.addresses import address_lines
from pool_bench.report.summary.generators import generator_lines
from pool_bench.report.summary.run import failure_lines, phase_lines, response_lines, target_lines, wrap
from pool_bench.report.summary.search import answer_lines, confirmed_run
from pool_bench.report.summary.unfinished import hanging_of_runs, hanging_words
from pool_bench.report.summary.verdict import own_lines, suspects_words
from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.results.model import SearchRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import SearchStep
from pool_bench.units import format_duration, format_ms

CLOSED_LOOP_LINE: Final = "A closed loop hides stalls, --rate shows them: docs/closed-loop.md. Details: -v"
_DETAILS_LINE: Final = "Details: -v"
_BAR: Final = 10
# Suspect levels named in a sentence; the table marks them all.
NAMED: Final = 3


def run_brief(run: RunRecord, *, colour: bool = False) -> Brief:
    """The last screen of a command that measured one setting once."""
    paint = Paint(colour=colour)
    length = format_duration(run.duration_s) or "0s"
    name = f"{ellipsize(clean(run.label), COLUMNS // 2)}, {run.driver}, {length}: "
    latency = response_lines(run, paint) if run.ok else []
    return Brief(
        (
            Part(latency, rank=90),
            Part(target_lines(run, paint, width=COLUMNS), rank=85, fewest=4, rows="targets"),
            Part(address_lines(run, paint, width=COLUMNS), rank=86, fewest=4, rows="lines"),
            Part(generator_lines(run, paint, width=COLUMNS), rank=84, fewest=3, rows="processes"),
            Part(phase_lines(run, paint, bars=_BAR), rank=50),
            Part(failure_lines(run, paint, width=COLUMNS), rank=80, fewest=4, rows="lines"),
            Part(_hanging([run], paint), rank=88),
            Part([line.strip() for line in own_lines(run)], rank=75),
            Part(_remedies(run, paint), rank=60),
            Part(_hints(run, paint), rank=70),
        ),
        headline(run, paint, name=name),
    )


def _hanging(runs: Sequence[RunRecord], paint: Paint) -> list[str]:
    """What never ended."""
    sentences = hanging_words(runs[0]) if len(runs) == 1 else hanging_of_runs(runs)
    return [paint(line, "yellow") for words in sentences for line in wrap(words, "  ")]


def _remedies(run: RunRecord, paint: Paint) -> list[str]:
    """What helps where the run is suspect."""
    return [
        paint(line, "dim")
        for reason in run.judgement.reasons
        for line in wrap(f"Helps: {reason.remedy}.", "  ")
    ]


def _hints(run: RunRecord, paint: Paint) -> list[str]:
    verdict = run.judgement
    if run.rate is None and NoteCode.HIDDEN_PAUSE not in {note.code for note in verdict.notes}:
        return [paint(CLOSED_LOOP_LINE, "dim")]
    notes = [paint(line, "yellow") for note in verdict.notes for line in wrap(note.text, "  ")]
    return [*notes, paint(_DETAILS_LINE, "dim")]


def sweep_brief(runs: Sequence[RunRecord], *, colour: bool = False) -> Brief:
    """The last screen of a sweep: a row for each level, and the level with the highest throughput."""
    paint = Paint(colour=colour)
    if not runs:
        return Brief()
    best = max(runs, key=lambda run: run.throughput)
    rows = [["workers", "conn/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "failed", "client", ""]]
    for run in runs:
        latency = map(format_ms, _percentiles(run))
        cpu = f"{run.client.cpu_words}"
        rows.append(
            [
                f"{run.concurrency:,}",
                format_rate(run.throughput),
                *latency,
                f"{run.failed:,}",
                cpu,
                ", ".join(_marks(run, is_best=run is best)),
            ]
        )
    drawn = table(rows, left=(8,), gap=1)
    lines = [paint(drawn[0], "bold")]
    for line, run in zip(drawn[1:], runs, strict=True):
        style = ("red",) if not run.ok else ("green",) if run is best else ()
        lines.append(paint(line, *style))
    if not best.ok:
        answer = [paint("No level had a success.", "bold", "red"), *headline(runs[-1], paint)]
    else:
        name = f"Highest at {best.concurrency:,} workers: "
        answer = headline(best, paint, name=name)
    judged = [
        (run.label, [reason.code for reason in run.judgement.reasons]) for run in runs if run is not best
    ]
    others = suspects_words(judged, most=NAMED)
    return Brief(
        (
            Part(lines, rank=90, fewest=4, rows="levels"),
            Part(_hanging(runs, paint), rank=70),
            Part([paint(line, "yellow") for line in wrap(others, "  ")], rank=60),
            Part([paint(CLOSED_LOOP_LINE, "dim")], rank=50),
        ),
        answer,
    )


def _percentiles(run: RunRecord) -> tuple[float | None, ...]:
    latency = run.latency_ms
    return latency.p50, latency.p95, latency.p99, latency.max


def _marks(run: RunRecord, *, is_best: bool) -> list[str]:
    marks = ["highest"] if is_best and run.ok else []
    if not run.ok:
        marks.append("no success")
    elif not run.judgement.valid:
        marks.append("suspect")
    if run.interrupted:
        marks.append("cut short")
    return marks


def search_brief(runs: Sequence[RunRecord], search: SearchRecord, *, colour: bool = False) -> Brief:
    """The last screen of a search: its trials by rate, those around the answer first, and the answer."""
    paint = Paint(colour=colour)
    rows = [["offered/s", "conn/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "success", "client", ""]]
    steps = sorted(search.steps, key=lambda step: step.rate)
    for step in steps:
        run = runs[step.run]
        rows.append(
            [
                format_rate(step.rate),
                format_rate(run.throughput),
                *map(format_ms, _percentiles(run)),
                format_percent(run.success_rate),
                f"{run.client.cpu_words}{' !' if step.client else '  '}",
                ("confirmed" if step.kind == "confirm" else "met") if step.passed else "missed",
            ]
        )
    drawn = table(rows, left=(8,))
    coloured = [
        paint(line, "green" if step.passed else "red") for line, step in zip(drawn[1:], steps, strict=True)
    ]
    confirmed = confirmed_run(runs, search)
    answer = [] if confirmed is None else wrap(f"Confirmed: {figures(confirmed)}", "  ")
    answer += answer_lines(search, paint, confirmed)
    marked = (
        [paint("! the client was at a limit, or late", "dim")] if any(step.client for step in steps) else []
    )
    # Heads, what is missing, three files, and blank lines.
    room = ROWS - len(answer) - 9
    shown = _around(drawn[0], coloured, steps, search, paint, room)
    return Brief((shown, Part(marked, rank=20)), answer)


def _around(
    head: str,
    lines: Sequence[str],
    steps: Sequence[SearchStep],
    search: SearchRecord,
    paint: Paint,
    most: int,
) -> Part:
    """At most so many rows of a search; of more, those furthest from the answer are left out."""
    middle = next((i for i, step in enumerate(steps) if step.rate == search.rate), len(steps) - 1)
    first = min(max(middle - most // 2, 0), max(len(steps) - most, 0))
    shown = list(lines[first : first + most])
    missing = len(lines) - len(shown)
    if missing:
        shown.append(paint(f"… {missing:,} more trials: -v", "dim"))
    return Part([paint(head, "bold"), *shown], rank=90, fewest=4, rows="trials")


def _reasons(run: RunRecord) -> list[str]:
    return [reason.code for reason in run.judgement.reasons]
