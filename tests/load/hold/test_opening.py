"""When held connections are opened and asked: exact for any number of them, on the test's own clock."""

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.load.hold.opening import KeepaliveRing, active_slots, spread_targets


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Loop:
    """An event loop's clock and timers; each timer may come late by what the test says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, _Timer, Callable[[], None]]] = []
        self._count = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        self._count += 1
        timer = _Timer()
        heapq.heappush(self._timers, (self.now + delay_s, self._count, timer, callback))
        return timer

    def run(self, until: float, late: Callable[[], float] = lambda: 0.0) -> None:
        while self._timers and self._timers[0][0] <= until:
            due, _, timer, callback = heapq.heappop(self._timers)
            self.now = max(self.now, due) + late()
            if not timer.cancelled:
                callback()


def _ring(count: int, interval_s: float) -> tuple[_Loop, KeepaliveRing, list[tuple[float, int]]]:
    loop = _Loop()
    asked: list[tuple[float, int]] = []
    ring = KeepaliveRing(count, interval_s, lambda slot: asked.append((loop.now, slot)))
    return loop, ring, asked


@given(st.integers(1, 400), st.floats(0.05, 100), st.integers(1, 4))
def test_in_every_interval_each_connection_is_asked_once_and_in_turn(
    count: int, interval_s: float, rounds: int
) -> None:
    loop, ring, asked = _ring(count, interval_s)
    with mock.patch("asyncio.get_running_loop", return_value=loop):
        ring.start()
        loop.run(1000 + rounds * interval_s + 0.0101)
    asked = [(at, slot) for at, slot in asked if at <= 1000 + rounds * interval_s + 0.010]
    expected = rounds * count
    # Timers are 10 ms apart at least, so that a turn may wait for the next one.
    slack = int(0.0201 / (interval_s / count)) + 1
    assert expected - slack <= len(asked) <= expected + slack
    assert [slot for _, slot in asked] == [turn % count for turn in range(len(asked))]


@given(st.integers(1, 300), st.floats(0.5, 50), st.lists(st.floats(0, 0.05), min_size=1))
def test_turns_are_a_step_apart_however_late_the_timers_are(
    count: int, interval_s: float, delays: list[float]
) -> None:
    loop, ring, asked = _ring(count, interval_s)
    late = iter(delays * 100_000)
    with mock.patch("asyncio.get_running_loop", return_value=loop):
        ring.start()
        loop.run(1000 + 2 * interval_s, lambda: next(late))
    step_s = interval_s / count
    for turn, (at, _) in enumerate(asked):
        due = 1000 + (turn + 1) * step_s
        # Never before its turn, and never later than a timer and its lateness.
        assert due - 1e-6 <= at <= due + step_s + 0.010 + 2 * max(delays) + 1e-6
    together = Counter(at for at, _ in asked)
    assert max(together.values(), default=0) <= (0.010 + 2 * max(delays)) / step_s + 2


@given(st.integers(2, 500), st.floats(0.5, 50), st.floats(2, 1e6))
def test_after_a_standstill_they_go_on_one_after_the_other(
    count: int, interval_s: float, standstill_s: float
) -> None:
    loop, ring, asked = _ring(count, interval_s)
    with mock.patch("asyncio.get_running_loop", return_value=loop):
        ring.start()
        loop.run(1000 + interval_s)
        before = len(asked)
        loop.now += standstill_s
        resumed = loop.now
        loop.run(resumed + interval_s / 2)
    step_s = interval_s / count
    burst = [slot for at, slot in asked[before:] if at <= resumed + 0.0101]
    # A second's worth of turns is made up for, and nobody is asked twice.
    assert len(burst) <= min(1 / step_s + 1, count) + 0.0202 / step_s + 2
    turns = [slot for _, slot in asked]
    assert all((after - before) % count == 1 % count for before, after in pairwise(turns))


def test_a_ring_that_is_stopped_asks_no_more() -> None:
    loop, ring, asked = _ring(10, 1.0)
    with mock.patch("asyncio.get_running_loop", return_value=loop):
        ring.start()
        loop.run(1000.55)
        ring.stop()
        count = len(asked)
        loop.run(1100)
    assert len(asked) == count == 5


@given(st.integers(0, 2000), st.floats(0, 1))
def test_the_active_share_is_exact_and_spread(count: int, share: float) -> None:
    slots = active_slots(count, share)
    wanted = min(count, max(round(count * share), 1)) if share else 0
    assert len(slots) == count
    assert sum(slots) == wanted
    gaps = [b - a for a, b in pairwise([slot for slot, active in enumerate(slots) if active])]
    assert not gaps or max(gaps) - min(gaps) <= 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_connections_go_to_the_targets_in_turn(connections: list[int]) -> None:
    order = spread_targets(connections)
    assert Counter(order) == Counter({i: n for i, n in enumerate(connections) if n})
    so_far = [0] * len(connections)
    for target in order:
        so_far[target] += 1
        # No target that still has some left is more than one behind.
        behind = [n for i, n in enumerate(so_far) if n < connections[i]]
        assert not behind or max(so_far) - min(behind) <= 1


@pytest.mark.parametrize(("share", "active"), [(0.0, 0), (0.001, 1), (0.05, 5), (1.0, 100)])
def test_a_share_of_a_hundred(share: float, active: int) -> None:
    assert sum(active_slots(100, share)) == active
