"""How sure a figure of a run is: block bootstrap over its seconds, Student's t, variance between rounds.

Seconds of a benchmark are not independent: a checkpoint, a noisy neighbour or a full queue lasts for
several. Resampling single seconds would call such noise a difference. So whole stretches are drawn,
of random length (the stationary bootstrap of Politis and Romano 1994, J. Am. Stat. Assoc. 89), whose
mean length comes from Politis and White 2004 (Econometric Reviews 23, as corrected by Patton, Politis
and White 2009) and is never below the square root of the number of seconds: half a minute is too short
to learn its own correlation from. The bootstrap's standard error is then taken for what it is, one
from as many independent values as there are stretches: it is widened by the usual b / (b - 1), and
intervals are Student's with b - 1 degrees of freedom, not the normal distribution's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

REPLICATES: Final = 500
# Fewer rounds say too little about the variance between rounds to use it.
FEWEST_ROUNDS: Final = 3
_FEWEST_BLOCKS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Spread:
    """A variance and how many degrees of freedom it was estimated with."""

    variance: float
    degrees: float

    def __add__(self, other: "Spread") -> "Spread":
        """The variance of a sum of independent values, its degrees as Welch and Satterthwaite (1946)."""
        total = self.variance + other.variance
        if total <= 0:
            return Spread(0.0, max(self.degrees + other.degrees, 1.0))
        parts = self.variance**2 / self.degrees + other.variance**2 / other.degrees
        return Spread(total, max(total**2 / parts, 1.0))


def block_length(values: FloatArray) -> float:
    """Mean length of the stretches to resample `values` (shape n) in.

    Politis and White's rule, between the square root of n and a third of it.
    """
    n = len(values)
    floor, ceiling = math.sqrt(n), max(n / _FEWEST_BLOCKS, 1.0)
    return min(max(_politis_white(values), floor), ceiling)


def _politis_white(values: FloatArray) -> float:
    n = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / n
    if n < 4 or variance <= 0:
        return 1.0
    quiet_run = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + quiet_run, n - 1)
    lagged = np.array([float(centred[lag:] @ centred[: n - lag]) / n for lag in range(longest + 1)])
    limit = 2.0 * math.sqrt(math.log10(n) / n)
    loud = [lag for lag in range(1, longest + 1) if abs(lagged[lag] / variance) > limit]
    # The last lag before a run of insignificant ones.
    last = 0
    for lag in loud:
        if lag - last > quiet_run:
            break
        last = lag
    if not last:
        return 1.0
    lags = np.arange(-min(2 * last, longest), min(2 * last, longest) + 1)
    window = np.clip(2.0 * (1.0 - np.abs(lags) / (2.0 * last)), 0.0, 1.0)
    smoothed = window * lagged[np.abs(lags)]
    g, density = float(np.abs(lags) @ smoothed), float(smoothed.sum())
    if density <= 0:
        return 1.0
    return float((2.0 * g**2 / (2.0 * density**2)) ** (1 / 3) * n ** (1 / 3))


def resample(n: int, length: float, replicates: int, rng: np.random.Generator) -> FloatArray:
    """How often each of `n` values is in each of `replicates` resamples (shape replicates x n).

    Stretches begin anywhere, have geometric lengths of mean `length` and go round in a circle, so that no
    value is drawn less often for standing at an end. Rows add up to n.
    """
    begins = rng.random((replicates, n)) < 1.0 / length
    begins[:, 0] = True
    places = np.arange(n)
    origin = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    starts = rng.integers(0, n, (replicates, n))
    drawn = (np.take_along_axis(starts, origin, axis=1) + places - origin) % n
    flat = drawn + n * np.arange(replicates)[:, None]
    return np.bincount(flat.ravel(), minlength=replicates * n).reshape(replicates, n).astype(np.float64)


def within_rounds(replicates: FloatArray, blocks: Sequence[float]) -> Spread:
    """The spread of a figure as the noise inside its rounds shows it.

    Args:
        replicates: the figure in each resample.
        blocks: how many stretches each round was resampled in.
    """
    known = replicates[np.isfinite(replicates)]
    variance = float(known.var(ddof=1)) if len(known) > 1 else 0.0
    each = max(sum(blocks) / len(blocks), 2.0)
    degrees = max(sum(blocks) - len(blocks), 1.0)
    return Spread(variance * each / (each - 1), degrees)


def between_rounds(values: Sequence[float]) -> Spread | None:
    """The spread of the mean of `values`, one for each round; None of too few rounds."""
    if len(values) < FEWEST_ROUNDS or not all(map(math.isfinite, values)):
        return None
    return Spread(float(np.var(values, ddof=1)) / len(values), len(values) - 1.0)


def combined(within: Spread, between: Spread | None) -> Spread:
    """The spread of a figure where the noise between rounds may exceed the noise inside them.

    The excess is the variance that a new round brings; like any estimated variance it is never negative.
    Welch and Satterthwaite then give the many degrees of the first part or the few of the second,
    whichever matters.
    """
    if between is None or between.variance <= within.variance:
        return within
    return within + Spread(between.variance - within.variance, between.degrees)


def half_width(spread: Spread, confidence: float) -> float:
    """Half of the two-sided Student interval of this `confidence` (0 to 1)."""
    degrees = round(min(spread.degrees, 1000.0), 1)
    return student_quantile((1 + confidence) / 2, degrees) * math.sqrt(spread.variance)


@lru_cache(maxsize=256)
def student_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's distribution for a `probability` of 0.5 to 1, `degrees` of freedom 1 or more.

    By its density in the angle atan(t / sqrt(degrees)), cos(angle) ** (degrees - 1), which is smooth and
    ends at a right angle, so that a plain sum over it is good to four digits.
    """
    angles = np.linspace(0.0, math.pi / 2, 20_001)
    middles = (angles[1:] + angles[:-1]) / 2
    density = np.cos(middles) ** (degrees - 1)
    cumulative = np.concatenate(([0.0], np.cumsum(density)))
    cumulative /= cumulative[-1]
    angle = float(np.interp(2 * probability - 1, cumulative, angles))
    return math.tan(angle) * math.sqrt(degrees)
