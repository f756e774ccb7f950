"""The project's own documents, taken apart: fenced blocks, links, headings."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
DOCUMENTS: Final = (README, ROOT / "CLAUDE.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
EXAMPLES: Final = tuple(sorted((ROOT / "examples").rglob("*.py")))

_FENCE: Final = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
# Not those inside of code.
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        path: the document.
        line: where it begins, from 1.
        language: what stands behind the fence.
    """

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.path)}:{self.line}"


def name_of(path: Path) -> str:
    """The document's path in the checkout."""
    return path.relative_to(ROOT).as_posix()


@cache
def blocks_of(path: Path) -> tuple[Block, ...]:
    """The fenced blocks of a document, in order."""
    text = path.read_text(encoding="utf-8")
    return tuple(
        Block(path, text.count("\n", 0, match.start()) + 1, match["language"], match["text"])
        for match in _FENCE.finditer(text)
    )


def blocks(*languages: str) -> tuple[Block, ...]:
    """All documents' blocks in these languages."""
    return tuple(block for path in DOCUMENTS for block in blocks_of(path) if block.language in languages)


@cache
def prose_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def links_of(path: Path) -> tuple[str, ...]:
    """Where the links of a document lead, pictures included."""
    return tuple(_LINK.findall(prose_of(path)))


@cache
def anchors_of(path: Path) -> frozenset[str]:
    """The anchors that GitHub makes of a document's headings."""
    anchors: set[str] = set()
    for heading in _HEADING.findall(prose_of(path)):
        anchor = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        anchors.add(anchor.strip().replace(" ", "-"))
    return frozenset(anchors)
