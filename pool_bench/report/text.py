"""Words and columns of plain text: tables, bars, colours, and text that is safe to print."""

import os
from collections.abc import Sequence
from typing import Final, TextIO

from pool_bench.cleaning import clean as clean

_ANSI: Final = {"bold": "1", "dim": "2", "red": "31", "yellow": "33", "green": "32", "cyan": "36"}
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_SPARKS: Final = "▁▂▃▄▅▆▇█"


def ellipsize(text: str, width: int) -> str:
    """`text` in at most `width` characters, its middle left out where it is longer."""
    if len(text) <= width:
        return text
    if width < 3:
        return text[:width]
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def colour_wanted(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colour (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


class Paint:
    """Wraps text in colours, or leaves it alone."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, *styles: str) -> str:
        if not self._colour or not text or not styles:
            return text
        return f"\x1b[{';'.join(_ANSI[style] for style in styles)}m{text}\x1b[0m"


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,), gap: int = 2) -> list[str]:
    """Lines of a table: columns as wide as their widest cell, those in `left` aligned left.

    The last column may be shorter than the others; no line ends in a space.
    """
    if not rows:
        return []
    columns = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(columns)]
    return [
        (" " * gap)
        .join(cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(row))
        .rstrip()
        for row in rows
    ]


def without_column(rows: Sequence[Sequence[str]], head: str) -> list[list[str]]:
    """`rows`, of which the first are the heads, without the column `head` where it says nothing but `-`."""
    at = rows[0].index(head)
    if any(row[at] != "-" for row in rows[1:]):
        return [list(row) for row in rows]
    return [[*row[:at], *row[at + 1 :]] for row in rows]


def bar(share: float, width: int) -> str:
    """A bar of `share` (0 to 1) of `width` characters in eighths; what is above zero is never invisible."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` of `values` as characters whose height is their share of the largest."""
    shown = values[-width:] if width > 0 else ()
    top = max(shown, default=0.0)
    if top <= 0:
        return _SPARKS[0] * len(shown)
    return "".join(_SPARKS[min(int(max(value, 0.0) / top * 7.999), 7)] for value in shown)


def format_percent(share: float | None) -> str:
    """A share of 0 to 1 as a percentage that says 100% and 0% only where that is exact."""
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share > 0.9999:
        return ">99.99%"
    if share < 0.0001:
        return "<0.01%"
    # 0.99996 must not round up to 100.0%, nor 0.9995 to 100.0%.
    return f"{share:.2%}" if share > 0.99 or share < 0.001 else f"{share:.1%}"


def format_rate(per_second: float) -> str:
    """Operations a second with at least two digits that mean something."""
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.2g}"


def format_edge(milliseconds: float) -> str:
    """A bucket's edge with its unit: `250us`, `1.6ms`, `2s`."""
    for limit, factor, unit in ((1.0, 1e3, "us"), (1e3, 1.0, "ms")):
        if milliseconds < limit * (1 - 1e-9):
            return f"{milliseconds * factor:.3g}{unit}"
    return f"{milliseconds / 1e3:.4g}s"
