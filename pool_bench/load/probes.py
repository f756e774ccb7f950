"""What a generator watches of itself: how late its loop is and why, and what garbage collection takes."""

import asyncio
import gc
import signal
import threading
import time
from array import array
from collections.abc import Callable
from time import perf_counter_ns
from types import FrameType
from typing import Final

import numpy as np

from pool_bench.load.thread_time import MachineReading, MachineTime, ThreadTime
from pool_bench.stats.client_time import ClientTime
from pool_bench.stats.histogram import Int64Array

_PROBE_NS: Final = 10_000_000
# From here on the loop was so late that it is worth knowing why (`generators.SATURATED_LAG_P99_MS`).
_LATE_NS: Final = 10_000_000
# A stop that is shorter is lag like any other.
_STANDSTILL_NS: Final = 50_000_000


class LagProbe:
    """Measures how late the event loop is, and why: a timer every 10 ms, and when it really fires.

    A loop that is held up fires one timer late and misses the ones in between. Those are counted as if they
    had been there, each 10 ms less late than the one before (as HdrHistogram corrects for the expected
    interval), so that a percentile of the lag is that of the time and not of the timers: p99 is what the loop
    exceeded in 1 % of the time.

    Between two firings the thread ran, waited for a core, or did neither: the kernel tells. A process that
    was stopped gets SIGCONT before any of its code goes on; what the clock went on by meanwhile is no lag. A
    machine that slept is seen by the clock that counts that, which `perf_counter_ns` does not.

    Args:
        loop: which to look at.
        resumed: called as soon as the process goes on after it was suspended, with how long that took on the
            clock of `perf_counter_ns`; in a signal handler, so it may only set what others look at.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resumed: Callable[[int], None] = lambda span_ns: None
    ) -> None:
        self._loop = loop
        self._resumed = resumed
        self._lags_ns = array("q")
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._thread: ThreadTime | None = None
        self._machine: MachineTime | None = None
        self._before = MachineReading()
        self._taken_ns = self._fired_ns = self._ran_ns = self._waited_ns = 0
        self._taken_waited_ns = self._asleep_ns = 0
        self._time = ClientTime()
        self._handler: object = None

    def start(self) -> None:
        """Begin to measure; by the thread whose loop it is."""
        self._thread, self._machine = ThreadTime(), MachineTime()
        self._before = self._machine.read()
        self._look()
        self._taken_ns, self._taken_waited_ns, self._asleep_ns = self._fired_ns, self._waited_ns, asleep_ns()
        if hasattr(signal, "SIGCONT") and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGCONT, self._continued)
        self._arm()

    def _arm(self) -> None:
        self._due_ns = perf_counter_ns() + _PROBE_NS
        self._timer = self._loop.call_later(_PROBE_NS / 1e9, self._fire)

    def _look(self) -> tuple[int, int, int]:
        """How long it has been since the last look, and how long of it the thread ran and waited."""
        assert self._thread is not None  # noqa: S101  # set by start()
        before = self._fired_ns, self._ran_ns, self._waited_ns
        self._fired_ns = perf_counter_ns()
        self._ran_ns, self._waited_ns = self._thread.ran_ns(), self._thread.waited_ns()
        return self._fired_ns - before[0], self._ran_ns - before[1], self._waited_ns - before[2]

    def _fire(self) -> None:
        now_ns = perf_counter_ns()
        asleep_before_ns, self._asleep_ns = self._asleep_ns, asleep_ns()
        if self._asleep_ns - asleep_before_ns > _STANDSTILL_NS:
            # The clock of the figures stood still: nothing to take off, but what was under way saw it.
            self._suspended((self._asleep_ns - asleep_before_ns) / 1e9, 0)
        lag_ns = max(0, now_ns - self._due_ns)
        self._lags_ns.append(lag_ns)
        if lag_ns > _PROBE_NS:
            self._lags_ns.extend(range(lag_ns - _PROBE_NS, 0, -_PROBE_NS))
        self._explain(lag_ns)
        self._arm()

    def _explain(self, lag_ns: int) -> None:
        gap_ns, ran_ns, waited_ns = self._look()
        if lag_ns <= _LATE_NS:
            return
        # Of what the loop was late by: it may have rested for the first 10 ms.
        waiting_ns = min(waited_ns, lag_ns)
        running_ns = min(ran_ns, lag_ns - waiting_ns)
        standing_ns = min(lag_ns - waiting_ns - running_ns, max(gap_ns - ran_ns - waited_ns, 0))
        self._time.late_waiting_s += waiting_ns / 1e9
        self._time.late_running_s += running_ns / 1e9
        self._time.late_standing_s += standing_ns / 1e9

    def _continued(self, number: int, frame: FrameType | None) -> None:
        """SIGCONT has come: the process was stopped, unless somebody just sent it."""
        gap_ns, ran_ns, waited_ns = self._look()
        span_ns = gap_ns - ran_ns - waited_ns
        if span_ns > _STANDSTILL_NS:
            self._suspended(span_ns / 1e9, span_ns)
        if callable(self._handler):
            self._handler(number, frame)

    def _suspended(self, seconds: float, span_ns: int) -> None:
        self._time.suspended_s += seconds
        self._time.suspensions += 1
        self._due_ns += span_ns
        self._taken_ns += span_ns
        self._resumed(span_ns)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._handler is not None:
            signal.signal(signal.SIGCONT, self._handler)  # type: ignore[arg-type]
            self._handler = None

    def close(self) -> None:
        """Give the descriptors back, once nothing is taken any more."""
        for one in (self._thread, self._machine):
            if one is not None:
                one.close()

    def take(self) -> Int64Array:
        """The lags since the last call, nanoseconds (shape n)."""
        taken, self._lags_ns = self._lags_ns, array("q")
        return np.frombuffer(taken, dtype=np.int64) if taken else np.zeros(0, dtype=np.int64)

    def take_time(self) -> ClientTime:
        """Where this thread's time went since the last call."""
        taken, self._time = self._time, ClientTime()
        if self._thread is None or self._machine is None:
            return taken
        now_ns, waited_ns, machine = perf_counter_ns(), self._thread.waited_ns(), self._machine.read()
        if self._thread.known:
            taken.seen_s = (now_ns - self._taken_ns) / 1e9
        taken.cores = self._machine.cores
        taken.waited_s = (waited_ns - self._taken_waited_ns) / 1e9
        taken.busy_s = max(machine.busy_s - self._before.busy_s, 0.0)
        taken.stolen_s = max(machine.stolen_s - self._before.stolen_s, 0.0)
        taken.throttled_s = max(machine.throttled_s - self._before.throttled_s, 0.0)
        self._taken_ns, self._taken_waited_ns, self._before = now_ns, waited_ns, machine
        return taken


def asleep_ns() -> int:
    """For how long this machine has slept so far, nanoseconds; 0 where the system does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


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
