"""Where the generators of one run wait for each other: all begin together, and hold from the same moment."""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from pool_bench.load.messages import Point, Reached, Started

POINTS: Final[tuple[Point, ...]] = ("ready", "opened")


class Gates:
    """One generator's side of it; used in its event loop only.

    Args:
        tell: takes the word that this generator has come to a point, or begins.
    """

    def __init__(self, tell: Callable[[Reached | Started], None]) -> None:
        self._tell = tell
        self._open: dict[Point, asyncio.Event] = {point: asyncio.Event() for point in POINTS}
        self._at_ns = 0

    def arrive(self, point: Point) -> asyncio.Event:
        """Say that this generator has come to `point`; returns what is set once all have."""
        self._tell(Reached(point))
        return self._open[point]

    def release(self, point: Point, at_ns: int) -> None:
        """All have come to `point`; what follows begins at that moment, perf_counter_ns."""
        self._at_ns = at_ns
        self._open[point].set()

    async def begin(self, stop: asyncio.Event) -> int:
        """Wait for all to be ready, and then for the moment at which all begin, unless `stop` is set before.

        Returns:
            That moment, perf_counter_ns.
        """
        ready = self.arrive("ready")
        await _first(stop, ready)
        left_s = (self._at_ns - perf_counter_ns()) / 1e9
        if ready.is_set() and left_s > 0:
            await _first(stop, seconds=left_s)
        if self._at_ns and not stop.is_set():
            self._tell(Started(max(perf_counter_ns() - self._at_ns, 0)))
        return self._at_ns or perf_counter_ns()


async def _first(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for one of `events`, at most so long."""
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
