"""Log-spaced buckets with edges a person can read, for bars in text and in pictures.

Edges are preferred numbers (1-2-5 and the Renard series R10, R20, R40), repeated every decade, so
that the same edges come back for every run and bars of several runs can be laid over each other.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pool_bench.stats import Histogram, bucket_lower_us, bucket_upper_us

FloatArray = npt.NDArray[np.float64]

# fmt: off
_R40: Final = (
    1.0, 1.06, 1.12, 1.18, 1.25, 1.32, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.12, 2.24, 2.36, 2.5, 2.65, 2.8,
    3.0, 3.15, 3.35, 3.55, 3.75, 4.0, 4.25, 4.5, 4.75, 5.0, 5.3, 5.6, 6.0, 6.3, 6.7, 7.1, 7.5,
    8.0, 8.5, 9.0, 9.5,
)
# fmt: on
# Steps per decade, finest first.
SERIES: Final[tuple[tuple[float, ...], ...]] = (_R40, _R40[::2], _R40[::4], (1.0, 2.0, 5.0))


@dataclass(frozen=True, slots=True)
class Bar:
    """Operations that took between `low_ms` and `high_ms`."""

    low_ms: float
    high_ms: float
    count: int


def extent_ms(*histograms: Histogram) -> tuple[float, float] | None:
    """Ends of the buckets in use, milliseconds, both above zero; None if all `histograms` are empty."""
    ends = []
    for histogram in histograms:
        indices, _ = histogram.nonzero()
        if len(indices):
            low = max(1, int(bucket_lower_us(indices[:1])[0]))
            ends.append((low / 1e3, max(low + 1, int(bucket_upper_us(indices[-1:])[0])) / 1e3))
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
        if len(finer) - 1 <= at_most:
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
