"""Runs of pools compared: what belongs together, what differs, and what the same thing twice looks like."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pool_bench.compare.change import Change
from pool_bench.compare.comparison import ALLOWABLE, Comparison, Obstacle, compare
from pool_bench.compare.round_samples import measured_round
from pool_bench.compare.settings import settings_of
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.run import ReasonRecord, VerdictRecord
from pool_bench.stats.checkouts import CheckoutInterval
from pool_bench.stats.operations import Interval
from pool_bench.stats.runs import RunResult
from pool_bench.stats.timeline import Timeline
from tests.support.results.noise import Noise, noisy_levels
from tests.support.results.pools import TIMED_OUT, pool_run, pool_session, recovery_of, size_session
from tests.support.results.runs import histogram_of_ms, session_of

LOOK_S = 0.25


def noisy_run(
    rng: np.random.Generator,
    noise: Noise,
    *,
    slower: float = 0.0,
    round_: int = 1,
    seconds: float = 4.0,
    **what: object,
) -> RunResult:
    """A run of a pool, looked at four times a second, whose looks have the noise of real ones."""
    looks = round(seconds / LOOK_S)
    levels = noisy_levels(rng, noise, looks) + np.log(1 - slower)
    parts = [rng.lognormal(1.5, 0.4, max(int(60 * np.exp(level)), 1)) / np.exp(level) for level in levels]
    run = pool_run(round_=round_, duration_s=seconds, **what)  # type: ignore[arg-type]
    run.label = f"query · reference, round {round_} of 5"
    values = np.concatenate(parts)
    run.total.latency = histogram_of_ms(values)
    run.total.ok = len(values)
    run.total.intervals = Timeline()
    for index, part in enumerate(parts, 1):
        one = Interval(index * LOOK_S, LOOK_S, len(part), 0, 100, 0.1, 0.1, histogram_of_ms(part))
        one.seal()
        run.total.intervals.append(one)
    assert run.checkout is not None
    run.checkout.intervals = Timeline(
        [CheckoutInterval(one.t, 100, 20, 0, histogram_of_ms([1.0, 2.0])) for one in run.total.intervals]
    )
    return run


def file(*runs: RunResult) -> ResultRecord:
    return from_session(session_of(*runs))


def rounds(
    rng: np.random.Generator, noise: Noise, count: int, *, slower: float = 0.0, **what: object
) -> ResultRecord:
    numbers = range(1, count + 1)
    return file(*(noisy_run(rng, noise, round_=n, slower=slower, **what) for n in numbers))  # type: ignore[arg-type]


def obstacles(comparison: Comparison) -> set[Obstacle]:
    return {one.obstacle for pair in comparison.pairs for one in pair.obstructions}


def test_looks_of_a_quarter_of_a_second_are_looks_and_not_one_row() -> None:
    taken = measured_round(rounds(np.random.default_rng(1), Noise(), 1).runs[0])
    assert taken is not None
    assert len(taken.ok) == 16
    assert taken.seconds.tolist() == [LOOK_S] * 16


@pytest.mark.parametrize(
    ("noise", "count"), [(Noise(mood=0.05), 3), (Noise(per_second=0.15, correlation=0.7), 5)], ids=str
)
def test_the_same_pool_twice_is_called_different_at_most_one_time_in_twenty(noise: Noise, count: int) -> None:
    rng = np.random.default_rng(3)
    files = [rounds(rng, noise, count) for _ in range(41)]
    verdicts = [compare(one, other).pairs[0].verdict for one, other in pairwise(files)]
    assert sum(verdict in (Change.BETTER, Change.WORSE, Change.MIXED) for verdict in verdicts) <= 2


def test_a_pool_that_is_a_third_slower_is_found_in_nine_of_ten_comparisons() -> None:
    rng = np.random.default_rng(4)
    noise = Noise(mood=0.03)
    found = [compare(rounds(rng, noise, 5), rounds(rng, noise, 5, slower=0.3)).pairs[0] for _ in range(20)]
    assert sum(pair.verdict is Change.WORSE for pair in found) >= 18


def test_rounds_are_rounds_whatever_their_labels_say() -> None:
    (setting,) = settings_of(rounds(np.random.default_rng(1), Noise(), 5))
    assert [run.round for run in setting.runs] == [1, 2, 3, 4, 5]
    assert setting.label == "reference · query · size 20"


def test_sizes_of_a_sweep_are_settings_and_no_rounds() -> None:
    sweep = from_session(size_session({2: 100.0, 20: 300.0}))
    assert [len(setting.runs) for setting in settings_of(sweep)] == [3, 3]
    comparison = compare(sweep, from_session(size_session({2: 100.0, 40: 300.0})))
    assert [pair.label for pair in comparison.pairs] == ["reference · size 2"]
    assert [words.partition(" is only")[0] for words in comparison.missing] == [
        "reference · size 20",
        "reference · size 40",
    ]


def changed(run: RunResult, **changes: object) -> RunResult:
    assert run.pool is not None
    run.pool = replace(run.pool, **changes)  # type: ignore[arg-type]
    return run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 2}, "size 20 and 2"),
        ({"clients": 1000}, "clients 100 and 1,000"),
        ({"hold_s": 0.005}, "hold 0ms and 5ms"),
        ({"reset": "always"}, "reset own and always"),
        ({"query": "SELECT 2"}, "query SELECT 1 and SELECT 2"),
    ],
)
def test_what_differs_between_two_settings_is_listed_and_refused(
    changes: dict[str, object], words: str
) -> None:
    rng = np.random.default_rng(1)
    base = rounds(rng, Noise(), 3)
    new = file(*(changed(noisy_run(rng, Noise(), round_=n), **changes) for n in (1, 2, 3)))
    comparison = compare(base, new)
    assert obstacles(comparison) == {Obstacle.SETTING}
    assert comparison.pairs[0].verdict is Change.NOT_COMPARABLE
    assert comparison.pairs[0].obstructions[0].words == f"different settings, {words}"
    (allowed,) = compare(base, new, allow=ALLOWABLE).pairs
    assert allowed.verdict is Change.SAME


def test_other_pools_are_compared_only_where_that_is_allowed_and_other_scenarios_never() -> None:
    rng = np.random.default_rng(1)
    base = rounds(rng, Noise(), 3)
    other = rounds(rng, Noise(), 3, pool="asyncpg")
    assert obstacles(compare(base, other)) == {Obstacle.DRIVER}
    assert compare(base, other).pairs[0].obstructions[0].words == "different pools, reference and asyncpg"
    assert not compare(base, rounds(rng, Noise(), 3, scenario="sustained")).pairs


@pytest.mark.parametrize("scenario", ["burst", "ramp", "spike", "reconnect"])
def test_loads_that_change_are_compared_by_whole_rounds(scenario: str) -> None:
    def rounds_of(count: int) -> ResultRecord:
        return from_session(pool_session([scenario], pools=["reference"], rounds=count))

    (few,) = compare(rounds_of(2), rounds_of(2)).pairs
    assert {one.obstacle for one in few.obstructions} == {Obstacle.ROUNDS}
    assert "2 rounds" in few.obstructions[0].words
    assert all(figure.low is None for figure in few.figures)
    (same,) = compare(rounds_of(3), rounds_of(3)).pairs
    assert same.verdict is Change.SAME
    assert all(figure.change == 0 for figure in same.figures)


def test_clients_that_came_back_sooner_are_seen() -> None:
    def restarts(extra_s: float) -> ResultRecord:
        return file(
            *(
                pool_run(scenario="reconnect", round_=n, recovery=recovery_of(4.0 + extra_s + n / 50))
                for n in range(1, 6)
            )
        )

    (pair,) = compare(restarts(0.0), restarts(2.0)).pairs
    figure = next(one for one in pair.figures if one.quantity.name == "all back")
    assert figure.verdict is Change.WORSE
    assert figure.base == pytest.approx(560)
    assert figure.new == pytest.approx(2560)


def with_reason(result: ResultRecord, code: str) -> ResultRecord:
    verdict = VerdictRecord(False, (ReasonRecord(code, "It waited.", "wait less"),))
    return replace(result, runs=tuple(replace(run, verdict=verdict) for run in result.runs))


def test_a_starved_client_leaves_throughput_to_be_compared_and_no_latency() -> None:
    rng = np.random.default_rng(1)
    base, starved = (
        rounds(rng, Noise(), 3),
        with_reason(rounds(rng, Noise(), 3, slower=0.3), "client_starved"),
    )
    (pair,) = compare(base, starved).pairs
    assert {one.quantity.name: one.verdict for one in pair.figures} == {
        "throughput": Change.WORSE,
        "p50": Change.UNKNOWN,
        "p95": Change.UNKNOWN,
        "p99": Change.UNKNOWN,
        "failed": Change.SAME,
    }
    assert any("latencies are not judged" in note for note in pair.notes)
    (allowed,) = compare(base, starved, allow=("starved",)).pairs
    assert allowed.figures[1].low is not None


def test_an_interval_that_means_nothing_is_too_little_data() -> None:
    rng = np.random.default_rng(2)
    (pair,) = compare(
        rounds(rng, Noise(mood=1.5), 3, seconds=4.0), rounds(rng, Noise(mood=1.5), 3, seconds=4.0)
    ).pairs
    assert pair.figures[0].verdict is Change.UNKNOWN
    assert pair.figures[0].low is pair.figures[0].high is None


def test_what_did_not_start_is_said_and_compared_with_nothing() -> None:
    rng = np.random.default_rng(1)
    lost = pool_run("psycopg", dead=True)
    lost.not_started = "too many clients already"
    base = file(*(noisy_run(rng, Noise(), round_=n) for n in (1, 2, 3)), lost)
    comparison = compare(base, rounds(rng, Noise(), 3))
    assert len(comparison.pairs) == 1
    assert comparison.missing == ("psycopg did not start in this run: too many clients already",)
    assert TIMED_OUT not in lost.total.failures
