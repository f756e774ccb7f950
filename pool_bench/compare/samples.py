"""What can be compared of a setting, and how much it varies: throughput, percentiles, failures.

A figure's value is exact: counts over seconds, percentiles of the merged histograms of all rounds, never
a mean of percentiles. Its spread comes from resampled seconds (`compare_bootstrap`), and is the spread of
that same figure: each resample of seconds is pooled into one distribution, whose percentile is read. A
second that stalled therefore widens the interval of p99 as much as it moves p99, which the mean of the
seconds' own p99 would not do.

The file keeps p50, p95, p99 and the maximum of each second, not its histogram; between them the
distribution is interpolated, log latency against log rarity, and below p50 it has the shape of the whole
run. That approximates the spread only, never the value; and where the interpolation misses the value,
which it does at a cliff between two modes, the square of what it misses by is added to the variance.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pool_bench.compare.bootstrap import (
    REPLICATES,
    FloatArray,
    Spread,
    between_rounds,
    block_length,
    resample,
    within_rounds,
)
from pool_bench.stats.histogram import Histogram

_GRID: Final = 160
# Percentiles below the median whose distance from it is taken from the whole run.
_LOWER: Final = (1.0, 10.0, 25.0, 40.0)
_UPPER: Final = (50.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Round:
    """One run, as arrays over its seconds (shape n).

    Attributes:
        seconds: length of each.
        ok, failed: operations that ended in each.
        quantiles_ms: p50, p95, p99 and maximum of each (shape n x 4), NaN where nothing succeeded.
        latency: all operations of the run.
        duration_s: seconds of measuring.
    """

    seconds: FloatArray
    ok: FloatArray
    failed: FloatArray
    quantiles_ms: FloatArray
    latency: Histogram
    duration_s: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """One figure of one setting.

    Attributes:
        value: as people read it; None where there is none.
        estimate: the value on the scale of the comparison: its logarithm, or itself.
        rounds: estimates of each round.
        within: the spread that the noise inside the rounds explains.
    """

    value: float | None
    estimate: float
    rounds: tuple[float, ...]
    within: Spread

    @property
    def between(self) -> Spread | None:
        """The spread that the rounds show among themselves; None of too few."""
        return between_rounds(self.rounds)


class Resampled:
    """The rounds of a setting, resampled once for all its figures."""

    def __init__(self, rounds: Sequence[Round], *, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.rounds = tuple(rounds)
        self._ok = np.concatenate([round_.ok for round_ in rounds])
        self._failed = np.concatenate([round_.failed for round_ in rounds])
        self._seconds = np.concatenate([round_.seconds for round_ in rounds])
        self._blocks = []
        weights = []
        for round_ in rounds:
            n = len(round_.seconds)
            length = block_length(round_.ok / np.maximum(round_.seconds, 1e-9))
            self._blocks.append(n / length)
            weights.append(resample(n, length, REPLICATES, rng))
        self._weights = np.concatenate(weights, axis=1)
        self._pooled: tuple[FloatArray, FloatArray] | None = None

    def throughput(self) -> Sampled:
        """Successes a second."""
        replicates = self._weights @ self._ok / (self._weights @ self._seconds)
        duration_s = sum(round_.duration_s for round_ in self.rounds)
        value = sum(round_.latency.count for round_ in self.rounds) / duration_s
        each = [round_.latency.count / round_.duration_s for round_ in self.rounds]
        return self._sampled(value, each, replicates, _log)

    def failed_share(self) -> Sampled:
        """Failures for each operation that ended, 0 to 1."""
        ended = self._weights @ (self._ok + self._failed)
        replicates = self._weights @ self._failed / np.maximum(ended, 1.0)
        each = [
            float(round_.failed.sum() / max((round_.ok + round_.failed).sum(), 1.0)) for round_ in self.rounds
        ]
        value = float(self._failed.sum() / max((self._ok + self._failed).sum(), 1.0))
        return self._sampled(value, each, replicates, lambda share: share)

    def percentile(self, percentile: float) -> Sampled:
        """A percentile of latency, milliseconds."""
        merged = Histogram()
        for round_ in self.rounds:
            merged.merge(round_.latency)
        value = merged.percentile_ms(percentile)
        each = [round_.latency.percentile_ms(percentile) for round_ in self.rounds]
        if value is None:
            return Sampled(None, math.nan, (), Spread(0.0, 1.0))
        replicates = self._percentiles(percentile, merged)
        # The first row is no resample but the seconds themselves.
        sampled = self._sampled(value, each, replicates[1:], _log)
        missed = math.log(max(value, 1e-12) / replicates[0])
        within = Spread(sampled.within.variance + missed**2, sampled.within.degrees)
        return replace(sampled, within=within)

    def _sampled(
        self,
        value: float,
        each: Sequence[float | None],
        replicates: FloatArray,
        scale: Callable[[float], float],
    ) -> Sampled:
        estimates = tuple(math.nan if value is None else scale(value) for value in each)
        scaled = np.log(np.maximum(replicates, 1e-12)) if scale is _log else replicates
        return Sampled(value, scale(value), estimates, within_rounds(scaled, self._blocks))

    def _percentiles(self, percentile: float, merged: Histogram) -> FloatArray:
        """The percentile of the seconds themselves, and then of each resample, milliseconds."""
        grid, cumulative = self._distributions(merged)
        wanted = percentile / 100 * cumulative[:, -1]
        above = np.clip((cumulative < wanted[:, None]).sum(axis=1), 1, len(grid) - 1)
        rows = np.arange(len(cumulative))
        low, high = cumulative[rows, above - 1], cumulative[rows, above]
        share = np.clip((wanted - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
        values: FloatArray = np.exp(grid[above - 1] + share * (grid[above] - grid[above - 1]))
        return values

    def _distributions(self, merged: Histogram) -> tuple[FloatArray, FloatArray]:
        """A grid of log latencies; how many operations are below each in all seconds and each resample."""
        if self._pooled is None:
            quantiles = np.concatenate([round_.quantiles_ms for round_ in self.rounds])
            grid, below = _seconds_below(quantiles, self._ok, merged)
            self._pooled = grid, np.concatenate([below.sum(axis=0)[None, :], self._weights @ below])
        return self._pooled


def _seconds_below(quantiles: FloatArray, ok: FloatArray, merged: Histogram) -> tuple[FloatArray, FloatArray]:
    """Log latencies (shape m), and how many operations of each second are below each (shape n x m)."""
    shape = merged.percentiles_ms((*_LOWER, 50.0))
    middle = shape[-1] or 1e-6
    offsets = np.log([max(value or 1e-6, 1e-6) / middle for value in shape[:-1]])
    alive = np.isfinite(quantiles[:, 0]) & (ok > 0)
    known = np.log(np.maximum(quantiles, 1e-6))
    knots = np.concatenate([known[:, :1] + offsets, known], axis=1)
    # np.interp wants them to rise; a second of few operations repeats its maximum.
    knots = np.maximum.accumulate(knots, axis=1) + 1e-9 * np.arange(knots.shape[1])
    low, high = float(knots[alive].min()), float(knots[alive].max())
    grid = np.linspace(low - 1e-6, high + 1e-6, _GRID)
    below = np.zeros((len(ok), _GRID))
    inner = [-math.log10(1 - p / 100) for p in (*_LOWER, *_UPPER)]
    for index in np.flatnonzero(alive):
        # Half an operation is beyond the largest one; with few of them that is not beyond p99.
        top = max(-math.log10(0.5 / ok[index]), inner[-1] + 0.3)
        rarity = np.interp(grid, knots[index], [*inner, top], left=0.0)
        below[index] = ok[index] * (1 - 10.0**-rarity)
        below[index, -1] = ok[index]
    return grid, below


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
