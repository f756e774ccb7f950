"""Timelines of long runs: seconds while they are young, longer stretches when they are old, sums exact.

A day has 86,400 seconds, and a result file should not have as many entries. So each second is also added to
a stretch of ten seconds and to one of a minute while its histograms are still there; when it is old, the
stretch takes the place of its seconds. Counts are sums, extremes are extremes, and percentiles come from the
merged buckets, as everywhere.
"""

from collections import deque
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field
from math import floor
from typing import Final, Generic, Protocol, Self, TypeVar

# Length of a stretch, and the age from which it takes the place of shorter ones, seconds. An hour in seconds,
# nine more in tens of seconds, and the minutes before them: 8,300 entries for a day, 17,000 for a week.
TIERS: Final = ((10.0, 3_600.0), (60.0, 36_000.0))


class Stretch(Protocol):
    """One entry of a timeline."""

    @property
    def t(self) -> float:
        """Its end, seconds."""
        ...

    @property
    def sort(self) -> str:
        """Only stretches of one sort become one."""
        ...

    def joined(self, later: Self) -> Self:
        """This stretch and the one after it as one; neither is changed.

        Raises:
            ValueError: one of the two is sealed.
        """
        ...

    def seal(self) -> None:
        """Let go of what only joining needs."""
        ...


class Mergeable(Protocol):
    """An entry that can be merged with that of another generator for the same time."""

    t: float

    @property
    def is_sealed(self) -> bool:
        """Whether what merging needs is gone."""
        ...

    def seal(self) -> None:
        """Let go of what only merging needs."""
        ...

    def merge(self, other: Self) -> None:
        """Add the same stretch of another generator.

        Raises:
            ValueError: one of the two is sealed.
        """
        ...


S = TypeVar("S", bound=Stretch)
M = TypeVar("M", bound=Mergeable)


class Timeline(list[M]):
    """Entries in the order of their ends, one for each."""

    def merge(self, others: Iterable[M]) -> None:
        """Add the entries of another timeline, none of which is changed; those with the same end become one.

        Raises:
            ValueError: two entries with the same end are to become one, and one is sealed.
        """
        others = sorted(others, key=_end)
        # Seconds arrive in order, so only the last can be known already; a late part changes that.
        is_late = bool(others and self) and others[0].t < self[-1].t
        known = {entry.t: entry for entry in (self if is_late else self[-1:])}
        for entry in others:
            same = known.get(entry.t)
            if same is None:
                known[entry.t] = added = copy(entry)
                self.append(added)
            else:
                same.merge(entry)
        if is_late:
            self.sort(key=_end)

    def seal(self, keep: int = 0) -> None:
        """Seal all but the last `keep` entries."""
        for entry in reversed(self[: max(len(self) - keep, 0)]):
            if entry.is_sealed:
                break
            entry.seal()


def _end(entry: Mergeable) -> float:
    return entry.t


def require_unsealed(*entries: Mergeable) -> None:
    """See that entries can still be merged.

    Raises:
        ValueError: one of them is sealed; percentiles cannot be merged.
    """
    for entry in entries:
        if entry.is_sealed:
            raise ValueError(f"the interval at {entry.t:.1f} s is sealed: percentiles cannot be merged")


def in_a_row(earlier: M, later: M) -> M:
    """A stretch and the one after it as one that ends with the second; neither is changed.

    What adds up over generators but not over time is still to be set.

    Raises:
        ValueError: one of the two is sealed.
    """
    whole = copy(earlier)
    whole.merge(later)
    whole.t = later.t
    return whole


@dataclass(slots=True)
class _Tier(Generic[S]):
    """Stretches of one length: the one that grows, and those that wait until they are old enough."""

    length_s: float
    age_s: float
    growing: S | None = None
    complete: deque[S] = field(default_factory=deque)
    # How many entries of the timeline are already such stretches, or longer ones.
    placed: int = 0

    def _place(self, stretch: S) -> tuple[int, str]:
        return floor(stretch.t / self.length_s), stretch.sort

    def add(self, stretch: S) -> None:
        growing = self.growing
        if growing is not None and self._place(growing) == self._place(stretch):
            self.growing = growing.joined(stretch)
            return
        if growing is not None:
            growing.seal()
            self.complete.append(growing)
        # A copy: the one in the timeline is sealed, and this one not yet.
        self.growing = copy(stretch)


class Coarsening(Generic[S]):
    """Keeps one timeline short as it grows."""

    def __init__(self, tiers: tuple[tuple[float, float], ...] = TIERS) -> None:
        """Use `tiers`: (length, age) in seconds, both ascending, each length a multiple of the one before."""
        self._tiers: list[_Tier[S]] = [_Tier(length_s, age_s) for length_s, age_s in tiers]
        self._sealed = 0

    def seal(self, timeline: list[S], keep: int) -> None:
        """Seal all of `timeline` but the last `keep`, and put longer stretches in the place of old ones."""
        end = max(len(timeline) - keep, self._sealed)
        for stretch in timeline[self._sealed : end]:
            for tier in self._tiers:
                tier.add(stretch)
            stretch.seal()
        self._sealed = end
        if timeline:
            self._shorten(timeline, timeline[-1].t)

    def _shorten(self, timeline: list[S], now_s: float) -> None:
        for index, tier in enumerate(self._tiers):
            while tier.complete and tier.complete[0].t <= now_s - tier.age_s:
                stretch = tier.complete.popleft()
                # Longer stretches stand before it, its own seconds, or shorter stretches, behind them.
                first = tier.placed
                last = first
                while last < self._sealed and timeline[last].t <= stretch.t:
                    last += 1
                timeline[first:last] = [stretch]
                self._sealed -= last - first - 1
                tier.placed += 1
                for shorter in self._tiers[:index]:
                    shorter.placed -= last - first - 1
