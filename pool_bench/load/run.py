"""Runs generators in processes of their own and adds up what they send.

The parent only merges and shows; the operations, and everything that could delay them, are in the
child. Snapshots come through one pipe, the wish to stop goes through another; when the parent dies,
the second one ends, and so does the child.
"""

import contextlib
import math
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from time import perf_counter_ns
from typing import Final, assert_never

from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.messages import Failure, Hello, Message
from pool_bench.load.parameters import parameters_of
from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec, Spec
from pool_bench.processes import is_stopped, start_module
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, Interval
from pool_bench.stats.runs import PoolSetting, RunResult, Snapshot, Stage
from pool_bench.stats.timeline import Coarsening, Timeline

# How long the child may take beyond its own bounds before it is taken for dead.
_PATIENCE_S: Final = 30.0
_EXIT_S: Final = 5.0
_GLANCE_S: Final = 1.0
# The summary needs percentiles of whole runs; only the view needs those of the last seconds.
_OPEN_INTERVALS: Final = 2


class GeneratorError(PoolBenchError):
    """A generator process failed; the message is its own."""


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

    def __init__(self, spec: Spec, label: str, stop: StopSwitch) -> None:
        self._spec = spec
        self._stop = stop
        self._parts = tuple(BenchStats() for _ in spec.targets)
        self._timeline: Coarsening[Interval] = Coarsening()
        self._hold_timeline: Coarsening[HoldInterval] = Coarsening()
        self._checkout_timeline: Coarsening[CheckoutInterval] = Coarsening()
        self._ending = False
        self._pid: int | None = None
        self._control: Connection[Spec | str, str] | None = None
        self.result = RunResult(
            label=label,
            concurrency=spec.concurrency,
            driver=spec.driver,
            targets=tuple(str(target) for target in spec.targets),
            rate=_mean_rate(spec),
            parameters=parameters_of(spec),
            by_address=spec.by_address,
        )
        match spec:
            case HoldSpec():
                self.result.hold = HoldStats()
            case PoolSpec():
                self.result.pool, self.result.checkout = _pool_setting(spec), CheckoutStats()
            case ConnectSpec():
                pass
            case _:
                assert_never(spec)

    @property
    def pid(self) -> int | None:
        """The generator's process, None before it was started."""
        return self._pid

    def signal_server_event(self, event: str) -> None:
        """Tell the generator what happens to the server, now; safe from any thread, and when it is gone."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(f"{event} {perf_counter_ns()}")

    def snapshots(self) -> Iterator[Snapshot]:
        """Start the generator and yield its snapshots as they come, each already in `result`.

        Raises:
            UsageError: the run could not begin.
            GeneratorError: the generator failed or vanished.
        """
        snapshots, child_snapshots = Pipe(duplex=False)
        child_control, control = Pipe(duplex=False)
        with child_snapshots, child_control:
            process = start_module(
                "pool_bench.load.process", child_snapshots.fileno(), child_control.fileno()
            )
        self._pid = process.pid
        complete = False
        try:
            # Before anything else may be said; one that is gone already shows by the end of its snapshots.
            with contextlib.suppress(OSError):
                control.send(self._spec)
            self._control = control
            yield from self._receive(snapshots, control)
            complete = True
        finally:
            # Without this pipe the child ends itself; it is waited for only where it had its say.
            self._control = None
            control.close()
            try:
                process.wait(_EXIT_S if complete else 0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            snapshots.close()
            self._conclude()

    def _receive(
        self, snapshots: "Connection[Message, Message]", control: "Connection[Spec | str, str]"
    ) -> Iterator[Snapshot]:
        stopping = False
        while True:
            ready = self._wait([snapshots, *([] if stopping else [self._stop.fileno()])])
            if not stopping and self._stop.requested:
                stopping = True
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
            match message:
                case Failure(text, usage):
                    raise UsageError(text) if usage else GeneratorError(text)
                case Hello(event_loop):
                    self.result.event_loop = event_loop
                case Snapshot():
                    self._absorb(message)
                    yield message
                    if message.final:
                        return

    def _wait(self, sources: "list[Connection[Message, Message] | int]") -> list[object]:
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
        if spec.open_loop is None or not spec.duration_s:
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


def _mean_rate(spec: Spec) -> float | None:
    """Operations that are to be due a second, None in a closed loop."""
    if spec.open_loop is None:
        return None
    profile, duration_s = spec.open_loop.profile, spec.duration_s
    return profile.count(duration_s) / duration_s if duration_s else profile.rate(math.inf)
