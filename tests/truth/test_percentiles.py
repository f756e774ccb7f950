"""Reported percentiles and counts against those of a server of known behaviour."""

import numpy as np
import pytest

from pool_bench.analysis.verdict import judge
from pool_bench.errors import FailureKind, Phase
from pool_bench.servers.scripted.behaviour import Behaviour, Bimodal, Fixed, LogNormal, Stall
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import RunResult
from tests.support.measuring import (
    Measured,
    assert_agrees,
    attempts,
    floor_of,
    measure,
    once_more_if_disturbed,
    phase,
    until_undisturbed,
)

CONCURRENCY = 5
SETTINGS = {"concurrency": CONCURRENCY, "duration_s": 1.0}


@pytest.fixture(scope="module")
def floor() -> Histogram:
    """What the client, the kernel and a server that answers at once take together."""
    return floor_of(concurrency=CONCURRENCY)


@pytest.mark.quiet
@pytest.mark.parametrize(
    "auth",
    [Fixed(0.04), Bimodal(0.01, 0.08, 0.2), LogNormal(0.006, 0.5)],
    ids=["fixed", "bimodal", "log-normal"],
)
def test_percentiles_are_those_of_the_server(auth: Fixed | Bimodal | LogNormal, floor: Histogram) -> None:
    def check(measured: Measured, floor: Histogram) -> None:
        run, truth = measured.run, measured.truth
        assert run.total.failed == run.total.unfinished == truth.abandoned == 0
        assert run.total.ok == truth.served == truth.accepted
        assert_agrees(measured, run.total.latency, truth.total, floor)
        assert_agrees(measured, phase(run, Phase.AUTH), truth.phases[Phase.AUTH], floor)
        if isinstance(auth, Bimodal):
            between_ms = np.array([45.0])
            assert list(run.total.latency.binned(between_ms)) == list(truth.total.binned(between_ms))

    until_undisturbed(check, Behaviour(auth=auth), floor, **SETTINGS)


@pytest.mark.quiet
def test_each_phase_is_the_one_that_the_server_delayed(floor: Histogram) -> None:
    delayed = {Phase.AUTH: 0.012, Phase.READY: 0.024, Phase.QUERY: 0.006, Phase.CLOSE: 0.018}

    def check(measured: Measured, floor: Histogram) -> None:
        for name in delayed:
            assert_agrees(measured, phase(measured.run, name), measured.truth.phases[name], floor)
        assert measured.truth.queries == measured.truth.served
        shares = {name: phase(measured.run, name).total_s for name in delayed}
        assert sorted(shares, key=shares.__getitem__) == sorted(delayed, key=delayed.__getitem__)

    behaviour = Behaviour(**{str(name): Fixed(seconds) for name, seconds in delayed.items()})  # type: ignore[arg-type]
    until_undisturbed(check, behaviour, floor, query="SELECT 1", **SETTINGS)


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_resets_are_counted_one_by_one(driver: str) -> None:
    behaviour = Behaviour(auth=Fixed(0.002), reset_share=0.05)
    measured = measure(behaviour, attempts(100), driver=driver, concurrency=10)
    run, truth = measured.run, measured.truth
    assert truth.resets == truth.accepted // 20 > 0
    assert run.total.failed == truth.resets
    assert set(run.total.errors) <= {FailureKind.RESET, FailureKind.CLOSED}
    assert run.total.ok == truth.served == truth.accepted - truth.resets


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_a_cap_on_connections_is_seen_as_one_refusal_each(driver: str) -> None:
    def both(result: RunResult) -> bool:
        return result.total.ok >= 20 and result.total.failed >= 10

    behaviour = Behaviour(auth=Fixed(0.02), max_connections=6)
    measured = measure(behaviour, both, driver=driver, concurrency=10)
    run, truth = measured.run, measured.truth
    assert truth.open_peak == 6
    assert run.total.errors == {FailureKind.TOO_MANY_CONNECTIONS: truth.refused}
    assert truth.refused > 0
    assert {key.sqlstate for key in run.total.failures} == {"53300"}
    assert run.total.ok == truth.served


def test_l10_failures_are_timed_apart_from_successes() -> None:
    behaviour = Behaviour(auth=Fixed(0.2), reset_share=0.8)
    run = measure(behaviour, attempts(100), concurrency=10).run
    assert run.total.failed > 2 * run.total.ok > 0
    fastest_success = run.total.latency.min_ns
    assert fastest_success >= 200e6
    # Mixed into one distribution, most of it would be failures.
    assert run.total.failure_latency.percentile_ms(50) < 0.5 * fastest_success / 1e6  # type: ignore[operator]
    assert run.total.failure_latency.min_ns > 0


def test_l8_a_cold_start_stays_in_the_warm_up() -> None:
    # As many as begin together, so that all are begun in the warm-up, however long the client stands still.
    behaviour = Behaviour(auth=Fixed(0.005), cold=10, cold_auth=Fixed(0.3))
    run = measure(behaviour, lambda result: result.total.ok >= 200, concurrency=10, warmup_s=0.5).run
    assert run.warmup.latency.binned(np.array([299.0]))[1] >= 10
    # Those who may have been slow for another reason are fewer than a tenth.
    assert run.total.latency.percentile_ms(90) < 300  # type: ignore[operator]
    assert run.total.latency.min_ns < 299e6


def test_l1_a_stall_of_a_second_is_noted_as_hidden_by_a_closed_loop() -> None:
    def check(measured: Measured) -> None:
        run, truth = measured.run, measured.truth
        assert truth.stall_ns >= 1_000_000_000
        # Every worker shows it once, where a hundred operations would have been due.
        assert run.total.latency.binned(np.array([500.0]))[1] == 4
        assert run.total.latency.percentile_ms(99) < 500  # type: ignore[operator]
        (note,) = judge(run).notes
        assert note.code == "hidden_pause"
        assert "closed loop" in note.text
        assert "--rate" in note.remedy

    behaviour = Behaviour(auth=Fixed(0.005), stall=Stall(at_s=0.5))
    once_more_if_disturbed(lambda: measure(behaviour, concurrency=4, duration_s=2.5, tick_s=0.25), check)


def test_a_stall_that_is_not_there_is_not_noted() -> None:
    def check(measured: Measured) -> None:
        assert measured.run.total.latency.max_ns > 300e6
        assert judge(measured.run).notes == ()

    behaviour = Behaviour(auth=Bimodal(0.005, 0.3, 0.02))
    once_more_if_disturbed(lambda: measure(behaviour, concurrency=4, duration_s=1.5, tick_s=0.25), check)
