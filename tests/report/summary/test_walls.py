"""A wall that connections have met, in summaries and in the file."""

import json

import pytest

from pool_bench.report.brief.hold import hold_brief
from pool_bench.report.brief.run import run_brief
from pool_bench.report.summary.hold import hold_summary
from pool_bench.report.summary.run import run_summary
from pool_bench.results.read import parse_result
from pool_bench.results.run import RunRecord
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.runs import RunResult
from pool_bench.stats.walls import Wall, WallKind
from tests.support.results.holds import Plan, held_run
from tests.support.results.runs import run_of, session_of, stats_of

WORDS = (
    "the accept queue of port 6432 is full: 129 wait in it, its size is 128; pgbouncer does not accept them"
)


def met(run: RunResult, words: str = WORDS, held: int = 101) -> RunResult:
    run.wall = Wall(WallKind.ACCEPT_QUEUE, words, 128, 129, 4.0031, held)
    return run


@pytest.mark.parametrize("verbose", [False, True])
def test_it_is_among_the_last_lines_of_both_sorts_of_runs(verbose: bool) -> None:
    cycles, held = met(run_of(stats_of([1.0] * 50)), held=0), met(held_run(Plan()))
    if verbose:
        texts = [run_summary(RunRecord.of(cycles)), hold_summary(RunRecord.of(held), asked=500)]
    else:
        texts = [
            "\n".join(run_brief(RunRecord.of(cycles)).headline),
            "\n".join(hold_brief(RunRecord.of(held), asked=500).headline),
        ]
    for text, start in zip(texts, ("wall: ", "wall at 101 connections: "), strict=True):
        lines = text.splitlines()
        first = next(index for index, line in enumerate(lines) if line.startswith(start))
        # It goes on in lines that are set in.
        whole = " ".join(line.strip() for line in lines[first : first + 2])
        assert whole.startswith(start + WORDS)
        assert max(map(len, lines[first : first + 2])) <= 80


def test_where_none_was_met_nothing_is_said() -> None:
    assert "wall" not in run_summary(RunRecord.of(run_of(stats_of([1.0] * 50))))
    assert "wall" not in hold_summary(RunRecord.of(held_run(Plan())), asked=500)
    content = session_to_json(session_of(run_of(stats_of([1.0]))))
    assert "wall" not in json.loads(dumps(content))["runs"][0]


def test_what_a_server_put_into_it_is_cleaned() -> None:
    text = hold_summary(
        RunRecord.of(met(held_run(Plan()), "max_connections: \x1b[31mso\u202erry\nyou")), asked=500
    )
    assert "max_connections: [31mso rry you" in text


def test_the_file_has_its_figures_and_can_be_read_again() -> None:
    content = dumps(session_to_json(session_of(met(run_of(stats_of([1.0]))))))
    assert json.loads(content)["runs"][0]["wall"] == {
        "kind": "accept_queue",
        "words": WORDS,
        "limit": 128,
        "used": 129,
        "t": 4.0031,
        "held": 101,
    }
    assert parse_result(content.decode(), source="x").runs[0].ok == 1
