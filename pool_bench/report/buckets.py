"""Log-spaced buckets with edges a person can read, for bars in text and in pictures.

Edges are preferred numbers (1-2-5, the Renard series R5, R10 and R20, or finer), repeated every decade, so
that the same edges come back for every run and bars of several runs can be laid over each other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pool_bench.stats.histogram import Histogram, bucket_lower_us, bucket_upper_us

FloatArray = npt.NDArray[np.float64]

_R20: Final = (
    1.0,
    1.12,
    1.25,
    1.4,
    1.6,
    1.8,
    2.0,
    2.24,
    2.5,
    2.8,
    3.15,
    3.55,
    4.0,
    4.5,
    5.0,
    5.6,
    6.3,
    7.1,
    8.0,
    9.0,
)
# Finer ones are exact: rounded, one bar would be visibly wider, and so higher, than its neighbour.
_FINE: Final = tuple(tuple(10 ** (step / steps) for step in range(steps)) for steps in (160, 80, 40))
# Finest first.
SERIES: Final[tuple[tuple[float, ...], ...]] = (*_FINE, _R20, _R20[::2], _R20[::4], (1.0, 2.0, 5.0))
# Histograms resolve microseconds: in a bar of fewer than four of them, rounding would show.
_NARROWEST_MS: Final = 0.004


@dataclass(frozen=True, slots=True)
class Bar:
    """Operations that took between `low_ms` and `high_ms`."""

    low_ms: float
    high_ms: float
    count: int


def extent_ms(*histograms: Histogram) -> tuple[float, float] | None:
    """Middles of the outermost buckets in use, milliseconds, both above zero; None if all are empty.

    Middles, because that is where `Histogram.binned` places what is in a bucket.
    """
    ends = []
    for histogram in histograms:
        indices, _ = histogram.nonzero()
        if len(indices):
            middles = (bucket_lower_us(indices[[0, -1]]) + bucket_upper_us(indices[[0, -1]])) / 2e3
            ends.append((max(float(middles[0]), 0.001), max(float(middles[1]), 0.001)))
    if not ends:
        return None
    return min(low for low, _ in ends), max(high for _, high in ends)


def log_edges(low_ms: float, high_ms: float, *, series: tuple[float, ...]) -> FloatArray:
    """Edges of `series` from the last one at or below `low_ms` to the first above `high_ms`; two at least."""
    first, last = int(np.floor(np.log10(low_ms))) - 1, int(np.floor(np.log10(high_ms))) + 2
    decades = np.concatenate([np.array(series) * 10.0**decade for decade in range(first, last)])
    start = int(np.searchsorted(decades, low_ms * (1 + 1e-9), side="right")) - 1
    stop = int(np.searchsorted(decades, high_ms * (1 + 1e-9), side="right"))
    edges: FloatArray = decades[start : stop + 1]
    return edges


def choose_edges(low_ms: float, high_ms: float, *, at_most: int) -> FloatArray:
    """Edges of the finest series that needs no more than `at_most` bars; 1-2-5 where none does."""
    edges = log_edges(low_ms, high_ms, series=SERIES[-1])
    for series in SERIES:
        finer = log_edges(low_ms, high_ms, series=series)
        resolved = len(series) <= len(_R20[::2]) or finer[1] - finer[0] >= _NARROWEST_MS
        if resolved and len(finer) - 1 <= at_most:
            return finer
    return edges


def counts_between(histogram: Histogram, edges_ms: FloatArray) -> npt.NDArray[np.int64]:
    """Counts for each gap of `edges_ms` (shape n - 1); what lies outside is in the first or last gap."""
    counts = histogram.binned(edges_ms)
    inner = counts[1:-1].copy()
    inner[0] += counts[0]
    inner[-1] += counts[-1]
    return inner


def log_bars(histogram: Histogram, *, at_most: int) -> list[Bar]:
    """Bars over everything in `histogram`, whose counts add up to its count; none where it is empty."""
    extent = extent_ms(histogram)
    if extent is None:
        return []
    edges = choose_edges(*extent, at_most=at_most)
    counts = counts_between(histogram, edges)
    return [
        Bar(float(low), float(high), int(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
