"""Runs generators in processes of their own and adds up what they send.

The parent only merges and shows; the operations, and everything that could delay them, are in the
child. Snapshots come through one pipe, the wish to stop goes through another; when the parent dies,
the second one ends, and so does the child.
"""

import asyncio
import contextlib
import math
import multiprocessing as mp
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from pool_bench.errors import ConnectError, PoolBenchError, UsageError
from pool_bench.load.parameters import parameters_of
from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec
from pool_bench.processes import ignore_interrupts, is_stopped, start_ignoring_interrupts
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, Interval
from pool_bench.stats.runs import PoolSetting, RunResult, Snapshot, Stage
from pool_bench.stats.timeline import Coarsening, Timeline

if TYPE_CHECKING:
    from pool_bench.load.pool.generator import ServerEvents

# How long the child may take beyond its own bounds before it is taken for dead.
_PATIENCE_S: Final = 30.0
_EXIT_S: Final = 5.0
_GLANCE_S: Final = 1.0
# The summary needs percentiles of whole runs; only the view needs those of the last seconds.
_OPEN_INTERVALS: Final = 2


class GeneratorError(PoolBenchError):
    """A generator process failed; the message is its own."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a generator sends when it cannot go on."""

    message: str
    usage: bool


@dataclass(frozen=True, slots=True)
class _Hello:
    """What a generator sends first."""

    event_loop: str


_Message = Snapshot | _Failure | _Hello
AnySpec = ConnectSpec | HoldSpec | PoolSpec


class StopSwitch:
    """Asks runs to end: `request` from a signal handler or another thread."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.requested = False

    def request(self) -> None:
        """Ask; safe in a signal handler, and again."""
        self.requested = True
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return  # asked more often than a pipe can hold

    def fileno(self) -> int:
        """Becomes readable once asked."""
        return self._read

    def sleep(self, seconds: float) -> bool:
        """Sleep unless or until asked to stop; returns whether it was asked."""
        return bool(wait([self._read], seconds))

    def close(self) -> None:
        """Free the pipe."""
        os.close(self._read)
        os.close(self._write)


class Run:
    """One setting being measured: iterate over the snapshots, then read `result`.

    Args:
        spec: what the generator is to do.
        label: names the run.
        stop: ends it early.
    """

    def __init__(self, spec: AnySpec, label: str, stop: StopSwitch) -> None:
        self._spec = spec
        self._stop = stop
        self._parts = tuple(BenchStats() for _ in spec.targets)
        self._timeline: Coarsening[Interval] = Coarsening()
        self._hold_timeline: Coarsening[HoldInterval] = Coarsening()
        self._checkout_timeline: Coarsening[CheckoutInterval] = Coarsening()
        self._ending = False
        self._pid: int | None = None
        self._control: Connection[str, str] | None = None
        self.result = RunResult(
            label=label,
            concurrency=spec.concurrency,
            driver=spec.driver,
            targets=tuple(str(target) for target in spec.targets),
            hold=HoldStats() if isinstance(spec, HoldSpec) else None,
            rate=None if isinstance(spec, HoldSpec) else _mean_rate(spec),
            pool=_pool_setting(spec) if isinstance(spec, PoolSpec) else None,
            checkout=CheckoutStats() if isinstance(spec, PoolSpec) else None,
            parameters=parameters_of(spec),
            by_address=not isinstance(spec, PoolSpec) and spec.by_address,
        )

    @property
    def pid(self) -> int | None:
        """The generator's process, None before it was started."""
        return self._pid

    def note(self, mark: str) -> None:
        """Tell the generator what happens outside, now; safe from any thread, and when it is gone."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(f"{mark} {perf_counter_ns()}")

    def snapshots(self) -> Iterator[Snapshot]:
        """Start the generator and yield its snapshots as they come, each already in `result`.

        Raises:
            UsageError: the run could not begin.
            GeneratorError: the generator failed or vanished.
        """
        context = mp.get_context("spawn")
        snapshots, child_snapshots = context.Pipe(duplex=False)
        child_control, control = context.Pipe(duplex=False)
        process = context.Process(
            target=_generator_process,
            args=(self._spec, child_snapshots, child_control),
            name="generator",
            daemon=True,
        )
        start_ignoring_interrupts(process)
        self._pid = process.pid
        child_snapshots.close()
        child_control.close()
        self._control = control
        complete = False
        try:
            yield from self._receive(snapshots, control)
            complete = True
        finally:
            # Without this pipe the child ends itself; it is waited for only where it had its say.
            self._control = None
            control.close()
            process.join(_EXIT_S if complete else 0)
            if process.is_alive():
                process.kill()
                process.join()
            snapshots.close()
            process.close()
            self._conclude()

    def _receive(
        self, snapshots: "Connection[_Message, _Message]", control: "Connection[str, str]"
    ) -> Iterator[Snapshot]:
        told = False
        while True:
            ready = self._wait([snapshots, *([] if told else [self._stop.fileno()])])
            if not told and self._stop.requested:
                told = True
                # Closing belongs to a run that has had its time.
                self.result.interrupted = not self._ending
                # A generator that is gone shows by the end of its snapshots.
                with contextlib.suppress(OSError):
                    control.send("stop")
            if snapshots not in ready:
                continue
            try:
                message = snapshots.recv()
            except (EOFError, OSError):
                raise GeneratorError("the generator process ended without a result") from None
            if isinstance(message, _Failure):
                raise UsageError(message.message) if message.usage else GeneratorError(message.message)
            if isinstance(message, _Hello):
                self.result.event_loop = message.event_loop
                continue
            self._absorb(message)
            yield message
            if message.final:
                return

    def _wait(self, sources: "list[Connection[_Message, _Message] | int]") -> list[object]:
        """What of `sources` can be read, within the time that a generator may be silent.

        Time for which it, or this process, was stopped does not count: the wait is made of short ones.

        Raises:
            GeneratorError: it is silent for longer.
        """
        silent_s = 0.0
        while silent_s < self._silence_limit_s():
            if ready := wait(sources, _GLANCE_S):
                return list(ready)
            if not is_stopped(self._pid):
                silent_s += _GLANCE_S
        raise GeneratorError("the generator process has stopped answering")

    def _silence_limit_s(self) -> float:
        return self._spec.tick_s + self._spec.grace_s + _PATIENCE_S

    def _absorb(self, snapshot: Snapshot) -> None:
        result = self.result
        if snapshot.stage is Stage.WARMUP:
            result.warmup_s += snapshot.seconds
        elif snapshot.stage is Stage.MEASURE:
            result.duration_s = self._measured_s(snapshot.elapsed_s)
            result.client.merge(snapshot.client)
        elif snapshot.stage is Stage.OPEN:
            # The rate of opening is what the run's throughput, and its client, are about.
            result.duration_s = snapshot.elapsed_s
            result.client.merge(snapshot.client)
        if result.hold is not None and snapshot.hold is not None:
            self._ending = snapshot.stage in (Stage.CLOSE, Stage.DONE)
            result.hold.merge(snapshot.hold)
            self._hold_timeline.seal(result.hold.intervals, _OPEN_INTERVALS)
        if result.checkout is not None and snapshot.checkout is not None:
            result.checkout.merge(snapshot.checkout)
            self._checkout_timeline.seal(result.checkout.intervals, _OPEN_INTERVALS)
        result.warmup.merge(snapshot.warmup)
        for part, delta in zip(self._parts, snapshot.targets, strict=True):
            result.total.merge(delta)
            part.merge(replace(delta, intervals=Timeline()))
        self._timeline.seal(result.total.intervals, _OPEN_INTERVALS)

    def _measured_s(self, elapsed_s: float) -> float:
        """For how long operations counted: in an open loop none is due after its schedule's end."""
        spec = self._spec
        if isinstance(spec, HoldSpec) or spec.open_loop is None or not spec.duration_s:
            return elapsed_s
        return min(elapsed_s, spec.duration_s)

    def _conclude(self) -> None:
        self.result.per_target = self._parts
        self.result.total.intervals.seal()
        if self.result.hold is not None:
            self.result.hold.intervals.seal()
        if self.result.checkout is not None:
            self.result.checkout.intervals.seal()


def _pool_setting(spec: PoolSpec) -> PoolSetting:
    return PoolSetting(
        name=spec.pool,
        scenario=spec.scenario,
        clients=spec.clients,
        size=spec.size,
        reset=spec.reset,
        prepared=spec.prepared,
        query=spec.query,
        hold_s=spec.hold_s,
        timeout_s=spec.timeout_s,
        round=spec.round,
    )


def _mean_rate(spec: ConnectSpec | PoolSpec) -> float | None:
    """Operations that are to be due a second, None in a closed loop."""
    if spec.open_loop is None:
        return None
    profile, duration_s = spec.open_loop.profile, spec.duration_s
    return profile.count(duration_s) / duration_s if duration_s else profile.rate(math.inf)


def _generator_process(
    spec: AnySpec, snapshots: "Connection[_Message, _Message]", control: "Connection[str, str]"
) -> None:
    """What runs in the child."""
    ignore_interrupts()
    from pool_bench.load.connect.generator import (
        forget_pg_environment,
        forget_proxies,
        generate,
        loop_factory,
    )
    from pool_bench.load.hold.generator import generate_hold
    from pool_bench.load.pool.generator import ServerEvents, generate_pool

    forget_pg_environment()
    forget_proxies()
    # A parent that is busy drawing must not hold up the event loop, so a thread does the writing.
    outbox: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
    writer = threading.Thread(target=_write_all, args=(outbox, snapshots), name="writer")
    writer.start()

    async def main() -> None:
        stop, notes = asyncio.Event(), ServerEvents()
        loop = asyncio.get_running_loop()
        outbox.put(_Hello(type(loop).__module__.partition(".")[0]))
        reader = threading.Thread(
            target=_listen, args=(control, loop, stop, notes), name="control", daemon=True
        )
        reader.start()
        if sys.platform != "win32":
            # `timeout`, a terminal that is closed and service managers signal everybody at once.
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    loop.add_signal_handler(number, stop.set)
        if isinstance(spec, HoldSpec):
            await generate_hold(spec, outbox.put, stop)
        elif isinstance(spec, PoolSpec):
            await generate_pool(spec, outbox.put, stop, notes)
        else:
            await generate(spec, outbox.put, stop)

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(main())
    except UsageError as error:
        outbox.put(_Failure(str(error), usage=True))
    except ConnectError as error:
        # Drivers keep secrets out of these.
        outbox.put(_Failure(str(error), usage=False))
    except Exception as error:
        # Only the type: a message could quote a connection string.
        outbox.put(_Failure(f"the generator failed: {type(error).__name__} {_where(error)}", usage=False))
    finally:
        outbox.put(None)
        writer.join()


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""


def _write_all(
    outbox: "queue.SimpleQueue[_Message | None]", snapshots: "Connection[_Message, _Message]"
) -> None:
    while (message := outbox.get()) is not None:
        try:
            snapshots.send(message)
        except OSError:
            return  # the parent is gone; the control pipe ends the run


def _listen(
    control: "Connection[str, str]",
    loop: asyncio.AbstractEventLoop,
    stop: asyncio.Event,
    notes: "ServerEvents",
) -> None:
    """Set `stop` when told to, pass on what is noted; end the process when the parent is gone."""
    while True:
        try:
            told = control.recv()
        except (EOFError, OSError):
            os._exit(1)
        mark, _, at_ns = told.partition(" ")
        # The run may have ended by itself in the meantime.
        with contextlib.suppress(RuntimeError):
            if mark == "stop":
                loop.call_soon_threadsafe(stop.set)
            else:
                loop.call_soon_threadsafe(notes.hear, mark, int(at_ns))
