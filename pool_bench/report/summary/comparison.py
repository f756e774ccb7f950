"""Comparisons in plain text of at most 100 columns, as Markdown, and as JSON."""

from collections.abc import Sequence
from typing import Final

from pool_bench.compare.change import SMALLEST, SMALLEST_UNREPEATED, Change, Figure, Scale
from pool_bench.compare.comparison import CONFIDENCE, Comparison, Pair
from pool_bench.report.markdown import escape, heading, markdown_table
from pool_bench.report.summary.run import WIDTH, wrap
from pool_bench.report.text import Paint, clean, ellipsize, format_percent, format_rate, table
from pool_bench.results.model import ResultRecord
from pool_bench.results.parts import rounded
from pool_bench.results.write import JsonObject
from pool_bench.units import format_ms

_STYLES: Final = {Change.BETTER: "green", Change.WORSE: "red", Change.MIXED: "yellow"}
HEADS: Final = ("figure", "base", "new", "change", f"{CONFIDENCE:.0%} together", "verdict")
SCHEMA: Final = "pool-bench-comparison/1"


def how_to_read(pairs: Sequence[Pair]) -> str:
    """What the intervals mean, and what they leave out."""
    words = (
        f"The intervals of one setting hold together in {CONFIDENCE:.0%} of comparisons; a difference counts "
        f"where its whole interval is beyond {SMALLEST:.0%}."
    )
    if len(pairs) > 1:
        words += f" {len(pairs)} settings are as many chances of a false alarm."
    if any(len(pair.base.runs) < 3 or len(pair.new.runs) < 3 for pair in pairs):
        words += (
            " With fewer than three rounds they know the noise inside the runs only, and a difference counts "
            f"beyond {SMALLEST_UNREPEATED:.0%}: what else changed between the runs counts as one (--rounds 5 "
            "--interleave measures in turn)."
        )
    return words


def comparison_text(comparison: Comparison, *, colour: bool = False) -> str:
    """A table for each setting, with its verdict; lines of at most 100 columns."""
    paint = Paint(colour=colour)
    lines = [
        paint(ellipsize(f"base: {origin(comparison.base)}", WIDTH), "dim"),
        paint(ellipsize(f"new:  {origin(comparison.new)}", WIDTH), "dim"),
    ]
    for pair in comparison.pairs:
        lines += ["", *pair_lines(pair, paint)]
    if comparison.missing:
        lines.append("")
        for note in comparison.missing:
            lines += [paint(line, "yellow") for line in wrap(f"not compared: {clean(note)}", "  ")]
    if comparison.pairs:
        lines.append("")
        lines += [paint(line, "dim") for line in wrap(how_to_read(comparison.pairs), "")]
    return "\n".join(lines)


def pair_lines(pair: Pair, paint: Paint) -> list[str]:
    """One setting: its verdict, its figures, and why it may not be compared."""
    head = f"{ellipsize(describe(pair), WIDTH - 24)}: "
    lines = [paint(head, "bold") + paint(str(pair.verdict), "bold", *_style(pair.verdict))]
    for obstruction in pair.obstructions:
        lines += [paint(line, "yellow") for line in wrap(f"  {clean(obstruction.words)}", "    ")]
    if pair.figures:
        rows = [HEADS, *figure_rows(pair)]
        drawn = table([["  " + row[0], *row[1:]] for row in rows], left=(0, 5))
        lines.append(paint(drawn[0], "dim"))
        for line, figure in zip(drawn[1:], pair.figures, strict=True):
            comparable = pair.verdict is not Change.NOT_COMPARABLE
            lines.append(paint(line, *(_style(figure.verdict) if comparable else ("dim",))))
    for note in pair.notes:
        lines += [paint(line, "dim") for line in wrap(f"  {clean(note)}", "    ")]
    return lines


def figure_rows(pair: Pair) -> list[tuple[str, ...]]:
    """The rows under `HEADS`; where settings may not be compared, no figure has a verdict."""
    rows = [cells(figure) for figure in pair.figures]
    return [(*row[:-1], "-") for row in rows] if pair.verdict is Change.NOT_COMPARABLE else rows


def cells(figure: Figure) -> tuple[str, ...]:
    """A figure as the cells under `HEADS`."""
    interval = "-"
    if figure.low is not None and figure.high is not None:
        interval = f"{change_words(figure, figure.low)} to {change_words(figure, figure.high)}"
    return (
        figure.quantity.name,
        value_words(figure, figure.base),
        value_words(figure, figure.new),
        change_words(figure, figure.change),
        interval,
        str(figure.verdict),
    )


def value_words(figure: Figure, value: float | None) -> str:
    """A value with its unit."""
    if value is None:
        return "-"
    if figure.quantity.scale is Scale.SHARE:
        return format_percent(value)
    return f"{format_rate(value)}/s" if figure.quantity.unit == "/s" else f"{format_ms(value)} ms"


def change_words(figure: Figure, change: float | None) -> str:
    """A change as a signed percentage, or in percentage points where values are percentages."""
    if change is None:
        return "-"
    unit = " pp" if figure.quantity.scale is Scale.SHARE else "%"
    words = f"{change * 100:+,.0f}" if abs(change) >= 10 else f"{change * 100:+.1f}"
    return f"{'0.0' if words in ('+0.0', '-0.0') else words}{unit}"


def describe(pair: Pair) -> str:
    """The setting with its driver and how often it was measured."""
    one, other = pair.base.runs[0].driver, pair.new.runs[0].driver
    words = clean(pair.label)
    if not pair.base.is_pool:
        words += f" · {one}{'' if one == other else f' / {other}'}"
    before, after = len(pair.base.runs), len(pair.new.runs)
    if before == after:
        return words if before == 1 else f"{words} · {before} rounds each"
    return f"{words} · {before} and {after} rounds"


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison for a CI job's summary; nothing that a server or a user named is markup."""
    parts = [
        heading(2, "pool-bench compare"),
        f"Base: {escape(origin(comparison.base))}  \nNew: {escape(origin(comparison.new))}",
    ]
    for pair in comparison.pairs:
        parts.append(heading(3, f"{describe(pair)}: {pair.verdict}"))
        parts += [f"- {escape(obstruction.words)}" for obstruction in pair.obstructions]
        if pair.figures:
            parts.append(markdown_table(HEADS, figure_rows(pair), left=(0, 5)))
        parts += [escape(note) for note in pair.notes]
    parts += [f"Not compared: {escape(note)}" for note in comparison.missing]
    parts.append(escape(how_to_read(comparison.pairs)))
    return "\n\n".join(parts) + "\n"


def comparisons_json(comparisons: Sequence[Comparison]) -> JsonObject:
    """Comparisons for machines.

    `change`, `low` and `high` are shares of the base's value where `scale` is `ratio`, and differences of
    shares where it is `share`; null where nothing can be said.
    """
    return {"schema": SCHEMA, "comparisons": [_comparison(comparison) for comparison in comparisons]}


def _comparison(comparison: Comparison) -> JsonObject:
    return {
        "base": _file(comparison.base),
        "new": _file(comparison.new),
        "confidence": CONFIDENCE,
        "settings": [_pair(pair) for pair in comparison.pairs],
        "missing": list(comparison.missing),
    }


def _file(result: ResultRecord) -> JsonObject:
    return {"source": result.source, "name": result.name, "started_at": result.started_at.isoformat()}


def _pair(pair: Pair) -> JsonObject:
    return {
        "label": pair.label,
        "rounds": [len(pair.base.runs), len(pair.new.runs)],
        "verdict": str(pair.verdict),
        "not_comparable": [
            {"obstacle": str(obstruction.obstacle), "why": obstruction.words}
            for obstruction in pair.obstructions
        ],
        "notes": list(pair.notes),
        "figures": [
            {
                "name": figure.quantity.name,
                "unit": "share" if figure.quantity.scale is Scale.SHARE else figure.quantity.unit,
                "scale": str(figure.quantity.scale),
                "base": rounded(figure.base),
                "new": rounded(figure.new),
                "change": rounded(figure.change),
                "low": rounded(figure.low),
                "high": rounded(figure.high),
                "verdict": str(figure.verdict),
            }
            for figure in pair.figures
        ],
    }


def origin(result: ResultRecord) -> str:
    """The file, its name for itself, and when it was measured."""
    name = f"{clean(result.name)}, " if result.name else ""
    return f"{name}{clean(result.source)}, {result.started_at:%Y-%m-%d %H:%M:%S} UTC"


def _style(verdict: Change) -> tuple[str, ...]:
    style = _STYLES.get(verdict)
    return () if style is None else (style,)
