"""Connect cycles of the `wire` driver, without a coroutine for each.

In a closed loop (`CycleLoad`) a slot of the dialer is a worker: when its dial is done, it is recorded, and
the slot begins the next one as soon as all sockets that were ready with it have been served. The open loop is
in `open_dials.py`.
"""

import asyncio
import random
from abc import abstractmethod
from collections.abc import Callable
from operator import attrgetter
from time import perf_counter_ns
from typing import Generic, TypeVar

from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.plan import WirePlan
from pool_bench.load.backoff import backoff_s
from pool_bench.load.dialer import Dialer, DialerSettings, Slot
from pool_bench.load.spec import ConnectSpec
from pool_bench.load.splitting import address_of
from pool_bench.load.workload import MeasuredLoad, Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder


class RecordedSlot(Slot):
    """A slot whose dial is recorded."""

    __slots__ = ("recorder",)

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder


S = TypeVar("S", bound=RecordedSlot)


class DialLoad(MeasuredLoad, Generic[S]):
    """Dials under way, each recorded at its end. Which begin when, subclasses say."""

    def __init__(self, spec: ConnectSpec, plans: tuple[WirePlan, ...], recorders: Recorders) -> None:
        self.recorders = recorders
        self._spec = spec
        self._rng = random.Random(spec.seed)
        self._running = True
        self._idle = asyncio.Event()
        self._rows: list[Callable[[Dial], tuple[int, ...]]] = [
            attrgetter("total_ns", *(f"{phase}_ns" for phase in plan.phases)) for plan in plans
        ]
        settings = DialerSettings(
            at_once=spec.concurrency, timeout_s=spec.connect_timeout_s, overdue="no end", batch=True
        )
        self._dialer: Dialer[S] = Dialer(plans, settings, self._rng, done=self._done, settle=self._begin_due)

    @property
    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._dialer.pending)

    @abstractmethod
    def _begin_due(self) -> None:
        """Begin the dials that are to be begun now."""

    @abstractmethod
    def _done(self, slot: S, dial: Dial) -> None:
        """Record a dial that has ended."""

    async def start(self) -> None:
        """Begin the first dials."""
        if self._spec.resolve_once:
            await self._dialer.resolve_all()
        self._dialer.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._running = False
        self._check_idle()

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, then count what is left as unfinished and close it."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            for slot, dial in self._dialer.give_up(list(self._dialer.pending), "the run ended"):
                slot.recorder.unfinished(1)
                slot.recorder.unfinished_in(dial.phase, address_of(slot.recorder, dial))
            await self.close()

    async def close(self) -> None:
        """Watch no sockets any more."""
        self._dialer.close()

    def _check_idle(self) -> None:
        if not self._running and not self._dialer.pending:
            self._idle.set()


class Worker(RecordedSlot):
    """A worker of a closed loop, and how its targets have treated it."""

    __slots__ = ("failures", "retry_ns", "timer", "turn")

    def __init__(self, recorder: Recorder, targets: int, first: int) -> None:
        super().__init__(recorder)
        self.turn = first
        self.failures = [0] * targets
        self.retry_ns = [0] * targets
        self.timer: asyncio.TimerHandle | None = None


class CycleLoad(DialLoad[Worker]):
    """`spec.concurrency` workers that connect and close, again and again."""

    def __init__(self, spec: ConnectSpec, plans: tuple[WirePlan, ...], recorders: Recorders) -> None:
        super().__init__(spec, plans, recorders)
        self._targets = len(plans)
        first = spec.share.first if spec.share else 0
        self._workers = [
            Worker(recorders.current[0], len(plans), (first + index) % len(plans))
            for index in range(spec.concurrency)
        ]
        self._due: list[Worker] = []
        self._backing_off = 0

    @property
    def backing_off(self) -> int:
        """Workers that leave failing targets alone for now."""
        return self._backing_off

    async def start(self) -> None:
        """Begin one dial for every worker."""
        await super().start()
        self._due = list(self._workers)
        self._dialer.settle()

    def stop(self) -> None:
        """Begin nothing more; workers that back off are done."""
        for worker in self._workers:
            if worker.timer is not None:
                worker.timer.cancel()
                worker.timer = None
        self._backing_off = 0
        super().stop()

    def _begin_due(self) -> None:
        while self._due:
            due, self._due = self._due, []
            for worker in due:
                self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        """Start the worker's next dial, or set a timer where all its targets are being left alone."""
        worker.timer = None
        targets = self._targets
        index = worker.turn
        now_ns = perf_counter_ns()
        if worker.retry_ns[index] > now_ns:
            order = [(index + step) % targets for step in range(targets)]
            index = next((i for i in order if worker.retry_ns[i] <= now_ns), -1)
            if index < 0:
                self._wait(worker, min(worker.retry_ns) - now_ns)
                return
        worker.turn = (index + 1) % targets
        worker.recorder = self.recorders.current[index]
        self._dialer.begin(worker, index, now_ns)

    def _wait(self, worker: Worker, delay_ns: int) -> None:
        self._backing_off += 1
        worker.timer = asyncio.get_running_loop().call_later(delay_ns / 1e9, self._wake, worker)

    def _wake(self, worker: Worker) -> None:
        self._backing_off -= 1
        self._due.append(worker)
        self._dialer.settle()

    def _done(self, slot: Worker, dial: Dial) -> None:
        recorder = slot.recorder
        error = dial.error
        address = UNKNOWN if recorder.addresses is None else address_of(recorder, dial)
        if dial.closed_by_us:
            recorder.closed_by_us()
        if error is None:
            slot.failures[slot.target] = 0
            recorder.ok(self._rows[slot.target](dial), address)
        else:
            recorder.failed(error, dial.total_ns, address)
            failures = slot.failures[slot.target] = slot.failures[slot.target] + 1
            delay_ns = round(backoff_s(failures, self._rng) * 1e9)
            slot.retry_ns[slot.target] = perf_counter_ns() + delay_ns
        if self._running:
            self._due.append(slot)
        else:
            self._check_idle()
