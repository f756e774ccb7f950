"""What a pool's connections and waiters weigh, found out on a second pool after the run.

The pool that was measured has brought all modules and caches in, and its own growth drowns in what its
clients took. A second one, opened after its close, is counted byte by byte (`tracemalloc`), which slows a
process down and so has no place in a run. What C libraries allocate by themselves is not in it: libpq's
buffers under psycopg, those of OpenSSL.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from pool_bench.contenders import Contender

L = TypeVar("L")

# More make no other mean.
_WAITERS: Final = 1_000
# Turns of the loop until all of them wait, whatever a pool does before.
_TURNS: Final = 20


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes of Python's allocators.

    Attributes:
        connection_bytes: an idle connection, with its part of the pool's own.
        waiter_bytes: a caller that waits for one, beyond a task that waits for a future.
    """

    connection_bytes: int
    waiter_bytes: int


async def weigh(contender: Contender[L], waiters: int) -> Weight:
    """Open `contender`, have all its connections held and that many tasks wait for one, and close it.

    Args:
        contender: one that is not open, and has a limit to its connections.
        waiters: tasks, at most 1,000 of which wait.

    Raises:
        Exception: it does not open; `as_error` of it knows why.
    """
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_for_nothing() -> None:
        await never

    async def wait_for_a_lease() -> None:
        async with contender.lease():
            pass

    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        before = _traced()
        try:
            await contender.open()
            size = contender.size
            # What connecting has left behind in circles is no part of what it has made.
            gc.collect()
            connection = (_traced() - before) / size
            async with AsyncExitStack() as held:
                for _ in range(size):
                    await held.enter_async_context(contender.lease())
                count = min(waiters, _WAITERS)
                bare = await _weigh_tasks(count, wait_for_nothing)
                waiter = await _weigh_tasks(count, wait_for_a_lease)
        finally:
            await contender.close()
    finally:
        if not tracing:
            tracemalloc.stop()
    return Weight(max(0, round(connection)), max(0, round(waiter - bare)))


async def _weigh_tasks(count: int, wait: Callable[[], Coroutine[None, None, None]]) -> float:
    """Bytes that each of so many tasks takes that wait for what does not come."""
    before = _traced()
    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    try:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        return (_traced() - before) / count
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _traced() -> int:
    return tracemalloc.get_traced_memory()[0]
