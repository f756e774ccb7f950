"""The pool's own work: each piece in a task that no caller can cancel, bounded by a timer.

The bound does not depend on the work heeding its cancellation: when the time is up the outcome is
decided, and the pool goes on, while what is left of the task dies by itself.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work; `done` is called exactly once, with its result or with what went wrong.

    Work that fails to end in time gives TimeoutError; a result that comes later goes to `late`.
    """

    __slots__ = ("_decided", "_done", "_late", "_live", "_task", "_timer", "kind")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        live: "set[Job[T]]",
        work: Coroutine[object, object, T],
        timeout_s: float,
        done: Callable[[T | None, BaseException | None], None],
        late: Callable[[T], None] | None,
        kind: str,
        name: str,
    ) -> None:
        self.kind = kind
        self._done = done
        self._late = late
        self._live = live
        self._decided = False
        live.add(self)
        self._task = loop.create_task(work, name=name)
        self._task.add_done_callback(self._ended)
        self._timer = loop.call_later(timeout_s, self._expired)

    @property
    def task(self) -> asyncio.Task[T]:
        """The task that does the work."""
        return self._task

    def abandon(self) -> None:
        """Decide now, as if the time were up."""
        self._expired()

    def _expired(self) -> None:
        if self._decided:
            return
        self._decided = True
        self._timer.cancel()
        self._task.cancel()
        self._done(None, TimeoutError())

    def _ended(self, task: asyncio.Task[T]) -> None:
        self._live.discard(self)
        self._timer.cancel()
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._decided:
            if error is None and self._late is not None:
                self._late(task.result())
            return
        self._decided = True
        if error is not None:
            self._done(None, error)
        else:
            self._done(task.result(), None)


class Jobs:
    """All work that is under way.

    Attributes:
        interrupted: set when somebody else than the pool has cancelled a job, as `asyncio.run` does at its
            end: nothing new should be begun in the same turn of the loop.
    """

    __slots__ = ("_live", "_loop", "_name", "interrupted")

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._live: set[Job[object]] = set()
        self.interrupted = False

    def start(
        self,
        kind: str,
        work: Coroutine[object, object, T],
        timeout_s: float,
        done: Callable[[T | None, BaseException | None], None],
        late: Callable[[T], None] | None = None,
    ) -> Job[T]:
        """Begin `work`, which may take `timeout_s` seconds."""
        live: set[Job[T]] = self._live  # type: ignore[assignment]  # a set of jobs of all kinds

        def ended(result: T | None, error: BaseException | None) -> None:
            if isinstance(error, asyncio.CancelledError):
                self.interrupted = True
            done(result, error)

        return Job(self._loop, live, work, timeout_s, ended, late, kind, f"{self._name}:{kind}")

    def abandon_all(self, kind: str | None = None) -> None:
        """Decide everything (of a kind) that is undecided as if its time were up."""
        for job in list(self._live):
            if kind is None or job.kind == kind:
                job.abandon()

    async def settled(self, timeout_s: float) -> None:
        """Wait until all tasks have ended, at most `timeout_s` seconds."""
        tasks = [job.task for job in self._live]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)


class Quiescence:
    """Those who wait until something holds; true while there is anybody."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Future[None], Callable[[], bool]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, timeout_s: float | None, condition: Callable[[], bool]) -> bool:
        """Wait until `condition` holds, at most `timeout_s` seconds; returns whether it does."""
        if condition():
            return True
        entry = (asyncio.get_running_loop().create_future(), condition)
        self._waiting.append(entry)
        try:
            await asyncio.wait([entry[0]], timeout=timeout_s)
        finally:
            self._waiting.remove(entry)
        return condition()

    def notify(self) -> None:
        """Something has changed."""
        for future, condition in self._waiting:
            if not future.done() and condition():
                future.set_result(None)
