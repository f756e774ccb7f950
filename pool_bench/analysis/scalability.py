"""How many connections: a law fitted to throughput by pool size, and what it allows to be said.

The law is Gunther's Universal Scalability Law (N. J. Gunther, Guerrilla Capacity Planning, 2007, ch. 4-6):
X(n) = r n / (1 + s(n-1) + k n(n-1)), with n connections, s for contention and k for coherency. Written as
n/X it is linear in 1/r, s/r and k/r, so that non-negative least squares on relative errors find the
best fit without a first guess.

The knee is the smallest size that reaches 95 % of the best throughput within the sizes measured: what
lies beyond buys less than one part in twenty. How sure that is comes from a residual bootstrap (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, ch. 9): the residuals of all rounds, spread over the curve
again, a thousand times.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

KNEE_SHARE: Final = 0.95
CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 1000
# Three parameters need more than three sizes to be contradicted by anything.
FEWEST_SIZES: Final = 5
# Rounds of one size that differ by more, or a law that is off by more, carry no recommendation.
_WORST_FIT: Final = 0.20
_WIDEST_INTERVAL: Final = 4.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one size: connections, and operations a second."""

    size: int
    throughput: float


@dataclass(frozen=True, slots=True)
class Law:
    """X(n) = rate · n / (1 + contention · (n-1) + coherency · n(n-1)), operations a second.

    Attributes:
        rate: r, of one connection alone.
        contention: s, the share that is done one after the other.
        coherency: k, the cost of each pair that has to agree.
    """

    rate: float
    contention: float
    coherency: float

    def at(self, sizes: FloatArray) -> FloatArray:
        """Throughput at `sizes` (shape n)."""
        return self.rate * sizes / (1 + self.contention * (sizes - 1) + self.coherency * sizes * (sizes - 1))

    @property
    def peak(self) -> float:
        """The size of the highest throughput; infinite where it only ever grows."""
        if self.contention >= 1:
            return 1.0
        if self.coherency <= 0:
            return math.inf
        return max(math.sqrt((1 - self.contention) / self.coherency), 1.0)

    def knee(self, low: int, high: int) -> int:
        """The smallest size from `low` to `high` with 95 % of the best throughput between them."""
        sizes = np.arange(low, high + 1, dtype=np.float64)
        throughput = self.at(sizes)
        return low + int(np.argmax(throughput >= KNEE_SHARE * throughput.max()))


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is to be said about the size of a pool.

    Attributes:
        law: the fit, None where the data allow none.
        fit_error: median of how far rounds are from the law, a share of the law.
        knee: the recommended size, None where nothing can be said.
        knee_low, knee_high: its 95 % interval.
        peak_low, peak_high: the same of the size of highest throughput; infinite where it may only grow.
        curve_low, curve_high: the same of the throughput at each whole size from the smallest on.
        sizes: smallest and largest size measured.
        why_not: what the data lack, in words; "" where they allow a recommendation.
    """

    law: Law | None
    fit_error: float | None
    knee: int | None
    knee_low: int | None
    knee_high: int | None
    peak_low: float | None
    peak_high: float | None
    curve_low: FloatArray
    curve_high: FloatArray
    sizes: tuple[int, int]
    why_not: str = ""

    @property
    def growing(self) -> bool:
        """Whether the best throughput may lie beyond the largest size measured."""
        return self.peak_high is not None and self.peak_high > self.sizes[1]

    @property
    def knee_at_end(self) -> bool:
        """Whether the knee itself may lie beyond the largest size measured: it is then only a lower bound."""
        return (
            self.law is not None
            and self.growing
            and self.law.knee(self.sizes[0], 4 * self.sizes[1]) > (self.sizes[1])
        )


def fit_law(points: Sequence[Measured]) -> Law | None:
    """The law closest to `points` in relative terms; None where they cannot determine one."""
    known = [point for point in points if point.throughput > 0]
    if len({point.size for point in known}) < 3:
        return None
    return _fit(
        np.array([point.size for point in known], dtype=np.float64),
        np.array([point.throughput for point in known], dtype=np.float64),
    )


def _fit(sizes: FloatArray, throughput: FloatArray) -> Law | None:
    from scipy.optimize import nnls

    # Each equation times X/n: an error of a tenth counts alike at every size.
    weights = throughput / sizes
    columns = np.column_stack((np.ones_like(sizes), sizes - 1, sizes * (sizes - 1))) * weights[:, None]
    (inverse, contention, coherency), _ = nnls(columns, np.ones_like(sizes))
    if inverse <= 0:
        return None
    return Law(float(1 / inverse), float(contention / inverse), float(coherency / inverse))


def recommend(points: Sequence[Measured], *, seed: int = 1) -> Sizing:
    """Fit the law to `points`, and say which size they speak for and how surely.

    Args:
        points: every round of every size.
        seed: makes the bootstrap repeatable.
    """
    known = [point for point in points if point.throughput > 0]
    distinct = sorted({point.size for point in known})
    span = (distinct[0], distinct[-1]) if distinct else (0, 0)
    if len(distinct) < FEWEST_SIZES:
        return _nothing(span, f"it takes at least {FEWEST_SIZES} sizes with successes, not {len(distinct)}")
    sizes = np.array([point.size for point in known], dtype=np.float64)
    throughput = np.array([point.throughput for point in known])
    law = _fit(sizes, throughput)
    if law is None:
        return _nothing(span, "throughput does not grow from the smallest size on as the law has it")
    fitted = law.at(sizes)
    ratios = throughput / fitted
    error = float(np.median(np.abs(ratios - 1)))
    rng = np.random.default_rng(seed)
    knees, peaks, curves = [], [], []
    every = np.arange(span[0], span[1] + 1, dtype=np.float64)
    # Residuals of a fit are smaller than errors, by the degrees of freedom that it used up.
    stretch = math.sqrt(len(known) / max(len(known) - 3, 1))
    spread = np.exp(np.log(ratios) * stretch - np.log(ratios).mean() * stretch)
    for _ in range(_RESAMPLES):
        again = _fit(sizes, fitted * rng.choice(spread, size=len(known)))
        if again is not None:
            knees.append(again.knee(*span))
            peaks.append(again.peak)
            curves.append(again.at(every))
    tails = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)
    knee_low, knee_high = np.percentile(knees, tails, method="nearest")
    peak_low, peak_high = np.percentile(peaks, tails, method="nearest")
    curve_low, curve_high = np.percentile(np.array(curves), tails, axis=0)
    return Sizing(
        law=law,
        fit_error=error,
        knee=law.knee(*span),
        knee_low=int(knee_low),
        knee_high=int(knee_high),
        peak_low=float(peak_low),
        peak_high=float(peak_high),
        curve_low=curve_low,
        curve_high=curve_high,
        sizes=span,
        why_not=_doubt(known, error, float(knee_high) / max(float(knee_low), 1.0)),
    )


def _doubt(known: Sequence[Measured], error: float, width: float) -> str:
    """What keeps a fit from being a recommendation; "" where nothing does."""
    if error > _WORST_FIT:
        return f"the law is off by {error:.0%} at half of the rounds: these figures follow another, or none"
    noise = []
    for size in {point.size for point in known}:
        rounds = [point.throughput for point in known if point.size == size]
        noise.append(max(rounds) / min(rounds) - 1)
    if median(noise) > 2 * _WORST_FIT:
        return f"rounds of the same size differ by {median(noise):.0%}: something else was at work here"
    if width > _WIDEST_INTERVAL:
        return "the interval spans more than two doublings: more rounds, or longer ones, would narrow it"
    return ""


def _nothing(span: tuple[int, int], why: str) -> Sizing:
    empty = np.zeros(0)
    return Sizing(None, None, None, None, None, None, None, empty, empty, span, why)


def statement(sizing: Sizing) -> list[str]:
    """What the figures allow to be said, in sentences."""
    law = sizing.law
    if law is None or sizing.knee is None or sizing.peak_low is None or sizing.peak_high is None:
        return [f"No recommendation: {sizing.why_not}."]
    knee = f"{sizing.knee} connections ({CONFIDENCE:.0%} interval {sizing.knee_low} to {sizing.knee_high})"
    if sizing.why_not:
        lines = [f"No recommendation: {sizing.why_not}. The law by itself would say {knee}."]
    else:
        lines = [
            f"Recommended: {knee}, the smallest pool with {KNEE_SHARE:.0%} of the best throughput within "
            f"{sizing.sizes[0]} to {sizing.sizes[1]}."
        ]
    if sizing.knee_at_end:
        lines.append(
            f"That is a lower bound: at {sizing.sizes[1]}, the largest size measured, throughput was still "
            "growing. Measure larger pools."
        )
    lines.append(_peak_words(sizing, sizing.peak_low, sizing.peak_high))
    lines.append(
        f"The law: {law.rate:,.0f} op/s by one connection, contention {law.contention:.3g}, coherency "
        f"{law.coherency:.2g}; half of the rounds are within {sizing.fit_error or 0.0:.1%} of it."
    )
    return lines


def _peak_words(sizing: Sizing, low: float, high: float) -> str:
    last = sizing.sizes[1]
    if low > last:
        return f"No size up to {last} is too large for throughput: no decline shows."
    if high > last:
        bound = f"{low:.0f} or more"
        return f"Where throughput is highest cannot be said: {bound}, perhaps beyond {last}."
    return f"Throughput is highest at {low:.0f} to {high:.0f} connections, and declines beyond."
