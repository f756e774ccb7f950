"""A sweep of pool sizes in words: the table, and what it allows to be said."""

from collections.abc import Sequence
from typing import Final

from pool_bench.analysis.scalability import Sizing, statement
from pool_bench.compare.pool_sizes import bottlenecks
from pool_bench.compare.pools import PoolRounds
from pool_bench.report.summary.pool_server import pool_server_lines, size_limit
from pool_bench.report.summary.run import wrap
from pool_bench.report.summary.verdict import suspects_words
from pool_bench.report.text import Paint, clean, format_rate, table
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration, format_ms

# Suspect runs named in a sentence; more of them are counted.
_NAMED: Final = 3


def believed(runs: Sequence[RunRecord], paint: Paint, limit: str = "") -> list[str]:
    """Whether the figures of these runs can be trusted, and what the limit was, in one sentence.

    Args:
        limit: `limit: ...` without a full stop; "" where nothing is known of it.

    Returns:
        Lines of at most 80 columns.
    """
    judged = [
        (run.label, [] if run.verdict is None else [reason.code for reason in run.verdict.reasons])
        for run in runs
    ]
    # Labels of pools' runs are long, so they are counted where there are several.
    words = suspects_words(judged, most=_NAMED if len(runs) <= _NAMED else 0)
    lines = wrap("; ".join(part for part in (words or "every run is valid", limit) if part), "  ")
    return [paint(line, "yellow" if words else "green") for line in lines]


def sizes_summary(groups: Sequence[tuple[int, PoolRounds]], sizing: Sizing, *, colour: bool = False) -> str:
    """The table of a sweep and the recommendation.

    Returns:
        Lines of at most 100 columns, without a line break at the end.
    """
    paint = Paint(colour=colour)
    setting = groups[0][1].setting
    words = f"{setting.name} · {setting.clients:,} clients · {clean(setting.query or 'no query')}"
    if setting.hold_s:
        words += f" · hold {format_duration(setting.hold_s)}"
    rows = [["size", "op/s", "min..max", "wait p50", "p99 ms", "query p50", "p99 ms", "us/op", "failed", ""]]
    for size, group in groups:
        rate = group.throughput
        wait50, wait99 = group.phase("checkout").percentiles_ms((50, 99))
        query50, query99 = group.phase("query").percentiles_ms((50, 99))
        cpu = group.spread(lambda run, _: run.client.cpu_us_per_op)
        marks = ["<- recommended"] if size == sizing.knee and not sizing.why_not else []
        rows.append(
            [
                f"{size:,}",
                format_rate(rate.median),
                f"{format_rate(rate.low)}..{format_rate(rate.high)}" if len(group.runs) > 1 else "-",
                *map(format_ms, (wait50, wait99, query50, query99)),
                "-" if cpu is None else f"{cpu.median:,.0f}",
                f"{group.failed:,}",
                "".join(marks),
            ]
        )
    drawn = table(rows, left=(9,), gap=1)
    lines = [
        paint("throughput by pool size", "bold"),
        f"  {words}",
        "",
        paint(drawn[0], "bold"),
        *drawn[1:],
        "",
    ]
    if server := pool_server_lines("size", [(f"{size:,}", group) for size, group in groups], paint):
        lines += [*server, ""]
    limit = bottlenecks(groups, sizing)
    for index, sentence in enumerate(statement(sizing)):
        doubtful = sizing.why_not or limit
        style = ("bold", "yellow" if doubtful else "green") if index == 0 else ()
        lines += [paint(line, *style) for line in wrap(sentence, "  ")]
    runs = [run for _, group in groups for run in group.runs]
    lines += believed(runs, paint, limit or size_limit(groups, sizing.knee))
    return "\n".join(lines)
