"""What a generator watches of itself: how late its event loop is, and what garbage collection takes."""

import asyncio
import gc
from array import array
from time import perf_counter_ns
from typing import Final

import numpy as np

from pool_bench.stats import Int64Array

_PROBE_NS: Final = 10_000_000


class LagProbe:
    """Measures how late the event loop is: a timer every 10 ms, and when it really fires.

    A loop that is held up fires one timer late and misses the ones in between. Those are counted as if they
    had been there, each 10 ms less late than the one before (as HdrHistogram corrects for the expected
    interval), so that a percentile of the lag is that of the time and not of the timers: p99 is what the loop
    exceeded in 1 % of the time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lags_ns = array("q")
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due_ns = perf_counter_ns() + _PROBE_NS
        self._timer = self._loop.call_later(_PROBE_NS / 1e9, self._fire)

    def _fire(self) -> None:
        lag_ns = max(0, perf_counter_ns() - self._due_ns)
        self._lags_ns.append(lag_ns)
        if lag_ns > _PROBE_NS:
            self._lags_ns.extend(range(lag_ns - _PROBE_NS, 0, -_PROBE_NS))
        self.start()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def take(self) -> Int64Array:
        """The lags since the last call, nanoseconds (shape n)."""
        taken, self._lags_ns = self._lags_ns, array("q")
        return np.frombuffer(taken, dtype=np.int64) if taken else np.zeros(0, dtype=np.int64)


class PauseProbe:
    """Measures the garbage collector's runs in this process, each of which stops everything else."""

    def __init__(self) -> None:
        self._began_ns = 0
        self._pauses_ns = array("q")

    def start(self) -> None:
        """Begin to measure."""
        gc.callbacks.append(self._called)

    def _called(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_ns = perf_counter_ns()
        elif self._began_ns:
            self._pauses_ns.append(perf_counter_ns() - self._began_ns)

    def stop(self) -> None:
        """Measure no more."""
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def take(self) -> Int64Array:
        """The pauses since the last call, nanoseconds (shape n)."""
        taken, self._pauses_ns = self._pauses_ns, array("q")
        return np.frombuffer(taken, dtype=np.int64) if taken else np.zeros(0, dtype=np.int64)
