"""Clients of a pool: tasks that ask for a connection, use it, and give it back.

One operation is checkout, query, hold, return, each as long as its phase says. A client whose
operation failed rests for a moment, as a caller with any sense does; otherwise an outage would measure how
fast the pool can refuse. In `churn` a client lets the event loop turn once while it has its connection:
without that nobody else would ever ask meanwhile.
"""

import asyncio
import random
from array import array
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final, Generic

import numpy as np

from pool_bench.contenders.base import Contender, L
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.pool.fairness import GrantLog
from pool_bench.load.pool.steps import client_steps
from pool_bench.load.spec import PoolSpec
from pool_bench.load.workload import Recorders
from pool_bench.stats.checkouts import Fairness, Recovery
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import Recorder

PHASES: Final = (Phase.CHECKOUT, Phase.QUERY, Phase.HOLD, Phase.RETURN)
# How long a client rests after a failure, on average.
REST_S: Final = 0.05
# Between two bursts everybody has gone home.
_LULL_S: Final = 0.1
_FAILURES_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Due:
    """An operation of an open loop.

    Attributes:
        due_ns, begun_ns: when it was due and when it was begun, perf_counter_ns.
        recorder: who records it.
    """

    due_ns: int
    begun_ns: int
    recorder: Recorder


class PoolLoad(Generic[L]):
    """The clients of one run.

    Attributes:
        at_work: clients that are to be at work now.
        resting: clients that rest after a failure.
        recovery: what is becoming of a restart, None before one.
    """

    def __init__(self, spec: PoolSpec, contender: Contender[L]) -> None:
        self._spec = spec
        self._contender = contender
        self._steps = client_steps(spec)
        self._rng = random.Random(spec.seed)
        self.recorders = Recorders((PHASES,), responses=spec.open_loop is not None)
        self._grants = GrantLog(spec.clients)
        self._counting = False
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._under_way: dict[int, Recorder] = {}
        self._gates = [asyncio.Event() for _ in range(spec.clients)]
        self._bursts_ns = array("q")
        self._pending: set[int] = set()
        self._began_ns = 0
        self.at_work = 0
        self.resting = 0
        self.recovery: Recovery | None = None
        self._opened_before = 0
        # A restart is heard of a little late; what had failed by then belongs to it too.
        self._failures_ns: deque[int] = deque(maxlen=_FAILURES_KEPT)

    @property
    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int | None:
        """Operations that are due and have not begun; None in a closed loop."""
        return None

    async def start(self) -> None:
        """Let the clients of the first step begin; a burst is over when this returns."""
        if self._spec.scenario == "burst":
            if self._spec.warmup_s:
                await self._burst()
            return
        self._admit(self._steps[0].clients)
        for number in range(self._spec.clients):
            self._spawn(self._work(number), f"client-{number}")

    def measure(self) -> None:
        """The load takes its shape."""
        self._counting = True
        self._began_ns = perf_counter_ns()
        if self._spec.scenario == "burst":
            self.at_work = self._spec.clients
            self._spawn(self._bursts(), "bursts")
            return
        loop = asyncio.get_running_loop()
        for step in self._steps[1:]:
            self._timers.append(loop.call_later(step.t, self._admit, step.clients))

    def stop(self) -> None:
        """Begin no further operation."""
        self._stopping = True
        for timer in self._timers:
            timer.cancel()
        # Those at their gates go home.
        for gate in self._gates:
            gate.set()

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long; then give up what is left as unfinished."""
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=seconds)
        finally:
            # Also where the wait itself was cancelled.
            for recorder in self._under_way.values():
                recorder.unfinished(1)
            self._under_way.clear()
            for task in self._tasks:
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def take_grants(self) -> tuple[Fairness, Histogram]:
        """See `GrantLog.take`."""
        return self._grants.take()

    def take_by_client(self) -> Fairness:
        """See `GrantLog.by_client`."""
        return self._grants.by_client()

    def take_bursts(self) -> Histogram:
        """How long the bursts that ended since the last call took."""
        durations = Histogram()
        durations.record(np.array(self._bursts_ns, dtype=np.int64))
        self._bursts_ns = array("q")
        return durations

    def on_server_event(self, event: str, at_ns: int) -> None:
        """The server is `stopping`, `down` or `up` again, since `at_ns`."""
        t = (at_ns - self._began_ns) / 1e9
        opens = self._contender.opens
        if event == "stopping":
            if self._stopping or t >= self._spec.duration_s:
                return  # it comes too late for clients that are about to leave
            failed = sum(failed_ns >= at_ns for failed_ns in self._failures_ns)
            self.recovery = Recovery(stopping_s=t, clients=self._spec.clients, failed=failed)
            opens.opening_peak = opens.opening
            self._opened_before = opens.opened
        elif self.recovery is not None and event == "down":
            self.recovery.down_s = t
            self._pending = set(range(self._spec.clients))
        elif self.recovery is not None:
            self.recovery.up_s = t

    @property
    def recovering(self) -> bool:
        """Whether a restart is not over yet for somebody."""
        return self.recovery is not None and self.recovery.all_s is None

    def _spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

    def _admit(self, clients: int) -> None:
        self.at_work = clients
        for number, gate in enumerate(self._gates):
            if number < clients:
                gate.set()
            else:
                gate.clear()

    async def _work(self, number: int) -> None:
        gate = self._gates[number]
        while not self._stopping:
            if not gate.is_set():
                await gate.wait()
                continue
            if not await self._operate(number):
                self.resting += 1
                try:
                    await asyncio.sleep(self._rng.uniform(0.5, 1.5) * REST_S)
                finally:
                    self.resting -= 1

    async def _bursts(self) -> None:
        while not self._stopping:
            took_ns = await self._burst()
            self._bursts_ns.append(took_ns)
            await asyncio.sleep(_LULL_S)

    async def _burst(self) -> int:
        """All clients at once, one operation each; returns how long it took, nanoseconds."""
        began_ns = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for number in range(self._spec.clients):
                group.create_task(self._attempt(number))
        return perf_counter_ns() - began_ns

    async def _attempt(self, number: int) -> None:
        await self._operate(number)

    async def _operate(self, number: int, due: Due | None = None) -> bool:
        """One operation, in an open loop the one `due`; records it and tells whether it succeeded."""
        spec = self._spec
        recorder = self.recorders.current[0] if due is None else due.recorder
        self._under_way[number] = recorder
        phase = Phase.CHECKOUT
        queried_ns = held_ns = -1
        began_ns = perf_counter_ns()
        try:
            async with self._contender.lease() as leased:
                granted_ns = perf_counter_ns()
                # The warm-up of an open loop is over by its schedule, not when that was seen.
                if self._counting if due is None else recorder is self.recorders.measured[0]:
                    self._grants.granted.extend((began_ns, granted_ns, number))
                last_ns = granted_ns
                if spec.query is not None:
                    phase = Phase.QUERY
                    await self._contender.execute(leased, spec.query)
                    now_ns = perf_counter_ns()
                    queried_ns, last_ns = now_ns - last_ns, now_ns
                if spec.hold_s or spec.query is None:
                    phase = Phase.HOLD
                    await asyncio.sleep(spec.hold_s)
                    now_ns = perf_counter_ns()
                    held_ns, last_ns = now_ns - last_ns, now_ns
                phase = Phase.RETURN
            ended_ns = perf_counter_ns()
        except Exception as error:
            since_ns = began_ns if due is None else due.due_ns
            self._fail(number, recorder, self._contender.as_error(error, phase), began_ns, since_ns)
            return False
        except asyncio.CancelledError:
            recorder.unfinished_in(phase)
            raise
        finally:
            given_up = self._under_way.pop(number, None) is None
        if given_up:
            return True
        steps = (granted_ns - began_ns, queried_ns, held_ns, ended_ns - last_ns)
        if due is None:
            recorder.ok((ended_ns - began_ns, *steps))
        else:
            recorder.ok((ended_ns - due.due_ns, ended_ns - due.begun_ns, *steps))
        if self._pending:
            self._recovered(number, ended_ns)
        return True

    def _fail(
        self, number: int, recorder: Recorder, error: ConnectError, began_ns: int, since_ns: int
    ) -> None:
        if number not in self._under_way:
            return
        ended_ns = perf_counter_ns()
        recorder.failed(error, ended_ns - since_ns)
        measured = recorder is self.recorders.measured[0]
        if measured and error.kind is FailureKind.TIMEOUT and error.phase is Phase.CHECKOUT:
            self._grants.timed_out(began_ns, ended_ns)
        if self.recovery is not None:
            self.recovery.failed += 1
        else:
            self._failures_ns.append(ended_ns)

    def _recovered(self, number: int, at_ns: int) -> None:
        recovery = self.recovery
        if recovery is None or number not in self._pending:
            return
        self._pending.discard(number)
        recovery.recovered += 1
        t = (at_ns - self._began_ns) / 1e9
        if recovery.first_s is None:
            recovery.first_s = t
        if not self._pending:
            recovery.all_s = t

    def take_recovery(self) -> Recovery | None:
        """What has become of a restart so far."""
        if self.recovery is not None:
            self.recovery.opening_peak = self._contender.opens.opening_peak
            self.recovery.opened = self._contender.opens.opened - self._opened_before
        return self.recovery
