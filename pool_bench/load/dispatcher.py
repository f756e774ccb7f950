"""Begins operations when they are due, whether or not earlier ones have finished.

One timer for all: when it fires, everything that is due is begun at once. With as many operations in flight
as allowed, those that are due wait in order for one to end, while the time since they were due goes on
counting; what has waited longer than an operation may take, and what is still waiting when the run ends, is
dropped. So `offered = ok + failed + unfinished + dropped` in the end, and no operation is skipped because the
server, or this client, was slow. Failures do not slow arrivals down: there is no back-off, and every
operation that is due is attempted.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from pool_bench.load.arrivals import Arrivals
from pool_bench.load.share import Share
from pool_bench.load.spec import ConnectSpec, OpenLoop, PoolSpec
from pool_bench.load.timer import Timer, make_timer
from pool_bench.load.workload import Recorders
from pool_bench.stats.operations import Recorder

# (which target, when it was due, when it begins: both perf_counter_ns, who records it)
Begin = Callable[[int, int, int, Recorder], None]

# Beginning more than this in one go would leave answers that have come unread for more than a millisecond.
_BATCH: Final = 32
# The timer fires no more often than this, which bounds what it costs; it is the precision, too.
_LEAST_GAP_NS: Final = 100_000
_NEVER_NS: Final = 1 << 62


class Dispatcher:
    """Who decides when the next operation begins.

    Args:
        spec: the run's settings.
        open_loop: its arrivals.
        recorders: they count what is due and what is dropped; told when measuring begins.
        begin: begins one operation; must not block, and may have it end at once.

    Attributes:
        in_flight: operations begun and not ended.
    """

    def __init__(
        self, spec: ConnectSpec | PoolSpec, open_loop: OpenLoop, recorders: Recorders, begin: Begin
    ) -> None:
        share = spec.share or Share()
        self._arrivals = Arrivals(
            open_loop.profile.after(spec.warmup_s),
            open_loop.spacing,
            spec.seed,
            index=share.index,
            parts=share.processes,
        )
        self._targets = len(spec.targets)
        self._most = spec.concurrency
        self._timeout_ns = round(spec.connect_timeout_s * 1e9)
        self._warmup_ns = round(spec.warmup_s * 1e9)
        self._length_ns = self._warmup_ns + round(spec.duration_s * 1e9) if spec.duration_s else None
        self._recorders = recorders
        self._begin = begin
        self._timer: Timer | None = None
        self._began_ns = 0
        self._end_ns = 0
        self._waiting: deque[int] = deque()
        # Targets are taken in turn, by each process from another one on.
        self._enqueued = self._taken = share.index
        self._full_until_ns = 0
        self._busy = False
        self._shifted_ns = 0
        self.in_flight = 0

    @property
    def waiting(self) -> int:
        """Operations that are due and have not begun."""
        return len(self._waiting)

    def start(self, wake: Callable[[], None]) -> None:
        """The schedule begins now; `wake` is called whenever `dispatch` is to be."""
        self._timer = make_timer(asyncio.get_running_loop(), wake)
        self._began_ns = self._recorders.begins_ns or perf_counter_ns()
        self._end_ns = self._began_ns + self._length_ns if self._length_ns is not None else _NEVER_NS
        self._recorders.measured_from_ns = self._began_ns + self._warmup_ns
        self._shifted_ns = self._recorders.suspended_ns
        self.dispatch()
        self._arm(self._began_ns)

    def ended(self) -> None:
        """An operation has ended; whoever calls this calls `dispatch` when it is free to."""
        if self.in_flight == self._most:
            self._full_until_ns = perf_counter_ns()
        self.in_flight -= 1

    def dispatch(self) -> None:
        """Begin what is due, as far as there is room for it."""
        if self._timer is None or self._busy:
            return
        now_ns = perf_counter_ns()
        # After the clock was read: a suspension before that is known by then, a later one can wait.
        if self._recorders.suspended_ns != self._shifted_ns:
            self._shift(now_ns)
        if not self._waiting and self._began_ns + self._arrivals.next_ns > now_ns:
            return
        self._enqueue_due(now_ns)
        self._begin_waiting(_BATCH, now_ns)
        self._arm(now_ns)

    def _shift(self, now_ns: int) -> None:
        """Go on with the schedule where this client was suspended: nothing became due meanwhile."""
        span_ns = self._recorders.suspended_ns - self._shifted_ns
        self._shifted_ns += span_ns
        self._began_ns += span_ns
        self._full_until_ns += span_ns
        if self._end_ns != _NEVER_NS:
            self._end_ns += span_ns
        measured_from_ns = self._recorders.measured_from_ns
        counted_from_ns = measured_from_ns or 0
        if measured_from_ns is not None and measured_from_ns + span_ns > now_ns:
            self._recorders.measured_from_ns = measured_from_ns + span_ns
            counted_from_ns = 0
        # What was due in the warm-up stays there.
        self._waiting = deque(
            due_ns + span_ns if due_ns >= counted_from_ns else due_ns for due_ns in self._waiting
        )

    def _arm(self, now_ns: int) -> None:
        due_ns = self._began_ns + self._arrivals.next_ns
        if self._timer is None:
            return
        if self._waiting and self.in_flight < self._most:
            self._timer.set(now_ns)
        elif due_ns < self._end_ns:
            self._timer.set(max(due_ns, now_ns + _LEAST_GAP_NS))

    def _enqueue_due(self, now_ns: int) -> None:
        """Count what has become due, and put it into the line."""
        arrivals, began_ns, line = self._arrivals, self._began_ns, self._waiting
        until_ns = min(now_ns + 1, self._end_ns) - began_ns
        while arrivals.next_ns < until_ns:
            due_ns = began_ns + arrivals.advance()
            line.append(due_ns)
            self._recorders.at(due_ns)[self._enqueued % self._targets].offered(1)
            self._enqueued += 1

    def _take(self) -> tuple[int, int, Recorder]:
        """The first in the line: its target, when it was due, and its recorder."""
        due_ns = self._waiting.popleft()
        target = self._taken % self._targets
        self._taken += 1
        return target, due_ns, self._recorders.at(due_ns)[target]

    def _begin_waiting(self, limit: int | None, now_ns: int) -> None:
        line = self._waiting
        while line and line[0] < now_ns - self._timeout_ns:
            _, _, recorder = self._take()
            recorder.dropped(1)
        # An operation that ends at once leads back to here.
        self._busy = True
        try:
            while line and self.in_flight < self._most and limit != 0:
                if limit is not None:
                    limit -= 1
                target, due_ns, recorder = self._take()
                now_ns = perf_counter_ns()
                # What the line cost is in the response time; this client's own lateness is apart from it.
                recorder.begun(now_ns - max(due_ns, self._full_until_ns))
                self.in_flight += 1
                self._begin(target, due_ns, now_ns, recorder)
        finally:
            self._busy = False

    def stop(self) -> None:
        """The schedule ends now: what is due begins where there is room, all else that was due is dropped."""
        if self._timer is None:
            return
        timer, self._timer = self._timer, None
        timer.close()
        now_ns = perf_counter_ns()
        if self._recorders.suspended_ns != self._shifted_ns:
            self._shift(now_ns)
        self._end_ns = min(self._end_ns, now_ns)
        self._enqueue_due(now_ns)
        self._begin_waiting(None, now_ns)
        while self._waiting:
            _, _, recorder = self._take()
            recorder.dropped(1)
