"""The last screen of a comparison: tables while they fit, else a row for each setting, and the verdicts."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import Comparison, Pair
from pool_bench.report.brief.screen import COLUMNS, ROWS, Brief, Part
from pool_bench.report.summary.comparison import cells, change_words, describe, origin, pair_lines
from pool_bench.report.summary.run import wrap
from pool_bench.report.text import Paint, clean, ellipsize, table

_STYLES: Final = {Change.BETTER: "green", Change.WORSE: "red", Change.SAME: "green"}
_SHOWN: Final = (Change.BETTER, Change.WORSE)
# Settings with a sentence of their own; more of them are counted.
SENTENCES: Final = 3
# What headline and blank lines leave for tables.
_ROOM: Final = ROWS - 2 * SENTENCES - 3


def comparisons_brief(comparisons: Sequence[Comparison], *, colour: bool = False) -> Brief:
    """The last screen of `compare`.

    Args:
        comparisons: each new file with the base.
    """
    paint = Paint(colour=colour)
    pairs = [pair for comparison in comparisons for pair in comparison.pairs]
    tables = [Part(pair_lines(pair, paint), rank=80) for pair in pairs]
    if sum(len(part.lines) + 1 for part in tables) > _ROOM:
        tables = [Part(_rows(pairs, paint), rank=80, fewest=4, rows="settings")]
    missing = [
        paint(line, "yellow")
        for comparison in comparisons
        for note in comparison.missing
        for line in wrap(f"not compared: {clean(note)}", "  ")
    ]
    files = [f"base: {origin(comparisons[0].base)}"] if comparisons else []
    files += [f"new:  {origin(comparison.new)}" for comparison in comparisons]
    return Brief(
        (
            Part([paint(ellipsize(line, COLUMNS), "dim") for line in files], rank=50, fewest=3, rows="files"),
            *tables,
            Part(missing, rank=60, head=0, fewest=3, rows="lines"),
        ),
        pairs_answer(pairs, paint),
    )


def _rows(pairs: Sequence[Pair], paint: Paint) -> list[str]:
    """A row for each setting with the changes of its first figures."""
    names = [figure.quantity.name for figure in pairs[0].figures][:4] if pairs else []
    rows = [[*names, "verdict"]]
    for pair in pairs:
        changes = {figure.quantity.name: change_words(figure, figure.change) for figure in pair.figures}
        rows.append([*(changes.get(name, "-") for name in names), str(pair.verdict)])
    drawn = table(rows, left=(len(names),))
    room = max(COLUMNS - max(map(len, drawn)) - 2, 12)
    settings = ["change of", *(ellipsize(_row_name(pair), room) for pair in pairs)]
    lines = table([[name, cell] for name, cell in zip(settings, drawn, strict=True)], left=(0, 1))
    return [paint(lines[0], "bold"), *lines[1:]]


def _row_name(pair: Pair) -> str:
    """Short names, as there is little room beside the figures."""
    return clean(pair.label) if pair.base.is_pool else describe(pair)


def pairs_answer(pairs: Sequence[Pair], paint: Paint) -> list[str]:
    """A sentence for each setting; where there are many, how many came to what."""
    if not pairs:
        return [paint("There is no setting to compare.", "bold", "yellow")]
    if len(pairs) <= SENTENCES:
        return [line for pair in pairs for line in pair_answer(pair, paint)]
    counts = Counter(pair.verdict for pair in pairs)
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    obstructed = next((pair for pair in pairs if pair.obstructions), None)
    if obstructed is not None:
        words += f" ({clean(obstructed.new.label)}: {clean(obstructed.obstructions[0].words)})"
    lines = wrap(f"{len(pairs)} settings: {words}.", "  ")
    return [paint(line, "bold") for line in lines]


def pair_answer(pair: Pair, paint: Paint) -> list[str]:
    """`c4 driver=psycopg: worse: throughput 804/s -> 603/s (-25.0%)`, in lines of at most 80 columns."""
    words = f"{ellipsize(clean(pair.new.label), COLUMNS // 2)}: {pair.verdict}"
    if pair.obstructions:
        words += f": {clean(pair.obstructions[0].words)}"
    else:
        rows = [cells(figure) for figure in pair.figures if figure.verdict in _SHOWN]
        rows = rows or [cells(figure) for figure in pair.figures[:1]]
        words += (
            f": {', '.join(f'{name} {base} -> {new} ({change})' for name, base, new, change, *_ in rows)}"
        )
    style = _STYLES.get(pair.verdict, "yellow")
    return [paint(line, "bold", style) for line in wrap(words, "  ")]
