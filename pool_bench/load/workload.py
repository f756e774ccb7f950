"""What every kind of load has in common: who records, and how a run's stages reach the workers."""

from dataclasses import dataclass, field
from typing import Protocol

from pool_bench.errors import Phase
from pool_bench.stats import BenchStats, Recorder


@dataclass(slots=True)
class Ledger:
    """The recorders of a run, one a target: first the warm-up's, then the measured ones.

    An operation keeps the recorder that was current when it began, so that one begun during the
    warm-up never counts, however long it takes.
    """

    phases: tuple[tuple[Phase, ...], ...]
    warmup: list[Recorder] = field(init=False)
    measured: list[Recorder] = field(init=False)
    current: list[Recorder] = field(init=False)

    def __post_init__(self) -> None:
        self.warmup = [Recorder(phases) for phases in self.phases]
        self.measured = [Recorder(phases) for phases in self.phases]
        self.current = self.warmup

    def measure(self) -> None:
        """From now on operations count."""
        self.current = self.measured

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

    async def start(self) -> None:
        """Set the workers to work."""

    def stop(self) -> None:
        """Begin no further operation."""

    async def drain(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most so long; then give up what is left as unfinished.

        Afterwards no socket, task or timer of the workload is left.
        """
