"""What `acquire()` returns: awaited it gives a connection, entered it also takes it back.

This is the hot path. A lease of an idle connection that has shown life recently, and the return of one
that was not touched, happen right here, on the desk that the pool shares with its leases: without a task,
a future, a timer, or a further call. Everything else goes through the pool.
"""

import asyncio
from abc import ABC, abstractmethod
from array import array
from asyncio import current_task, get_running_loop
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Final, Generic, Literal

from pool_bench.pool.connections import C
from pool_bench.pool.errors import PoolError
from pool_bench.pool.leaks import capture_stack
from pool_bench.pool.slots import FOR_EVER, Slot, SlotState
from pool_bench.pool.statistics import DRAIN_AT
from pool_bench.pool.waiters import Waiter

_IDLE: Final = SlotState.IDLE
_LEASED: Final = SlotState.LEASED


class Desk(ABC, Generic[C]):
    """The part of a pool that leases work on.

    Attributes:
        running: whether connections are handed out.
        loop: the only loop whose tasks get any.
        idle: the core's stack of idle slots.
        waiters: the core's queue.
        samples: checkout latencies, nanoseconds.
        clock: nanoseconds.
        max_uses: leases after which a slot does not become idle any more.
        keeps_stacks: whether a lease remembers where it was taken.
    """

    running: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    max_uses: int = FOR_EVER
    keeps_stacks: bool = False
    idle: deque[Slot[C]]
    waiters: OrderedDict[Waiter[C], None]
    samples: "array[int]"
    clock: Callable[[], int]

    @abstractmethod
    async def lend(self, timeout: float | None) -> Slot[C]:
        """Queue for a slot, or say why that is of no use."""

    @abstractmethod
    def take_back(self, slot: Slot[C], number: int, *, suspect: bool) -> None:
        """End the slot's lease of that number, whatever state the slot is in."""

    @abstractmethod
    def drain_samples(self) -> None:
        """Empty `samples`, in place."""


class Lease(Generic[C]):
    """One acquire; good for one `await`, or for one `async with` at a time."""

    __slots__ = ("_desk", "_number", "_slot", "_timeout")

    def __init__(self, desk: Desk[C], timeout: float | None) -> None:
        self._desk = desk
        self._timeout = timeout
        # False while one is being waited for.
        self._slot: Slot[C] | Literal[False] | None = None

    async def __aenter__(self) -> C:
        desk = self._desk
        clock = desk.clock
        began_ns = clock()
        idle = desk.idle
        if self._slot is not None:
            raise PoolError("this acquire() has been entered already; call acquire() for each lease")
        if idle and desk.running and not desk.waiters and get_running_loop() is desk.loop:
            slot = idle.pop()
            try:
                is_good = began_ns < slot.fresh_until_ns and not slot.is_closed()
            except Exception:
                # Of the driver's; whoever looks at it next says so.
                is_good = False
            if is_good:
                slot.state = _LEASED
                slot.owner = current_task()
                slot.acquired_ns = began_ns
                self._number = slot.uses = slot.uses + 1
                self._slot = slot
                if desk.keeps_stacks:
                    slot.stack = capture_stack()
                samples = desk.samples
                samples.append(clock() - began_ns)
                if len(samples) >= DRAIN_AT:
                    desk.drain_samples()
                return slot.conn
            idle.append(slot)
        self._slot = False
        try:
            slot = await desk.lend(self._timeout)
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
        desk = self._desk
        tracker = slot.tracker
        if (
            tracker is not None
            and not tracker.touched
            and not desk.waiters
            and desk.running
            and slot.state is _LEASED
            and slot.uses == self._number
            and slot.uses < desk.max_uses
        ):
            now_ns = desk.clock()
            if now_ns < slot.expires_ns:
                slot.state = _IDLE
                slot.owner = None
                slot.idle_since_ns = now_ns
                desk.idle.append(slot)
                return
        desk.take_back(slot, self._number, suspect=exc_type is not None)

    def __await__(self) -> Generator[object, None, C]:
        return self.__aenter__().__await__()
