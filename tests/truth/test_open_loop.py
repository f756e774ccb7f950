"""Open-loop load against a server of known behaviour: what was due counts, not what the server let begin."""

import asyncio
import time

import numpy as np
import pytest

from pool_bench.analysis.verdict import judge
from pool_bench.load.arrivals import constant
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed, LogNormal, Stall
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.histogram import Histogram
from tests.support.generators import run, target
from tests.support.measuring import (
    Measured,
    assert_agrees,
    floor_of,
    measure,
    once_more_if_disturbed,
    until_undisturbed,
)
from tests.truth.test_generator import result_of


def at(rate: float) -> OpenLoop:
    """Arrivals of a constant rate."""
    return OpenLoop(profile=constant(rate))


def codes(measured: Measured) -> list[str]:
    """Codes of the reasons to doubt a run."""
    return [str(reason.code) for reason in judge(measured.run).reasons]


@pytest.mark.quiet
def test_response_times_are_those_of_the_server_and_nothing_due_is_left_out() -> None:
    def check(measured: Measured, floor: Histogram) -> None:
        total, truth = measured.run.total, measured.truth
        assert total.offered == total.ok == truth.served == 200
        assert total.dropped == total.failed == total.unfinished == 0
        assert_agrees(measured, total.latency, truth.total, floor)

    settings = {"open_loop": at(200), "concurrency": 200}
    behaviour = Behaviour(auth=LogNormal(0.03, 0.3))
    until_undisturbed(check, behaviour, floor_of(**settings), duration_s=1.0, **settings)


def test_l1_a_stall_of_a_second_is_seen_by_all_that_were_due_in_it() -> None:
    rate, before_s, after_s = 400, 0.5, 0.5

    def check(measured: Measured) -> None:
        total, truth = measured.run.total, measured.truth
        assert total.offered == (before_s + 1 + after_s) * rate
        assert total.ok == truth.served == total.offered
        assert total.dropped == 0
        stall_s, longest_s = truth.stall_ns / 1e9, total.latency.max_ns / 1e9
        assert longest_s >= stall_s >= 1.0
        for seconds in (0.1, 0.25, 0.5, 0.75, 0.9):
            waited = int(total.latency.binned(np.array([seconds * 1e3]))[1])
            # Who was due x seconds before its end waited x seconds, and then until the queue had gone.
            assert waited >= (stall_s - seconds) * rate * 0.98 - 1
            # Those that were due after it wait behind them, but none that was due well before it.
            assert waited <= total.ok - (before_s - 0.2) * rate
        assert judge(measured.run).notes == ()

    behaviour = Behaviour(stall=Stall(at_s=before_s))
    settings = {
        "open_loop": at(rate),
        "concurrency": 4000,
        "duration_s": before_s + 1 + after_s,
        "tick_s": 0.5,
    }
    once_more_if_disturbed(lambda: measure(behaviour, **settings), check)


def test_a_rate_beyond_what_may_be_in_flight_is_not_achieved() -> None:
    measured = measure(Behaviour(auth=Fixed(0.1)), open_loop=at(400), concurrency=5, duration_s=0.6)
    total = measured.run.total
    assert total.offered == 240
    assert total.offered == total.ok + total.dropped
    # Six rounds of five, and what begins as the end is near or seen late.
    assert total.ok == measured.truth.served <= 60
    assert "rate_not_achieved" in codes(measured)
    (reason,) = [r for r in judge(measured.run).reasons if r.code == "rate_not_achieved"]
    assert f"{total.dropped:,} of 240" in reason.text
    assert "--max-in-flight" in reason.remedy


def test_a_rate_that_is_achieved_is_not_blamed() -> None:
    measured = measure(Behaviour(auth=Fixed(0.01)), open_loop=at(200), concurrency=100, duration_s=0.5)
    assert measured.run.total.ok == measured.truth.served == 100
    assert "rate_not_achieved" not in codes(measured)


def test_l5_a_generator_that_cannot_keep_its_schedule_says_so() -> None:
    async def burn(stop: asyncio.Event) -> None:
        while not stop.is_set():
            time.sleep(0.04)  # noqa: ASYNC251  # what this is about
            await asyncio.sleep(0)

    with ScriptedPostgres(Behaviour(auth=Fixed(0.005))) as server:
        spec = ConnectSpec(
            targets=(target(server.url()),), open_loop=at(300), concurrency=1000, warmup_s=0.1, duration_s=0.6
        )
        result = result_of(run(spec, during=burn), spec)
    result.rate = 300.0
    slipped = [reason for reason in judge(result).reasons if reason.code == "schedule_slipped"]
    assert len(slipped) == 1
    assert result.total.schedule_error.percentile_ms(50) > 10  # type: ignore[operator]
