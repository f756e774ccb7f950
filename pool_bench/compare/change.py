"""What a difference between two samples of a figure comes to: better, worse, or not shown."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pool_bench.compare.bootstrap import between_rounds, combined, half_width
from pool_bench.compare.samples import Sampled

# A machine differs from itself by about this much from one run to the next.
SMALLEST: Final = 0.01
# And by this much where no rounds show how much it was here.
SMALLEST_UNREPEATED: Final = 0.02
# The same for shares of failures: a tenth of a percentage point.
SMALLEST_SHARE: Final = 0.001
# A change that is known to no better than this factor in either direction is not known.
_WIDEST: Final = math.log(10.0)
_WIDEST_SHARE: Final = 0.5


class Change(StrEnum):
    """What a comparison shows, in words."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference shown"
    MIXED = "better and worse"
    UNKNOWN = "too little data"
    NOT_COMPARABLE = "not comparable"


class Scale(StrEnum):
    """How two values of a figure are compared.

    `RATIO`: the change is a share of the base's value. `SHARE`: values are shares themselves, and the
    change is their difference.
    """

    RATIO = "ratio"
    SHARE = "share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """Something to compare.

    Attributes:
        name: as people and the JSON name it.
        unit: of its values: `/s`, `ms` or `%` (of 0 to 1).
        scale: how it is compared.
        more_is_better: for throughput.
    """

    name: str
    unit: str
    scale: Scale = Scale.RATIO
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of two settings.

    Attributes:
        base, new: its values, None where there is none.
        change: new against base: -0.1 is a tenth less, or ten percentage points less of a share.
        low, high: the interval of `change`; None where nothing can be said about it.
        verdict: what that shows.
    """

    quantity: Quantity
    base: float | None
    new: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: Change

    @property
    def size(self) -> float:
        """How large the change is, whatever its direction."""
        return abs(self.change or 0.0)


def judge(quantity: Quantity, base: Sampled, new: Sampled, *, confidence: float, paired: bool) -> Figure:
    """Compare two samples of a quantity.

    Args:
        confidence: of the interval, 0 to 1.
        paired: rounds were measured in turn, the first of each together and so on, so that what both
            rounds of a pair had in common is not noise.
    """
    if base.value is None or new.value is None:
        return Figure(quantity, base.value, new.value, None, None, None, Change.UNKNOWN)
    difference = new.estimate - base.estimate
    if not math.isfinite(difference):
        return Figure(quantity, base.value, new.value, None, None, None, Change.UNKNOWN)
    between = None
    if paired:
        between = between_rounds(
            [after - before for before, after in zip(base.rounds, new.rounds, strict=True)]
        )
    elif base.between is not None and new.between is not None:
        between = base.between + new.between
    width = half_width(combined(base.within + new.within, between), confidence)
    if width > (_WIDEST if quantity.scale is Scale.RATIO else _WIDEST_SHARE):
        return unjudged(quantity, base.value, new.value)
    ends = (difference, difference - width, difference + width)
    if quantity.scale is Scale.RATIO:
        change, low, high = map(_share_of_base, ends)
    else:
        change, low, high = (min(max(end, -1.0), 1.0) for end in ends)
    return Figure(
        quantity,
        base.value,
        new.value,
        change,
        low,
        high,
        _verdict(quantity, low, high, repeated=between is not None),
    )


def unjudged(quantity: Quantity, base: float | None, new: float | None) -> Figure:
    """A figure that is shown, with nothing said about its change being noise or not."""
    change = None
    if base is not None and new is not None:
        if quantity.scale is Scale.SHARE:
            change = new - base
        elif base > 0:
            change = new / base - 1
    return Figure(quantity, base, new, change, None, None, Change.UNKNOWN)


def _share_of_base(log_ratio: float) -> float:
    return math.expm1(min(log_ratio, 700.0))


def _verdict(quantity: Quantity, low: float, high: float, *, repeated: bool) -> Change:
    smallest = SMALLEST if repeated else SMALLEST_UNREPEATED
    if quantity.scale is Scale.SHARE:
        smallest = SMALLEST_SHARE
    if low > smallest:
        return Change.BETTER if quantity.more_is_better else Change.WORSE
    if high < -smallest:
        return Change.WORSE if quantity.more_is_better else Change.BETTER
    return Change.SAME
