"""What every kind of load has in common: who records, and how a run's stages reach the workers."""

from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol

from pool_bench.errors import Phase
from pool_bench.stats.operations import BenchStats, Recorder


@dataclass(slots=True)
class Recorders:
    """The recorders of a run, one a target: first the warm-up's, then the measured ones.

    An operation keeps the recorder that was current when it began, so that one begun during the
    warm-up never counts, however long it takes. In an open loop it is the time when it was due that counts.

    Attributes:
        phases: each target's phases.
        responses: whether response and service time differ, as in an open loop.
        by_address: which targets are also counted by address.
        measured_from_ns: operations due from then on count; perf_counter_ns, None in a closed loop.
        suspended_ns: for how long this client was suspended so far.
    """

    phases: tuple[tuple[Phase, ...], ...]
    responses: bool = False
    by_address: tuple[bool, ...] = ()
    measured_from_ns: int | None = None
    suspended_ns: int = 0
    warmup: list[Recorder] = field(init=False)
    measured: list[Recorder] = field(init=False)
    current: list[Recorder] = field(init=False)

    def __post_init__(self) -> None:
        self.warmup = [Recorder(phases, responses=self.responses) for phases in self.phases]
        split = self.by_address or (False,) * len(self.phases)
        self.measured = [
            Recorder(phases, responses=self.responses, by_address=by_address)
            for phases, by_address in zip(self.phases, split, strict=True)
        ]
        self.current = self.warmup

    def measure(self) -> None:
        """From now on operations count."""
        self.current = self.measured

    def resumed(self, span_ns: int) -> None:
        """This client was suspended and goes on: set aside what was under way. For a signal handler."""
        now_ns = perf_counter_ns()
        for recorder in (*self.warmup, *self.measured):
            recorder.set_aside(now_ns, perf_counter_ns)
        self.suspended_ns += span_ns

    def now_ns(self) -> int:
        """The clock of measured time: `perf_counter_ns` without what this client was suspended for."""
        return perf_counter_ns() - self.suspended_ns

    def at(self, due_ns: int) -> list[Recorder]:
        """The recorders of operations that were due then; of an open loop."""
        measured_from_ns = self.measured_from_ns
        return self.warmup if measured_from_ns is None or due_ns < measured_from_ns else self.measured

    def take_measured(self) -> tuple[BenchStats, ...]:
        """What each target's measured operations gave since the last call."""
        return tuple(recorder.take() for recorder in self.measured)

    def take_warmup(self) -> BenchStats:
        """What the warm-up's operations gave since the last call, over all targets."""
        return BenchStats.merged(recorder.take() for recorder in self.warmup)


class Workload(Protocol):
    """Load that a generator drives through its stages."""

    @property
    def in_flight(self) -> int:
        """Operations under way."""

    @property
    def backing_off(self) -> int:
        """Workers that leave failing targets alone for now."""

    @property
    def waiting(self) -> int:
        """Operations that are due and have not begun; none in a closed loop."""

    async def start(self) -> None:
        """Set the workers to work."""

    def stop(self) -> None:
        """Begin no further operation."""

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long; then give up what is left as unfinished.

        Afterwards no socket, task or timer of the workload is left.
        """
