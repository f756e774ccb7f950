"""Replaces held connections that were dropped, each after a pause that grows with its failures."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from pool_bench.load.backoff import backoff_s

# A connection that lived for less was no success of the reconnect before it.
_STEADY_NS: Final = 1_000_000_000


class Reconnects:
    """Decides when each dropped connection is replaced.

    Args:
        rng: spreads the pauses.
        begin: begins to replace one, by its number.
        has_room: whether one more connect may be under way.
    """

    def __init__(
        self, rng: random.Random, begin: Callable[[int], None], has_room: Callable[[], bool]
    ) -> None:
        self._rng = rng
        self._begin = begin
        self._has_room = has_room
        self._failures: dict[int, int] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._due: deque[int] = deque()
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Connections that are to be replaced and are not yet."""
        return len(self._timers) + len(self._due)

    def dropped(self, slot: int, age_ns: int) -> None:
        """A connection has ended that had lived so long: replace it."""
        if age_ns > _STEADY_NS:
            self._failures.pop(slot, None)
        self.failed(slot)

    def failed(self, slot: int) -> None:
        """A connection could not be replaced: try again later."""
        if self._stopped:
            return
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1
        delay_s = backoff_s(failures, self._rng)
        self._timers[slot] = asyncio.get_running_loop().call_later(delay_s, self._wake, slot)

    def _wake(self, slot: int) -> None:
        del self._timers[slot]
        self._due.append(slot)
        self.begin_due()

    def begin_due(self) -> None:
        """Begin to replace those whose pause is over, as far as there is room."""
        while self._due and self._has_room() and not self._stopped:
            self._begin(self._due.popleft())

    def stop(self) -> None:
        """Replace no more."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._due.clear()
