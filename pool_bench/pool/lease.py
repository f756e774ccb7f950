"""What `acquire()` returns: awaited it gives a connection, entered it also takes it back.

This is the hot path. A lease of an idle connection that has shown life recently, and the return of one
that was not touched, happen right here, on what the pool keeps for its leases: without a task, a future,
a timer, or a further call. Everything else goes through the pool.
"""

import asyncio
from array import array
from asyncio import current_task
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from sys import getrefcount
from types import TracebackType
from typing import Final, Generic, Literal, Protocol

from pool_bench.pool.connections import C
from pool_bench.pool.errors import PoolError
from pool_bench.pool.slots import Slot, SlotState, capture_stack
from pool_bench.pool.statistics import DRAIN_AT
from pool_bench.pool.waiters import Waiter

_IDLE: Final = SlotState.IDLE
_LEASED: Final = SlotState.LEASED


class Lender(Protocol[C]):
    """The part of a pool that leases work on, for themselves alone.

    Attributes:
        _running: whether connections are handed out.
        _loop: the only loop whose tasks get any.
        _idle: the core's stack of idle slots.
        _waiters: the core's queue.
        _samples: checkout latencies, nanoseconds.
        _clock: nanoseconds.
        _renew: lets no handle of a slot's connection be of use that somebody has kept.
        _max_uses: leases after which a slot does not become idle any more.
        _keeps_stacks: whether a lease remembers where it was taken.
    """

    _running: bool
    _loop: asyncio.AbstractEventLoop | None
    _renew: Callable[[Slot[C]], None]
    _max_uses: int
    _keeps_stacks: bool
    _idle: deque[Slot[C]]
    _waiters: OrderedDict[Waiter[C], None]
    _samples: "array[int]"
    _clock: Callable[[], int]

    async def _acquire_slow(self, timeout: float | None) -> Slot[C]:
        """Queue for a slot, or say why that is of no use."""

    def _release(self, slot: Slot[C], number: int, *, suspect: bool) -> None:
        """End the slot's lease of that number, whatever state the slot is in."""

    def _drain_samples(self) -> None:
        """Empty `_samples`, in place."""


class Lease(Generic[C]):
    """One acquire; good for one `await`, or for one `async with` at a time."""

    __slots__ = ("_number", "_pool", "_slot", "_timeout")

    def __init__(self, pool: Lender[C], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        # False while one is being waited for.
        self._slot: Slot[C] | Literal[False] | None = None

    async def __aenter__(self) -> C:
        pool = self._pool
        clock = pool._clock
        began_ns = clock()
        idle = pool._idle
        if self._slot is not None:
            raise PoolError("this acquire() has been entered already; call acquire() for each lease")
        # Its task tells the running loop, too; asking for that apart costs Python 3.11 another getpid().
        if (
            idle
            and pool._running
            and not pool._waiters
            and (task := current_task()) is not None
            and task.get_loop() is pool._loop
        ):
            slot = idle.pop()
            try:
                # No name for the tracker: it is the connection, whose references are counted below.
                is_good = (
                    began_ns < slot.fresh_until_ns
                    and not slot.is_closed()
                    and (slot.tracker is None or not slot.tracker.touched)
                )
            except Exception:
                # Of the driver's; whoever looks at it next says so.
                is_good = False
            if is_good:
                if getrefcount(slot.conn) > slot.own_references:
                    pool._renew(slot)
                slot.state = _LEASED
                slot.owner = task
                slot.acquired_ns = began_ns
                self._number = slot.uses = slot.uses + 1
                self._slot = slot
                if pool._keeps_stacks:
                    slot.stack = capture_stack()
                samples = pool._samples
                samples.append(clock() - began_ns)
                if len(samples) >= DRAIN_AT:
                    pool._drain_samples()
                return slot.conn
            idle.append(slot)
        self._slot = False
        try:
            slot = await pool._acquire_slow(self._timeout)
        except BaseException:
            self._slot = None
            raise
        self._slot = slot
        self._number = slot.uses
        return slot.conn

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        slot = self._slot
        if not slot:
            return
        self._slot = None
        pool = self._pool
        tracker = slot.tracker
        if (
            tracker is not None
            and not tracker.touched
            and not pool._waiters
            and pool._running
            and slot.state is _LEASED
            and slot.uses == self._number
            and slot.uses < pool._max_uses
        ):
            now_ns = pool._clock()
            if now_ns < slot.expires_ns:
                slot.state = _IDLE
                slot.owner = None
                slot.idle_since_ns = now_ns
                pool._idle.append(slot)
                return
        pool._release(slot, self._number, suspect=exc_type is not None)

    def __await__(self) -> Generator[object, None, C]:
        return self.__aenter__().__await__()
