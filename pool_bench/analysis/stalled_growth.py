"""Notices when connections stop growing, snapshot by snapshot: calculation only.

Opening has stopped growing when connects are tried and none has opened for 2.5 seconds, or for three times
what one takes where that is longer; also when it is over and some have failed. A run that opens and closes
connections meets a wall as well where failures name one (`walls.kind_of`) in more than one of a hundred
operations, and held connections where one that is dropped names one, or had no answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pool_bench.errors import FailureKind
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, FailureKey, key_among
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.walls import Failing, kind_of

# With a snapshot a second, a wall is named at the latest four seconds after the last connection.
_STALLED_S: Final = 2.5
_CONNECTS: Final = 3
# A stall that goes on is looked at again after so long: what hung may have begun to fail.
_AGAIN_S: Final = 5.0
_SHARE: Final = 0.01
_GROWING: Final = (Stage.OPEN, Stage.WARMUP, Stage.MEASURE, Stage.GRACE)


@dataclass(frozen=True, slots=True)
class Stall:
    """Connections do not grow.

    Attributes:
        t: now, seconds since the run's beginning.
        seconds: for how long none has opened.
        held: connections that are open; of those opened and closed in turn, none.
        in_flight: connects under way.
        failing: how connects, or what was held, failed meanwhile.
    """

    t: float
    seconds: float
    held: int
    in_flight: int
    failing: tuple[Failing, ...]


class Growth:
    """Follows one run.

    Attributes:
        opened: connections that have opened so far.
        over: the first opening of connections to be held is over.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.over = False
        self._held = 0
        # Not the snapshots' own time, which begins anew with measuring.
        self._now = 0.0
        self._grew_at = 0.0
        self._looked_at: float | None = None
        self._since: dict[FailureKey, Failing] = {}
        self._all: dict[FailureKey, Failing] = {}
        self._latency = Histogram()

    def add(self, snapshot: Snapshot) -> Stall | None:
        """Take in one snapshot; None where connections grow, or nobody tries, or that was said lately."""
        hold = snapshot.hold
        self._now += snapshot.seconds
        if hold is not None:
            self._held += hold.held
        if snapshot.stage in _GROWING and not self.over:
            return self._opening(snapshot)
        if snapshot.stage is Stage.HOLD and hold is not None:
            lost = _lost(hold)
            # One whose queries hang says nothing, but what was seen of a pooler may.
            silent = tuple(failure for failure in lost if failure.kind is FailureKind.TIMEOUT)
            return self._stall(snapshot, _telling(lost) or silent, 0.0)
        return None

    def _opening(self, snapshot: Snapshot) -> Stall | None:
        parts = (*snapshot.targets, snapshot.warmup)
        opened = sum(stats.ok for stats in parts)
        new = False
        if opened:
            self.opened += opened
            self._grew_at, self._looked_at = self._now, None
            self._since = {}
            for stats in parts:
                self._latency.merge(stats.latency)
        for stats in parts:
            new = _count(self._since, stats) or new
            _count(self._all, stats)
        if snapshot.hold is not None and snapshot.hold.open_s:
            self.over = True
            return self._stall(snapshot, tuple((self._since or self._all).values()), 0.0, force=True)
        # What names a wall need not be waited for.
        if (snapshot.hold is None or not opened) and (telling := self._refused(parts)):
            return self._stall(snapshot, telling, self._now - self._grew_at)
        if not self._since and not snapshot.in_flight:
            # A pause: nothing is tried that could open.
            self._grew_at = self._now
            return None
        stalled_s = self._now - self._grew_at
        if stalled_s < self._patience_s():
            return None
        looked = self._looked_at
        if looked is not None and self._now - looked < _AGAIN_S and not new:
            return None
        self._looked_at = self._now
        return self._stall(snapshot, tuple(self._since.values()), stalled_s, force=True)

    def _patience_s(self) -> float:
        (usual_ms,) = self._latency.percentiles_ms((50,))
        return max(_STALLED_S, _CONNECTS * (usual_ms or 0.0) / 1000)

    def _refused(self, parts: Iterable[BenchStats]) -> tuple[Failing, ...]:
        """Failures of this snapshot that name a wall, where they are more than a few."""
        now: dict[FailureKey, Failing] = {}
        attempts = 0
        for stats in parts:
            attempts += stats.ok + stats.failed
            _count(now, stats)
        telling = _telling(now.values())
        return telling if sum(failure.count for failure in telling) > _SHARE * attempts else ()

    def _stall(
        self, snapshot: Snapshot, failing: tuple[Failing, ...], seconds: float, *, force: bool = False
    ) -> Stall | None:
        gave_up = snapshot.hold is not None and snapshot.hold.gave_up_s
        if not failing and not (force and (snapshot.in_flight or gave_up)):
            return None
        return Stall(snapshot.elapsed_s, seconds, self._held, snapshot.in_flight, failing)


def _count(counted: dict[FailureKey, Failing], stats: BenchStats) -> bool:
    """Add the failures of `stats`; whether one of them is of a sort that was not there."""
    new = False
    for sort, failure in stats.failures.items():
        key = key_among(counted, sort)
        known = counted.get(key)
        new = new or known is None
        count = failure.count + (0 if known is None else known.count)
        counted[key] = Failing(key.kind, failure.sample if known is None else known.message, count)
    return new


def _lost(hold: HoldStats) -> list[Failing]:
    """How held connections were dropped, and could not be asked or replaced."""
    failing: dict[FailureKey, Failing] = {}
    for stats in (hold.query_failures, hold.reconnects):
        _count(failing, stats)
    drops = [Failing(key.kind, drop.sample, drop.count) for key, drop in hold.drops.items()]
    return [*drops, *failing.values()]


def _telling(failing: Iterable[Failing]) -> tuple[Failing, ...]:
    return tuple(failure for failure in failing if kind_of(failure) is not None)
