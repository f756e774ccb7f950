"""Which moment of a timeline comes next, and waiting for it."""

import asyncio
from collections.abc import Callable


def next_tick(tick: int, elapsed_s: float, tick_s: float) -> int:
    """The number of the first tick after `tick` that is not over yet.

    Those that a client missed while it stood still are not made up for: they would be stretches of no length,
    all at the same moment.

    Args:
        tick: the one that was taken last, from 1; its moment is `tick * tick_s`.
        elapsed_s: now, seconds since the ticks began.
        tick_s: seconds between two of them.
    """
    return max(tick, int(elapsed_s / tick_s)) + 1


async def wait_until(moment_ns: int, now_ns: Callable[[], int], *events: asyncio.Event) -> None:
    """Wait until a clock says `moment_ns`, or one of `events` is set.

    Args:
        now_ns: the clock; it may stand still meanwhile, as that of measured time does.
    """
    while not any(event.is_set() for event in events) and (left_ns := moment_ns - now_ns()) > 0:
        waiters = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waiters, timeout=left_ns / 1e9, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
