"""What users see is in the field's plain words: help, errors, notes, live lines, summaries, verdicts.

Docstrings and comments are for readers of the code and not looked at.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "pool_bench").rglob("*.py"), *ROOT.glob("*.py")])
# What it says instead: "0", "unknown X (choose from ...)", "given twice", "this many", "no process", "must".
BANNED = re.compile(
    r"\b(nought|nobody|somebody|anybody|everybody|shall|whoever|whomever|so many|so much"
    r"|(is|are) none of|is there twice|there is no use|let in"
    r"|each is at (least|most)|more than nought|hung up|(?<!there )is no (?!longer)\w+)\b",
    re.IGNORECASE,
)
# A word of the result file, and the account's name on Linux.
NAMES = {"nobody"}


def _docstrings(tree: ast.AST) -> set[int]:
    """The nodes that only document what they stand in."""
    return {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that may reach a user, each with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_literals_are_in_plain_words(path: Path) -> None:
    found = [
        f"{line}: {text!r}" for line, text in literals(path) if text not in NAMES and BANNED.search(text)
    ]
    assert not found, "\n".join(found)
