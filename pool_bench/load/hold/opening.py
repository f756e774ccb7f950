"""What both ways of holding connections share: when to open, when to ask, what to count.

The engines (`wire.py`, `tasks.py`) own the connections; here is everything that does not
depend on how a connection is driven. None of it needs a timer or a task for each connection.
"""

import asyncio
import math
from array import array
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Final

import numpy as np

from pool_bench.errors import ConnectError, Phase
from pool_bench.load.share import Share
from pool_bench.load.spec import HoldSpec
from pool_bench.load.workload import Ledger
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, FailureKey, Recorder

# Timers closer together than this would cost more than they even out.
_FINEST_S: Final = 0.010
# Turns that were missed for longer than this are not made up for.
_LATEST_S: Final = 1.0
# How often it is looked whether connections still open, at least.
_GROWTH_S: Final = 0.5


class HoldLedger(Ledger):
    """Counts what happens to held connections.

    Attributes:
        opens: one recorder for each target, for the first opening.
        replacing: the recorder of reconnects.
        held: connections open now.
    """

    def __init__(self, phases: tuple[tuple[Phase, ...], ...], by_address: tuple[bool, ...]) -> None:
        self.opens = [
            Recorder(each, by_address=split) for each, split in zip(phases, by_address, strict=True)
        ]
        # Replacements are counted over all targets; their steps are those of the first.
        self._replacing_phases = phases[0]
        self.replacing = Recorder(self._replacing_phases, by_address=any(by_address))
        self.held = 0
        self._held_peak = 0
        self._stats = HoldStats()
        self._query_failures = Recorder(())
        self._keepalives_ns = array("q")
        self._active_ns = array("q")
        self._resumed_ns = 0

    def recorders(self) -> Iterable[Recorder]:
        """All of them."""
        return (*self.opens, self.replacing, self._query_failures)

    def resumed(self, span_ns: int) -> None:
        """This client was suspended and goes on: set aside what was under way. For a signal handler."""
        self._resumed_ns = perf_counter_ns()
        super().resumed(span_ns)

    def opened(self, *, again: bool) -> None:
        """A connection is ready; `again` where it replaces one."""
        self.held += 1
        self._held_peak = max(self._held_peak, self.held)
        if again:
            self._stats.reopened += 1
        else:
            self._stats.opened += 1

    def dropped(self, error: ConnectError, age_ns: int, target: int, address: str) -> None:
        """A connection has ended without our asking, at this age in nanoseconds."""
        self.held -= 1
        addresses = self.opens[target].addresses
        if addresses is not None:
            addresses.dropped(address, error.kind)
        key = FailureKey(error.kind, error.phase, error.sqlstate or "")
        self._stats.count_drop(key, error.message, age_ns)

    def survived(self, age_ns: int) -> None:
        """A connection was open when we began to close, at this age in nanoseconds."""
        self._stats.survivors.add(age_ns)

    def closed(self, *, forced: bool) -> None:
        """We have closed a connection; `forced` where the server had not ended it by then."""
        self.held -= 1
        self._stats.closed += 1
        if forced:
            self._stats.forced += 1

    def answered(self, latency_ns: int, *, active: bool) -> None:
        """A query came back, just now."""
        if self._resumed_ns and perf_counter_ns() - latency_ns < self._resumed_ns:
            return
        (self._active_ns if active else self._keepalives_ns).append(latency_ns)

    def query_failed(self, error: ConnectError, latency_ns: int) -> None:
        """A query failed on a connection that stays open."""
        self._query_failures.failed(error, latency_ns)

    def take(self) -> tuple[tuple[BenchStats, ...], HoldStats, int]:
        """The opening of each target, everything else, and the peak of `held`, since the last call."""
        taken, self._stats = self._stats, HoldStats()
        taken.reconnects = self.replacing.take()
        taken.query_failures = self._query_failures.take()
        taken.keepalive, self._keepalives_ns = _histogram(self._keepalives_ns), array("q")
        taken.active, self._active_ns = _histogram(self._active_ns), array("q")
        peak, self._held_peak = self._held_peak, self.held
        return tuple(recorder.take() for recorder in self.opens), taken, peak


def _histogram(values_ns: "array[int]") -> Histogram:
    histogram = Histogram()
    if values_ns:
        histogram.record(np.frombuffer(values_ns, dtype=np.int64))
    return histogram


def spread_targets(connections: Iterable[int]) -> list[int]:
    """The target of each connection, in turn while each has some left."""
    left = list(connections)
    order = []
    while any(left):
        for target, count in enumerate(left):
            if count:
                left[target] -= 1
                order.append(target)
    return order


def active_count(count: int, share: float) -> int:
    """How many of `count` connections never rest: a share of them, at least one."""
    return min(count, max(round(count * share), 1)) if share else 0


def active_slots(count: int, share: float) -> list[bool]:
    """Which of `count` connections never rest, evenly spread; see `active_count`."""
    active = active_count(count, share)
    return [(slot + 1) * active // count > slot * active // count for slot in range(count)]


class Opening:
    """Decides when each connection is begun, batch after batch or at a steady rate, and when to give up.

    Args:
        spec: batches, rate, how many may be under way, and for how long none may open.
        count: connections to open, numbered from 0.
        begin: begins one; the load reports its end by `ended`.
        abandon: lets go of those that are under way, without a word to `ended`.
        clock: nanoseconds in which this client could run, for the time in which none opened.

    Attributes:
        over: set once all are open or have failed, or after `stop`.
        over_ns: when that was, by `perf_counter_ns`; 0 before.
        gave_up_ns: for how long none had opened when opening was given up; 0 where it was not.
    """

    def __init__(
        self,
        spec: HoldSpec,
        count: int,
        begin: Callable[[int], None],
        *,
        abandon: Callable[[], None],
        clock: Callable[[], int],
    ) -> None:
        self._spec = spec
        self._share = spec.share or Share()
        self._count = count
        self._begin = begin
        self._abandon = abandon
        self._clock = clock
        self._give_up_ns = round(spec.give_up_s * 1e9)
        # Since when connections have been tried of which none has opened; 0 where none is.
        self._fruitless_ns = 0
        self._growth_timer: asyncio.TimerHandle | None = None
        self._next = 0
        self._under_way = 0
        self._allowed = 0
        self._began_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._filling = False
        self.over = asyncio.Event()
        self.over_ns = 0
        self.gave_up_ns = 0

    def start(self, begins_ns: int = 0) -> None:
        """Begin the first ones; a rate counts from `begins_ns`, perf_counter_ns, or from now."""
        self._began_ns = begins_ns or perf_counter_ns()
        if self._give_up_ns:
            self._look_at_growth()
        self._allow()

    def stop(self) -> None:
        """Begin no more."""
        self._count = self._allowed = self._next
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._finish()

    def ended(self, *, opened: bool) -> None:
        """One of those begun is open, or has failed."""
        self._under_way -= 1
        if opened:
            self._fruitless_ns = self._clock() if self._under_way else 0
        elif self._is_fruitless():
            # Not at once: whoever reports this end may be in the midst of others.
            asyncio.get_running_loop().call_soon(self._give_up)
        if self._filling:
            return  # one that ended within its very beginning: the loop that began it goes on
        self._fill()

    def _allow(self) -> None:
        """Let further connections begin: the next batch, or as many as the rate has made due."""
        self._timer = None
        loop, rate = asyncio.get_running_loop(), self._spec.rate
        if rate is None:
            self._allowed = min(self._next + self._spec.batch_size, self._count)
        else:
            elapsed_s = (perf_counter_ns() - self._began_ns) / 1e9
            index, processes = self._share.index, self._share.processes
            # The first is due at once, the next after 1/rate; each process has every n-th of all.
            due = max(math.floor((elapsed_s * rate - index) / processes) + 1, 0)
            self._allowed = min(due, self._count)
            if self._allowed < self._count:
                wait_s = (self._allowed * processes + index) / rate - elapsed_s
                is_dense = rate > processes / _FINEST_S
                self._timer = loop.call_later(max(wait_s, _FINEST_S if is_dense else 0), self._allow)
        self._fill()

    def _fill(self) -> None:
        self._filling = True
        while self._next < self._allowed and self._under_way < self._spec.open_concurrency:
            self._next += 1
            self._under_way += 1
            self._fruitless_ns = self._fruitless_ns or self._clock()
            self._begin(self._next - 1)
        self._filling = False
        if self._under_way:
            return
        if self._next >= self._count:
            self._finish()
        elif self._spec.rate is None and self._timer is None:
            # Always by a timer: batches that fail at once must not keep the event loop for themselves.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._spec.batch_pause_s, self._allow)

    def _is_fruitless(self) -> bool:
        """Whether connections have been tried for too long, of which none has opened."""
        since_ns = self._fruitless_ns
        return bool(self._give_up_ns and since_ns) and self._clock() - since_ns >= self._give_up_ns

    def _look_at_growth(self) -> None:
        # In a pause between batches there is nothing that could open: the next one's end says more.
        if self._under_way and self._is_fruitless():
            self._give_up()
            return
        pause_s = min(max(self._spec.give_up_s / 20, _FINEST_S), _GROWTH_S)
        self._growth_timer = asyncio.get_running_loop().call_later(pause_s, self._look_at_growth)

    def _give_up(self) -> None:
        if not self.over.is_set():
            self.gave_up_ns = self._clock() - self._fruitless_ns
            self._abandon()
            self.stop()

    def _finish(self) -> None:
        if self._growth_timer is not None:
            self._growth_timer.cancel()
            self._growth_timer = None
        if not self.over.is_set():
            self.over_ns = perf_counter_ns()
            self.over.set()


class KeepaliveRing:
    """Asks each of `count` connections once in `interval_s`, evenly spread, from one timer.

    Args:
        ask: called with a connection's number when its turn has come.
        share: which of several processes this is, whose turns come between those of the others.
    """

    def __init__(
        self, count: int, interval_s: float, ask: Callable[[int], None], share: Share | None = None
    ) -> None:
        share = share or Share()
        # When the first turn comes, in steps after the beginning.
        self._lead = (share.index + 1) / share.processes
        self._count = count
        self._interval_s = interval_s
        self._ask = ask
        self._turn = 0
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, unless there is nobody to ask; the last connection's turn comes after one interval."""
        if not self._count or not self._interval_s:
            return
        self._began_s = asyncio.get_running_loop().time()
        self._go_round()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        step_s = self._interval_s / self._count
        due = max(math.floor((loop.time() - self._began_s) / step_s + 1 - self._lead), 0)
        # After a standstill all go on from where they were, at the same distance: nobody is asked twice for
        # what was missed, and never are all asked at once.
        late = due - self._turn - min(math.ceil(_LATEST_S / step_s), self._count)
        if late > 0:
            self._began_s += late * step_s
            due -= late
        while self._turn < due:
            self._ask(self._turn % self._count)
            self._turn += 1
        wait_s = self._began_s + (self._turn + self._lead) * step_s - loop.time()
        self._timer = loop.call_later(max(wait_s, _FINEST_S), self._go_round)
