"""When operations are due: rates over time and the moments that follow from them, without clock or I/O.

A `Profile` is a rate over time; its integral says how many operations are due by a moment, and the inverse
of the integral when the n-th is due. Even spacing takes the whole numbers through that inverse, a Poisson
process the sums of unit exponential gaps (Çinlar, Introduction to Stochastic Processes, 1975, chapter 4: any
Poisson process is a unit one on a stretched time axis). So every shape has both kinds of arrivals, and no
moment is computed from the one before it: errors do not add up.
"""

import math
import random
from dataclasses import dataclass
from typing import Final, Literal

Spacing = Literal["constant", "poisson"]
SPACINGS: Final[tuple[Spacing, ...]] = ("constant", "poisson")


@dataclass(frozen=True, slots=True)
class Leg:
    """Some seconds in which the rate is constant or changes linearly.

    Attributes:
        seconds: how long, more than 0; infinite for a constant rate without an end.
        first, last: operations a second at its beginning and its end, more than 0.
    """

    seconds: float
    first: float
    last: float

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and 0 < self.first < math.inf and 0 < self.last < math.inf):
            raise ValueError(f"{self} is not a leg: its length and its rates must be greater than 0")
        if self.seconds == math.inf and self.first != self.last:
            raise ValueError(f"{self} is not a leg: without an end the rate cannot change")

    @property
    def total(self) -> float:
        """Operations that are due in all of it."""
        return self.seconds * (self.first + self.last) / 2

    def rate(self, t_s: float) -> float:
        """Operations a second, `t_s` seconds after its beginning."""
        return self.first + self._slope * t_s

    def count(self, t_s: float) -> float:
        """Operations that are due in its first `t_s` seconds: the integral of the rate."""
        return (self.first + self._slope * t_s / 2) * t_s

    def when(self, count: float) -> float:
        """Seconds after its beginning at which `count` operations have been due: the inverse of `count`."""
        root = math.sqrt(max(self.first * self.first + 2 * self._slope * count, 0.0))
        # The usual solution of the quadratic would divide by the slope, which may be 0.
        return 2 * count / (self.first + root)

    @property
    def _slope(self) -> float:
        return (self.last - self.first) / self.seconds


@dataclass(frozen=True, slots=True)
class Profile:
    """A rate over time: legs one after the other, and the last one's final rate from then on.

    Attributes:
        legs: at least one.
    """

    legs: tuple[Leg, ...]

    def __post_init__(self) -> None:
        if not self.legs:
            raise ValueError("a profile needs a leg")

    @property
    def first(self) -> float:
        """The rate it begins with, operations a second."""
        return self.legs[0].first

    @property
    def highest(self) -> float:
        """The highest rate in it, operations a second."""
        return max(max(leg.first, leg.last) for leg in self.legs)

    def rate(self, t_s: float) -> float:
        """Operations a second at `t_s`; where it jumps, the rate after the jump."""
        for leg in self.legs:
            if t_s < leg.seconds:
                return leg.rate(t_s)
            t_s -= leg.seconds
        return self.legs[-1].last

    def count(self, t_s: float) -> float:
        """Operations due before `t_s`: the integral of the rate."""
        total = 0.0
        for leg in self.legs:
            if t_s <= leg.seconds:
                return total + leg.count(t_s)
            total += leg.total
            t_s -= leg.seconds
        return total + t_s * self.legs[-1].last

    def when(self, count: float) -> float:
        """The second at which `count` operations have been due: the inverse of `count`."""
        begin = 0.0
        for leg in self.legs:
            if count < leg.total:
                return begin + leg.when(count)
            count -= leg.total
            begin += leg.seconds
        return begin + count / self.legs[-1].last

    def after(self, seconds: float) -> "Profile":
        """The same, `seconds` later; until then its first rate."""
        return Profile((Leg(seconds, self.first, self.first), *self.legs)) if seconds > 0 else self


def constant(rate: float) -> Profile:
    """`rate` operations a second, without an end."""
    return Profile((Leg(math.inf, rate, rate),))


def ramp(first: float, last: float, seconds: float) -> Profile:
    """From one rate to the other within `seconds`, then the latter."""
    return Profile((Leg(seconds, first, last),))


def steps(rates: tuple[float, ...], seconds: float) -> Profile:
    """Each of `rates` for an equal share of `seconds`, then the last one."""
    return Profile(tuple(Leg(seconds / len(rates), rate, rate) for rate in rates))


def spike(rate: float, high: float, begin_s: float, seconds: float) -> Profile:
    """`rate`, but `high` for `seconds` from `begin_s` on."""
    before = (Leg(begin_s, rate, rate),) if begin_s > 0 else ()
    return Profile((*before, Leg(seconds, high, high), Leg(math.inf, rate, rate)))


class Arrivals:
    """The moments at which operations are due, in order and without an end: all, or one part of several.

    Of even gaps the part `index` has every `parts`-th moment, so that all parts together are the whole. Of a
    Poisson process each part is one of that share of the rate, and all together are one of the whole rate
    where their seeds are independent (superposition: Kingman, Poisson Processes, 1993, section 2.2).

    Args:
        profile: the rate over time, of the whole.
        spacing: `constant` for even gaps, `poisson` for a Poisson process of that rate.
        seed: makes a Poisson process repeatable.
        index: which part, from 0.
        parts: how many parts there are.
    """

    __slots__ = ("_count", "_parts", "_profile", "_rng", "next_ns")

    def __init__(
        self,
        profile: Profile,
        spacing: Spacing = "constant",
        seed: int | None = None,
        *,
        index: int = 0,
        parts: int = 1,
    ) -> None:
        self._profile = profile
        self._parts = float(parts)
        self._rng = random.Random(seed) if spacing == "poisson" else None
        self._count = float(index) if self._rng is None else self._rng.expovariate(1.0) * parts
        # When the next operation is due, nanoseconds after the beginning.
        self.next_ns = round(profile.when(self._count) * 1e9)

    def advance(self) -> int:
        """Go on to the operation after the next; returns when the next one is due, nanoseconds."""
        due_ns = self.next_ns
        self._count += self._parts if self._rng is None else self._rng.expovariate(1.0) * self._parts
        self.next_ns = round(self._profile.when(self._count) * 1e9)
        return due_ns
