"""What both ways of holding share: when a connection is opened, asked, replaced, and what is counted."""

import random
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Final

from pool_bench.errors import Phase
from pool_bench.load.hold.opening import HoldLedger, KeepaliveRing, Opening, active_slots, spread_targets
from pool_bench.load.hold.reconnects import Reconnects
from pool_bench.load.rehearsal import rehearse
from pool_bench.load.spec import HoldSpec
from pool_bench.load.splitting import splits_of
from pool_bench.load.workload import HOLDING, Stretch, Taken, Workload
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Stage
from pool_bench.units import format_duration

# How long an active connection rests after a query that failed, so that a wrong one is no busy loop.
AFTER_FAILURE_S: Final = 0.1


class HoldLoad(Workload):
    """Connections that are opened, held and closed; how one is driven, subclasses say.

    Args:
        spec: what to hold.
        phases: the steps of a connect to each target.
        resident_bytes: this process's size in memory.
    """

    course = HOLDING

    def __init__(
        self, spec: HoldSpec, phases: Iterable[tuple[Phase, ...]], resident_bytes: Callable[[], int]
    ) -> None:
        self._spec = spec
        self._resident_bytes = resident_bytes
        self._targets = spread_targets(spec.connections)
        self._active = active_slots(len(self._targets), spec.active)
        self._rng = random.Random(spec.seed)
        self._ledger = HoldLedger(tuple(phases), splits_of(spec))
        self._rehearsed: BenchStats | None = rehearse(self._ledger.replacing.phases)
        self._opening = Opening(
            spec,
            len(self._targets),
            lambda slot: self._begin(slot, again=False),
            abandon=self._abandon_opening,
            clock=self._ledger.now_ns,
        )
        self.opened = self._opening.over
        self._reconnects = Reconnects(
            self._rng,
            lambda slot: self._begin(slot, again=True),
            lambda: self.in_flight < spec.open_concurrency,
        )
        self._ring = KeepaliveRing(len(self._targets), spec.keepalive_s, self._keep_alive, spec.share)
        self._overdue = f"after {format_duration(spec.connect_timeout_s)} (--connect-timeout)"
        self._is_opening = True
        self._stopping = False
        self._extra = HoldStats()
        self._held = 0
        self._began_ns = self._holding_ns = 0

    @property
    def ledger(self) -> HoldLedger:
        """Who records."""
        return self._ledger

    @property
    def backing_off(self) -> int:
        """Connections that wait before they are replaced."""
        return self._reconnects.waiting

    @property
    def exhausted(self) -> bool:
        """Whether nothing is held and nothing can come back."""
        return self.opened_all and not (self._ledger.held or self.in_flight or self.backing_off)

    @property
    def opened_all(self) -> bool:
        """Whether all are open or have failed."""
        return self._opening.over.is_set()

    @abstractmethod
    def _begin(self, slot: int, *, again: bool) -> None:
        """Begin to open a connection; `again` where it replaces one."""

    @abstractmethod
    def _abandon_opening(self) -> None:
        """Let go of the connects of the first opening that are under way; `Opening` is not told."""

    @abstractmethod
    def _keep_alive(self, slot: int) -> None:
        """A connection's turn has come to be asked something, if it is open and not asked all the time."""

    @abstractmethod
    async def _close(self, seconds: float) -> None:
        """Give up what is not open yet, and close everything politely, at most so long; then at once."""

    async def start(self) -> None:
        """Begin to open; `opened` is set once all are open or have failed."""
        # After the first look, and beside as much as a second of the run takes: what every run needs is not
        # to be taken for the price of connections.
        self._extra.base_rss_bytes = self._resident_bytes()
        self._rehearsed = None
        self._began_ns = self._ledger.now_ns()
        self._ring.start()
        self._opening.start(self._ledger.begins_ns)

    def measure(self) -> None:
        """Holding begins."""
        self._holding_ns = self._ledger.now_ns()

    def stop(self) -> None:
        """Holding is over; how long it, or an opening that was cut short, took is noted."""
        if self._stopping:
            return
        self._stopping = True
        now_ns = self._ledger.now_ns()
        if self._holding_ns:
            self._extra.hold_s = (now_ns - self._holding_ns) / 1e9
            self._extra.emptied = self.exhausted
        elif self._began_ns:
            self._is_opening = False
            self._extra.open_s = (now_ns - self._began_ns) / 1e9

    async def drain(self, seconds: float) -> None:
        """Close everything."""
        began_ns = self._ledger.now_ns()
        await self._close(seconds)
        self._extra.close_s = (self._ledger.now_ns() - began_ns) / 1e9

    def _end_all(self) -> None:
        """Begin nothing more, neither connects nor queries."""
        self._opening.stop()
        self._ring.stop()
        self._reconnects.stop()

    def take(self, stretch: Stretch) -> Taken:
        """What there was since the last call."""
        if self._is_opening and self.opened_all:
            self._is_opening = False
            opened_ns = self._opening.over_ns - self._ledger.suspended_ns
            self._extra.open_s = (opened_ns - self._began_ns) / 1e9
            self._extra.gave_up_s = self._opening.gave_up_ns / 1e9
            self._extra.held_rss_bytes = self._resident_bytes()
        targets, hold, peak = self._ledger.take()
        hold.merge(self._extra)
        self._extra = HoldStats()
        if stretch.stage is Stage.HOLD:
            hold.hold_cpu_s = stretch.usage.cpu_s
        self._held += hold.held
        hold.intervals.append(
            HoldInterval(
                t=stretch.t,
                seconds=stretch.seconds,
                stage=str(stretch.stage),
                held=self._held,
                held_peak=peak,
                opened=hold.opened + hold.reopened,
                dropped=hold.dropped,
                closed=hold.closed,
                keepalive=hold.keepalive,
                active=hold.active,
            )
        )
        return Taken(targets, hold=hold)
