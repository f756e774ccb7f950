"""The alarm: it rings once, not before its time, and leaves nothing behind."""

import asyncio
import time
from collections.abc import Callable
from time import perf_counter_ns

import pytest
import uvloop

from pool_bench.load.timer import LoopTimer, Timer, TimerFd, make_timer
from tests.support.generators import MARGIN_S, nothing_left

MakeAlarm = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Timer]
every_alarm = pytest.mark.parametrize("make", [TimerFd, LoopTimer, make_timer])
every_loop = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])


def _rings(
    make: MakeAlarm,
    factory: Callable[[], asyncio.AbstractEventLoop],
    act: Callable[[Timer], None],
    *,
    awaited: bool,
) -> list[int]:
    """When it rang, nanoseconds after the beginning; `awaited` if it is to."""
    rang: list[int] = []

    async def main() -> None:
        began_ns = perf_counter_ns()
        first = asyncio.Event()

        def ring() -> None:
            rang.append(perf_counter_ns() - began_ns)
            first.set()

        alarm = make(asyncio.get_running_loop(), ring)
        try:
            act(alarm)
            if awaited:
                async with asyncio.timeout(MARGIN_S):
                    await first.wait()
            # For one ring too many.
            await asyncio.sleep(0.05)
        finally:
            alarm.close()
            alarm.close()

    with nothing_left(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    return rang


@every_alarm
@every_loop
def test_it_rings_once_and_not_early(
    make: MakeAlarm, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    rang = _rings(make, factory, lambda alarm: alarm.set(perf_counter_ns() + 30_000_000), awaited=True)
    assert len(rang) == 1
    # libuv counts whole milliseconds from the last turn of its loop.
    assert rang[0] >= (30_000_000 if make is TimerFd else 28_000_000)


@every_alarm
@every_loop
def test_the_past_is_now(make: MakeAlarm, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    assert len(_rings(make, factory, lambda alarm: alarm.set(perf_counter_ns() - 5), awaited=True)) == 1
    assert len(_rings(make, factory, lambda alarm: alarm.set(0), awaited=True)) == 1


@every_alarm
@every_loop
def test_only_the_last_setting_counts(
    make: MakeAlarm, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def act(alarm: Timer) -> None:
        alarm.set(perf_counter_ns())
        alarm.set(perf_counter_ns() + 3_600_000_000_000)

    assert _rings(make, factory, act, awaited=False) == []


@every_alarm
@every_loop
def test_a_ring_that_the_kernel_has_reported_is_forgotten_when_it_is_set_anew(
    make: MakeAlarm, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    def act(alarm: Timer) -> None:
        alarm.set(perf_counter_ns() + 1_000_000)
        # Due while nobody looks; set anew before anybody does.
        time.sleep(0.01)
        alarm.set(perf_counter_ns() + 3_600_000_000_000)

    assert _rings(make, factory, act, awaited=False) == []
