"""Verdicts and calibration in summaries, files and pictures."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pool_bench.report.plot.figures import plot, stamp_words
from pool_bench.report.summary.calibration import calibration_table
from pool_bench.report.summary.hold import hold_summary
from pool_bench.report.summary.run import CLOSED_LOOP_NOTE, run_summary, sweep_table
from pool_bench.report.summary.verdict import suspects_words
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.session import SearchResult, SearchStep, Session
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.calibration import Calibration, ClientFloor
from pool_bench.stats.runs import RunResult
from tests.support.results.holds import Plan, held_run
from tests.support.results.open_loop import open_run
from tests.support.results.runs import (
    TARGET,
    client_of,
    histogram_of_ms,
    intervals_of,
    lognormal_ms,
    run_of,
    stats_of,
)

BUSY = client_of(cpu_share=0.97)


def run(concurrency: int = 50, *, busy: bool = False, count: int = 5000) -> RunResult:
    values = lognormal_ms(count)
    stats = stats_of(values)
    stats.intervals = intervals_of(values, 10.0)
    made = run_of(stats, concurrency=concurrency, client=BUSY if busy else None)
    return replace(made, label=f"c{concurrency}")


def result(*runs: RunResult) -> ResultRecord:
    session = Session("pg-connection-bench", "", datetime(2026, 11, 21, tzinfo=UTC), (), (TARGET,))
    session.runs = list(runs)
    return from_session(session)


def test_a_summary_begins_with_the_verdict_and_ends_with_the_reasons() -> None:
    text = run_summary(RunRecord.of(run(busy=True, count=400)))
    head, *_ = text.split("\n\n")
    assert "verdict: suspect: client was the bottleneck; too few samples" in head
    assert text.count("What helps: ") == 2
    assert "verdict: valid" in run_summary(RunRecord.of(run())).split("\n\n")[0]
    assert "What helps: " not in run_summary(RunRecord.of(run()))


def test_a_pause_takes_the_place_of_the_general_note_on_closed_loops() -> None:
    paused = run(concurrency=4)
    paused.total.latency.merge(histogram_of_ms([1000.0] * 4))
    paused.total.intervals[4] = replace(paused.total.intervals[4], ok=50)
    text = " ".join(run_summary(RunRecord.of(paused)).split())
    assert "answered nothing for about 1s" in text
    assert CLOSED_LOOP_NOTE not in text
    assert CLOSED_LOOP_NOTE in " ".join(run_summary(RunRecord.of(run())).split())


def test_the_summary_of_held_connections_has_its_verdict() -> None:
    assert "verdict: valid" in hold_summary(RunRecord.of(held_run(Plan())), asked=100)
    busy = replace(held_run(Plan()), client=BUSY)
    assert "verdict: suspect: client was the bottleneck" in hold_summary(RunRecord.of(busy), asked=100)


def test_a_sweep_names_the_levels_that_are_suspect() -> None:
    table = sweep_table(list(map(RunRecord.of, [run(1, count=400), run(16, busy=True), run(32, busy=True)])))
    assert "suspect: too few samples (c1); client was the bottleneck (c16, c32)" in table
    assert "suspect" not in sweep_table(list(map(RunRecord.of, [run(1), run(2)])))


def test_the_file_holds_the_verdict_and_gives_it_back() -> None:
    session = Session(
        "x", "", datetime(2026, 11, 21, tzinfo=UTC), (), (TARGET,), runs=[run(busy=True), run()]
    )
    runs = json.loads(dumps(session_to_json(session)))["runs"]
    verdict = runs[0]["verdict"]
    assert verdict["valid"] is False
    assert [reason["code"] for reason in verdict["reasons"]] == ["client_saturated"]
    assert runs[0]["client"]["saturated"] is True
    assert runs[1]["verdict"] == {"valid": True, "reasons": [], "notes": []}
    assert set(runs[1]["client"]["gc"]) == {"pauses", "total_ms", "max_ms"}
    suspect, valid = (one.verdict for one in from_session(session).runs)
    assert suspect is not None
    assert valid is not None
    assert not suspect.valid
    assert suspect.reasons[0].code == "client_saturated"
    assert "another machine" in suspect.reasons[0].remedy
    assert valid.valid


@pytest.mark.parametrize(
    "results",
    [
        lambda: [result(run(busy=True))],
        lambda: [result(run(1), run(16, busy=True), run(32))],
        lambda: [result(run()), result(run(busy=True))],
        lambda: [result(replace(held_run(Plan()), client=BUSY))],
        lambda: [result(held_run(Plan())), result(replace(held_run(Plan()), client=BUSY))],
    ],
    ids=["run", "sweep", "comparison", "held", "held, compared"],
)
def test_every_picture_of_a_suspect_run_is_stamped(results: Callable[[], list[ResultRecord]]) -> None:
    svg = plot(results(), file_format="svg").decode()
    (stamp,) = re.findall(r">(suspect: [^<]*)<", svg)
    assert "client was the bottleneck" in stamp


def test_a_picture_of_a_valid_run_has_no_stamp() -> None:
    assert "suspect" not in plot([result(run())], file_format="svg").decode()


def test_a_run_of_an_older_version_has_no_verdict_and_no_stamp() -> None:
    loaded = result(run(busy=True))
    assert stamp_words([replace(loaded.runs[0], verdict=None)]) == []


def test_runs_of_one_name_are_numbered_on_a_stamp() -> None:
    words = stamp_words([*result(run()).runs, *result(run(busy=True)).runs])
    assert [one.partition("(")[2] for one in words] == ["run 2)", "1 run)"]


def test_a_stamp_without_room_for_all_runs_counts_them_and_mixes_no_reasons() -> None:
    runs = [run(concurrency, busy=concurrency > 100) for concurrency in range(1, 160)]
    svg = plot([result(*runs)], file_format="svg").decode()
    (stamp,) = re.findall(r">(suspect: [^<]*)<", svg)
    assert "…" not in stamp
    assert re.search(r"client was the bottleneck \((c101, c102, c103 and 56 more|59 runs)\)", stamp)


def test_words_on_suspects_leave_the_label_out_where_there_is_one_run() -> None:
    assert suspects_words([("c1", ["few_samples"])]) == "suspect: too few samples"
    assert suspects_words([("c1", []), ("c2", [])]) == ""


def floor(driver: str, concurrency: int, rate: float, server: float = 0.5) -> ClientFloor:
    return ClientFloor(
        driver=driver,
        concurrency=concurrency,
        latency=histogram_of_ms([0.1 * concurrency] * 100),
        throughput=rate,
        cpu_us_per_op=70.0,
        client_cpu_share=0.8,
        server_cpu_share=server,
    )


def test_what_is_the_client_stands_beside_the_latency_it_is_part_of() -> None:
    calibration = Calibration(
        operation="connect", seconds=1.0, floors=(floor("wire", 1, 5000), floor("wire", 50, 10_000))
    )
    calibrated = replace(run(), own=calibration.own("wire", 50))
    text = run_summary(RunRecord.of(calibrated))
    assert re.search(r"of 3\.\d+ ms p50, 0\.1\d* ms is this client", text)
    assert "it could do 10,000 conn/s at concurrency 50, 5.0% of it used" in text
    assert max(map(len, text.splitlines())) <= 100
    assert calibration.own("asyncpg", 50) is None
    own = calibration.own("wire", 400)
    assert own is not None
    assert own.ceiling.concurrency == 50


def test_a_null_server_that_was_busy_itself_is_marked() -> None:
    calm = Calibration(operation="connect", seconds=1.0, floors=(floor("wire", 1, 5000),))
    assert "!" not in calibration_table(calm)
    busy = replace(calm, floors=(*calm.floors, floor("wire", 50, 10_000, server=0.97)))
    assert "97% !" in calibration_table(busy)
    assert "the null server was busy itself" in calibration_table(busy)
    assert calibration_table(replace(calm, floors=())) == ""


def test_a_calibration_fits_a_terminal_of_80_columns() -> None:
    slow = replace(
        floor("surrealdb", 10_000, 123_456, server=0.97),
        latency=histogram_of_ms([20_000.0] * 100),
        cpu_us_per_op=12_345.0,
        client_cpu_share=1.0,
    )
    operation = "connect, query, close over a WebSocket (user and password that nobody hashes), auth signin"
    text = calibration_table(Calibration(operation=operation, seconds=0.5, floors=(slow,)))
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(text.split()).count(f"{operation}; 500ms each") == 1


def test_the_picture_of_a_search_is_stamped_for_the_run_that_is_its_answer() -> None:
    def drawn(*, answer_busy: bool) -> str:
        session = Session("pg-connection-bench", "", datetime(2026, 11, 21, tzinfo=UTC), (), (TARGET,))
        trials = (open_run(), open_run(dropped=2500))
        session.runs = [replace(trials[0], client=BUSY) if answer_busy else trials[0], trials[1]]
        session.find_max = SearchResult("p99<50ms", 50.0, 0.05, found=500.0)
        for index, passed in enumerate((True, False)):
            session.find_max.steps.append(SearchStep(index, 500.0, "raise", passed, (), None, False))
        return plot([from_session(session)], file_format="svg").decode()

    assert "suspect: client was the bottleneck" in drawn(answer_busy=True)
    assert "suspect" not in drawn(answer_busy=False)
