"""What a generator watches of itself."""

import asyncio
import gc
import time
from itertools import pairwise

from pool_bench.load.probes import LagProbe, PauseProbe


async def test_a_loop_that_is_held_up_is_late_for_as_long_as_that_lasts() -> None:
    probe = LagProbe(asyncio.get_running_loop())
    probe.start()
    await asyncio.sleep(0.02)
    probe.take()
    time.sleep(0.2)  # noqa: ASYNC251  # what this is about
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    lags_ms = sorted(probe.take() / 1e6, reverse=True)
    probe.stop()
    assert lags_ms[0] > 185
    # Every timer that was missed, each 10 ms less late than the one before.
    assert len(lags_ms) >= 19
    assert all(9.9 < a - b < 10.1 for a, b in pairwise(lags_ms[:16]))


async def test_a_stopped_probe_measures_no_more() -> None:
    probe = LagProbe(asyncio.get_running_loop())
    probe.start()
    probe.stop()
    await asyncio.sleep(0.03)
    assert len(probe.take()) == 0


def test_every_run_of_the_garbage_collector_is_a_pause() -> None:
    probe = PauseProbe()
    probe.start()
    try:
        gc.collect()
        gc.collect()
    finally:
        probe.stop()
    pauses_ns = probe.take()
    assert len(pauses_ns) >= 2
    assert all(pauses_ns > 0)
    gc.collect()
    assert len(probe.take()) == 0
    assert probe._called not in gc.callbacks
    probe.stop()
