"""The last screen of settings measured in turn, or more than once.

Apart from those of single runs, which need nothing of what compares.
"""

from collections.abc import Sequence
from statistics import median

from pool_bench.compare.rounds import compare_within
from pool_bench.compare.settings import Setting, settings_of
from pool_bench.report.brief.comparison import SENTENCES, pairs_answer
from pool_bench.report.brief.run import NAMED
from pool_bench.report.brief.screen import COLUMNS, Brief, Part
from pool_bench.report.summary.rounds import lost_lines
from pool_bench.report.summary.run import wrap
from pool_bench.report.summary.verdict import suspects_words
from pool_bench.report.text import Paint, clean, ellipsize, format_rate, table
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_ms


def rounds_brief(result: ResultRecord, *, colour: bool = False) -> Brief:
    """The last screen of settings measured in turn: a row and a verdict for each."""
    paint = Paint(colour=colour)
    settings = settings_of(result)
    compared = compare_within(result).pairs
    rows = [["rounds", "conn/s", "lowest..highest", "p50 ms", "p99 ms", "failed", ""]]
    for setting in settings:
        runs = setting.runs
        rates = sorted(run.throughput for run in runs)
        rows.append(
            [
                str(len(runs)),
                format_rate(median(rates)),
                f"{format_rate(rates[0])}..{format_rate(rates[-1])}" if len(rates) > 1 else "-",
                _median_ms([run.latency_ms.p50 for run in runs]),
                _median_ms([run.latency_ms.p99 for run in runs]),
                f"{sum(run.failed for run in runs):,}",
                "",
            ]
        )
    if len(compared) > SENTENCES:
        # Too many for a sentence each.
        for row, setting in zip(rows[1:], settings, strict=True):
            row[2:3] = []
            row[-1] = next((str(pair.verdict) for pair in compared if pair.new.runs == setting.runs), "")
        rows[0][2:3] = []
    drawn = table(rows, left=(len(rows[0]) - 1,))
    room = max(COLUMNS - max(map(len, drawn)) - 2, 12)
    names = ["medians", *(ellipsize(clean(setting.label), room) for setting in settings)]
    lines = table([[name, figure] for name, figure in zip(names, drawn, strict=True)], left=(0, 1))
    shown = Part([paint(lines[0], "bold"), *lines[1:]], rank=90, fewest=4, rows="settings")
    answer = pairs_answer(compared, paint) if compared else _best_of(settings, paint)
    lost = [paint(line, "red") for words in lost_lines(result) for line in wrap(words, "  ")]
    judged = [(f"{run.label} round {run.round}", _reasons(run)) for run in result.runs if not run.not_started]
    suspect = suspects_words(judged, most=NAMED)
    words = wrap(suspect or "every run is valid", "  ")
    return Brief(
        (shown,), [*answer, *lost, *(paint(line, "yellow" if suspect else "green") for line in words)]
    )


def _best_of(settings: Sequence[Setting], paint: Paint) -> list[str]:
    """The setting with the highest throughput; the only one, mostly."""
    best = max(settings, key=lambda setting: median(run.throughput for run in setting.runs))
    runs = best.runs
    rate = format_rate(median(run.throughput for run in runs))
    words = ", ".join(
        (
            f"{clean(best.label)}, median of {len(runs)}: {rate} conn/s",
            f"p50 {_median_ms([run.latency_ms.p50 for run in runs])} ms",
            f"p99 {_median_ms([run.latency_ms.p99 for run in runs])} ms",
            f"{sum(run.failed for run in runs):,} failed",
        )
    )
    return [paint(line, "bold") for line in wrap(words, "  ")]


def _reasons(run: RunRecord) -> list[str]:
    return [reason.code for reason in run.judgement.reasons]


def _median_ms(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return format_ms(median(known)) if known else "-"
