"""Durations in HDR buckets that merge exactly.

The bucket layout is HdrHistogram's (http://hdrhistogram.org): microseconds from 1 us to 1 h with
three significant digits, so that any HdrHistogram tool reads what `Histogram.encode` writes.
Count, minimum, maximum, mean and variance are kept exactly, from the nanoseconds.
"""

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]

LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
SIGNIFICANT_DIGITS: Final = 3

# With three digits a sub-bucket must tell 2 * 10**3 values apart: 2**11 of them, the upper half new.
_SUB_BUCKETS: Final = 2048
_HALF_BITS: Final = 10
_HALF: Final = _SUB_BUCKETS // 2
_BUCKETS: Final = (HIGHEST_US // _SUB_BUCKETS).bit_length() + 1
_LENGTH: Final = (_BUCKETS + 1) * _HALF

PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


def _bucket_indices(values_us: Int64Array) -> Int64Array:
    """Index of each value's HDR bucket; the array form of HdrHistogram's countsArrayIndex."""
    # frexp's exponent is the bit length of a positive integer, exact below 2**53.
    bits = np.frexp((values_us | (_SUB_BUCKETS - 1)).astype(np.float64))[1].astype(np.int64)
    bucket = bits - (_HALF_BITS + 1)
    indices: Int64Array = (bucket << _HALF_BITS) + (values_us >> bucket)
    return indices


def bucket_lower_us(indices: Int64Array) -> Int64Array:
    """Lowest value in microseconds that falls into each bucket of `indices` (shape n)."""
    bucket = np.maximum((indices >> _HALF_BITS) - 1, 0)
    lower: Int64Array = (indices - (bucket << _HALF_BITS)) << bucket
    return lower


def bucket_upper_us(indices: Int64Array) -> Int64Array:
    """Highest whole microsecond that falls into each bucket of `indices` (shape n)."""
    bucket = np.maximum((indices >> _HALF_BITS) - 1, 0)
    upper: Int64Array = bucket_lower_us(indices) + (np.int64(1) << bucket) - 1
    return upper


class Histogram:
    """Durations in HDR buckets, with exact count, extremes, mean and variance.

    Empty histograms hold no array, so the ones of unused phases cost nothing, and those that were read
    from a file or a pipe only the buckets in use.
    """

    __slots__ = ("_counts", "_m2", "_mean", "_used", "count", "max_ns", "min_ns")

    def __init__(self) -> None:
        # All buckets, once something is added; else those in use: their indices and counts.
        self._counts: Int64Array | None = None
        self._used: tuple[Int64Array, Int64Array] | None = None
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0
        self._mean = 0.0
        self._m2 = 0.0

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, min_ns={self.min_ns}, max_ns={self.max_ns})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine, theirs = self.__getstate__(), other.__getstate__()
        # The moments are sums of floats: their last digits depend on the order of merging.
        return mine[:3] == theirs[:3] and mine[5:] == theirs[5:]

    __hash__ = None  # type: ignore[assignment]  # a histogram changes while it fills

    def record(self, values_ns: Int64Array) -> None:
        """Add durations in nanoseconds (shape n); those over an hour share the last bucket."""
        count = len(values_ns)
        if count == 0:
            return
        counts = self._all_buckets()
        values_us = np.minimum((values_ns + 500) // 1000, HIGHEST_US)
        indices = _bucket_indices(values_us)
        if count < 4096:
            np.add.at(counts, indices, 1)
        else:
            counts += np.bincount(indices, minlength=_LENGTH)
        mean = float(values_ns.mean())
        m2 = float(np.square(values_ns - mean).sum())
        self._fold(count, int(values_ns.min()), int(values_ns.max()), mean, m2)

    def merge(self, other: "Histogram") -> None:
        """Add all of `other`."""
        if not other.count:
            return
        counts = self._all_buckets()
        if other._counts is not None:
            counts += other._counts
        else:
            indices, added = other.nonzero()
            counts[indices] += added
        self._fold(other.count, other.min_ns, other.max_ns, other._mean, other._m2)

    @staticmethod
    def merged(parts: "Iterable[Histogram | None]") -> "Histogram":
        """The sum of `parts`, none of which is changed; None counts for an empty one."""
        total = Histogram()
        for part in parts:
            if part is not None:
                total.merge(part)
        return total

    def _all_buckets(self) -> Int64Array:
        """The array of all buckets, to be added to."""
        if self._counts is None:
            self._counts = np.zeros(_LENGTH, dtype=np.int64)
            if self._used is not None:
                self._counts[self._used[0]] = self._used[1]
                self._used = None
        return self._counts

    def _fold(self, count: int, min_ns: int, max_ns: int, mean: float, m2: float) -> None:
        """Combine moments (Chan, Golub and LeVeque 1979: stable where a sum of squares is not)."""
        total = self.count + count
        delta = mean - self._mean
        self.min_ns = min(self.min_ns, min_ns) if self.count else min_ns
        self.max_ns = max(self.max_ns, max_ns)
        self._m2 += m2 + delta * delta * self.count * count / total
        self._mean += delta * count / total
        self.count = total

    @property
    def mean_ms(self) -> float | None:
        """Exact mean in milliseconds, None where nothing was recorded."""
        return self._mean / 1e6 if self.count else None

    @property
    def stdev_ms(self) -> float | None:
        """Exact population standard deviation in milliseconds, None where nothing was recorded."""
        return math.sqrt(self._m2 / self.count) / 1e6 if self.count else None

    @property
    def total_s(self) -> float:
        """Sum of all durations in seconds."""
        return self._mean * self.count / 1e9

    def percentiles_ms(self, percentiles: Iterable[float]) -> list[float | None]:
        """Nearest-rank percentiles in milliseconds, each the upper end of its bucket.

        Never outside the exact minimum and maximum; all None where nothing was recorded.
        """
        wanted = list(percentiles)
        if not self.count:
            return [None] * len(wanted)
        used, counts = self.nonzero()
        cumulative = np.cumsum(counts)
        # Rounding first keeps 99.9 % of 1000 at rank 999: 0.999 * 1000 is a little over 999.
        ranks = [min(self.count, max(1, math.ceil(round(p / 100 * self.count, 6)))) for p in wanted]
        upper_ms = bucket_upper_us(used[np.searchsorted(cumulative, ranks)]) / 1e3
        return [min(max(float(v), self.min_ns / 1e6), self.max_ns / 1e6) for v in upper_ms]

    def percentile_ms(self, percentile: float) -> float | None:
        """One nearest-rank percentile in milliseconds; see `percentiles_ms`."""
        return self.percentiles_ms((percentile,))[0]

    def summary_ms(self) -> dict[str, float | None]:
        """The `latency_ms` object of the result file: min, mean, stdev, percentiles, max."""
        keys = ("p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99")
        summary: dict[str, float | None] = {
            "min": self.min_ns / 1e6 if self.count else None,
            "mean": self.mean_ms,
            "stdev": self.stdev_ms,
        }
        summary.update(zip(keys, self.percentiles_ms(PERCENTILES), strict=True))
        summary["max"] = self.max_ns / 1e6 if self.count else None
        return {key: None if value is None else round(value, 6) for key, value in summary.items()}

    def nonzero(self) -> tuple[Int64Array, Int64Array]:
        """Indices of the buckets in use and their counts (two arrays of one shape)."""
        if self._used is not None:
            return self._used
        if self._counts is None:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        indices = np.flatnonzero(self._counts).astype(np.int64)
        return indices, self._counts[indices]

    def binned(self, edges_ms: npt.NDArray[np.float64]) -> Int64Array:
        """Counts between `edges_ms` (ascending, shape n); shape n + 1 with both open ends.

        A bucket is placed by its middle, so the counts always add up to `count`.
        """
        indices, counts = self.nonzero()
        middles_ms = (bucket_lower_us(indices) + bucket_upper_us(indices)) / 2e3
        places = np.searchsorted(edges_ms, middles_ms, side="right")
        return np.bincount(places, weights=counts, minlength=len(edges_ms) + 1).astype(np.int64)

    def encode(self) -> str:
        """HdrHistogram V2 compressed encoding in base64, as `histogram.data` in the result file."""
        import ctypes

        from hdrh.histogram import HdrHistogram

        hdr = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
        used, counts = self.nonzero()
        if len(used):
            dense = np.zeros(_LENGTH, dtype=np.int64)
            dense[used] = counts
            ctypes.memmove(hdr.counts, dense.ctypes.data, dense.nbytes)
            hdr.total_count = self.count
            hdr.min_value = int(bucket_lower_us(used[:1])[0])
            hdr.max_value = int(bucket_upper_us(used[-1:])[0])
        encoded: bytes = hdr.encode()
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, data: str) -> "Histogram":
        """Read what `encode` wrote.

        The encoding holds buckets only: extremes and moments come back to the buckets' precision.

        Raises:
            ValueError: the text is no HdrHistogram encoding of this layout.
        """
        _check_encoding(data)
        from hdrh.codec import HdrCookieException, HdrLengthException
        from hdrh.histogram import HdrHistogram

        try:
            hdr = HdrHistogram.decode(data)
        except (HdrCookieException, HdrLengthException, ValueError, IndexError) as error:
            raise ValueError(f"not an HdrHistogram V2 encoding: {error}") from error
        histogram = cls()
        counts = np.array(hdr.counts, dtype=np.int64)
        used = np.flatnonzero(counts).astype(np.int64)
        if (counts < 0).any():
            raise ValueError("it has negative counts")
        histogram._fill(used, counts[used])
        return histogram

    def bucketed(self) -> "Histogram":
        """A copy with what `encode` keeps, as `decode` would give it."""
        histogram = Histogram()
        histogram._fill(*self.nonzero())
        return histogram

    def _fill(self, used: Int64Array, counts: Int64Array) -> None:
        """Take buckets in use and their counts, of which the moments follow to the buckets' precision."""
        if not len(used):
            return
        self._used = used, counts
        lower, upper = bucket_lower_us(used), bucket_upper_us(used)
        middles_ns = (lower + upper) * 500.0
        total = int(counts.sum())
        mean = float((middles_ns * counts).sum()) / total
        m2 = float((np.square(middles_ns - mean) * counts).sum())
        self._fold(total, int(lower[0]) * 1000, int(upper[-1]) * 1000, mean, m2)

    def __getstate__(self) -> tuple[int, int, int, float, float, bytes, bytes]:
        indices, counts = self.nonzero()
        return (
            self.count,
            self.min_ns,
            self.max_ns,
            self._mean,
            self._m2,
            indices.astype(np.uint16).tobytes(),
            counts.tobytes(),
        )

    def __setstate__(self, state: tuple[int, int, int, float, float, bytes, bytes]) -> None:
        self.count, self.min_ns, self.max_ns, self._mean, self._m2, indices, counts = state
        self._counts = self._used = None
        if self.count:
            self._used = np.frombuffer(indices, np.uint16).astype(np.int64), np.frombuffer(counts, np.int64)


def _check_encoding(data: str) -> None:
    """See that an encoding unpacks to no more than one of this layout can, and says it is one.

    HdrHistogram V2: a cookie and a length around zlib, in it cookie, length, normalizing offset, digits,
    lowest, highest and ratio, and at most nine bytes for each bucket.

    Raises:
        ValueError: it does not.
    """
    import base64
    import struct
    import zlib

    most = 40 + 9 * _LENGTH
    if len(data) > 2 * most:
        raise ValueError("it is longer than any histogram of this layout")
    inflate = zlib.decompressobj()
    try:
        content = inflate.decompress(base64.b64decode(data)[8:], most + 1)
        layout = struct.unpack_from(">iqq", content, 12)
    except (zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"not an HdrHistogram V2 encoding: {error}") from error
    if len(content) > most:
        raise ValueError("it unpacks to more than any histogram of this layout")
    if layout != (SIGNIFICANT_DIGITS, LOWEST_US, HIGHEST_US):
        raise ValueError("the histogram has another range or precision than 1 us to 1 h, 3 digits")
