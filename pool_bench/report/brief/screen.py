"""The last screen: what a command found out, in at most 24 lines of 80 columns, the answer last.

A report is made of parts in the order in which they are read. Where they need more rows than a screen has,
the tables of those that matter least are cut first, then those parts are left out as a whole; the headline
never is. What was left out is in the result file, and on the screen with `-v`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

COLUMNS: Final = 80
# A terminal's 24, of which the shell's next prompt takes one.
ROWS: Final = 23
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")
_RESET: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Part:
    """Lines that belong together, with a blank line around them.

    Attributes:
        lines: each of at most `COLUMNS` columns, or it is cut there.
        rank: of the parts that do not fit, those with the lowest are cut and left out first.
        head: so many lines stay whatever is cut, such as a table's heads.
        fewest: with fewer lines than this it is not worth its place; 0: shown whole or not at all.
        rows: what a line below the heads is, in the plural.
    """

    lines: Sequence[str]
    rank: int = 0
    head: int = 1
    fewest: int = 0
    rows: str = "rows"

    def cut(self, room: int) -> "Part | None":
        """The part in `room` lines, the last of which counts the rows left out; None where it cannot be."""
        if not self.fewest or room < max(self.fewest, self.head + 2):
            return None
        missing = len(self.lines) - (room - 1)
        words = f"… {missing:,} more {self.rows}: -v"
        return Part((*self.lines[: room - 1], words), self.rank, self.head, self.fewest, self.rows)


@dataclass(frozen=True, slots=True)
class Brief:
    """What the last screen of a command shows.

    Attributes:
        parts: in the order in which they are read; empty ones are nothing.
        headline: the answer, the last lines of all.
    """

    parts: Sequence[Part] = ()
    headline: Sequence[str] = field(default_factory=tuple)

    def body(self, below: int) -> str:
        """What goes above `below` rows of other output and the headline; "" for nothing.

        Args:
            below: rows that are printed between body and headline, such as the paths of files.
        """
        # A blank line above the body, and one above the headline.
        room = ROWS - below - len(self.headline) - 2
        return "\n\n".join("\n".join(crop(line) for line in part.lines) for part in fit(self.parts, room))

    @property
    def last(self) -> str:
        """The headline as text."""
        return "\n".join(map(crop, self.headline))


def fit(parts: Iterable[Part], rows: int) -> list[Part]:
    """Those of `parts`, cut where that helps, that fit in so many rows with a blank line between two."""
    kept = [part for part in parts if part.lines]
    while kept and (excess := sum(len(part.lines) for part in kept) + len(kept) - 1 - rows) > 0:
        index = min(range(len(kept)), key=lambda at: (kept[at].rank, -at))
        cut = kept[index].cut(len(kept[index].lines) - excess)
        if cut is None:
            del kept[index]
        else:
            kept[index] = cut
    return kept


def rows_of(line: str, columns: int = COLUMNS) -> int:
    """Rows of a terminal of so many columns that `line` takes."""
    return max(-(-width(line) // columns), 1)


def width(line: str) -> int:
    """Columns that `line` takes, colours taking none."""
    return len(_COLOUR.sub("", line))


def crop(line: str, columns: int = COLUMNS) -> str:
    """`line` in at most so many columns, its end left out where it is longer; colours count nothing."""
    if width(line) <= columns:
        return line
    left, cut = columns - 1, ""
    for part in _COLOUR.split(line):
        if part.startswith("\x1b["):
            cut += part
        else:
            cut += part[:left]
            left -= len(part[:left])
            if not left:
                break
    return f"{cut}…{_RESET}" if "\x1b[" in cut else f"{cut}…"
