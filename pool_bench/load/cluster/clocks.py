"""Compares the clock of another machine with ours.

Each ping asks what its clock says. The answer was given somewhere between sending and receiving, so half the
round trip bounds the error; of many pings the one with the shortest round trip counts (Cristian,
"Probabilistic clock synchronization", Distributed Computing 3, 1989).
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from pool_bench.stats.hosts import Clock

PINGS: Final = 32


def compare(
    ping: Callable[[], int], *, pings: int = PINGS, now_ns: Callable[[], int] = perf_counter_ns
) -> Clock:
    """What the clock that `ping` reads says, compared with ours; as many round trips as `pings`.

    Args:
        ping: the other machine's perf_counter_ns.
        now_ns: our clock.
    """
    best: Clock | None = None
    for _ in range(pings):
        sent_ns = now_ns()
        theirs_ns = ping()
        half_ns = (now_ns() - sent_ns + 1) // 2
        if best is None or half_ns < best.uncertainty_ns:
            best = Clock(offset_ns=theirs_ns - sent_ns - half_ns, uncertainty_ns=half_ns)
    assert best is not None  # noqa: S101  # at least one
    return best
