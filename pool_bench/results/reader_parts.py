"""What several parts of a result file have in common, typed and checked."""

from dataclasses import dataclass

from pool_bench.results.fields import Fields
from pool_bench.stats.histogram import Histogram


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


@dataclass(frozen=True, slots=True)
class LoadedOpenLoop:
    """What an open loop adds to a run, whose latency is then the response time.

    Attributes:
        rate: operations that were to be due a second, on average.
        offered: operations that were due; dropped: those of them that were never begun.
        service_ms: successes from when they were begun.
        schedule_error_ms: how late this client began what was due and had room.
    """

    rate: float
    offered: int
    dropped: int
    service_ms: LoadedSummary
    schedule_error_ms: LoadedSummary
    service_histogram: Histogram


def read_open_loop(fields: Fields) -> LoadedOpenLoop | None:
    """What is only in a run or a target of an open loop; None in a closed one."""
    if not fields.has("offered"):
        return None
    return LoadedOpenLoop(
        rate=(fields.optional_number("rate") if fields.has("rate") else None) or 0.0,
        offered=fields.count("offered"),
        dropped=fields.count("dropped"),
        service_ms=read_summary(fields.fields("service_ms")),
        schedule_error_ms=read_summary(fields.fields("schedule_error_ms")),
        service_histogram=fields.histogram("service_histogram"),
    )


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
