"""Result files of every command and kind of run stay readable for ever, and say what they said.

`golden/` was written by version 0.1.0 before its modules got their packages; no later version may change it.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import compare
from pool_bench.compare.pool_sizes import by_size, sizing_of
from pool_bench.compare.pools import group_by_load
from pool_bench.compare.rounds import in_rounds
from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.brief.pools import contests_brief, sizes_brief
from pool_bench.report.brief.rounds import rounds_brief
from pool_bench.report.brief.run import run_brief, search_brief, sweep_brief
from pool_bench.report.brief.screen import Brief, Part
from pool_bench.report.plot.figures import save_plot
from pool_bench.report.summary.thresholds import failed_thresholds
from pool_bench.results.model import ResultRecord
from pool_bench.results.read import load_result
from pool_bench.results.write import dumps, to_json

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))
# The output of one was recorded up to its sixteenth run only.
WITH_LAST_SCREEN = [path for path in FILES if path.stem != "pool-size"]


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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_read_of_a_golden_file_is_all_that_is_in_it(path: Path) -> None:
    assert json.loads(dumps(to_json(load_result(path)))) == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WITH_LAST_SCREEN, ids=lambda path: path.stem)
def test_the_last_screen_is_made_of_the_file_alone(path: Path) -> None:
    result = load_result(path)
    brief = last_screen(result)
    thresholds = Part(failed_thresholds(result.thresholds), rank=100, fewest=2, rows="thresholds")
    # One row of that screen was `wrote FILE`.
    body = replace(brief, parts=(*brief.parts, thresholds)).body(1)
    screen = f"{body}\n\n{brief.last}\n"
    assert path.with_suffix(".txt").read_text(encoding="utf-8").endswith(screen)


def last_screen(result: ResultRecord) -> Brief:
    """What the command ended in that wrote `result`."""
    runs, sizes, pools = result.runs, by_size(result.runs), group_by_load(result.runs)
    sizing = sizing_of(sizes) if sizes else None
    if sizing is not None:
        return sizes_brief(sizes, sizing)
    if pools:
        return contests_brief(pools)
    if result.find_max is not None:
        return search_brief(runs, result.find_max)
    if runs[0].hold is not None:
        return hold_brief(runs[0], asked=runs[0].hold.asked)
    if in_rounds(result):
        return rounds_brief(result)
    return sweep_brief(runs) if len(runs) > 1 else run_brief(runs[0])
