"""What is known of each machine whose generators were part of a run: plain data."""

from dataclasses import dataclass
from typing import Final

# More is seen in a picture whose entries are a second long, and in when an open loop begins.
MOST_SKEW_NS: Final = 100_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """What a clock of another machine says, compared with ours.

    Attributes:
        offset_ns: what must be added to ours to get what it says at the same moment.
        uncertainty_ns: by how much that may be wrong at most, half the shortest round trip.
    """

    offset_ns: int
    uncertainty_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPart:
    """One worker of a cluster in one run.

    Attributes:
        name: the machine.
        address: the worker, as the scheduler knows it.
        processes: how many generators it had.
        clock: at the beginning.
        drift_ns: by how much the offset had changed at the end; None where that could not be seen.
    """

    name: str
    address: str
    processes: int
    clock: Clock
    drift_ns: int | None = None

    @property
    def skew_ns(self) -> int:
        """By how much seconds of this worker may be off those of ours."""
        return max(self.clock.uncertainty_ns, abs(self.drift_ns or 0))
