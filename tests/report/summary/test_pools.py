"""Pools under load in the result file and in words."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pool_bench.analysis.scalability import recommend
from pool_bench.compare.pool_sizes import bottlenecks, by_size, sizing_of
from pool_bench.compare.pools import Spread, group_by_load
from pool_bench.errors import UsageError
from pool_bench.report.brief.pools import contests_brief, sizes_brief
from pool_bench.report.summary.pool_sizes import sizes_summary
from pool_bench.report.summary.pools import behaviour_summary, contest_summary, verdict
from pool_bench.report.summary.scenarios import calm_after_s
from pool_bench.results.checkout import RecoveryRecord
from pool_bench.results.model import from_session
from pool_bench.results.read import parse_result
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.runs import RunResult
from tests.support.results.pools import (
    POOLS,
    contest_of,
    loaded_runs,
    pool_run,
    pool_session,
    recovery_of,
    size_session,
)
from tests.support.results.runs import session_of

GROWING = {1: 100.0, 2: 195.0, 4: 370.0, 8: 660.0, 16: 1000.0, 32: 1200.0, 64: 1150.0}


def test_what_is_written_of_a_pool_is_what_is_read_back() -> None:
    run = pool_run("asyncpg", timeouts=4, recovery=recovery_of(None))
    (back,) = loaded_runs(session_of(run))
    one = back.checkout
    assert one is not None
    assert run.checkout is not None
    assert back.pool_setting == run.pool
    assert run.checkout.recovery is not None
    assert one.recovery == RecoveryRecord.of(run.checkout.recovery)
    fairness = run.checkout.fairness
    assert (one.fairness.granted, one.fairness.overtaken, one.fairness.starved) == (5000, 1250, 2)
    assert one.fairness.index == fairness.index
    assert one.fairness.neighbours_histogram.count == fairness.neighbours.count
    assert (one.opened, one.opening_peak, one.size_peak) == (20, 10, 20)
    assert one.bursts_histogram.count == run.checkout.bursts.count
    assert [each.clients for each in one.timeline] == [each.clients for each in run.checkout.intervals]
    assert all(each.wait_p99 is not None for each in one.timeline)
    assert back.driver == "asyncpg"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("checkout", "opened"), -1, "opened is not a count"),
        (("checkout", "fairness", "overtaken"), 10**9, "only 5,000 were granted"),
        (("checkout", "timeline"), 3, "timeline is not a list"),
        (("clients",), "many", "clients is not a count"),
        (("scenario",), 1, "scenario is not text"),
    ],
)
def test_a_damaged_file_names_the_field(path: tuple[str, ...], value: object, complaint: str) -> None:
    content = json.loads(dumps(session_to_json(session_of(pool_run()))))
    place = content["runs"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UsageError, match=complaint):
        parse_result(json.dumps(content), source="r.json")


def test_rates_are_medians_of_rounds_and_percentiles_those_of_all_operations() -> None:
    session = pool_session(pools=("reference",), rounds=3)
    (group,) = contest_of(session).groups
    rates = sorted(run.throughput for run in session.runs)
    assert group.throughput.median == pytest.approx(rates[1], rel=1e-5)
    assert (group.throughput.low, group.throughput.high) == pytest.approx((rates[0], rates[2]), rel=1e-5)
    assert group.latency.count == sum(run.total.ok for run in session.runs)
    assert Spread.of([None, None]) is None


@pytest.mark.parametrize("scenario", ["churn", "query", "burst", "sustained", "ramp", "spike", "reconnect"])
def test_a_summary_fits_names_every_pool_and_says_who_did_best(scenario: str) -> None:
    session = pool_session((scenario,))
    text = contest_summary(contest_of(session), "what it means")
    assert max(map(len, text.splitlines())) <= 100
    assert max(len(line) for line in text.splitlines() if "e.g." not in line) <= 80
    assert all(pool in text for pool in POOLS)
    assert "timeout during checkout" in text
    assert "the waits above are too low" in text
    assert text.splitlines()[0] == scenario
    assert "reference" in text.splitlines()[-1] + text.splitlines()[-2] + text.splitlines()[-3]


def test_the_figures_fit_a_terminal_of_eighty_columns() -> None:
    text = contest_summary(contest_of(pool_session()), "what it means")
    tables = [line for line in text.splitlines() if line.startswith(("pool ", *POOLS))]
    assert len(tables) >= 10
    assert max(map(len, tables)) <= 80


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_pool_whose_run_was_interrupted_is_told_from_one_that_failed(interrupted: bool) -> None:
    cut = pool_run("asyncpg", dead=True)
    cut.interrupted = interrupted
    text = contest_summary(contest_of(session_of(pool_run("reference"), cut)), "what it means")
    assert ("Interrupted: the figures of asyncpg are of what was measured until" in text) is interrupted


def test_pools_whose_rounds_overlap_are_not_called_different() -> None:
    def rounds(counts: Mapping[str, tuple[int, ...]], timeouts: int = 0) -> list[RunResult]:
        return [
            pool_run(pool, count=count, round_=round_, timeouts=timeouts if pool == "reference" else 0)
            for pool, each in counts.items()
            for round_, count in enumerate(each, 1)
        ]

    overlapping = {"reference": (5000, 6000, 5900, 5800), "asyncpg": (5500, 4000, 4100, 4200)}
    assert "not told apart from asyncpg" in verdict(contest_of(session_of(*rounds(overlapping))))
    apart = {"reference": (5000, 6000, 5900, 5800), "asyncpg": (3000, 3100, 3000, 3100)}
    assert "well apart from asyncpg" in verdict(contest_of(session_of(*rounds(apart))))
    fewer = {pool: counts[:2] for pool, counts in apart.items()}
    said = verdict(contest_of(session_of(*rounds(fewer))))
    assert "2 rounds are too few for 2 pools, which take 4 (--rounds 4)" in said
    assert "well apart" not in said
    # Half of what it was asked to do failed: it is not the best, however fast the rest was.
    failing = verdict(contest_of(session_of(*rounds(apart, timeouts=5000))))
    assert "reference is not ranked: 46.8% of its operations failed." in failing
    assert "Most operations" not in failing
    once = session_of(pool_run("reference", count=5000), pool_run("asyncpg", count=100))
    assert "one round is too few for 2 pools" in verdict(contest_of(once))
    dead = session_of(pool_run("reference", dead=True), pool_run("asyncpg", dead=True))
    assert verdict(contest_of(dead)) == "No operation succeeded."


def test_less_is_better_where_it_is_about_time() -> None:
    slow_but_back_soon = [
        pool_run("asyncpg", scenario="reconnect", count=1000, recovery=recovery_of(3.7), round_=round_)
        for round_ in (1, 2)
    ]
    fast_but_late = [
        pool_run("reference", scenario="reconnect", count=9000, recovery=recovery_of(6.0), round_=round_)
        for round_ in (1, 2)
    ]
    told = verdict(contest_of(session_of(*fast_but_late, *slow_but_back_soon)))
    assert told.startswith("All clients back soonest: asyncpg")


def test_clients_that_never_came_back_are_said_so() -> None:
    text = contest_summary(
        contest_of(session_of(pool_run("psycopg", scenario="reconnect", recovery=recovery_of(None)))), "x"
    )
    assert "not all" in text
    assert "50/100" in text
    partly = [
        pool_run("psycopg", scenario="reconnect", recovery=recovery_of(3.6), round_=1),
        pool_run("psycopg", scenario="reconnect", recovery=recovery_of(None), round_=2),
        pool_run("asyncpg", scenario="reconnect", recovery=recovery_of(5.0), round_=1),
        pool_run("asyncpg", scenario="reconnect", recovery=recovery_of(5.1), round_=2),
    ]
    # A round in which some never came back is the worst of all, not one without a figure.
    assert verdict(contest_of(session_of(*partly))).startswith("All clients back soonest: asyncpg")


def test_waits_are_calm_again_when_they_stay_low() -> None:
    (run,) = loaded_runs(session_of(pool_run(scenario="spike")))
    assert run.checkout is not None
    assert calm_after_s(run, run.checkout) == pytest.approx(1.0)
    wild = replace(
        run.checkout, timeline=tuple(replace(one, wait_p99=one.t * 10) for one in run.checkout.timeline)
    )
    assert calm_after_s(run, wild) is None


def test_different_behaviours_are_pointed_out_once() -> None:
    together = group_by_load(loaded_runs(pool_session()))
    text = behaviour_summary(together)
    assert max(map(len, text.splitlines())) <= 100
    assert "asyncpg 1.2.3: return: reset always (1 round trip)" in text
    assert "--reset always or --reset never" in " ".join(text.split())
    alike = group_by_load(loaded_runs(pool_session(pools=("reference", "psycopg"))))
    assert "--reset never" not in behaviour_summary(alike)
    assert behaviour_summary([]) == ""


def test_stress_levels_are_contests_of_their_own() -> None:
    runs = [pool_run(scenario="stress", clients=clients) for clients in (1000, 2000)]
    assert [one.label for one in group_by_load(loaded_runs(session_of(*runs)))] == [
        "stress 1,000",
        "stress 2,000",
    ]


def test_a_sweep_of_sizes_is_summed_up_with_its_recommendation() -> None:
    session = size_session(GROWING)
    groups = by_size(loaded_runs(session))
    assert [size for size, _ in groups] == list(GROWING)
    sizing = sizing_of(groups)
    assert sizing is not None
    text = sizes_summary(groups, sizing)
    assert max(map(len, text.splitlines())) <= 100
    assert f"Recommended: {sizing.knee} connections" in text
    assert "limit: this client" not in text
    assert "every run is valid" in text or "suspect: too few samples" in text
    session.sizing = sizing
    content = session_to_json(session)
    written = content["sizing"]
    assert isinstance(written, dict)
    assert written["recommended"] == sizing.knee
    assert from_session(session).runs[0].checkout is not None
    json.dumps(content, allow_nan=False)


def test_a_knee_that_the_client_made_is_pointed_out() -> None:
    session = size_session(GROWING)
    for run in session.runs:
        if run.pool is not None and run.pool.size >= 8:
            run.client.cpu_s = run.client.wall_s * 0.99
    groups = by_size(loaded_runs(session))
    sizing = sizing_of(groups)
    assert sizing is not None
    for text in (sizes_summary(groups, sizing), "\n".join(sizes_brief(groups, sizing).headline)):
        words = " ".join(text.split())
        assert re.search(
            r"suspect: (\S[^.]*; )?client was the bottleneck \(\d+ runs\); "
            "limit: this client from size 8 on, so the knee may be",
            words,
        )
        assert words.count("limit: ") == 1


def test_sizes_at_which_the_client_was_the_limit_are_named_where_others_lie_between() -> None:
    session = size_session(GROWING)
    for run in session.runs:
        if run.pool is not None and run.pool.size in {4, 16}:
            run.client.cpu_s = run.client.wall_s * 0.99
    groups = by_size(loaded_runs(session))
    sizing = sizing_of(groups)
    assert sizing is not None
    assert bottlenecks(groups, sizing).startswith("limit: this client at size 4, 16, so ")


@pytest.mark.parametrize("share", [0.4, 0.99])
def test_verdict_and_limit_of_pools_are_one_sentence_that_does_not_contradict_itself(share: float) -> None:
    session = pool_session(("query",), pools=("reference", "asyncpg"))
    for run in session.runs:
        if run.driver == "asyncpg":
            run.client.cpu_s = run.client.wall_s * share
    words = " ".join(" ".join(contests_brief([contest_of(session)]).headline).split())
    if share > 0.9:
        assert words.endswith(
            "suspect: client was the bottleneck (3 runs); limit: this client, not the server, with asyncpg"
        )
    else:
        assert words.endswith("every run is valid")
        assert "limit" not in words


def test_an_infinite_peak_can_be_written() -> None:
    session = size_session({size: 100.0 * size for size in (1, 2, 4, 8, 16)})
    groups = by_size(loaded_runs(session))
    session.sizing = sizing_of(groups)
    assert session.sizing is not None
    assert session.sizing.growing
    json.dumps(session_to_json(session), allow_nan=False)
    session.sizing = recommend([])
    json.dumps(session_to_json(session), allow_nan=False)
