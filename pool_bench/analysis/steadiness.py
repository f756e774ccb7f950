"""Whether a run was steady: a warm-up that was not over, a pause that a closed loop hides; calculation only.

Both look at the timeline, whose seconds hold counts and percentiles of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from pool_bench.stats.operations import Interval
from pool_bench.stats.runs import RunResult

# A shorter run has too few seconds to tell a trend from chance.
FEWEST_SECONDS: Final = 8
_LEAST_RISE: Final = 1.2
_TIMES_SPREAD: Final = 2.5
_FEWEST_STEADY: Final = 3
_FEWEST_LEADING: Final = 2
# A second that was cut short, or in which next to nothing ended, has no percentile of its own.
_LEAST_LENGTH: Final = 0.5
_FEWEST_OPERATIONS: Final = 10

_LEAST_PAUSE_MS: Final = 200.0
_LEAST_LOST: Final = 0.5
_TIMES_HIDDEN: Final = 10


@dataclass(frozen=True, slots=True)
class Transient:
    """A beginning that was slower than the rest.

    Attributes:
        seconds: how long it lasted, from the beginning of measuring.
        from_ms: median of its seconds' median latencies.
        to_ms: that of the last third of the run.
    """

    seconds: float
    from_ms: float
    to_ms: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which the target answered nothing.

    Attributes:
        seconds: how long operations waited at most.
        shown: operations that waited at least half of that.
        due: operations that would have begun meanwhile at the rate of the rest of the run.
    """

    seconds: float
    shown: int
    due: int


def _whole_seconds(intervals: Sequence[Interval]) -> list[Interval]:
    longest = max((interval.seconds for interval in intervals), default=0.0)
    return [
        interval
        for interval in intervals
        if interval.seconds >= _LEAST_LENGTH * longest and interval.ok >= _FEWEST_OPERATIONS
    ]


def warmup_transient(intervals: Sequence[Interval]) -> Transient | None:
    """The beginning of a run that was not yet warm; None where there is none to be seen.

    The last third is taken for steady: its level is the median of its seconds' median latencies, its spread
    the range of them. A transient is two or more seconds at the beginning, each of which is above the level
    by a fifth and by two and a half times the spread, and above every second of the second half. Noise rarely
    does that: where a second's median deviates by 10 %, in 0.2 % of runs of 10 s and none of 4000 of 30 s; by
    20 %, and each second takes after the one before (0.5), in 3 % and 0.02 %.

    Args:
        intervals: the timeline of what was measured, in order; sealed.
    """
    seconds = [(second, second.p50) for second in _whole_seconds(intervals) if second.p50]
    if len(seconds) < FEWEST_SECONDS:
        return None
    medians = [p50 for _, p50 in seconds]
    steady = medians[-max(_FEWEST_STEADY, len(medians) // 3) :]
    level, spread = median(steady), max(steady) - min(steady)
    limit = max(_LEAST_RISE * level, level + _TIMES_SPREAD * spread, *medians[len(medians) // 2 :])
    leading = []
    for second, p50 in seconds:
        if p50 <= limit:
            break
        leading.append((second, p50))
    if len(leading) < _FEWEST_LEADING or _offered_more(leading, seconds):
        return None
    return Transient(leading[-1][0].t, median(p50 for _, p50 in leading), level)


_Second = tuple[Interval, float]


def _offered_more(leading: Sequence[_Second], seconds: Sequence[_Second]) -> bool:
    """Whether an open loop offered more at the beginning: then that made it slow."""
    rates = [median(second.offered / second.seconds for second, _ in part) for part in (leading, seconds)]
    return rates[0] > _LEAST_RISE * rates[1]


def hidden_pause(run: RunResult) -> Pause | None:
    """A pause of the whole target that the percentiles of a closed loop do not show; None without one.

    While a target stalls, workers wait and begin nothing, so that a pause of any length makes as many slow
    operations as there are workers ("coordinated omission", Gil Tene). It is seen by its longest operations,
    by at least 200 ms, by a hole of its length in the rate of the timeline, and it matters where at least ten
    times as many operations would have been due as waited.
    """
    longest_ms = run.total.latency.max_ns / 1e6
    seconds = [interval for interval in run.total.intervals if interval.seconds > 0]
    if longest_ms < _LEAST_PAUSE_MS or len(seconds) < 2:
        return None
    rate = median(interval.ok / interval.seconds for interval in seconds)
    shown = int(run.total.latency.binned(np.array([longest_ms / 2]))[1])
    due = round(rate * longest_ms / 1e3)
    if shown * 2 < run.concurrency or due < _TIMES_HIDDEN * shown:
        return None
    hole = _hole(seconds, rate, longest_ms / 1e3)
    return Pause(longest_ms / 1e3, shown, due) if hole >= _LEAST_LOST * due else None


def _hole(seconds: Sequence[Interval], rate: float, pause_s: float) -> float:
    """The most operations that were missing from `rate` over as many seconds as a pause can touch."""
    missing = np.array([max(rate * second.seconds - second.ok, 0.0) for second in seconds])
    width = min(int(pause_s) + 2, len(missing))
    return float(np.convolve(missing, np.ones(width), mode="valid").max())
