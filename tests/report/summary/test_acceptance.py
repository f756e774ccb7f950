"""Targets of `stress`: what holds, what does not, what cannot be asked, and how a user changes them."""

from collections.abc import Mapping, Sequence

import pytest

from pool_bench.report.brief.pools import contests_brief
from pool_bench.report.summary.acceptance import acceptance_sentences, acceptance_table, rows_of, targets
from pool_bench.report.summary.pools import contest_summary
from pool_bench.report.text import Paint
from pool_bench.results.run import RunRecord
from pool_bench.results.thresholds import known_fields, read_thresholds
from pool_bench.results.write import numbers_of_record
from pool_bench.stats.runs import RunResult
from tests.support.results.pools import contest_of, loaded_runs, pool_run
from tests.support.results.runs import session_of


def stressed(
    *,
    leaked: int | None = 0,
    left_open: int | None = 0,
    dead_met: int | None = 0,
    connection_bytes: int | None = 10_000,
    waiter_bytes: int | None = 500,
    timeouts: int = 0,
    clients: int = 100,
) -> RunResult:
    """A round of 5,000 operations with waits of about 3 ms, of acquires that may take 5 s."""
    run = pool_run(scenario="stress", timeouts=timeouts, clients=clients)
    assert run.checkout is not None
    run.checkout.leaked, run.checkout.left_open, run.checkout.dead_met = leaked, left_open, dead_met
    run.checkout.connection_bytes, run.checkout.waiter_bytes = connection_bytes, waiter_bytes
    return run


def outcomes(*runs: RunResult, own: Sequence[str] = (), timeout_s: float = 5.0) -> dict[str, str]:
    """What became of each target, by its name."""
    thresholds = read_thresholds(own, known_fields(pool=True))
    rows = rows_of(loaded_runs(session_of(*runs)), targets(timeout_s, thresholds))
    return {row.name: row.outcome for row in rows}


def test_a_pool_that_does_all_right_holds_every_target() -> None:
    assert set(outcomes(stressed()).values()) == {"held"}


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (stressed(leaked=1), "leaked"),
        (stressed(left_open=2), "open after the close"),
        (stressed(dead_met=1), "dead connections met"),
        (stressed(timeouts=6), "operations served"),
        (stressed(connection_bytes=65_536), "memory per connection"),
        (stressed(waiter_bytes=8_192), "memory per waiter"),
    ],
)
def test_each_target_can_be_missed_by_itself(run: RunResult, name: str) -> None:
    missed = {name for name, outcome in outcomes(run).items() if outcome == "NOT HELD"}
    assert missed == {name}


def test_waits_are_held_against_the_acquire_timeout() -> None:
    # The p95 of the waits is some 5 ms, and the p99 some 7 ms.
    found = outcomes(stressed(), timeout_s=0.016)
    assert (found["wait p95"], found["wait p99"]) == ("NOT HELD", "held")


def test_one_bad_round_is_enough_and_one_that_could_not_be_asked_leaves_it_open() -> None:
    assert outcomes(stressed(), stressed(leaked=1))["leaked"] == "NOT HELD"
    assert outcomes(stressed(leaked=None), stressed(leaked=1))["leaked"] == "NOT HELD"
    assert outcomes(stressed(leaked=None), stressed())["leaked"] == "cannot be asked"
    assert outcomes(stressed(leaked=None))["leaked"] == "cannot be asked"


def test_the_users_threshold_takes_the_place_of_the_target_on_the_same_field() -> None:
    run = stressed(timeouts=6)
    assert outcomes(run, own=["success>=90%"])["operations served"] == "held"
    assert outcomes(run, own=["phases.checkout.p99<1us"])["wait p99"] == "NOT HELD"
    assert list(outcomes(run, own=["p99<1us"])) == list(outcomes(run))


def test_the_table_is_in_the_summary_of_stress_only() -> None:
    (threshold,) = read_thresholds(["checkout.leaked<3"], known_fields(pool=True))
    text = contest_summary(contest_of(session_of(stressed(leaked=2))), "many", thresholds=[threshold])
    row = next(line for line in text.splitlines() if " leaked " in line)
    assert row.split() == ["reference", "leaked", "<", "3", "2", "held"]
    assert "acceptance" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "acceptance" not in contest_summary(contest_of(session_of(pool_run())), "few")


def test_the_last_screen_says_how_many_held_and_names_the_others() -> None:
    found = acceptance_sentences(contest_of(session_of(stressed(leaked=2, left_open=None))), ())
    assert found == [
        "stress 100, reference: 6 of 8 targets held; not held: leaked 2 (target == 0); "
        "cannot be asked: open after the close"
    ]
    # Files of versions that did not look.
    assert acceptance_sentences(contest_of(session_of(pool_run(scenario="stress"))), ()) == []


def test_the_last_screen_has_a_column_for_each_load_of_one_pool_and_for_each_of_few_pools() -> None:
    few, many = contest_of(session_of(stressed())), contest_of(session_of(stressed(leaked=2, clients=200)))
    first, *rows = acceptance_table([few, many], (), Paint(colour=False), width=80)
    assert first.split() == ["acceptance", "target", "stress", "100", "stress", "200"]
    (leaked,) = (row.split() for row in rows if row.startswith("leaked"))
    assert leaked == ["leaked", "==", "0", "0", "held", "2", "NOT", "HELD"]
    assert len(rows) == 8
    # Too many for a screen.
    assert acceptance_table([few] * 4, (), Paint(colour=False), width=80) == []


def test_a_pool_that_could_not_be_closed_is_told() -> None:
    run = stressed()
    assert run.checkout is not None
    run.checkout.close_failure = "not closed after 10 s"
    words = "reference could not be closed: not closed after 10 s."
    contest = contest_of(session_of(run))
    assert words in contest_summary(contest, "many")
    assert words in contests_brief([contest]).body(0)
    written = numbers_of_record(RunRecord.of(run))["checkout"]
    assert isinstance(written, Mapping)
    assert written["close_failure"] == "not closed after 10 s"


def test_what_nobody_looked_for_is_not_in_the_file() -> None:
    runs = [RunRecord.of(run) for run in (stressed(leaked=0, left_open=None), pool_run())]
    first, second = (numbers_of_record(run)["checkout"] for run in runs)
    assert isinstance(first, Mapping)
    assert isinstance(second, Mapping)
    assert (first["leaked"], first["dead_met"]) == (0, 0)
    assert "left_open" not in first
    assert not {"leaked", "left_open", "dead_met"} & second.keys()
