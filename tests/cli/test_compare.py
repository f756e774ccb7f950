import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pool_bench.cli.commands.compare import _ALLOWABLE, compare
from pool_bench.compare.comparison import ALLOWABLE
from pool_bench.results.write import session_to_json, write_json
from pool_bench.stats.runs import RunResult
from tests.compare.test_comparison import run
from tests.support.results.runs import session_of


def saved(path: Path, *runs: RunResult) -> str:
    write_json(path, session_to_json(session_of(*runs)))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Result files: two of the same thing, and one a tenth slower."""
    return {
        name: saved(tmp_path / f"{name}.json", run(seed=seed, slower=slower))
        for name, seed, slower in (("base", 1, 0.0), ("same", 2, 0.0), ("slow", 3, 0.1))
    }


def call(*arguments: str) -> Result:
    return CliRunner().invoke(compare, arguments)


def test_the_obstacles_that_can_be_allowed_are_those_of_the_comparison() -> None:
    assert tuple(_ALLOWABLE) == ALLOWABLE


def test_a_table_and_a_verdict_come_out(files: dict[str, str]) -> None:
    outcome = call(files["base"], files["slow"])
    assert outcome.exit_code == 0
    assert "c8 · wire: worse" in outcome.stdout
    assert "c8 · wire: no difference shown" in call(files["base"], files["same"]).stdout


def test_a_regression_is_exit_code_1_and_names_the_figure(files: dict[str, str]) -> None:
    gate = ("--fail-on-regression", "5%")
    outcome = call(files["base"], files["slow"], *gate)
    assert outcome.exit_code == 1
    assert "regression: c8 · wire: throughput 300/s -> 271/s (-9.7%)" in outcome.stderr
    assert call(files["base"], files["same"], *gate).exit_code == 0
    assert call(files["slow"], files["base"], *gate).exit_code == 0
    assert call(files["base"], files["same"], files["slow"], *gate).exit_code == 1
    assert call(files["base"], files["slow"], "--fail-on-regression", "30%").exit_code == 0


def test_a_gate_that_could_not_look_stays_shut(files: dict[str, str], tmp_path: Path) -> None:
    gate = ("--fail-on-regression", "5%")
    other = saved(tmp_path / "driver.json", run(seed=2, driver="asyncpg"))
    outcome = call(files["base"], other, *gate)
    assert outcome.exit_code == 1
    assert "not comparable: different drivers, wire and asyncpg" in outcome.stderr
    elsewhere = saved(tmp_path / "level.json", run(seed=2, concurrency=99))
    assert "no setting in common" in call(files["base"], elsewhere, *gate).stderr


def test_json_markdown_and_picture_are_written(files: dict[str, str], tmp_path: Path) -> None:
    out = {name: str(tmp_path / f"out.{name}") for name in ("json", "md", "svg")}
    arguments = ("--json", out["json"], "--summary", out["md"], "--plot", out["svg"])
    outcome = call(files["base"], files["slow"], files["same"], *arguments)
    assert outcome.exit_code == 0
    content = json.loads(Path(out["json"]).read_text())
    assert content["schema"] == "pool-bench-comparison/1"
    verdicts = [one["settings"][0]["verdict"] for one in content["comparisons"]]
    assert verdicts == ["worse", "no difference shown"]
    figure = content["comparisons"][0]["settings"][0]["figures"][0]
    assert figure["name"] == "throughput"
    assert figure["low"] < figure["change"] < figure["high"] < 0
    assert "c8 · wire: worse" in Path(out["md"]).read_text()
    assert "no difference shown" in Path(out["svg"]).read_text()
    assert [line.split()[0] for line in outcome.stderr.splitlines()] == ["drawing", *["wrote"] * 3]


def test_json_on_stdout_is_nothing_but_json(files: dict[str, str]) -> None:
    outcome = call(files["base"], files["slow"], "--json", "-")
    assert json.loads(outcome.stdout)["comparisons"][0]["settings"][0]["verdict"] == "worse"
    assert "c8 · wire: worse" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("base",), "nothing to be compared with"),
        (("base", "missing.json"), "missing.json"),
        (("base", "broken"), "broken"),
        (("base", "empty"), "holds no run"),
        (("base", "same", "--plot", "picture.gif"), "--plot"),
        (("base", "same", "--json", "base/x.json"), "--json"),
        (("base", "same", "--fail-on-regression", "soon"), "soon"),
        (("base", "same", "--allow", "anything"), "anything"),
        ((), "BASE"),
    ],
)
def test_bad_input_is_exit_code_2(
    files: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    (tmp_path / "broken").write_text("{")
    files = files | {"broken": str(tmp_path / "broken"), "empty": saved(tmp_path / "empty.json")}
    files["base/x.json"] = f"{files['base']}/x.json"
    outcome = call(*(files.get(word, word) for word in arguments))
    assert outcome.exit_code == 2
    assert named in outcome.stderr
    assert outcome.stdout == ""


def test_one_file_is_compared_within_itself(tmp_path: Path) -> None:
    runs = []
    for number in range(1, 4):
        runs.append(run(seed=number, seconds=4, number=number))
        runs.append(run(seed=9 + number, seconds=4, number=number, slower=0.4, setting="query=SELECT 1"))
    outcome = call(saved(tmp_path / "turns.json", *runs))
    assert outcome.exit_code == 0
    assert "3 rounds each: worse" in outcome.stdout


def test_help_answers_without_importing_what_only_a_comparison_needs() -> None:
    script = (
        "import sys\nfrom pool_bench.cli.commands.compare import compare\n"
        "compare.main(['--help'], standalone_mode=False)\n"
        "print(sorted({'numpy', 'matplotlib', 'rich', 'asyncio'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--fail-on-regression" in done.stdout
    assert done.stderr.strip() == "[]"
