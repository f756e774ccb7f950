"""What every kind of load has in common: its stages, who records, and how a generator drives it."""

from abc import abstractmethod
from asyncio import Event
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Protocol

from pool_bench.errors import Phase
from pool_bench.stats.checkouts import CheckoutStats
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Recorder
from pool_bench.stats.runs import Stage


class Ledger(Protocol):
    """Who records a run, and the clock of measured time.

    Attributes:
        suspended_ns: for how long this client was suspended so far.
        begins_ns: when several generators begin together, perf_counter_ns; 0 where there is one.
    """

    suspended_ns: int = 0
    begins_ns: int = 0

    @abstractmethod
    def recorders(self) -> Iterable[Recorder]:
        """All of them."""

    def resumed(self, span_ns: int) -> None:
        """This client was suspended and goes on: set aside what was under way. For a signal handler."""
        now_ns = perf_counter_ns()
        for recorder in self.recorders():
            recorder.set_aside(now_ns, perf_counter_ns)
        self.suspended_ns += span_ns

    def now_ns(self) -> int:
        """The clock of measured time: `perf_counter_ns` without what this client was suspended for."""
        return perf_counter_ns() - self.suspended_ns


class Recorders(Ledger):
    """The recorders of a run, one a target: first the warm-up's, then the measured ones.

    An operation keeps the recorder that was current when it began, so that one begun during the
    warm-up never counts, however long it takes. In an open loop it is the time when it was due that counts.

    Args:
        phases: each target's phases.
        responses: whether response and service time differ, as in an open loop.
        by_address: which targets are also counted by address.

    Attributes:
        measured_from_ns: operations due from then on count; perf_counter_ns, None in a closed loop.
    """

    def __init__(
        self,
        phases: tuple[tuple[Phase, ...], ...],
        *,
        responses: bool = False,
        by_address: tuple[bool, ...] = (),
    ) -> None:
        self.responses = responses
        self.measured_from_ns: int | None = None
        self.warmup = [Recorder(each, responses=responses) for each in phases]
        self.measured = [
            Recorder(each, responses=responses, by_address=split)
            for each, split in zip(phases, by_address or (False,) * len(phases), strict=True)
        ]
        self.current = self.warmup

    def recorders(self) -> Iterable[Recorder]:
        """All of them."""
        return (*self.warmup, *self.measured)

    def measure(self) -> None:
        """From now on operations count."""
        self.current = self.measured

    def at(self, due_ns: int) -> list[Recorder]:
        """The recorders of operations that were due then; of an open loop."""
        measured_from_ns = self.measured_from_ns
        return self.warmup if measured_from_ns is None or due_ns < measured_from_ns else self.measured


@dataclass(frozen=True, slots=True)
class Course:
    """The stages of a run, in turn.

    Attributes:
        lead: what comes before.
        main: what the run is about.
        end: what was under way comes to its end.
        opens: whether the lead belongs to what is measured and ends by itself, and the end is measured too;
            else the lead is a warm-up of so many seconds, and time counts from the end of it.
    """

    lead: Stage
    main: Stage
    end: Stage
    opens: bool = False


MEASURING = Course(Stage.WARMUP, Stage.MEASURE, Stage.GRACE)
HOLDING = Course(Stage.OPEN, Stage.HOLD, Stage.CLOSE, opens=True)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some time of a run.

    Attributes:
        stage: the stage it belongs to.
        t: when it ended, seconds on the clock of the run.
        seconds: its length.
        usage: what the generator cost in it.
    """

    stage: Stage
    t: float
    seconds: float
    usage: ClientUsage

    def is_shown(self, targets: Iterable[BenchStats]) -> bool:
        """Whether it belongs to the timeline: after the end only where operations ended in it."""
        if self.stage is Stage.GRACE:
            return any(stats.ok or stats.failed for stats in targets)
        return self.stage is not Stage.WARMUP


@dataclass(slots=True)
class Taken:
    """What a workload gave in a stretch: see `Snapshot`."""

    targets: tuple[BenchStats, ...]
    warmup: BenchStats = field(default_factory=BenchStats)
    hold: HoldStats | None = None
    checkout: CheckoutStats | None = None

    def plus(self, other: "Taken") -> "Taken":
        """This and what the next stretch gave; both stay as they are: their timelines hold parts of them."""
        both = Taken(
            tuple(BenchStats.merged(pair) for pair in zip(self.targets, other.targets, strict=True)),
            BenchStats.merged((self.warmup, other.warmup)),
            None if self.hold is None else HoldStats(),
            None if self.checkout is None else CheckoutStats(),
        )
        for part in (self, other):
            if both.hold is not None and part.hold is not None:
                both.hold.merge(part.hold)
            if both.checkout is not None and part.checkout is not None:
                both.checkout.merge(part.checkout)
        return both


class Workload(Protocol):
    """Load that a generator drives through its stages; made inside a running event loop.

    Attributes:
        course: its stages.
        opened: set where a lead that ends by itself is over.
        garbage_is_ours: whether what garbage collection takes is the client's, not that of what it measures.
    """

    course: Course = MEASURING
    opened: Event | None = None
    garbage_is_ours: bool = True

    @property
    @abstractmethod
    def ledger(self) -> Ledger:
        """Who records."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Operations under way."""

    @property
    def backing_off(self) -> int:
        """Workers that leave failing targets alone for now."""
        return 0

    @property
    def waiting(self) -> int | None:
        """Operations that are due and have not begun; None in a closed loop."""
        return None

    @property
    def measured_from_ns(self) -> int | None:
        """When measuring began by the workload's own schedule, perf_counter_ns; None where it has none."""
        return None

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left that could be measured."""
        return False

    @property
    def recovering(self) -> bool:
        """Whether there is something that it is worth to go on for after the time is up."""
        return False

    async def prepare(self) -> None:
        """Do what is done once for all operations; belongs to none.

        Raises:
            ConnectError: the run cannot begin.
        """
        return

    @abstractmethod
    async def start(self) -> None:
        """Set the workers to work."""

    @abstractmethod
    def measure(self) -> None:
        """The main stage begins: from now on operations count."""

    @abstractmethod
    def stop(self) -> None:
        """The main stage is over: begin no further operation; safe to call twice."""

    @abstractmethod
    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long; then give up what is left as unfinished.

        Afterwards no socket, task or timer of the workload is left.
        """

    async def close(self) -> None:
        """Give back what `prepare` and the making took; called in any case."""
        return

    @abstractmethod
    def take(self, stretch: Stretch) -> Taken:
        """What there was in a stretch, which is the time since the last call."""


class MeasuredLoad(Workload, Protocol):
    """A workload whose operations a `Recorders` records."""

    recorders: Recorders

    @property
    def ledger(self) -> Recorders:
        """Who records."""
        return self.recorders

    @property
    def measured_from_ns(self) -> int | None:
        """When measuring began by the schedule, perf_counter_ns; None in a closed loop."""
        return self.recorders.measured_from_ns

    def measure(self) -> None:
        """From now on operations count."""
        self.recorders.measure()

    def take(self, stretch: Stretch) -> Taken:
        """What there was since the last call."""
        recorders = self.recorders
        if stretch.stage is Stage.WARMUP:
            # What an open loop measures already, because the warm-up's end was seen late, can wait.
            targets = tuple(BenchStats() for _ in recorders.measured)
        else:
            targets = tuple(recorder.take() for recorder in recorders.measured)
        return Taken(targets, BenchStats.merged(recorder.take() for recorder in recorders.warmup))


class ServerEvents:
    """What a generator is told of its server while it runs: `stopping`, `down` or `up`, and when.

    Attributes:
        on_event: called in the event loop with the word and the time, perf_counter_ns.
    """

    def __init__(self) -> None:
        self.on_event: Callable[[str, int], None] = lambda event, at_ns: None
