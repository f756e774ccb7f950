"""What each generator process of a run did, and whether it was at a limit itself: plain data.

Counts and histograms of all processes are added up. How busy or late a client was is not: one process of
eight that has used up its core is late for an eighth of the operations, which no mean of the eight shows.
"""

from dataclasses import dataclass, field
from typing import Final

from pool_bench.stats.client_time import ClientState
from pool_bench.stats.operations import BenchStats, ClientUsage
from pool_bench.units import format_ms

# A client that uses more of its core, or whose loop is later than this, was part of what it measured.
SATURATED_CPU_SHARE: Final = 0.90
SATURATED_LAG_P99_MS: Final = 10.0
SATURATED_PAUSE_SHARE: Final = 0.05
# Among fewer the nearest rank of p99 is the last.
_FEW_LOOKS: Final = 100
# The worse, the further on.
_SEVERITY: Final = (
    ClientState.FREE,
    ClientState.SUSPENDED,
    ClientState.STARVED,
    ClientState.BLOCKED,
    ClientState.SATURATED,
)


@dataclass(slots=True)
class GeneratorPart:
    """One generator process of a run.

    Attributes:
        number: which one, from 1.
        client: what it cost while measuring.
        stats: measured operations that ended in it, without a timeline.
        lost: how it was lost before its time, in words; "" where it was not.
        host: the machine it ran on, "" for this one.
        worker_lost: it was lost with the worker that had started it.
        late_ns: how long after the common moment it began; None where it did not say.
        missing: messages of it that did not arrive.
    """

    number: int = 1
    client: ClientUsage = field(default_factory=ClientUsage)
    stats: BenchStats = field(default_factory=BenchStats)
    lost: str = ""
    host: str = ""
    worker_lost: bool = False
    late_ns: int | None = None
    missing: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether it used up its core."""
        return self.client.cpu_share > SATURATED_CPU_SHARE

    @property
    def limits(self) -> list[str]:
        """Where it was at a limit, in words, whatever the cause; none where it was not."""
        reasons = []
        if self.is_busy:
            reasons.append(f"it used {self.client.cpu_share:.0%} of a core")
        looks = self.client.lag.count
        # Of few looks p99 is the latest one, and once is no state: then the one before it counts.
        few = 1 < looks < _FEW_LOOKS
        lag = self.client.lag.percentile_ms(100 * (looks - 1) / looks if few else 99)
        if lag is not None and lag > SATURATED_LAG_P99_MS:
            how_often = "more than once" if few else "p99"
            reasons.append(f"its event loop was {format_ms(lag)} ms late ({how_often})")
        if self._collects_garbage:
            reasons.append(f"its garbage collector took {self.client.pause_share:.0%} of the time")
        return reasons

    @property
    def _collects_garbage(self) -> bool:
        return self.client.pause_share > SATURATED_PAUSE_SHARE

    @property
    def trouble(self) -> list[str]:
        """How it was at a limit, its schedule included, in words; none where it was not."""
        reasons = self.limits
        late = self.stats.schedule_error.percentile_ms(99)
        if late is not None and late > SATURATED_LAG_P99_MS:
            reasons.append(f"it began operations {format_ms(late)} ms after they were due (p99)")
        return reasons

    @property
    def state(self) -> ClientState:
        """What kept it from being on time, by the kernel's account where there is one."""
        time = self.client.time
        if not self.trouble:
            return ClientState.SUSPENDED if time.suspensions else ClientState.FREE
        if self.is_busy or self._collects_garbage or not time.seen_s or not time.late_s:
            return ClientState.SATURATED
        # What the hypervisor took looks like standing still from inside.
        waiting_s = time.late_waiting_s + min(time.stolen_s, time.late_standing_s)
        return ClientState.STARVED if waiting_s >= time.late_s / 2 else ClientState.BLOCKED


def worst_of(parts: "list[GeneratorPart]") -> GeneratorPart:
    """The process that was furthest from being on time; the busiest of those that were alike."""
    return max(parts, key=lambda part: (_SEVERITY.index(part.state), part.client.cpu_share))


def apart_words(part: GeneratorPart, parts: "tuple[GeneratorPart, ...]") -> str:
    """Which of several processes `part` is, to stand before what is said of it; "" for the only one."""
    if len(parts) < 2:
        return ""
    alike = sum(1 for other in parts if other.number != part.number and other.state is part.state)
    also = f", and {alike} more like it" if alike else ""
    return f"process {part.number} of {len(parts)}{also}: "
