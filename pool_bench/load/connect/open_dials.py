"""Connect cycles of the `wire` driver that begin when they are due.

Slots are made as they are needed, up to the operations that may be in flight at once, and used again. After
each turn of the sockets the schedule is looked at, too: under load it is more punctual than its alarm.
"""

from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.plan import WirePlan
from pool_bench.load.connect.dials import DialLoad, Slot
from pool_bench.load.dispatcher import Dispatcher
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.load.splitting import address_of
from pool_bench.load.workload import Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder


class OpenCycleLoad(DialLoad):
    """Dials that begin when they are due, `spec.concurrency` in flight at most."""

    def __init__(
        self, spec: ConnectSpec, open_loop: OpenLoop, plans: tuple[WirePlan, ...], ledger: Recorders
    ) -> None:
        super().__init__(spec, plans, ledger)
        self._free: list[Slot] = []
        self._dispatcher = Dispatcher(spec, open_loop, ledger, self._begin)

    async def start(self) -> None:
        """The schedule begins."""
        await super().start()
        self._dispatcher.start(self._settle)

    def stop(self) -> None:
        """The schedule ends; what was due and has not begun is dropped."""
        self._dispatcher.stop()
        self._count()
        super().stop()

    def _begin_due(self) -> None:
        self._dispatcher.dispatch()
        self._count()

    def _count(self) -> None:
        self.in_flight, self.waiting = self._dispatcher.in_flight, self._dispatcher.waiting

    def _begin(self, target: int, due_ns: int, now_ns: int, recorder: Recorder) -> None:
        if not self._free:
            slot = Slot(0, 0)
            self._slots.append(slot)
            self._free.append(slot)
        slot = self._free.pop()
        slot.due_ns = due_ns
        self._launch(slot, target, recorder, now_ns)

    def _done(self, slot: Slot, dial: Dial) -> None:
        recorder = slot.recorder
        assert recorder is not None  # noqa: S101  # set by _launch()
        slot.dial = None
        self._free.append(slot)
        self._dispatcher.ended()
        self.in_flight -= 1
        waited_ns = dial.started_ns - slot.due_ns
        address = UNKNOWN if recorder.addresses is None else address_of(recorder, dial)
        if dial.closed_by_us:
            recorder.closed_by_us()
        if dial.error is None:
            row = self._rows[slot.target](dial)
            recorder.ok((row[0] + waited_ns, *row), address)
        else:
            recorder.failed(dial.error, dial.total_ns + waited_ns, address)
        if not self._running:
            self._check_idle()
