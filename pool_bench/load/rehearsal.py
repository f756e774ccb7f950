"""What every run needs, once before it: neither the price of connections nor a stall of the client."""

import pickle
from typing import Final

from pool_bench.errors import Phase
from pool_bench.stats.operations import BenchStats, Recorder

# Enough for the recorder to fill its histograms by itself.
_OPERATIONS: Final = 1_000
_TOOK_NS: Final = 1_000_000


def rehearse(phases: tuple[Phase, ...]) -> BenchStats:
    """Record and pack operations of nobody, as every second of a run does.

    The first time takes NumPy and pickle some milliseconds, in which the event loop would stand still.

    Returns:
        What was recorded, which takes as much memory as that of a second of the run.
    """
    recorder = Recorder(phases)
    for _ in range(_OPERATIONS):
        recorder.ok((_TOOK_NS,) * (1 + len(phases)))
    stats = recorder.take()
    pickle.dumps(stats)
    return stats
