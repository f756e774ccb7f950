"""Which moment of a timeline comes next: plain calculation."""


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
