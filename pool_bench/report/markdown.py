"""Markdown for the summary page of a CI job, of text that is data.

Server messages, names and URLs are data: whatever they hold, they become text in one cell, never a
column, a link, an image, a tag or a mention.
"""

import re
from collections.abc import Sequence
from typing import Final

from pool_bench.cleaning import clean

# What CommonMark and GitHub's extensions give a meaning to: markup anywhere, list marks at the beginning,
# and what becomes a link by itself.
_MEANING: Final = re.compile(
    r"[&<>\\`*_{}\[\]#!|~@$^]|^[-+=](?!\d)|(?<=^\d)[.)](?=\s)|:(?=//)|(?<=www)\.", re.IGNORECASE
)
# A mention is found after the entities have become characters again, unless something is in between.
_MENTION: Final = re.compile(r"(?<![0-9A-Za-z])&#64;")
_LONGEST: Final = 300


def escape(text: str) -> str:
    """`text` on one line, in which no character has a meaning to Markdown or HTML."""
    line = clean(text)
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}…"
    escaped = _MEANING.sub(lambda found: f"&#{ord(found[0])};", line)
    return _MENTION.sub("&#64;\u2060", escaped)


def heading(level: int, text: str) -> str:
    """A heading; `text` is data."""
    return f"{'#' * level} {escape(text)}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """A table whose cells are data; columns in `left` are aligned left, the others right."""
    lines = [[escape(cell) for cell in heads], [":--" if i in left else "--:" for i in range(len(heads))]]
    lines += [[escape(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
