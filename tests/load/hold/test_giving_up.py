"""When the opening of held connections is given up: on the test's own clock, and on silent servers."""

import heapq
import time
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.drivers.base import DriverName
from pool_bench.errors import FailureKind
from pool_bench.load.hold.opening import Opening
from pool_bench.load.spec import HoldSpec
from pool_bench.stats.runs import Stage
from tests.support import hostile_postgres as h
from tests.support.generators import MARGIN_S
from tests.support.holding import Held, hold, hold_spec

# How often it is looked whether connections still open.
LOOK_S = 0.5
BEGIN_S = 1000.0


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Opened:
    """An opening in simulated time: connection number n ends after `ends[n]` seconds, open or not."""

    def __init__(self, ends: list[tuple[float, bool]], **settings: object) -> None:
        self.now = BEGIN_S
        self.begun: list[float] = []
        self.opened: list[float] = []
        self.abandoned_at: float | None = None
        self._ends = ends
        self._timers: list[tuple[float, int, _Timer, Callable[[], None]]] = []
        self._set = 0
        with mock.patch("asyncio.get_running_loop", return_value=self):
            self.opening = Opening(
                HoldSpec(targets=(), connections=(), **settings),  # type: ignore[arg-type]
                len(ends),
                self._begin,
                abandon=self._abandon,
                clock=lambda: round(self.now * 1e9),
            )
            self.opening.start()
            while self._timers:
                due, _, timer, callback = heapq.heappop(self._timers)
                if not timer.cancelled:
                    self.now = max(self.now, due)
                    callback()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        self._set += 1
        timer = _Timer()
        heapq.heappush(self._timers, (self.now + delay_s, self._set, timer, callback))
        return timer

    def call_soon(self, callback: Callable[[], None]) -> _Timer:
        return self.call_later(0.0, callback)

    def _begin(self, slot: int) -> None:
        self.begun.append(self.now)
        after_s, opens = self._ends[slot]

        def end() -> None:
            if self.abandoned_at is None:
                if opens:
                    self.opened.append(self.now)
                self.opening.ended(opened=opens)

        self.call_later(after_s, end)

    def _abandon(self) -> None:
        self.abandoned_at = self.now


connects = st.lists(st.tuples(st.floats(0.001, 40), st.booleans()), min_size=1, max_size=60)


@given(connects, st.integers(1, 10), st.integers(1, 12), st.sampled_from([2.0, 10.0, 60.0]))
def test_opening_is_given_up_when_none_opened_for_so_long_and_not_before(
    ends: list[tuple[float, bool]], batch_size: int, most: int, give_up_s: float
) -> None:
    run = _Opened(ends, batch_size=batch_size, open_concurrency=most, give_up_s=give_up_s)
    assert run.opening.over.is_set()
    moments = [BEGIN_S, *run.opened]
    end = run.now if run.abandoned_at is None else run.abandoned_at
    gaps = [later - earlier for earlier, later in zip(moments, [*moments[1:], end], strict=True)]
    # A look comes late by at most so long.
    assert max(gaps) <= give_up_s + LOOK_S + 1e-6
    if run.abandoned_at is None:
        assert len(run.begun) == len(ends)
        assert run.opening.gave_up_ns == 0
    else:
        assert gaps[-1] >= give_up_s - 1e-6
        assert run.opening.gave_up_ns == pytest.approx(gaps[-1] * 1e9, abs=10)


@given(connects, st.integers(1, 10))
def test_nought_never_gives_up(ends: list[tuple[float, bool]], batch_size: int) -> None:
    run = _Opened(ends, batch_size=batch_size, give_up_s=0.0)
    assert run.abandoned_at is None
    assert len(run.begun) == len(ends)


def test_a_pause_between_batches_is_no_time_in_which_none_opened() -> None:
    run = _Opened([(0.1, True)] * 12, batch_size=3, batch_pause_s=100.0, give_up_s=2.0)
    assert (len(run.opened), run.abandoned_at) == (12, None)


def test_where_each_fails_at_once_a_batch_after_the_pause_is_tried_before_it_is_given_up() -> None:
    run = _Opened([(0.0, False)] * 30, batch_size=3, batch_pause_s=100.0, give_up_s=2.0)
    assert len(run.begun) == 6
    assert run.abandoned_at == pytest.approx(BEGIN_S + 100.0)


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_a_server_that_falls_silent_is_given_up_and_what_is_open_is_held(driver: DriverName) -> None:
    welcome = (h.read_startup, h.send(h.WELCOME), h.read_message)
    silent = (h.read_startup, h.stall)
    with h.HostileServer(*[welcome] * 4, silent) as server:

        async def during(held: Held) -> None:
            await held.until_held(4)

        began = time.monotonic()
        held = hold(
            hold_spec(server.url(), connections=(500,), batch_size=10, give_up_s=3.0, driver=driver), during
        )
        assert time.monotonic() - began < 3 + MARGIN_S
    assert held.counts == (4, 0, 0, 4)
    assert held.stats.gave_up_s >= 3.0
    # Those that hung count as what they are; all others were not tried.
    assert (held.opening.failed, held.opening.unfinished) == (0, 6)
    assert server.accepted == 10


def test_where_nothing_is_open_the_run_ends_and_reconnecting_does_not_keep_it() -> None:
    with h.HostileServer((h.read_startup, h.hang_up)) as server:
        held = hold(
            hold_spec(
                server.url(),
                connections=(100_000,),
                rate=20.0,
                give_up_s=1.0,
                duration_s=600.0,
                reconnect=True,
            )
        )
    assert held.counts == (0, 0, 0, 0)
    assert held.stats.gave_up_s >= 1.0
    assert held.stats.emptied
    assert held.opening.errors == {FailureKind.CLOSED: held.opening.failed}
    assert 0 < held.opening.failed < 100_000
    assert held.snapshots[-1].stage is Stage.DONE
