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


async def wait_until(moment_ns: int, now_ns: Callable[[], int], stop: asyncio.Event) -> None:
    """Wait until a clock says `moment_ns`, or `stop` is set.

    Args:
        now_ns: the clock; it may stand still meanwhile, as that of measured time does.
    """
    while not stop.is_set() and (left_ns := moment_ns - now_ns()) > 0:
        try:
            async with asyncio.timeout(left_ns / 1e9):
                await stop.wait()
        except TimeoutError:
            continue
