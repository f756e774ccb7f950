"""The generator of runs that put a pool under load: opens it, warms it up, measures, closes it.

Like `load/connect/generator.py` it runs in a process of its own and sends mergeable snapshots. The timeline
is finer than the snapshots, since a spike or a restart is over in seconds.
"""

import asyncio
import contextlib
import gc
import logging
import math
import time
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import numpy as np

from pool_bench.contenders import ContenderConfig, make, opened_at_first
from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.connect.generator import Send, make_resident_bytes
from pool_bench.load.pool.open_clients import make_load
from pool_bench.load.probes import LagProbe
from pool_bench.load.spec import PoolSpec
from pool_bench.load.ticks import next_tick, wait_until
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage

# How long a pool may take to open its connections, and to close them, before it is given up.
_OPEN_S: Final = 30.0
_CLOSE_S: Final = 10.0
# Loggers of pools that report what is counted here anyway, and would write it over the live view.
_TALKATIVE: Final = ("asyncio", "asyncpg", "psycopg", "sqlalchemy", "pool_bench")


class ServerEvents:
    """What the generator is told while it runs: `stopping`, `down` or `up`, and when."""

    def __init__(self) -> None:
        self.hear: Callable[[str, int], None] = lambda mark, at_ns: None


class _PoolGenerator:
    """One run: the pool, its clients, the clock of the stages, and the snapshots."""

    def __init__(self, spec: PoolSpec, send: Send, stop: asyncio.Event, notes: ServerEvents) -> None:
        self._spec = spec
        self._send = send
        self._stop = stop
        self._resident_bytes = make_resident_bytes()
        self._extra = CheckoutStats(base_rss_bytes=self._resident_bytes())
        config = ContenderConfig(
            target=spec.targets[0],
            size=spec.size,
            timeout_s=spec.timeout_s,
            reset=spec.reset,
            prepared=spec.prepared,
        )
        self._contender = make(spec.pool, config)
        self._extra.version = self._contender.version
        self._extra.behaviour = self._contender.behaviour
        self._load = make_load(spec, self._contender)
        self._probe = LagProbe(asyncio.get_running_loop(), self._load.ledger.resumed)
        notes.hear = self._load.note
        self._stage = Stage.WARMUP
        self._opened = self._open_failed = 0
        self._pending = BenchStats()
        self._usage = ClientUsage()
        self._origin_ns = self._began_ns = self._last_ns = self._sent_ns = 0
        self._last_t = -math.inf
        self._last_cpu_s = 0.0

    def close(self) -> None:
        """Give back what looks at this process, once all is over."""
        self._probe.close()

    async def run(self) -> None:
        """Go through all stages; afterwards nothing of the run is left."""
        spec, load = self._spec, self._load
        try:
            await self._open()
            self._probe.start()
            self._reset_clock(perf_counter_ns() + round(spec.warmup_s * 1e9))
            try:
                if spec.warmup_s:
                    await load.start()
                    await self._pass_time(spec.warmup_s)
                    self._snapshot()
                if not self._stop.is_set():
                    await self._measure()
            finally:
                self._stage = Stage.GRACE
                load.stop()
                await load.drain(spec.grace_s)
                self._probe.stop()
                # While the pool still has its connections.
                self._collect()
                self._extra.fairness.merge(load.take_by_client())
        finally:
            began_ns = perf_counter_ns()
            # A pool that cannot close loses its connections with the process.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_S):
                    await self._contender.close()
            self._extra.close_s = (perf_counter_ns() - began_ns) / 1e9
        self._snapshot(final=True)

    async def _open(self) -> None:
        began_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(_OPEN_S) as limit:
                await self._contender.open()
        except Exception as error:
            cause = self._contender.as_error(error, Phase.CONNECT)
            if limit.expired():
                cause = ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, f"not open after {_OPEN_S:g} s")
            count = opened_at_first(self._spec.pool, self._spec.size)
            whose = "its connection" if count == 1 else f"its {count:,} connections"
            what = f"the pool {self._spec.pool} did not open {whose}: {cause.message}"
            raise ConnectError(cause.kind, cause.phase, what, sqlstate=cause.sqlstate) from error
        self._extra.open_s = (perf_counter_ns() - began_ns) / 1e9

    async def _measure(self) -> None:
        spec, load = self._spec, self._load
        self._stage = Stage.MEASURE
        load.measure()
        if not spec.warmup_s:
            await load.start()
        # An open loop's schedule knows better when that was to be.
        self._reset_clock(load.ledger.measured_from_ns or perf_counter_ns())
        await self._pass_time(spec.duration_s)
        # A restart is not over with the time, but when all are back, or cannot be expected any more.
        deadline = time.monotonic() + spec.grace_s
        while load.recovering and time.monotonic() < deadline and not self._stop.is_set():
            await self._pass_time(spec.interval_s)
        # Before the last look: what is dropped is part of what was measured.
        load.stop()
        self._snapshot()

    def _reset_clock(self, began_ns: int) -> None:
        self._origin_ns = began_ns
        self._began_ns = began_ns - self._load.ledger.suspended_ns
        self._last_ns = self._sent_ns = self._load.ledger.now_ns()
        self._last_t = -math.inf
        self._last_cpu_s = time.process_time()
        self._probe.take()
        self._probe.take_time()
        LOCAL_PORTS.take_searches()

    async def _pass_time(self, seconds: float) -> None:
        """Close an interval and send a snapshot whenever one is due, until the time is up or a stop."""
        spec, now_ns = self._spec, self._load.ledger.now_ns
        begin_ns = now_ns()
        step = 1
        while not self._stop.is_set():
            due = step * spec.interval_s
            last = due >= seconds - 1e-9
            await wait_until(begin_ns + round(min(due, seconds) * 1e9), now_ns, self._stop)
            if last:
                return
            self._collect()
            if now_ns() - self._sent_ns >= (spec.tick_s - spec.interval_s / 2) * 1e9:
                self._snapshot(collect=False)
            step = next_tick(step, (now_ns() - begin_ns) / 1e9, spec.interval_s)

    def _collect(self) -> None:
        """Close one interval of the timeline."""
        now_ns, cpu_s = self._load.ledger.now_ns(), time.process_time()
        seconds = (now_ns - self._last_ns) / 1e9
        # Both timelines are told apart by it, and a client that stood still closes two at once.
        t = self._last_t = max(round((now_ns - self._began_ns) / 1e9, 3), round(self._last_t + 0.001, 3))
        usage = ClientUsage(cpu_s=cpu_s - self._last_cpu_s, wall_s=seconds, rss_bytes=self._resident_bytes())
        usage.lag.record(np.array(self._probe.take(), dtype=np.int64))
        usage.time = self._probe.take_time()
        usage.port_searches = LOCAL_PORTS.take_searches()
        self._last_ns, self._last_cpu_s = now_ns, cpu_s
        # What an open loop measures already, because the warm-up's end was seen late, can wait.
        warming = self._stage is Stage.WARMUP
        (stats,) = (BenchStats(),) if warming else self._load.ledger.take_measured()
        fairness, waits = self._load.take_arrivals()
        opens, size = self._contender.opens, self._contender.size
        opened, self._opened = opens.opened - self._opened, opens.opened
        failed, self._open_failed = opens.failed - self._open_failed, opens.failed
        extra = self._extra
        extra.fairness.merge(fairness)
        extra.opened += opened
        extra.open_failed += failed
        extra.opening_peak = max(extra.opening_peak, opens.opening_peak)
        extra.size_peak = max(extra.size_peak, size)
        extra.bursts.merge(self._load.take_bursts())
        extra.recovery = self._load.take_recovery()
        if self._stage is Stage.MEASURE or (self._stage is Stage.GRACE and (stats.ok or stats.failed)):
            stats.intervals.append(
                Interval(
                    t=t,
                    seconds=seconds,
                    ok=stats.ok,
                    failed=stats.failed,
                    in_flight=self._load.in_flight,
                    lag_ms=usage.lag.max_ns / 1e6,
                    cpu_s=usage.cpu_s,
                    latency=stats.latency,
                    offered=stats.offered,
                    dropped=stats.dropped,
                    late_ms=stats.schedule_error.max_ns / 1e6,
                    service=stats.service if self._load.ledger.responses else None,
                )
            )
            extra.intervals.append(CheckoutInterval(t, self._load.at_work, size, opened, waits))
        self._pending.merge(stats)
        self._usage.merge(usage)

    def _snapshot(self, *, collect: bool = True, final: bool = False) -> None:
        if collect:
            self._collect()
        now_ns = self._load.ledger.now_ns()
        pending, self._pending = self._pending, BenchStats()
        extra, self._extra = self._extra, CheckoutStats()
        usage, self._usage = self._usage, ClientUsage()
        seconds = (now_ns - self._sent_ns) / 1e9
        self._sent_ns = now_ns
        self._send(
            Snapshot(
                stage=Stage.DONE if final else self._stage,
                elapsed_s=(now_ns - self._began_ns) / 1e9,
                seconds=seconds,
                targets=(pending,),
                warmup=self._load.ledger.take_warmup(),
                in_flight=self._load.in_flight,
                backing_off=self._load.resting,
                waiting=self._load.waiting,
                client=usage,
                final=final,
                checkout=extra,
                began_ns=self._origin_ns,
            )
        )


async def generate_pool(
    spec: PoolSpec, send: Send, stop: asyncio.Event, notes: ServerEvents | None = None
) -> None:
    """Run `spec` and send its snapshots, the last one with `final` set.

    Args:
        spec: what to do.
        send: called in the event loop; must not block.
        stop: set it to end the run early, with its grace period.
        notes: how to tell of a restart.

    Raises:
        UsageError: the run could not even begin.
        ConnectError: the pool could not be opened.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).addHandler(logging.NullHandler())
    generator = _PoolGenerator(spec, send, stop, notes if notes is not None else ServerEvents())
    # What exists now lives as long as the process: keep the collector from looking at it again.
    gc.collect()
    gc.freeze()
    try:
        await generator.run()
    finally:
        generator.close()
        gc.unfreeze()
