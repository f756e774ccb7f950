"""What several parts of a result file have in common, typed and checked."""

from dataclasses import dataclass

from pool_bench.report.fields import Fields


@dataclass(frozen=True, slots=True)
class LoadedSummary:
    """`latency_ms` and its like: milliseconds, None where nothing was recorded."""

    min: float | None
    mean: float | None
    stdev: float | None
    p50: float | None
    p75: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p99_9: float | None
    p99_99: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class LoadedFailure:
    """One sort of failure, how often, and one message of it."""

    kind: str
    phase: str
    sqlstate: str | None
    count: int
    sample: str


def read_counts(fields: Fields) -> dict[str, int]:
    """An object of counts."""
    return {key: fields.count(key) for key in fields}


def read_summary(fields: Fields) -> LoadedSummary:
    """`latency_ms` and its like."""
    return LoadedSummary(**{name: fields.optional_number(name) for name in LoadedSummary.__slots__})


def read_failure(fields: Fields) -> LoadedFailure:
    """One entry of `failures` and its like."""
    return LoadedFailure(
        kind=fields.text("kind"),
        phase=fields.text("phase"),
        sqlstate=fields.text("sqlstate") if fields.has("sqlstate") else None,
        count=fields.count("count"),
        sample=fields.text("sample"),
    )
