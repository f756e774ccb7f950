"""Connect cycles of the `wire` driver, without a coroutine for each.

A slot holds one `Dial` at a time; `DialLoad` moves all of them on as their sockets become ready. In a closed
loop (`CycleLoad`) a slot is a worker: when its dial is done, it is recorded, and the slot begins the next one
as soon as all sockets that were ready with it have been served. The open loop is in `open_dials.py`.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import attrgetter
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.network.poller import READ, Poller, make_poller
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import Endpoint, WirePlan, resolve
from pool_bench.drivers.wire.routes import ordered
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.backoff import backoff_s
from pool_bench.load.spec import ConnectSpec
from pool_bench.load.splitting import address_of
from pool_bench.load.workload import Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder
from pool_bench.units import format_duration

_MS: Final = 1_000_000
_MOST_RESOLVERS: Final = 64


class Slot:
    """A dial under way; in a closed loop one worker, and how its targets have treated it."""

    __slots__ = (
        "attempt",
        "dial",
        "due_ns",
        "failures",
        "lookup",
        "recorder",
        "retry_ns",
        "target",
        "timer",
        "turn",
        "want",
    )

    def __init__(self, targets: int, first: int) -> None:
        self.dial: Dial | None = None
        self.recorder: Recorder | None = None
        self.lookup: asyncio.Future[tuple[Endpoint, ...]] | None = None
        self.attempt = 0
        self.due_ns = 0
        self.want = DONE
        self.target = 0
        self.turn = first
        self.failures = [0] * targets
        self.retry_ns = [0] * targets
        self.timer: asyncio.TimerHandle | None = None


class DialLoad(ABC):
    """Dials under way in slots, moved on as their sockets become ready. Which begin when, subclasses say."""

    def __init__(self, spec: ConnectSpec, plans: tuple[WirePlan, ...], ledger: Recorders) -> None:
        self._spec = spec
        self._plans = list(plans)
        self._ledger = ledger
        self._rng = random.Random(spec.seed)
        self._slots: list[Slot] = []
        self._by_fd: dict[int, Slot] = {}
        self._outbox: list[Dial] = []
        self._running = False
        self._idle: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Poller | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._resolvers: ThreadPoolExecutor | None = None
        self._timeout_ns = round(spec.connect_timeout_s * 1e9)
        self._endpoints = [plan.endpoints for plan in plans]
        self._rows: list[Callable[[Dial], tuple[int, ...]]] = [
            attrgetter("total_ns", *(f"{phase}_ns" for phase in plan.phases)) for plan in plans
        ]
        self.in_flight = 0
        self.backing_off = 0
        self.waiting = 0

    @abstractmethod
    def _begin_due(self) -> None:
        """Begin the dials that are to be begun now."""

    @abstractmethod
    def _done(self, slot: Slot, dial: Dial) -> None:
        """Record a dial that has ended, and free its slot."""

    async def start(self) -> None:
        """Begin the first dials."""
        self._loop = asyncio.get_running_loop()
        self._poller = make_poller(self._loop, self._ready, self._settle)
        self._idle = asyncio.Event()
        self._running = True
        if self._spec.resolve_once:
            await self._resolve_all()
        self._sweep()

    async def _resolve_all(self) -> None:
        for index, plan in enumerate(self._plans):
            if plan.endpoints is not None:
                continue
            try:
                found = await asyncio.to_thread(resolve, plan)
            except ConnectError:
                # Left unresolved, every operation looks the name up, fails and is counted.
                continue
            self._endpoints[index] = found
            self._plans[index] = replace(plan, endpoints=found)

    def stop(self) -> None:
        """Begin nothing more."""
        self._running = False
        self._check_idle()

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, then count what is left as unfinished and close it."""
        try:
            if self._idle is not None:
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            self._give_up()

    def _give_up(self) -> None:
        now_ns = perf_counter_ns()
        for slot in self._slots:
            if slot.dial is not None and slot.recorder is not None:
                self._abort(slot, slot.dial, "the run ended", now_ns)
                slot.recorder.unfinished(1)
                slot.recorder.unfinished_in(slot.dial.phase, address_of(slot.recorder, slot.dial))
                slot.dial = None
        self.in_flight = 0
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if self._resolvers is not None:
            self._resolvers.shutdown(wait=False, cancel_futures=True)
        if self._poller is not None:
            self._poller.close()
            self._poller = None

    def _abort(self, slot: Slot, dial: Dial, message: str, now_ns: int) -> None:
        if slot.lookup is not None:
            # One that still waits for its thread would be in the way of those that come after it.
            slot.lookup.cancel()
            slot.lookup = None
        dial.abort(FailureKind.TIMEOUT, message, now_ns)

    def _check_idle(self) -> None:
        if not self._running and self.in_flight == 0 and self._idle is not None:
            self._idle.set()

    def _launch(self, slot: Slot, index: int, recorder: Recorder, now_ns: int) -> None:
        """Begin a dial to a target in a slot."""
        slot.target = index
        slot.recorder = recorder
        poller = self._poller
        assert poller is not None  # noqa: S101  # set by start()
        dial = slot.dial = Dial(self._plans[index], now_ns, before_close=poller.forget, outbox=self._outbox)
        endpoints = self._endpoints[index]
        if endpoints is None:
            self._resolve(slot, dial)
        else:
            slot.attempt = 0
            self._go_on(slot, dial, dial.begin(self._ordered(endpoints, index), now_ns))

    def _ordered(self, endpoints: tuple[Endpoint, ...], index: int) -> tuple[Endpoint, ...]:
        return endpoints if len(endpoints) == 1 else ordered(self._plans[index], endpoints, self._rng)

    def _resolve(self, slot: Slot, dial: Dial) -> None:
        assert self._loop is not None  # noqa: S101  # set by start()
        if self._resolvers is None:
            # asyncio's own executor has a handful of threads: waiting for one would look like a slow look-up.
            workers = min(self._spec.concurrency, _MOST_RESOLVERS)
            self._resolvers = ThreadPoolExecutor(workers, thread_name_prefix="resolver")
        slot.attempt = 0
        slot.lookup = self._loop.run_in_executor(self._resolvers, resolve, self._plans[slot.target])
        slot.lookup.add_done_callback(lambda done: self._resolved(slot, dial, done))

    def _resolved(self, slot: Slot, dial: Dial, found: "asyncio.Future[tuple[Endpoint, ...]]") -> None:
        now_ns = perf_counter_ns()
        if found.cancelled():
            return  # given up in the meantime
        slot.lookup = None
        error = found.exception()
        if error is None:
            self._go_on(slot, dial, dial.begin(self._ordered(found.result(), slot.target), now_ns))
        else:
            reason = error.message if isinstance(error, ConnectError) else str(error)
            dial.abort(FailureKind.DNS, reason, now_ns)
            self._done(slot, dial)
        self._settle()

    def _ready(self, fd: int, now_ns: int, events: int) -> None:
        slot = self._by_fd[fd]
        dial = slot.dial
        if dial is not None and dial.fd == fd:
            want = dial.step(now_ns, events)
            if want == DONE:
                self._done(slot, dial)
            elif want != slot.want or slot.attempt != dial.attempt:
                self._go_on(slot, dial, want)

    def _settle(self) -> None:
        """Send what the sockets just served have to send, and begin the dials that are due.

        Back to back, with nothing parsed in between: the server is woken once for many messages,
        which saves both sides a good part of the cost of a wake-up for each.
        """
        if self._outbox:
            # A dial that fails here takes itself out of the outbox.
            waiting = self._outbox.copy()
            self._outbox.clear()
            for dial in waiting:
                want = dial.flush()
                if want != READ:
                    self._go_on(self._by_fd[dial.fd], dial, want)
        self._begin_due()

    def _go_on(self, slot: Slot, dial: Dial, want: int) -> None:
        if want == DONE:
            self._done(slot, dial)
            return
        poller = self._poller
        assert poller is not None  # noqa: S101  # set by start()
        if slot.attempt != dial.attempt:
            slot.attempt = dial.attempt
            slot.want = want
            self._by_fd[dial.fd] = slot
            poller.add(dial.fd, want)
        elif slot.want != want:
            slot.want = poller.follow(dial.fd, slot.want, want)

    def _sweep(self) -> None:
        """End dials that have taken too long, at each address."""
        assert self._loop is not None  # noqa: S101  # set by start()
        now_ns = perf_counter_ns()
        oldest_ns = now_ns - self._timeout_ns
        for slot in self._slots:
            dial = slot.dial
            if dial is None:
                continue
            if dial.since_ns > oldest_ns:
                if dial.phase is Phase.CLOSE:
                    self._go_on(slot, dial, dial.closing_overdue(now_ns))
                continue
            message = f"no end after {format_duration(self._spec.connect_timeout_s)} (--connect-timeout)"
            if slot.lookup is None:
                self._go_on(slot, dial, dial.time_up(message, now_ns))
            else:
                self._abort(slot, dial, message, now_ns)
                self._done(slot, dial)
        self._settle()
        pause_ns = min(max(self._timeout_ns // 50, 5 * _MS), 500 * _MS)
        self._sweep_timer = self._loop.call_later(pause_ns / 1e9, self._sweep)


class CycleLoad(DialLoad):
    """`spec.concurrency` slots that connect and close, again and again."""

    def __init__(self, spec: ConnectSpec, plans: tuple[WirePlan, ...], ledger: Recorders) -> None:
        super().__init__(spec, plans, ledger)
        self._slots = [Slot(len(plans), index % len(plans)) for index in range(spec.concurrency)]
        self._due: list[Slot] = []

    async def start(self) -> None:
        """Begin one dial in every slot."""
        await super().start()
        self._due = list(self._slots)
        self._settle()

    def stop(self) -> None:
        """Begin nothing more; slots that back off are done."""
        for slot in self._slots:
            if slot.timer is not None:
                slot.timer.cancel()
                slot.timer = None
        self.backing_off = 0
        super().stop()

    def _begin_due(self) -> None:
        while self._due:
            due, self._due = self._due, []
            for slot in due:
                self._begin(slot)

    def _begin(self, slot: Slot) -> None:
        """Start the slot's next dial, or set a timer where all its targets are being left alone."""
        slot.timer = None
        plans = self._plans
        index = slot.turn
        now_ns = perf_counter_ns()
        if slot.retry_ns[index] > now_ns:
            order = [(index + step) % len(plans) for step in range(len(plans))]
            index = next((i for i in order if slot.retry_ns[i] <= now_ns), -1)
            if index < 0:
                self._wait(slot, min(slot.retry_ns) - now_ns)
                return
        slot.turn = (index + 1) % len(plans)
        self.in_flight += 1
        self._launch(slot, index, self._ledger.current[index], now_ns)

    def _wait(self, slot: Slot, delay_ns: int) -> None:
        assert self._loop is not None  # noqa: S101  # set by start()
        self.backing_off += 1
        slot.timer = self._loop.call_later(delay_ns / 1e9, self._wake, slot)

    def _wake(self, slot: Slot) -> None:
        self.backing_off -= 1
        self._due.append(slot)
        self._settle()

    def _done(self, slot: Slot, dial: Dial) -> None:
        recorder = slot.recorder
        assert recorder is not None  # noqa: S101  # set by _begin()
        slot.dial = None
        self.in_flight -= 1
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


def phases_of(plans: tuple[WirePlan, ...]) -> tuple[tuple[Phase, ...], ...]:
    """The phases each plan's recorder needs."""
    return tuple(plan.phases for plan in plans)
