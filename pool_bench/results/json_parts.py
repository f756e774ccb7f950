"""What the parts of the result file are made of: numbers that JSON knows, histograms, failures."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats

JsonValue: TypeAlias = "Mapping[str, JsonValue] | Sequence[JsonValue] | str | int | float | bool | None"
JsonObject = dict[str, JsonValue]


def finite(value: float | None) -> float | None:
    """`value`, or None for a NaN or an infinity."""
    return value if value is not None and math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    """Six decimals (a nanosecond in milliseconds); None for what is no number."""
    known = finite(value)
    return None if known is None else round(known, 6)


def histogram_to_json(histogram: Histogram) -> JsonObject:
    """A histogram as every HdrHistogram library reads it."""
    return {"encoding": "hdr-v2-base64", "unit": "us", "data": histogram.encode()}


def failures_to_json(stats: BenchStats) -> list[JsonObject]:
    """All failures of `stats`, the most frequent first."""
    ranked = sorted(stats.failures.items(), key=lambda item: (-item[1].count, item[0]))
    return [
        {
            "kind": str(key.kind),
            "phase": str(key.phase),
            "sqlstate": key.sqlstate or None,
            "count": failure.count,
            "sample": failure.sample,
        }
        for key, failure in ranked
    ]
