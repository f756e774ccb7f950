"""The way out of a service: a signal, leases that may end, and an end in bounded time.

    async with shut_down_on(pool, drain_timeout=20) as shutdown:
        await shutdown.requested.wait()

At the first signal the pool leases nothing any more and its leases may end, within `drain_timeout`; then it
is closed, which turns away those that wait. A second signal closes at once and takes what is still leased. It
goes on in the loop, so it runs in the middle of nothing; the handlers that were there before come back.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, Protocol

from pool_bench.pool.errors import PoolError
from pool_bench.pool.slots import LOGGER

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ClosablePool(Protocol):
    """A pool, or a manager of pools."""

    async def drain(self, timeout: float | None = None) -> bool:
        """Lease nothing any more; whether all leases ended within `timeout` seconds."""

    async def close(self, timeout: float | None = None) -> None:
        """End everything within `timeout` seconds or so."""


class Shutdown:
    """The end of one pool; what `shut_down_on` gives.

    Attributes:
        requested: set when the end has begun.
        done: set when the pool is closed.
        drained: whether all leases had ended when the pool was closed; None before.
    """

    def __init__(self, pool: ClosablePool, drain_timeout: float, close_timeout: float) -> None:
        self.requested = asyncio.Event()
        self.done = asyncio.Event()
        self.drained: bool | None = None
        self._hurried = asyncio.Event()
        self._pool = pool
        self._drain_s = drain_timeout
        self._close_s = close_timeout
        self._task: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Begin, as a signal does; again, close at once."""
        if self._task is None:
            self.requested.set()
            self._task = self._begin()
        else:
            self._hurried.set()

    async def finish(self) -> None:
        """Begin if that has not happened, and wait for the end."""
        if self._task is None:
            self.requested.set()
            self._task = self._begin()
        await asyncio.shield(self._task)

    def _begin(self) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._run(), name="shut-down")

    async def _run(self) -> None:
        try:
            self.drained = await self._drain()
        finally:
            try:
                await self._close()
            finally:
                self.done.set()

    async def _drain(self) -> bool:
        """Whether all leases have ended, in time and unhurried."""
        draining = asyncio.ensure_future(self._pool.drain(self._drain_s))
        hurrying = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait((draining, hurrying), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurrying.cancel()
            if not draining.done():
                draining.cancel()
            ended = await asyncio.gather(draining, return_exceptions=True)
        outcome = ended[0]
        if isinstance(outcome, PoolError):
            # It was closed by somebody else, or never open.
            return True
        if isinstance(outcome, Exception):
            LOGGER.error("the leases could not be waited for", exc_info=outcome)
        return outcome is True

    async def _close(self) -> None:
        # Those leases that did not end by now had their time.
        limit_s = self._close_s if self.drained and not self._hurried.is_set() else 0.0
        await self._pool.close(limit_s)


@contextlib.asynccontextmanager
async def shut_down_on(
    pool: ClosablePool,
    signals: Sequence[signal.Signals] = _SIGNALS,
    *,
    drain_timeout: float = 20.0,
    close_timeout: float = 5.0,
) -> AsyncIterator[Shutdown]:
    """Close `pool` at a signal, or at the end of the block, whatever comes first.

    Args:
        pool: open already; a pool, or a manager of several.
        signals: which ones.
        drain_timeout: seconds that leases may take to end after the first signal.
        close_timeout: seconds that connections may take to end after that.

    Raises:
        ValueError: a time is negative or no number, or this is not the main thread, which alone has signals.
    """
    for name, value in (("drain_timeout", drain_timeout), ("close_timeout", close_timeout)):
        if not value >= 0:
            raise ValueError(f"{name} must be 0 seconds or more, not {value!r}")
    loop = asyncio.get_running_loop()
    shutdown = Shutdown(pool, drain_timeout, close_timeout)
    with _handled(signals, lambda: loop.call_soon_threadsafe(shutdown.request)):
        try:
            yield shutdown
        finally:
            await shutdown.finish()


@contextlib.contextmanager
def _handled(signals: Sequence[signal.Signals], react: Callable[[], object]) -> Iterator[None]:
    """Call `react` at each of `signals`, then put back what was there."""
    with contextlib.ExitStack() as restored:
        for number in dict.fromkeys(signals):
            # Not by the loop, which cannot give back a handler that it had before.
            before = signal.signal(number, lambda _number, _frame: react())
            restored.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
        yield
