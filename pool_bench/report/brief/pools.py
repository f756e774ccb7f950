"""The last screen of commands that put pools under load: contests, and sweeps of sizes."""

from collections.abc import Sequence
from typing import Final

from pool_bench.analysis.scalability import Sizing, statement
from pool_bench.compare.pool_sizes import bottlenecks
from pool_bench.compare.pools import PoolComparison, PoolRounds
from pool_bench.compare.ranking import best
from pool_bench.report.brief.screen import COLUMNS, Brief, Part
from pool_bench.report.summary.acceptance import acceptance_sentences, acceptance_table
from pool_bench.report.summary.generators import process_words
from pool_bench.report.summary.pool_contest import rivals_table, statement_of
from pool_bench.report.summary.pool_server import limits, size_limit
from pool_bench.report.summary.pool_sizes import believed
from pool_bench.report.summary.pools import client_limit, close_failures, verdict
from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, clean, format_rate, table
from pool_bench.results.session import Contest
from pool_bench.results.thresholds import Threshold
from pool_bench.units import format_ms

_HEADS: Final = ("op/s", "min..max", "wait p50", "p99 ms", "op p50", "p99 ms", "failed")
# Loads with a sentence of their own at the end; where there are more, it stands above their table.
_SENTENCES: Final = 4


def contest_brief(compared: PoolComparison, contest: Contest, *, colour: bool = False) -> Brief:
    """The last screen of settings of one pool: their figures, how they differ from the best, who won."""
    paint = Paint(colour=colour)
    runs = [run for group in compared.groups for run in group.runs]
    style = "green" if contest.won else "yellow"
    answer = [paint(line, "bold", style) for line in wrap(" ".join(statement_of(contest)), "  ")]
    return Brief(
        (
            Part(_table(compared, paint, by_size=True), rank=90, fewest=3, rows="settings"),
            Part(rivals_table(contest, paint), rank=80, fewest=3, rows="settings"),
            Part([paint("Details, and how to read them: -v", "dim")], rank=60),
        ),
        [*answer, *believed(runs, paint, limits([compared], client_limit([compared])))],
    )


def contests_brief(
    contests: Sequence[PoolComparison], *, thresholds: Sequence[Threshold] = (), colour: bool = False
) -> Brief:
    """The last screen of pools that were measured side by side: a table for each load, and who did best.

    `thresholds` are the user's own, which take the place of the targets of `stress` on the same fields.
    """
    paint = Paint(colour=colour)
    parts = [Part(_table(contest, paint), rank=80, fewest=3, rows="pools") for contest in contests]
    answer = [line for contest in contests for line in _sentence(contest, paint)]
    if len(contests) > _SENTENCES:
        # Twenty tables help nobody: the answers take their place, as many of them as fit.
        parts = [Part([paint("by load", "bold"), *answer], rank=80, fewest=4, rows="lines")]
        answer = [
            paint(f"{len(contests)} loads, {_pools(contests)} pools: tables and details with -v", "bold")
        ]
    else:
        parts.append(Part([paint("Details, and how to read them: -v", "dim")], rank=60))
    several = process_words(contests[0].groups[0].runs[0]) if contests else ""
    parts.append(Part([paint(line, "dim") for line in wrap(several, "  ")], rank=78))
    accepted = [
        line
        for contest in contests
        for words in acceptance_sentences(contest, thresholds)
        for line in wrap(clean(words), "  ")
    ]
    parts.append(Part(accepted, rank=70))
    drawn = acceptance_table(contests, thresholds, paint, width=COLUMNS)
    parts.append(Part(drawn, rank=65, fewest=3, rows="targets"))
    unclosed = [
        line for contest in contests for words in close_failures(contest) for line in wrap(words, "  ")
    ]
    parts.append(Part([paint(line, "yellow") for line in unclosed], rank=79))
    runs = [run for contest in contests for group in contest.groups for run in group.runs]
    return Brief(parts, [*answer, *believed(runs, paint, limits(contests, client_limit(contests)))])


def _pools(contests: Sequence[PoolComparison]) -> int:
    return len({group.pool for contest in contests for group in contest.groups})


def _table(contest: PoolComparison, paint: Paint, *, by_size: bool = False) -> list[str]:
    rows = [["size" if by_size else clean(contest.label), *_HEADS]]
    for group in contest.groups:
        wait50, wait99 = group.phase("checkout").percentiles_ms((50, 99))
        op50, op99 = group.latency.percentiles_ms((50, 99))
        rows.append(
            [
                group.setting.size_words if by_size else group.pool,
                *_rates(group),
                *map(format_ms, (wait50, wait99, op50, op99)),
                f"{group.failed:,}",
            ]
        )
    drawn = table(rows)
    lines = [paint(drawn[0], "bold")]
    first = best(contest)
    for line, group in zip(drawn[1:], contest.groups, strict=True):
        style = ("red",) if not group.ok else ("green",) if group is first else ()
        lines.append(paint(line, *style))
    return lines


def _rates(group: PoolRounds) -> tuple[str, str]:
    rate = group.throughput
    spread = f"{format_rate(rate.low)}..{format_rate(rate.high)}" if len(group.runs) > 1 else "-"
    return format_rate(rate.median), spread


def _sentence(contest: PoolComparison, paint: Paint) -> list[str]:
    words = verdict(contest) or _alone(contest)
    return [paint(line, "bold") for line in wrap(f"{clean(contest.label)}: {words}", "  ")]


def _alone(contest: PoolComparison) -> str:
    """The figures of the only pool that did anything."""
    group = best(contest) or contest.groups[0]
    p50, p99 = group.latency.percentiles_ms((50, 99))
    return (
        f"{group.pool} {format_rate(group.throughput.median)} op/s, p50 {format_ms(p50)} ms, "
        f"p99 {format_ms(p99)} ms, {group.failed:,} failed."
    )


def sizes_brief(groups: Sequence[tuple[int, PoolRounds]], sizing: Sizing, *, colour: bool = False) -> Brief:
    """The last screen of a sweep of pool sizes: a row for each, and the recommendation."""
    paint = Paint(colour=colour)
    rows = [["size", "op/s", "min..max", "wait p50", "p99 ms", "query p50", "p99 ms", "failed", ""]]
    for size, group in groups:
        wait50, wait99 = group.phase("checkout").percentiles_ms((50, 99))
        query50, query99 = group.phase("query").percentiles_ms((50, 99))
        is_knee = size == sizing.knee and not sizing.why_not
        rows.append(
            [
                f"{size:,}",
                *_rates(group),
                *map(format_ms, (wait50, wait99, query50, query99)),
                f"{group.failed:,}",
                "<- best" if is_knee else "",
            ]
        )
    drawn = table(rows, left=(8,), gap=1)
    first, *others = statement(sizing)
    # That it is only a lower bound belongs to the recommendation.
    told, others = ([first, *others[:1]], others[1:]) if sizing.knee_at_end else ([first], others)
    limit = bottlenecks(groups, sizing)
    style = "yellow" if sizing.why_not or limit else "green"
    answer = [paint(line, "bold", style) for sentence in told for line in wrap(sentence, "  ")]
    runs = [run for _, group in groups for run in group.runs]
    answer += believed(runs, paint, limit or size_limit(groups, sizing.knee))
    return Brief(
        (
            Part([paint(drawn[0], "bold"), *drawn[1:]], rank=90, fewest=4, rows="sizes"),
            Part([line for sentence in others for line in wrap(sentence, "  ")], rank=70),
            Part([paint("Details: -v", "dim")], rank=60),
        ),
        answer,
    )
