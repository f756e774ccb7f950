"""What several records of a result file have in common: bounded numbers and text, summaries, failures.

A record is what stands in the file: its fields have the file's names, and their types say what a reader
takes. Numbers are finite, which reading sees to; those made here have six decimals, a nanosecond in
milliseconds.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeAlias, TypeVar, cast

from msgspec import Meta

from pool_bench.cleaning import clean
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number: TypeAlias = Annotated[float, Meta(ge=0)]
Text: TypeAlias = Annotated[str, Meta(max_length=10_000)]
Name: TypeAlias = Annotated[str, Meta(max_length=200)]
Counts: TypeAlias = Mapping[Name, Count]
# What was set, by name: any JSON.
Settings: TypeAlias = Mapping[Name, object]


_LONGEST_WORD: Final = 200


def finite(value: float | None) -> float | None:
    """`value`, or None for a NaN or an infinity."""
    return value if value is not None and math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    """Six decimals; None for what is no number."""
    known = finite(value)
    return None if known is None else round(known, 6)


def figure(value: float) -> float:
    """Six decimals of a figure that there always is; 0 for what is no number."""
    return round(value, 6) if math.isfinite(value) else 0.0


def record(kind: type[R], source: object, **others: object) -> R:
    """A `kind` with `others`, and its other fields as `source` has them, floats to six decimals."""
    values = {name: _plain(getattr(source, name)) for name in _names(kind) if name not in others}
    return cast(Callable[..., R], kind)(**values, **others)


@cache
def _names(kind: "type[DataclassInstance]") -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _plain(value: object) -> object:
    """A field of some statistics as a record has it."""
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return dict(value)
    return str(value) if isinstance(value, Enum) else value


def finite_settings(settings: Mapping[str, object]) -> Settings:
    """Settings without numbers that JSON has no word for."""
    return {name: finite(value) if isinstance(value, float) else value for name, value in settings.items()}


def as_words(settings: Settings) -> dict[str, str]:
    """Settings as text of at most 200 characters; what is null, a list or an object is left out."""
    return {
        name: clean(str(value), _LONGEST_WORD)
        for name, value in settings.items()
        if isinstance(value, str | int | float)
    }


def nothing_kept(_: Histogram) -> Histogram:
    """An empty histogram, in a record that is to have no others."""
    return Histogram()


@dataclass(frozen=True, slots=True)
class SummaryRecord:
    """`latency_ms` and its like: milliseconds, None where nothing was recorded."""

    min: Number | None
    mean: Number | None
    stdev: Number | None
    p50: Number | None
    p75: Number | None
    p90: Number | None
    p95: Number | None
    p99: Number | None
    p99_9: Number | None
    p99_99: Number | None
    max: Number | None

    @property
    def percentiles(self) -> tuple[float | None, ...]:
        """p50 to p99.99, as in `stats.histogram.PERCENTILES`."""
        return (self.p50, self.p75, self.p90, self.p95, self.p99, self.p99_9, self.p99_99)

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """The summary of `histogram`."""
        return cls(**histogram.summary_ms())


@dataclass(frozen=True, slots=True)
class ExtremesRecord:
    """The smallest, the median and the largest of some values."""

    min: Number
    p50: Number
    max: Number

    @classmethod
    def of(cls, extremes: tuple[float, float, float] | None) -> Self | None:
        """Those three, None of none."""
        return None if extremes is None else cls(*map(figure, extremes))


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One sort of failure, how often, and one message of it."""

    kind: Text
    phase: Text
    count: Count
    sample: Text
    sqlstate: Text | None = None


def failures_of(stats: BenchStats) -> tuple[FailureRecord, ...]:
    """All failures of `stats`, the most frequent first."""
    ranked = sorted(stats.failures.items(), key=lambda item: (-item[1].count, item[0]))
    return tuple(
        FailureRecord(str(key.kind), str(key.phase), failure.count, failure.sample, key.sqlstate or None)
        for key, failure in ranked
    )


def errors_of(stats: BenchStats) -> Counts:
    """Failures by kind, the most frequent first."""
    return {str(kind): count for kind, count in stats.errors.items()}
