"""The generator: drives one workload through its stages, and reports on it.

`generate` runs in a process of its own (`load/process.py`), so that nothing else the tool does can
show up as latency; tests may run it in theirs. It sends a mergeable `Snapshot` every second and a
final one, and obeys a stop event.
"""

import asyncio
import gc
import math
import time
from collections.abc import Callable
from time import perf_counter_ns

from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.errors import Phase
from pool_bench.load.gates import Gates
from pool_bench.load.probes import LagProbe, PauseProbe
from pool_bench.load.rehearsal import rehearse
from pool_bench.load.resident import make_resident_bytes
from pool_bench.load.spec import Spec
from pool_bench.load.ticks import next_tick, wait_until
from pool_bench.load.workload import ServerEvents, Stretch, Taken, Workload
from pool_bench.load.workloads import make_workload
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage

Send = Callable[[Snapshot], None]


class Generator:
    """One run: the clock of its stages, its timeline, what this process costs, and the snapshots.

    The timeline has an entry for every `spec.interval_s`, which a snapshot sends on every `spec.tick_s`.
    """

    def __init__(
        self, spec: Spec, workload: Workload, send: Send, stop: asyncio.Event, gates: Gates | None
    ) -> None:
        self._spec = spec
        self._gates = gates
        self._workload = workload
        self._course = workload.course
        self._ledger = workload.ledger
        self._send_on = send
        self._stop = stop
        self._probe = LagProbe(asyncio.get_running_loop(), self._ledger.resumed)
        self._pauses = PauseProbe()
        self._resident_bytes = make_resident_bytes()
        self._stage = self._course.lead
        self._origin_ns = self._began_ns = self._last_ns = self._sent_ns = 0
        self._last_t = -math.inf
        self._last_cpu_s = 0.0
        self._pending: Taken | None = None
        self._usage = ClientUsage()

    async def run(self) -> None:
        """Go through all stages; afterwards nothing of the run is left."""
        workload = self._workload
        try:
            try:
                await workload.prepare()
                begins_ns = perf_counter_ns()
                if self._gates is not None:
                    begins_ns = self._ledger.begins_ns = await self._gates.begin(self._stop)
                self._probe.start()
                if workload.garbage_is_ours:
                    self._pauses.start()
                self._reset_clock(begins_ns + round(self._spec.warmup_s * 1e9))
                await self._through()
            finally:
                await workload.close()
            self._snapshot(final=True)
        finally:
            self._probe.close()

    async def _through(self) -> None:
        workload = self._workload
        try:
            await self._lead_in()
            if not self._stop.is_set():
                await self._measure()
            # Before the last look: what is dropped is part of what was measured.
            workload.stop()
            self._snapshot()
        finally:
            self._stage = self._course.end
            workload.stop()
            ticking = asyncio.create_task(self._tick()) if self._course.opens else None
            try:
                await workload.drain(self._spec.grace_s)
            finally:
                if ticking is not None:
                    ticking.cancel()
                self._probe.stop()
                self._pauses.stop()

    async def _lead_in(self) -> None:
        if self._course.opens:
            # Before anything begins, so that what every run needs is not taken for its price.
            self._snapshot()
            await self._workload.start()
            await self._pass_time(None, self._workload.opened)
            if self._gates is not None:
                await self._pass_time(None, self._gates.arrive("opened"))
        elif self._spec.warmup_s:
            await self._workload.start()
            await self._pass_time(self._spec.warmup_s)
        else:
            return
        if not self._stop.is_set():
            self._snapshot()

    async def _measure(self) -> None:
        spec, workload = self._spec, self._workload
        self._stage = self._course.main
        # Before anything begins: without a warm-up the very first operations count too.
        workload.measure()
        if not self._course.opens:
            if not spec.warmup_s:
                await workload.start()
            # An open loop's schedule knows better when that was to be.
            self._reset_clock(workload.measured_from_ns or perf_counter_ns())
        await self._pass_time(spec.duration_s or None)
        deadline = time.monotonic() + spec.grace_s
        while workload.recovering and time.monotonic() < deadline and not self._stop.is_set():
            await self._pass_time(spec.interval_s)

    def _reset_clock(self, began_ns: int) -> None:
        self._origin_ns = began_ns
        self._began_ns = began_ns - self._ledger.suspended_ns
        self._last_ns = self._sent_ns = self._ledger.now_ns()
        self._last_t = -math.inf
        self._last_cpu_s = time.process_time()
        self._probe.take()
        self._probe.take_time()
        self._pauses.take()
        LOCAL_PORTS.take_searches()

    async def _pass_time(self, seconds: float | None, over: asyncio.Event | None = None) -> None:
        """Collect and send what is due, until the time is up (None: never), `over` is set, or a stop."""
        spec, now_ns = self._spec, self._ledger.now_ns
        events = (self._stop,) if over is None else (self._stop, over)
        begin_ns = now_ns()
        step = 1
        while not any(event.is_set() for event in events):
            due_s = step * spec.interval_s
            last = seconds is not None and due_s >= seconds - 1e-9
            wait_s = seconds if last and seconds is not None else due_s
            await wait_until(begin_ns + round(wait_s * 1e9), now_ns, *events)
            if last or self._workload.exhausted or any(event.is_set() for event in events):
                return
            self._collect()
            if now_ns() - self._sent_ns >= (spec.tick_s - spec.interval_s / 2) * 1e9:
                self._send()
            step = next_tick(step, (now_ns() - begin_ns) / 1e9, spec.interval_s)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._spec.tick_s)
            self._snapshot()

    def _snapshot(self, *, final: bool = False) -> None:
        self._collect()
        self._send(final=final)

    def _collect(self) -> None:
        """Close one entry of the timeline."""
        now_ns, cpu_s = self._ledger.now_ns(), time.process_time()
        seconds = (now_ns - self._last_ns) / 1e9
        # Timelines are told apart by it, and a client that stood still closes two entries at once.
        self._last_t = max(round((now_ns - self._began_ns) / 1e9, 3), round(self._last_t + 0.001, 3))
        usage = ClientUsage(cpu_s=cpu_s - self._last_cpu_s, wall_s=seconds, rss_bytes=self._resident_bytes())
        usage.lag.record(self._probe.take())
        usage.pauses.record(self._pauses.take())
        usage.time = self._probe.take_time()
        usage.port_searches = LOCAL_PORTS.take_searches()
        self._last_ns, self._last_cpu_s = now_ns, cpu_s
        stretch = Stretch(self._stage, self._last_t, seconds, usage)
        taken = self._workload.take(stretch)
        if stretch.is_shown(taken.targets):
            self._add_intervals(taken.targets, stretch)
        if self._pending is None:
            self._pending, self._usage = taken, usage
        else:
            self._pending = self._pending.plus(taken)
            self._usage.merge(usage)

    def _add_intervals(self, targets: tuple[BenchStats, ...], stretch: Stretch) -> None:
        for index, stats in enumerate(targets):
            # What belongs to the process and not to a target is booked once, so that sums are right.
            first = index == 0
            stats.intervals.append(
                Interval(
                    t=stretch.t,
                    seconds=stretch.seconds,
                    ok=stats.ok,
                    failed=stats.failed,
                    in_flight=self._workload.in_flight if first else 0,
                    lag_ms=stretch.usage.lag.max_ns / 1e6,
                    cpu_s=stretch.usage.cpu_s if first else 0.0,
                    latency=stats.latency,
                    offered=stats.offered,
                    dropped=stats.dropped,
                    late_ms=stats.schedule_error.max_ns / 1e6,
                    service=None if self._workload.waiting is None else stats.service,
                )
            )

    def _send(self, *, final: bool = False) -> None:
        taken, self._pending = self._pending, None
        if taken is None:
            return
        now_ns = self._last_ns
        seconds, self._sent_ns = (now_ns - self._sent_ns) / 1e9, now_ns
        self._send_on(
            Snapshot(
                stage=Stage.DONE if final else self._stage,
                elapsed_s=(now_ns - self._began_ns) / 1e9,
                seconds=seconds,
                targets=taken.targets,
                warmup=taken.warmup,
                in_flight=self._workload.in_flight,
                backing_off=self._workload.backing_off,
                waiting=self._workload.waiting,
                client=self._usage,
                final=final,
                hold=taken.hold,
                checkout=taken.checkout,
                began_ns=self._origin_ns,
            )
        )


async def generate(
    spec: Spec,
    send: Send,
    stop: asyncio.Event,
    server_events: ServerEvents | None = None,
    gates: Gates | None = None,
) -> None:
    """Run `spec` and send its snapshots, the last one with `final` set.

    Args:
        spec: what to do.
        send: called in the event loop; must not block.
        stop: set it to end the run early, with its grace period.
        server_events: how to tell of a restart.
        gates: where it waits for the other generators of its run, None where there is none.

    Raises:
        UsageError: the run could not even begin.
        ConnectError: the pool could not be opened.
    """
    workload = make_workload(spec, server_events or ServerEvents())
    generator = Generator(spec, workload, send, stop, gates)
    rehearse((Phase.TCP, Phase.AUTH, Phase.READY))
    # What exists now lives as long as the process: keep the collector from looking at it again.
    gc.collect()
    gc.freeze()
    try:
        await generator.run()
    finally:
        gc.unfreeze()
