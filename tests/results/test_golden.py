"""Result files of every command and kind of run stay readable for ever, and say what they said.

`golden/` was written by version 0.1.0 before its modules got their packages; no later version may change it.
"""

import json
from pathlib import Path

import pytest

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import compare
from pool_bench.report.plot.figures import save_plot
from pool_bench.results.read import load_result

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_is_read_with_its_counts(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    result = load_result(path)
    assert (result.tool, result.name) == (content["tool"], path.stem)
    assert [(run.ok, run.failed) for run in result.runs] == [
        (run["ok"], run["failed"]) for run in content["runs"]
    ]
    assert [run.hold and run.hold.opened for run in result.runs] == [
        ("hold" in run and run["hold"]["opened"]) or None for run in content["runs"]
    ]
    assert [len(run.timeline) for run in result.runs] == [len(run["timeline"]) for run in content["runs"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_is_drawn_and_no_better_than_itself(path: Path, tmp_path: Path) -> None:
    result = load_result(path)
    save_plot(tmp_path / "picture.png", [result])
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    for pair in compare(result, result).pairs:
        assert not {figure.verdict for figure in pair.figures} & {Change.BETTER, Change.WORSE}
