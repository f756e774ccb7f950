"""Open-loop runs in lines, summaries, files and pictures."""

import io
import json
from dataclasses import replace

import pytest

from pool_bench.report.live.lines import OperationLineView, Totals, header_line, snapshot_line
from pool_bench.report.plot.figures import plot
from pool_bench.report.plot.run import draw_run, phases_of
from pool_bench.report.summary.run import CLOSED_LOOP_NOTE, WIDTH, run_summary
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.write import session_to_json
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Stage
from tests.support.results.open_loop import open_run
from tests.support.results.runs import session_of, snapshot_of, stats_of, typical_run


def _words(text: str) -> str:
    return " ".join(text.split())


def test_response_and_service_stand_under_each_other() -> None:
    run = open_run()
    summary = run_summary(RunRecord.of(run))
    lines = summary.splitlines()
    response = next(index for index, line in enumerate(lines) if line.startswith("response, ms"))
    service = next(index for index, line in enumerate(lines) if line.startswith("service, ms"))
    assert response < service
    assert "latency, ms" not in summary
    assert all(len(line) <= WIDTH for line in lines)
    assert "500 conn/s of 500/s due 5,000 due 5,000 ok" in _words(summary)
    assert "schedule error p50" in summary
    assert CLOSED_LOOP_NOTE not in _words(summary)


def test_what_was_dropped_counts_against_success_and_is_explained() -> None:
    run = open_run(dropped=1000)
    words = _words(run_summary(RunRecord.of(run)))
    assert "1,000 dropped success 80.0%" in words
    assert "1,000 of 5,000 operations that were due (20.0%) were given up before they were begun" in words


def test_a_client_that_is_late_was_the_bottleneck() -> None:
    run = open_run()
    run.total.schedule_error = stats_of([20.0] * 100).latency
    assert run.saturation is not None
    assert "it began operations 20.0 ms after they were due (p99)" in run.saturation


def test_a_closed_loop_says_what_it_hides() -> None:
    assert CLOSED_LOOP_NOTE in _words(run_summary(RunRecord.of(typical_run())))


def test_phases_are_shares_of_the_service_time() -> None:
    result = from_session(session_of(open_run()))
    shares = sum(share for _, _, share in phases_of(result.runs[0]))
    assert shares == pytest.approx(1.05, abs=0.15)


def test_the_file_holds_what_was_due_and_both_times() -> None:
    content = json.loads(json.dumps(session_to_json(session_of(open_run(dropped=7)))))["runs"][0]
    assert content["rate"] == 500
    assert (content["offered"], content["dropped"]) == (5000, 7)
    assert set(content["service_ms"]) == set(content["schedule_error_ms"]) == set(content["latency_ms"])
    assert content["service_ms"]["p50"] < content["latency_ms"]["p50"]
    additions = {"offered", "dropped", "service_p50", "service_p99", "late_ms"}
    assert additions <= set(content["timeline"][0])
    closed = json.loads(json.dumps(session_to_json(session_of(typical_run()))))["runs"][0]
    assert closed["rate"] is None
    assert not {"offered", "dropped", "service_ms"} & set(closed)


def test_what_is_read_back_is_what_was_written() -> None:
    run = open_run(dropped=7)
    loaded = from_session(session_of(run)).runs[0]
    assert loaded.open_loop is not None
    assert (loaded.open_loop.rate, loaded.open_loop.offered, loaded.open_loop.dropped) == (500, 5000, 7)
    assert loaded.open_loop.service_histogram.count == run.total.ok
    assert loaded.success_rate == run.total.success_rate
    assert loaded.timeline[0].offered == run.total.intervals[0].offered
    assert from_session(session_of(typical_run())).runs[0].open_loop is None


def test_targets_of_an_open_loop_have_their_own_share_in_the_file() -> None:
    run = open_run()
    run = replace(run, per_target=(run.total, run.total), targets=("a", "b"))
    targets = json.loads(json.dumps(session_to_json(session_of(run))))["runs"][0]["targets"]
    assert [one["offered"] for one in targets] == [5000, 5000]


def test_lines_of_an_open_loop_have_columns_of_their_own() -> None:
    stats = stats_of([1.0] * 40)
    stats.offered, stats.dropped = 50, 10
    snapshot = replace(snapshot_of(stats), waiting=3)
    totals = Totals()
    totals.add(snapshot)
    names = header_line(1, open_loop=True).split()
    cells = dict(zip(names, snapshot_line(snapshot, totals).split(), strict=True))
    assert (cells["due/s"], cells["waiting"], cells["dropped"]) == ("50", "3", "10")
    assert names[: len(header_line().split()) - 1] == header_line().split()[:-1]
    stream = io.StringIO()
    view = OperationLineView(stream)
    view.begin_run("r50", 1, 1, 1.0, 0.0)
    view.update(snapshot)
    assert "due/s" in stream.getvalue()


def test_a_second_of_a_closed_loop_has_no_such_columns() -> None:
    names = header_line().split()
    assert "due/s" not in names
    assert len(snapshot_line(snapshot_of(stats_of([1.0])), Totals()).split()) == len(names)


def test_a_second_in_which_nothing_was_due_is_shown() -> None:
    snapshot = replace(snapshot_of(BenchStats(), stage=Stage.WARMUP), waiting=0)
    cells = snapshot_line(snapshot, Totals()).split()
    assert len(cells) == len(header_line(1, open_loop=True).split())


def test_the_picture_shows_what_was_due_beside_what_was_achieved() -> None:
    result = from_session(session_of(open_run(dropped=50)))
    sheet = draw_run(result, result.runs[0])
    texts = [text.get_text() for text in sheet.labels]
    assert "due" in texts
    assert "Response time" in texts
    assert any("50 of 5,000 due were dropped" in text for text in texts)
    assert plot([result]).startswith(b"\x89PNG")
