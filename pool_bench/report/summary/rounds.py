"""Sessions that measured settings in rounds, in words: each setting over all its rounds, and the verdicts."""

from collections.abc import Callable, Sequence
from statistics import median

from pool_bench.compare.rounds import compare_within
from pool_bench.compare.settings import settings_of
from pool_bench.report.summary.comparison import how_to_read, pair_lines
from pool_bench.report.summary.run import WIDTH, wrap
from pool_bench.report.text import Paint, clean, ellipsize, format_rate, table
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_ms


def lost_lines(result: ResultRecord) -> list[str]:
    """A sentence for each setting that could not be measured at all, or not to the end."""
    lost = dict.fromkeys((run.label, run.not_started) for run in result.runs if run.not_started)
    return [f"{clean(label)} did not start: {clean(why)}" for label, why in lost]


def rounds_summary(result: ResultRecord, *, colour: bool = False) -> str:
    """Each setting over all its rounds, and the verdicts; lines of at most 100 columns."""
    paint = Paint(colour=colour)
    lines = [paint(f"{_rounds_words(result)}: median (lowest to highest)", "bold")]
    rows = [["", "rounds", "conn/s", "p50 ms", "p99 ms", "failed"]]
    settings = settings_of(result)
    for setting in settings:
        runs = setting.runs
        rows.append(
            [
                "",
                str(len(runs)),
                _spread([run.throughput for run in runs], format_rate),
                _spread([run.latency_ms.p50 for run in runs], format_ms),
                _spread([run.latency_ms.p99 for run in runs], format_ms),
                f"{sum(run.failed for run in runs):,}",
            ]
        )
    figures = table([row[1:] for row in rows], left=(), gap=1)
    room = WIDTH - max(map(len, figures)) - 2
    names = ["setting", *(ellipsize(clean(setting.label), room) for setting in settings)]
    drawn = table([[name, figure] for name, figure in zip(names, figures, strict=True)], left=(0, 1))
    lines += [paint(drawn[0], "dim"), *drawn[1:]]
    lines += [paint(line, "red") for words in lost_lines(result) for line in wrap(words, "  ")]
    comparison = compare_within(result)
    for pair in comparison.pairs:
        lines += ["", *pair_lines(pair, paint)]
    if comparison.pairs:
        lines += ["", *(paint(line, "dim") for line in wrap(how_to_read(comparison.pairs), ""))]
    return "\n".join(lines)


def round_line(run: RunRecord) -> str:
    """One run of many in one line."""
    words = [
        f"{format_rate(run.throughput)} conn/s",
        f"p50 {format_ms(run.latency_ms.p50)} ms",
        f"p99 {format_ms(run.latency_ms.p99)} ms",
        f"{run.failed:,} failed",
    ]
    if run.unfinished:
        words.append(f"{run.unfinished:,} unfinished")
    if run.client.saturated:
        # Which one, its verdict says.
        words.append("client at a limit")
    repeat = "" if run.round is None else f", round {run.round}"
    figures = f"{repeat}: {', '.join(words)}"
    return f"{ellipsize(clean(run.label), WIDTH - len(figures))}{figures}"


def _rounds_words(result: ResultRecord) -> str:
    rounds = max((run.round or 1 for run in result.runs), default=1)
    return f"{rounds} rounds of each setting" if rounds > 1 else "each setting once"


def _spread(values: Sequence[float | None], words: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    middle = words(median(known))
    return middle if len(known) == 1 else f"{middle} ({words(min(known))} to {words(max(known))})"
