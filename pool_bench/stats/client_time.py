"""Where a generator's time went, by the kernel's own account: plain data.

A client whose event loop is late may have been busy itself, may have had no core to run on, or may have stood
still altogether. Which it was decides what its figures mean: the first is the client's limit, the second the
machine's, the third is no measured time at all.
"""

from dataclasses import dataclass, fields
from enum import StrEnum


class ClientState(StrEnum):
    """What kept a client from being on time. The values are those of `client.state` in the result file."""

    FREE = "free"
    SATURATED = "saturated"
    STARVED = "starved"
    SUSPENDED = "suspended"
    BLOCKED = "blocked"


@dataclass(slots=True)
class ClientTime:
    """Seconds of one generator's time, each sort by itself; all 0 where the kernel does not tell.

    Attributes:
        seen_s: for how long the kernel's account was read.
        waited_s: its thread could have run and had no core (run delay, proc(5) `schedstat`).
        late_waiting_s, late_running_s, late_standing_s: of gaps in which its event loop was over 10 ms late:
            it waited for a core; it ran; it did neither, as in a blocking call or while it was frozen.
        throttled_s: its control group had used up its CPU quota (`cpu.stat`), added up over the cores.
        stolen_s: the hypervisor ran others meanwhile, mean of the cores it may use (`/proc/stat`).
        busy_s: CPU time that all processes took together on the cores it may use.
        suspended_s: it was stopped (Ctrl-Z, SIGSTOP) or the machine slept; no part of any other figure.
        suspensions: how often.
        cores: how many cores it may use, by affinity and quota; not added up.
    """

    seen_s: float = 0.0
    waited_s: float = 0.0
    late_waiting_s: float = 0.0
    late_running_s: float = 0.0
    late_standing_s: float = 0.0
    throttled_s: float = 0.0
    stolen_s: float = 0.0
    busy_s: float = 0.0
    suspended_s: float = 0.0
    suspensions: int = 0
    cores: float = 0.0

    @property
    def late_s(self) -> float:
        """All time in gaps in which the event loop was over 10 ms late."""
        return self.late_waiting_s + self.late_running_s + self.late_standing_s

    def merge(self, other: "ClientTime") -> None:
        """Add a later second of the same generator, or another generator's."""
        cores = max(self.cores, other.cores)
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        self.cores = cores
