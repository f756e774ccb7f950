"""Tables of the documents name all that there is, and nothing that is not."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from pool_bench.analysis.reasons import NoteCode, ReasonCode
from pool_bench.errors import FailureKind
from pool_bench.stats.walls import WallKind
from tests.support.documents import ROOT

FAILURES = ROOT / "docs" / "failures.md"
READING = ROOT / "docs" / "reading-a-run.md"
POOL_FAILURES = ROOT / "docs" / "pool-failures.md"
RESULT_FILE = ROOT / "docs" / "result-file.md"
GOLDEN = ROOT / "tests" / "results" / "golden"
# Keys that none of the kept files has.
WHOLE_SELDOM = {"contest", "sizing"}
RUN_SELDOM = {"generators", "hanging", "not_started", "targets", "wall", "workers"}
_CODE = re.compile(r"`(\w+)`")
_ROW = re.compile(r"^\| (?P<id>[PL]\d+) \|.*\| (?P<tests>[^|]*) \|$", re.MULTILINE)
_TEST = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def _first_column(path: Path, heading: str) -> set[str]:
    """The code words in the first column of the table that a row of headings begins."""
    table = path.read_text(encoding="utf-8").partition(f"\n{heading}")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    return {code for row in rows for code in _CODE.findall(row.split(" | ")[0])}


@pytest.mark.parametrize(
    ("path", "heading", "codes"),
    [
        (READING, "| reason |", ReasonCode),
        (READING, "| note |", NoteCode),
        (FAILURES, "| kind |", FailureKind),
        (FAILURES, "| `kind` |", WallKind),
    ],
    ids=["reasons", "notes", "failures", "walls"],
)
def test_every_code_has_its_row(path: Path, heading: str, codes: Iterable[str]) -> None:
    assert _first_column(path, heading) == set(codes)


def _tests() -> set[str]:
    """The names of all tests."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in _TEST.findall(text)}


def test_every_failure_of_pools_and_of_load_tools_has_the_test_that_holds_it() -> None:
    rows = {match["id"]: match["tests"] for match in _ROW.finditer(POOL_FAILURES.read_text(encoding="utf-8"))}
    assert set(rows) == {f"P{number}" for number in range(1, 46)} | {f"L{number}" for number in range(1, 13)}
    tests = _tests()
    for failure, text in rows.items():
        named = set(_CODE.findall(text))
        assert named, failure
        assert named <= tests, failure


@pytest.mark.parametrize(("heading", "rare"), [("## The whole", WHOLE_SELDOM), ("## A run", RUN_SELDOM)])
def test_every_key_of_a_result_file_has_its_row(heading: str, rare: set[str]) -> None:
    files = [json.loads(path.read_text(encoding="utf-8")) for path in GOLDEN.glob("*.json")]
    parts = files if heading == "## The whole" else [run for content in files for run in content["runs"]]
    written = {key for part in parts for key in part}
    assert not rare & written
    table = RESULT_FILE.read_text(encoding="utf-8").partition(f"{heading}\n\n")[2].partition("\n\n")[0]
    rows = table.splitlines()[2:]
    assert {key for row in rows for key in _CODE.findall(row.split(" | ")[0])} == written | rare
