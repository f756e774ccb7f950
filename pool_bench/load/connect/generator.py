"""The generator: drives one workload through warm-up, measuring and grace, and reports on it.

`generate` runs in a process of its own (`load/run.py`), so that nothing else the tool does can
show up as latency; tests may run it in theirs. It sends a mergeable `Snapshot` every second and a
final one, and obeys a stop event.
"""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter_ns

from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.drivers.network.port_loop import with_ports
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.load.connect.dials import CycleLoad, phases_of
from pool_bench.load.connect.drivers import make_drivers
from pool_bench.load.connect.drivers import phases_of as steps_of
from pool_bench.load.connect.open_dials import OpenCycleLoad
from pool_bench.load.connect.open_tasks import OpenWorkerLoad
from pool_bench.load.connect.tasks import WorkerLoad
from pool_bench.load.probes import LagProbe, PauseProbe
from pool_bench.load.spec import ConnectSpec
from pool_bench.load.splitting import splits_of
from pool_bench.load.ticks import next_tick, wait_until
from pool_bench.load.workload import Recorders, Workload
from pool_bench.pgwire import ScramKeyCache
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage

Send = Callable[[Snapshot], None]


class _Generator:
    """One run: the workload, the clock of its stages, and the snapshots."""

    def __init__(self, spec: ConnectSpec, send: Send, stop: asyncio.Event) -> None:
        self._spec = spec
        self._send = send
        self._stop = stop
        self._workload, self._ledger = make_workload(spec)
        self._probe = LagProbe(asyncio.get_running_loop(), self._ledger.resumed)
        self._pauses = PauseProbe()
        self._stage = Stage.WARMUP
        if spec.warmup_s == 0:
            self._measure()
        self._origin_ns = 0
        self._began_ns = 0
        self._last_ns = 0
        self._last_cpu_s = 0.0
        self._resident_bytes = make_resident_bytes()

    def close(self) -> None:
        """Give back what looks at this process, once all is over."""
        self._probe.close()

    async def run(self) -> None:
        """Go through all stages; afterwards nothing of the run is left."""
        if isinstance(self._workload, WorkerLoad | OpenWorkerLoad):
            await self._workload.prepare()
        self._reset_clock(perf_counter_ns() + round(self._spec.warmup_s * 1e9))
        self._probe.start()
        self._pauses.start()
        if self._stage is Stage.MEASURE:
            # Before anything begins: without a warm-up the very first operations count too.
            self._ledger.measure()
        try:
            await self._workload.start()
            if self._stage is Stage.WARMUP:
                await self._pass_time(self._spec.warmup_s)
                self._snapshot()
            if not self._stop.is_set():
                self._measure()
                # An open loop's schedule knows better when that was to be.
                self._reset_clock(self._ledger.measured_from_ns or perf_counter_ns())
                await self._pass_time(self._spec.duration_s or None)
            # Before the last look: what is dropped is part of what was measured.
            self._workload.stop()
            self._snapshot()
        finally:
            self._stage = Stage.GRACE
            self._workload.stop()
            try:
                await self._workload.drain(self._spec.grace_s)
            finally:
                self._probe.stop()
                self._pauses.stop()
        self._snapshot(final=True)

    def _measure(self) -> None:
        self._stage = Stage.MEASURE
        self._ledger.measure()

    def _reset_clock(self, began_ns: int) -> None:
        self._origin_ns = began_ns
        self._began_ns = began_ns - self._ledger.suspended_ns
        self._last_ns = self._ledger.now_ns()
        self._last_cpu_s = time.process_time()
        self._probe.take()
        self._probe.take_time()
        self._pauses.take()
        LOCAL_PORTS.take_searches()

    async def _pass_time(self, seconds: float | None) -> None:
        """Take a snapshot every tick until the time is up (None: never) or a stop is asked for."""
        now_ns = self._ledger.now_ns
        begin_ns = now_ns()
        tick = 1
        while not self._stop.is_set():
            due = tick * self._spec.tick_s
            last = seconds is not None and due >= seconds - 1e-9
            wait_s = seconds if last and seconds is not None else due
            await wait_until(begin_ns + round(wait_s * 1e9), now_ns, self._stop)
            if last or self._stop.is_set():
                return
            self._snapshot()
            tick = next_tick(tick, (now_ns() - begin_ns) / 1e9, self._spec.tick_s)

    def _snapshot(self, *, final: bool = False) -> None:
        now_ns, cpu_s = self._ledger.now_ns(), time.process_time()
        seconds = (now_ns - self._last_ns) / 1e9
        elapsed_s = (now_ns - self._began_ns) / 1e9
        usage = ClientUsage(cpu_s=cpu_s - self._last_cpu_s, wall_s=seconds, rss_bytes=self._resident_bytes())
        usage.lag.record(self._probe.take())
        usage.pauses.record(self._pauses.take())
        usage.time = self._probe.take_time()
        usage.port_searches = LOCAL_PORTS.take_searches()
        if self._stage is Stage.WARMUP:
            # What an open loop measures already, because the warm-up's end was seen late, can wait.
            targets = tuple(BenchStats() for _ in self._spec.targets)
        else:
            targets = self._ledger.take_measured()
            self._add_intervals(targets, elapsed_s, seconds, usage)
        self._last_ns, self._last_cpu_s = now_ns, cpu_s
        self._send(
            Snapshot(
                stage=Stage.DONE if final else self._stage,
                elapsed_s=elapsed_s,
                seconds=seconds,
                targets=targets,
                warmup=self._ledger.take_warmup(),
                in_flight=self._workload.in_flight,
                backing_off=self._workload.backing_off,
                waiting=self._workload.waiting if self._ledger.responses else None,
                client=usage,
                final=final,
                began_ns=self._origin_ns,
            )
        )

    def _add_intervals(
        self, targets: tuple[BenchStats, ...], elapsed_s: float, seconds: float, usage: ClientUsage
    ) -> None:
        if self._stage is Stage.GRACE and not any(stats.ok or stats.failed for stats in targets):
            return
        for index, stats in enumerate(targets):
            # What belongs to the process and not to a target is booked once, so that sums are right.
            first = index == 0
            interval = Interval(
                t=round(elapsed_s, 3),
                seconds=seconds,
                ok=stats.ok,
                failed=stats.failed,
                in_flight=self._workload.in_flight if first else 0,
                lag_ms=usage.lag.max_ns / 1e6,
                cpu_s=usage.cpu_s if first else 0.0,
                latency=stats.latency,
                offered=stats.offered,
                dropped=stats.dropped,
                late_ms=stats.schedule_error.max_ns / 1e6,
                service=stats.service if self._ledger.responses else None,
            )
            stats.intervals.append(interval)


def make_resident_bytes() -> Callable[[], int]:
    """A function that gives this process's resident size in bytes, or the last one that could be read.

    Reading it takes a file descriptor, of which the load may have left none.
    """
    import psutil

    process = psutil.Process()
    known = int(process.memory_info().rss)

    def resident_bytes() -> int:
        nonlocal known
        with suppress(OSError):
            known = int(process.memory_info().rss)
        return known

    return resident_bytes


def make_workload(spec: ConnectSpec) -> tuple[Workload, Recorders]:
    """The workload that `spec` describes, and the ledger it records in.

    Raises:
        UsageError: a certificate file is unusable, or the query cannot be sent.
    """
    open_loop = spec.open_loop
    responses = open_loop is not None
    if spec.driver == "wire":
        cache = ScramKeyCache() if spec.scram_cache else None
        plans = tuple(make_plan(target, query=spec.query, cache=cache) for target in spec.postgres_targets)
        ledger = Recorders(phases_of(plans), responses=responses, by_address=splits_of(spec))
        if open_loop is not None:
            return OpenCycleLoad(spec, open_loop, plans, ledger), ledger
        return CycleLoad(spec, plans, ledger), ledger
    drivers = make_drivers(spec)
    steps = tuple(steps_of(driver, query=bool(spec.query)) for driver in drivers)
    ledger = Recorders(steps, responses=responses, by_address=splits_of(spec))
    if open_loop is not None:
        return OpenWorkerLoad(spec, open_loop, drivers, ledger), ledger
    return WorkerLoad(spec, drivers, ledger), ledger


async def generate(spec: ConnectSpec, send: Send, stop: asyncio.Event) -> None:
    """Run `spec` and send its snapshots, the last one with `final` set.

    Args:
        spec: what to do.
        send: called in the event loop; must not block.
        stop: set it to end the run early, with its grace period.

    Raises:
        UsageError: the run could not even begin.
    """
    generator = _Generator(spec, send, stop)
    # What exists now lives as long as the process: keep the collector from looking at it again.
    gc.collect()
    gc.freeze()
    try:
        await generator.run()
    finally:
        generator.close()
        gc.unfreeze()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The fastest event loop here that can watch plain sockets."""
    if sys.platform == "win32":
        return asyncio.SelectorEventLoop
    make: Callable[[], asyncio.AbstractEventLoop]
    try:
        import uvloop
    except ImportError:
        make = asyncio.new_event_loop
    else:
        make = uvloop.new_event_loop
    return lambda: with_ports(make(), LOCAL_PORTS)


def forget_pg_environment() -> None:
    """Remove `PG*` variables: the targets hold them already, and libraries would apply them again."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def forget_proxies() -> None:
    """See that no library sends its connections through a proxy that the environment names.

    websockets, and so SurrealDB's official client, would, loopback included; the figures would be the
    proxy's. Set rather than removed: where the environment has nothing, systems have settings of their own.
    """
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
