"""The generator of runs that hold connections: opens, holds and closes, and reports every second.

Like `load/connect/generator.py` it runs in a process of its own and sends mergeable snapshots; the stages
are `OPEN`, `HOLD` and `CLOSE`. Time counts from the beginning of opening.
"""

import asyncio
import gc
import time
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.load.connect.generator import Send, make_resident_bytes
from pool_bench.load.hold.opening import HoldLoad
from pool_bench.load.hold.tasks import TaskHoldLoad
from pool_bench.load.hold.wire import WireHoldLoad
from pool_bench.load.probes import LagProbe, PauseProbe
from pool_bench.load.spec import HoldSpec
from pool_bench.load.ticks import next_tick
from pool_bench.pgwire import ScramKeyCache
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage

# A timer of the event loop may ring so early, in whole milliseconds as it counts.
_EARLY_NS: Final = 2_000_000


class _HoldGenerator:
    """One run: the load, the clock of its stages, and the snapshots."""

    def __init__(self, spec: HoldSpec, send: Send, stop: asyncio.Event) -> None:
        self._spec = spec
        self._send = send
        self._stop = stop
        self._load = make_hold_load(spec)
        self._probe = LagProbe(asyncio.get_running_loop(), self._load.ledger.resumed)
        self._pauses = PauseProbe()
        self._now_ns = self._load.ledger.now_ns
        self._stage = Stage.OPEN
        self._resident_bytes = make_resident_bytes()
        self._extra = HoldStats()
        self._held = 0
        self._origin_ns = self._began_ns = self._last_ns = 0
        self._last_t = -1.0
        self._last_cpu_s = 0.0

    def close(self) -> None:
        """Give back what looks at this process, once all is over."""
        self._probe.close()

    async def run(self) -> None:
        """Go through all stages; afterwards nothing of the run is left."""
        load, spec = self._load, self._spec
        if isinstance(load, TaskHoldLoad):
            await load.prepare()
        self._origin_ns = self._began_ns = self._last_ns = perf_counter_ns()
        self._last_cpu_s = time.process_time()
        self._probe.start()
        self._pauses.start()
        self._snapshot()
        # After the first snapshot, so that what every run needs is not taken for the price of connections.
        self._extra.base_rss_bytes = self._resident_bytes()
        closing_ns = 0
        try:
            await load.start()
            await self._pass_time(None, until=load.opening.over)
            if not self._stop.is_set():
                suspended_ns = load.ledger.suspended_ns
                self._extra.open_s = (load.opening.over_ns - suspended_ns - self._began_ns) / 1e9
                self._extra.gave_up_s = load.opening.gave_up_ns / 1e9
                self._extra.held_rss_bytes = self._resident_bytes()
                self._snapshot()
                self._stage = Stage.HOLD
                began_ns = self._now_ns()
                await self._pass_time(spec.duration_s or None)
                self._extra.hold_s = (self._now_ns() - began_ns) / 1e9
                self._extra.emptied = load.hopeless and not self._stop.is_set()
            else:
                self._extra.open_s = (self._now_ns() - self._began_ns) / 1e9
            self._snapshot()
        finally:
            self._stage = Stage.CLOSE
            closing_ns = self._now_ns()
            ticking = asyncio.create_task(self._tick())
            try:
                await load.close(spec.close_s)
            finally:
                ticking.cancel()
                self._probe.stop()
                self._pauses.stop()
        self._extra.close_s = (self._now_ns() - closing_ns) / 1e9
        self._snapshot(final=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._spec.tick_s)
            self._snapshot()

    async def _pass_time(self, seconds: float | None, *, until: asyncio.Event | None = None) -> None:
        """Take a snapshot every tick until the time is up (None: never), `until` is set, or a stop.

        While holding it also ends where nothing is held and nothing can come back.
        """
        begin_ns = self._now_ns()
        events = [event for event in (self._stop, until) if event is not None]
        waiters = [asyncio.create_task(event.wait()) for event in events]
        tick = 1
        try:
            while True:
                due = tick * self._spec.tick_s
                last = seconds is not None and due >= seconds - 1e-9
                until_ns = begin_ns + round((seconds if last and seconds is not None else due) * 1e9)
                wait_s = max(0.0, (until_ns - self._now_ns()) / 1e9)
                await asyncio.wait(waiters, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if self._now_ns() < until_ns - _EARLY_NS and not any(event.is_set() for event in events):
                    continue  # the clock stood still: this client was suspended
                hopeless = until is None and self._load.hopeless
                if last or hopeless or any(event.is_set() for event in events):
                    return
                self._snapshot()
                tick = next_tick(tick, (self._now_ns() - begin_ns) / 1e9, self._spec.tick_s)
        finally:
            for waiter in waiters:
                waiter.cancel()

    def _snapshot(self, *, final: bool = False) -> None:
        now_ns, cpu_s = self._now_ns(), time.process_time()
        seconds = (now_ns - self._last_ns) / 1e9
        # Intervals that end at the same time are taken for one second of several generators.
        elapsed_s = max(round((now_ns - self._began_ns) / 1e9, 3), round(self._last_t + 0.001, 3))
        self._last_t = elapsed_s
        usage = ClientUsage(cpu_s=cpu_s - self._last_cpu_s, wall_s=seconds, rss_bytes=self._resident_bytes())
        usage.lag.record(self._probe.take())
        usage.pauses.record(self._pauses.take())
        usage.time = self._probe.take_time()
        usage.port_searches = LOCAL_PORTS.take_searches()
        self._last_ns, self._last_cpu_s = now_ns, cpu_s
        targets, hold, peak = self._load.ledger.take()
        hold.merge(self._extra)
        self._extra = HoldStats()
        if self._stage is Stage.HOLD:
            hold.hold_cpu_s = usage.cpu_s
        self._held += hold.held
        hold.intervals.append(
            HoldInterval(
                t=elapsed_s,
                seconds=seconds,
                stage=str(self._stage),
                held=self._held,
                held_peak=peak,
                opened=hold.opened + hold.reopened,
                dropped=hold.dropped,
                closed=hold.closed,
                keepalive=hold.keepalive,
                active=hold.active,
            )
        )
        self._add_intervals(targets, elapsed_s, seconds, usage)
        self._send(
            Snapshot(
                stage=Stage.DONE if final else self._stage,
                elapsed_s=elapsed_s,
                seconds=seconds,
                targets=targets,
                warmup=BenchStats(),
                in_flight=self._load.in_flight,
                backing_off=self._load.backing_off,
                client=usage,
                final=final,
                hold=hold,
                began_ns=self._origin_ns,
            )
        )

    def _add_intervals(
        self, targets: tuple[BenchStats, ...], elapsed_s: float, seconds: float, usage: ClientUsage
    ) -> None:
        for index, stats in enumerate(targets):
            # What belongs to the process and not to a target is booked once, so that sums are right.
            first = index == 0
            stats.intervals.append(
                Interval(
                    t=elapsed_s,
                    seconds=seconds,
                    ok=stats.ok,
                    failed=stats.failed,
                    in_flight=self._load.in_flight if first else 0,
                    lag_ms=usage.lag.max_ns / 1e6,
                    cpu_s=usage.cpu_s if first else 0.0,
                    latency=stats.latency,
                )
            )


def make_hold_load(spec: HoldSpec) -> HoldLoad:
    """The load that `spec` describes.

    Raises:
        UsageError: a certificate file is unusable, or the query cannot be sent.
    """
    if spec.driver == "wire":
        cache = ScramKeyCache() if spec.scram_cache else None
        plans = tuple(
            make_plan(target, query=spec.keepalive_query, cache=cache, source_ips=spec.source_ips)
            for target in spec.postgres_targets
        )
        return WireHoldLoad(spec, plans)
    return TaskHoldLoad(spec)


async def generate_hold(spec: HoldSpec, send: Send, stop: asyncio.Event) -> None:
    """Run `spec` and send its snapshots, the last one with `final` set.

    Args:
        spec: what to do.
        send: called in the event loop; must not block.
        stop: set it to close everything early.

    Raises:
        UsageError: the run could not even begin.
    """
    generator = _HoldGenerator(spec, send, stop)
    # What exists now lives as long as the process: keep the collector from looking at it again.
    gc.collect()
    gc.freeze()
    try:
        await generator.run()
    finally:
        generator.close()
        gc.unfreeze()
