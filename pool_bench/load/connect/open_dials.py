"""Connect cycles of the `wire` driver that begin when they are due.

Slots are made as they are needed, up to the operations that may be in flight at once, and used again. After
each turn of the sockets the schedule is looked at, too: under load it is more punctual than its timer.
"""

from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.plan import WirePlan
from pool_bench.load.connect.dials import DialLoad, RecordedSlot
from pool_bench.load.dispatcher import Dispatcher
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.load.splitting import address_of
from pool_bench.load.workload import Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder


class DueSlot(RecordedSlot):
    """A slot for an operation that was due."""

    __slots__ = ("due_ns",)

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.due_ns = 0


class OpenCycleLoad(DialLoad[DueSlot]):
    """Dials that begin when they are due, `spec.concurrency` in flight at most."""

    def __init__(
        self, spec: ConnectSpec, open_loop: OpenLoop, plans: tuple[WirePlan, ...], recorders: Recorders
    ) -> None:
        super().__init__(spec, plans, recorders)
        self._free: list[DueSlot] = []
        self._dispatcher = Dispatcher(spec, open_loop, recorders, self._begin)

    @property
    def waiting(self) -> int:
        """Operations that are due and have not begun."""
        return self._dispatcher.waiting

    async def start(self) -> None:
        """The schedule begins."""
        await super().start()
        self._dispatcher.start(self._dialer.settle)

    def stop(self) -> None:
        """The schedule ends; what was due and has not begun is dropped."""
        self._dispatcher.stop()
        super().stop()

    def _begin_due(self) -> None:
        self._dispatcher.dispatch()

    def _begin(self, target: int, due_ns: int, now_ns: int, recorder: Recorder) -> None:
        slot = self._free.pop() if self._free else DueSlot(recorder)
        slot.recorder = recorder
        slot.due_ns = due_ns
        self._dialer.begin(slot, target, now_ns)

    def _done(self, slot: DueSlot, dial: Dial) -> None:
        recorder = slot.recorder
        self._free.append(slot)
        self._dispatcher.ended()
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
