"""Callers that wait, and the one timer for all their deadlines.

A waiter accepts what it is offered or, once it has timed out or was cancelled, refuses; the releaser
then turns to the next. What it accepted it has to give back if it is cancelled before it runs again.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Generic

from pool_bench.pool.connections import C
from pool_bench.pool.slots import Slot, Stack

# Callers that are let down in one turn of the loop: each is a task to run, and others want their turn, too.
AT_ONCE: Final = 128
# Loop clocks are allowed to be this much early.
_EARLY_NS = 1_000_000


class Waiter(Generic[C]):
    """One caller in the queue.

    Attributes:
        future: done when there is a slot or an error, or when the caller was cancelled.
        slot: what was accepted.
        error: why there will be none.
        began_ns: when the caller asked, nanoseconds of the pool's clock.
        timeout_s: the caller's limit.
        deadline_ns: its end.
    """

    __slots__ = ("began_ns", "deadline_ns", "error", "future", "slot", "stack", "task", "timeout_s")

    def __init__(
        self,
        future: asyncio.Future[None],
        task: asyncio.Task[object] | None,
        began_ns: int,
        timeout_s: float,
        deadline_ns: int,
        stack: Stack | None,
    ) -> None:
        self.future = future
        self.task = task
        self.began_ns = began_ns
        self.timeout_s = timeout_s
        self.deadline_ns = deadline_ns
        self.stack = stack
        self.slot: Slot[C] | None = None
        self.error: Exception | None = None

    def offer(self, slot: Slot[C]) -> bool:
        """Take `slot`; False where the caller does not want it any more."""
        if self.future.done():
            return False
        self.slot = slot
        self.future.set_result(None)
        return True

    def fail(self, error: Exception) -> None:
        """Let the caller raise `error`, unless it has something already."""
        if not self.future.done():
            self.error = error
            self.future.set_result(None)


class Deadlines(Generic[C]):
    """Calls `expire` with those whose deadline has come and who still wait, some at a time.

    One timer of the loop serves them all: most callers share a limit, so the first to come is the
    first to expire, and a waiter that is served leaves its entry to be skipped.
    """

    __slots__ = ("_clock", "_count", "_expire", "_heap", "_live", "_loop", "_timer", "_timer_ns")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int],
        expire: Callable[[list[Waiter[C]]], None],
        live: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._expire = expire
        self._live = live
        # The count decides between equal deadlines, since waiters have no order.
        self._heap: list[tuple[int, int, Waiter[C]]] = []
        self._count = 0
        self._timer: asyncio.Handle | None = None
        self._timer_ns = 0

    def add(self, waiter: Waiter[C], now_ns: int) -> None:
        """Watch `waiter`."""
        heap = self._heap
        if len(heap) > 256 and len(heap) > 2 * self._live():
            heap[:] = [entry for entry in heap if not entry[2].future.done()]
            heapq.heapify(heap)
        self._count += 1
        heapq.heappush(heap, (waiter.deadline_ns, self._count, waiter))
        if self._timer is None or waiter.deadline_ns < self._timer_ns:
            self._arm(waiter.deadline_ns, now_ns)

    def stop(self) -> None:
        """Watch nobody any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, deadline_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = deadline_ns
        self._timer = self._loop.call_later(max(0, deadline_ns - now_ns) / 1e9, self._due)

    def _due(self) -> None:
        self._timer = None
        now_ns = self._clock()
        heap = self._heap
        late: list[Waiter[C]] = []
        while heap and len(late) < AT_ONCE:
            waiter = heap[0][2]
            if waiter.future.done():
                heapq.heappop(heap)
            elif waiter.deadline_ns <= now_ns + _EARLY_NS:
                late.append(heapq.heappop(heap)[2])
            else:
                break
        if late:
            self._expire(late)
        if heap:
            self._go_on(now_ns, is_due=len(late) == AT_ONCE)

    def _go_on(self, now_ns: int, *, is_due: bool) -> None:
        first_ns = self._heap[0][2].deadline_ns
        if is_due:
            if self._timer is not None:
                self._timer.cancel()
            # Behind those who have just been woken.
            self._timer_ns = now_ns
            self._timer = self._loop.call_soon(self._due)
        elif self._timer is None or first_ns < self._timer_ns:
            self._arm(first_ns, now_ns)
