"""Runs generators in processes of their own and adds up what they send.

The parent only merges and shows; the operations, and everything that could delay them, are in the
children (`child.py`). Snapshots come through one pipe, the wish to stop goes through another; when the
parent dies, the second one ends, and so does the child. Several generators wait for each other before they
begin, and again before they hold; one that is lost is reported, and the others go on.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, assert_never

from pool_bench.errors import UsageError
from pool_bench.load.child import Children, Crew, Member, WorkerLostError
from pool_bench.load.child import GeneratorError as GeneratorError
from pool_bench.load.messages import Failure, Hello, Point, Reached, Started
from pool_bench.load.parameters import parameters_of
from pool_bench.load.spec import ConnectSpec, HoldSpec, PoolSpec, Spec
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats
from pool_bench.stats.generators import GeneratorPart
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import PoolSetting, RunResult, Snapshot, Stage
from pool_bench.stats.timeline import Coarsening, Timeline

if TYPE_CHECKING:
    from pool_bench.load.merging import Merger

# How long the child may take beyond its own bounds before it is taken for dead.
_PATIENCE_S: Final = 30.0
_GLANCE_S: Final = 1.0
_POINTS: Final[tuple[Point, ...]] = ("ready", "opened")
# The summary needs percentiles of whole runs; only the view needs those of the last seconds.
_OPEN_INTERVALS: Final = 2


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
        crew: who generates the load, None for processes of this machine.

    Attributes:
        say: takes what a person is to know while it runs, one line at a time.

    Raises:
        UsageError: there is not something to do for each of `spec.processes`.
    """

    def __init__(self, spec: Spec, label: str, stop: StopSwitch, crew: Crew | None = None) -> None:
        self._spec = spec
        self._stop = stop
        self._team = Children(_parts_of(spec)) if crew is None else crew.team(spec)
        self._children = self._team.members
        self.say: Callable[[str], None] = lambda line: None
        self._parts = tuple(BenchStats() for _ in spec.targets)
        self._timeline: Coarsening[Interval] = Coarsening()
        self._hold_timeline: Coarsening[HoldInterval] = Coarsening()
        self._checkout_timeline: Coarsening[CheckoutInterval] = Coarsening()
        self._ending = False
        self._passed: set[Point] = set()
        self._waited_ns = perf_counter_ns()
        self.result = RunResult(
            label=label,
            concurrency=spec.concurrency,
            driver=spec.driver,
            targets=tuple(str(target) for target in spec.targets),
            rate=_mean_rate(spec),
            parameters=parameters_of(spec),
            by_address=spec.by_address,
        )
        if len(self._children) > 1 or self._team.apart:
            self.result.generators = tuple(
                GeneratorPart(child.number + 1, host=child.host) for child in self._children
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
    def pids(self) -> tuple[int, ...]:
        """The generators' processes, none before they were started."""
        return tuple(child.pid for child in self._children if child.pid is not None)

    def signal_server_event(self, event: str) -> None:
        """Tell the generators what happens to the server, now; safe from any thread, and after their end."""
        word = f"{event} {perf_counter_ns()}"
        for child in self._children:
            child.tell(word)

    def snapshots(self) -> Iterator[Snapshot]:
        """Start the generators and yield what they send as it comes, each already in `result`.

        Raises:
            UsageError: the run could not begin.
            GeneratorError: the generator, or all of them, failed or vanished.
        """
        complete = False
        try:
            self._team.start()
            for snapshot in self._receive():
                self._absorb(snapshot)
                yield snapshot
            complete = True
        finally:
            # Without it a child ends itself; it is waited for only where it had its say.
            for child in self._children:
                child.hang_up()
            self._team.end(patient=complete)
            self._conclude()

    def _receive(self) -> Iterator[Snapshot]:
        """Snapshots of the run, each for all generators, until the last one."""
        merger = self._make_merger()
        stopping = False
        while live := [child for child in self._children if not child.over]:
            ready = self._wait(live, stopping=stopping)
            if not stopping and self._stop.requested:
                stopping = True
                # Closing belongs to a run that has had its time.
                self.result.interrupted = not self._ending
                for child in live:
                    child.tell("stop")
            for child in live:
                snapshot = None
                try:
                    if child.source in ready:
                        snapshot = self._hear(child)
                    elif child.silent_s >= self._silence_limit_s():
                        raise GeneratorError("the generator process has stopped answering")
                except GeneratorError as error:
                    if merger is None or "ready" not in child.reached:
                        raise
                    self._lose(child, error)
                    merger.lose(child.number)
                if snapshot is None:
                    continue
                child.over = snapshot.final
                if merger is not None:
                    self._book(child, snapshot)
                    merger.add(child.number, snapshot)
                else:
                    yield snapshot
            if merger is not None:
                self._open_gates()
                yield from merger.take()

    def _make_merger(self) -> "Merger | None":
        """What adds up several generators' snapshots, None where there is one."""
        if not self.result.generators:
            return None
        from pool_bench.load.merging import Merger

        return Merger(len(self._children), tick_s=self._spec.tick_s, interval_s=self._spec.interval_s)

    def _hear(self, child: Member) -> Snapshot | None:
        """Take what `child` has sent; returns it if it is a snapshot.

        Raises:
            UsageError: the run cannot begin.
            GeneratorError: it failed, or is gone.
        """
        child.silent_s = 0.0
        match child.receive():
            case Failure(text, usage):
                raise UsageError(text) if usage else GeneratorError(text)
            case Hello(event_loop):
                self.result.event_loop = event_loop
            case Reached(point):
                child.reached.add(point)
            case Started(late_ns):
                self.result.generators[child.number].late_ns = late_ns
            case Snapshot() as snapshot:
                return snapshot
        return None

    def _lose(self, child: Member, error: GeneratorError) -> None:
        """One of several is lost: what it has sent counts, and the others go on.

        Raises:
            GeneratorError: there is no other.
        """
        child.over = True
        child.hang_up()
        why = str(error)
        self.result.generators[child.number].lost = why
        self.result.generators[child.number].worker_lost = isinstance(error, WorkerLostError)
        self.result.interrupted = True
        if all(part.lost for part in self.result.generators):
            raise GeneratorError(f"all generator processes are lost, the last one: {why}")
        self.say(
            f"generator process {child.number + 1} of {len(self._children)} is lost: {why}; the others go on"
        )

    def _open_gates(self) -> None:
        """Let those go on who wait for others that have come to the same point."""
        waiting = [child for child in self._children if not child.over]
        for point in _POINTS:
            if point not in self._passed and waiting and all(point in child.reached for child in waiting):
                self._passed.add(point)
                lead_ns = self._team.lead_ns if point == "ready" else 0
                word = f"{point} {perf_counter_ns() + lead_ns}"
                for child in waiting:
                    child.tell(word)

    def _book(self, child: Member, snapshot: Snapshot) -> None:
        """Add what one of several generators did to what is known of it alone."""
        part = self.result.generators[child.number]
        if snapshot.stage in (Stage.MEASURE, Stage.OPEN):
            part.client.merge(snapshot.client)
        for stats in snapshot.targets:
            part.stats.merge(replace(stats, intervals=Timeline()))

    def _wait(self, live: Sequence[Member], *, stopping: bool) -> list[object]:
        """What can be read of those who still send; it is not waited for longer than a glance.

        Time for which a generator, or this process, was stopped does not count as its silence.
        """
        sources = [child.source for child in live]
        ready = wait([*sources, *([] if stopping else [self._stop.fileno()])], _GLANCE_S)
        now_ns = perf_counter_ns()
        passed_s = min((now_ns - self._waited_ns) / 1e9, _GLANCE_S)
        self._waited_ns = now_ns
        for child in live:
            if child.source not in ready:
                child.pass_silence(passed_s)
        return list(ready)

    def _silence_limit_s(self) -> float:
        return self._spec.tick_s + self._spec.grace_s + _PATIENCE_S

    def _absorb(self, snapshot: Snapshot) -> None:
        result = self.result
        is_measured = snapshot.stage in (Stage.MEASURE, Stage.OPEN)
        if snapshot.stage is Stage.WARMUP:
            result.warmup_s += snapshot.seconds
        elif snapshot.stage is Stage.MEASURE:
            result.duration_s = self._measured_s(snapshot.elapsed_s)
        elif snapshot.stage is Stage.OPEN:
            # The rate of opening is what the run's throughput, and its client, are about.
            result.duration_s = snapshot.elapsed_s
        if result.generators:
            result.client = ClientUsage.together(part.client for part in result.generators)
        elif is_measured:
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
        self.result.hosts = self._team.hosts()
        if self.result.generators:
            for part, child in zip(self.result.generators, self._children, strict=True):
                part.missing = child.missing
        self.result.total.intervals.seal()
        if self.result.hold is not None:
            self.result.hold.intervals.seal()
        if self.result.checkout is not None:
            self.result.checkout.intervals.seal()


def _parts_of(spec: Spec) -> tuple[Spec, ...]:
    """What each generator is to do."""
    if spec.processes == 1:
        return (spec,)
    # What most runs do not need costs none of them its import.
    from pool_bench.drivers.network.local_ports import port_range
    from pool_bench.load.division import divided

    return divided(spec, port_range())


def _pool_setting(spec: PoolSpec) -> PoolSetting:
    return PoolSetting(
        name=spec.pool,
        scenario=spec.scenario,
        clients=spec.clients,
        size=spec.size,
        reset=spec.reset,
        prepared=spec.prepared,
        min_size=spec.min_size,
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
