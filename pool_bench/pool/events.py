"""What happens in a pool, for whoever wants to know.

A subscriber can neither block nor break the pool: a plain function is called in a thread of its own, a
coroutine function is awaited in a task of its own, each behind a bounded queue. What a subscriber is too
slow for is dropped and counted; what it raises is logged.
"""

import asyncio
import inspect
import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

LOGGER: Final = logging.getLogger("pool_bench.pool")
_QUEUED: Final = 1000


class EventKind(StrEnum):
    """What happened. Single leases are not events: they are too many, and `get_stats` counts them."""

    STATE_CHANGED = "state_changed"
    CONNECTION_OPENED = "connection_opened"
    CONNECT_FAILED = "connect_failed"
    CONNECTION_CLOSED = "connection_closed"
    ACQUIRE_TIMED_OUT = "acquire_timed_out"
    ACQUIRE_REFUSED = "acquire_refused"
    HEALTH_CHECK_FAILED = "health_check_failed"
    RESET_FAILED = "reset_failed"
    LEAK_DETECTED = "leak_detected"
    BREAKER_OPENED = "breaker_opened"
    BREAKER_CLOSED = "breaker_closed"
    SCALED = "scaled"
    HEALTH_CHANGED = "health_changed"


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """Something that happened.

    Attributes:
        kind: what.
        pool: the pool's name.
        at_ns: when, nanoseconds of the pool's clock.
        message: the same in words, without secrets.
        connection: the number of the connection it is about, None where it is about none.
        size: connections in the pool at that time.
    """

    kind: EventKind
    pool: str
    at_ns: int
    message: str
    connection: int | None
    size: int


Subscriber: TypeAlias = Callable[[PoolEvent], None] | Callable[[PoolEvent], Awaitable[None]]


class EventBus:
    """The subscribers of one pool.

    Attributes:
        dropped: events that a subscriber was too slow for.
        faults: events that a subscriber raised at.
    """

    __slots__ = ("_counting", "_listeners", "dropped", "faults")

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []
        self._counting = threading.Lock()
        self.dropped = 0
        self.faults = 0

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with each event from now on; returns what ends that."""
        listener: _Listener
        if inspect.iscoroutinefunction(callback):
            listener = _TaskListener(callback, self._count_fault)
        else:
            listener = _ThreadListener(callback, self._count_fault)
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
                listener.stop()

        return unsubscribe

    @property
    def is_heard(self) -> bool:
        """Whether there is any subscriber."""
        return bool(self._listeners)

    def publish(self, event: PoolEvent) -> None:
        """Queue `event` for all subscribers; never waits, never raises."""
        for listener in self._listeners:
            if not listener.put(event):
                self.dropped += 1

    def _count_fault(self) -> None:
        """For what has just been raised, in any thread."""
        LOGGER.exception("a subscriber of pool events failed")
        with self._counting:
            self.faults += 1

    async def stop(self, timeout_s: float) -> None:
        """Let the subscribers have what is queued, and no more; waits for coroutines at most `timeout_s`."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.stop()
        tasks = [
            listener.task
            for listener in listeners
            if isinstance(listener, _TaskListener) and listener.task is not None
        ]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=timeout_s)
            for task in pending:
                task.cancel()


class _Listener(ABC):
    """One subscriber and its queue."""

    @abstractmethod
    def put(self, event: PoolEvent) -> bool:
        """Queue `event`; False where the queue is full."""

    @abstractmethod
    def stop(self) -> None:
        """End after what is queued."""


class _ThreadListener(_Listener):
    def __init__(self, callback: Callable[[PoolEvent], object], count_fault: Callable[[], None]) -> None:
        self._callback = callback
        self._count_fault = count_fault
        self._queue: queue.SimpleQueue[PoolEvent | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pool-events", daemon=True)
        self._thread.start()

    def put(self, event: PoolEvent) -> bool:
        if self._queue.qsize() >= _QUEUED:
            return False
        self._queue.put(event)
        return True

    def stop(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._callback(event)
            except BaseException:  # SystemExit would end this thread, and nobody else, without a word
                self._count_fault()


class _TaskListener(_Listener):
    """Its task lives only while there is something to tell."""

    def __init__(
        self, callback: Callable[[PoolEvent], Awaitable[None]], count_fault: Callable[[], None]
    ) -> None:
        self._callback = callback
        self._count_fault = count_fault
        self._queue: deque[PoolEvent] = deque()
        self._stopped = False
        self.task: asyncio.Task[None] | None = None

    def put(self, event: PoolEvent) -> bool:
        if len(self._queue) >= _QUEUED or self._stopped:
            return False
        self._queue.append(event)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run(), name="pool-events")
        return True

    def stop(self) -> None:
        self._stopped = True

    async def _run(self) -> None:
        successor: asyncio.Task[None] | None = None
        try:
            while self._queue:
                try:
                    await self._callback(self._queue.popleft())
                except Exception:
                    self._count_fault()
        except (SystemExit, KeyboardInterrupt):
            self._count_fault()
            if self._queue:
                successor = asyncio.get_running_loop().create_task(self._run(), name="pool-events")
            # It goes to whoever runs the loop, as from any task; if that goes on, the rest is told.
            raise
        finally:
            self.task = successor
