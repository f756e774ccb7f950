"""`runs[].hold` of a result file, read back: typed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from pool_bench.results.fields import Fields
from pool_bench.results.reader_parts import (
    LoadedFailure,
    LoadedSummary,
    read_counts,
    read_failure,
    read_summary,
)
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import SurvivalPoint


@dataclass(frozen=True, slots=True)
class LoadedDrop:
    """One way in which connections were dropped; `lifetime_s` is minimum, median and maximum, seconds."""

    kind: str
    phase: str
    sqlstate: str | None
    count: int
    sample: str
    lifetime_s: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class LoadedHoldSecond:
    """One entry of `hold.timeline`: seconds, counts, milliseconds."""

    t: float
    seconds: float
    stage: str
    held: int
    held_peak: int
    opened: int
    dropped: int
    closed: int
    keepalives: int
    keepalive_p50: float | None
    keepalive_max: float | None
    actives: int
    active_p50: float | None
    active_p99: float | None


@dataclass(frozen=True, slots=True)
class LoadedReconnects:
    """Attempts to replace dropped connections."""

    ok: int
    failed: int
    errors: Mapping[str, int]
    failures: tuple[LoadedFailure, ...]
    latency_ms: LoadedSummary
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class LoadedHold:
    """What happened to held connections; names and units as in `HoldStats`.

    Attributes:
        asked: how many the user asked for.
        connections: how many the run was to open: fewer where the guard kept slots free.
        survival: the share still open by age.
        cpu_s, cpu_share: CPU time of the generator while holding, seconds and share of a core.
    """

    asked: int
    connections: int
    opened: int
    reopened: int
    closed: int
    forced: int
    dropped: int
    drops: tuple[LoadedDrop, ...]
    reconnects: LoadedReconnects
    query_failures: tuple[LoadedFailure, ...]
    held_peak: int
    emptied: bool
    open_s: float
    hold_s: float
    close_s: float
    keepalive_ms: LoadedSummary
    keepalive_histogram: Histogram
    active_ms: LoadedSummary
    active_histogram: Histogram
    survival: tuple[SurvivalPoint, ...]
    timeline: tuple[LoadedHoldSecond, ...]
    base_rss_bytes: int
    held_rss_bytes: int
    client_bytes_each: float | None
    cpu_s: float
    cpu_share: float | None


def read_hold(fields: Fields) -> LoadedHold:
    """`runs[].hold`.

    Raises:
        UsageError: a field is missing or wrong, or counts contradict each other.
    """
    drops = tuple(_drop(item) for item in fields.items("drops"))
    dropped = fields.count("dropped")
    if sum(drop.count for drop in drops) != dropped:
        raise fields.wrong("dropped", f"is {dropped:,}, but drops hold {sum(d.count for d in drops):,}")
    timeline = tuple(_second(item) for item in fields.items("timeline"))
    opened = fields.count("opened") + fields.count("reopened")
    if opened < dropped + fields.count("closed"):
        raise fields.wrong("closed", "and dropped are more than were opened")
    connections = fields.count("connections")
    return LoadedHold(
        # Older files have no such field.
        asked=fields.count("asked") if fields.has("asked") else connections,
        connections=connections,
        opened=fields.count("opened"),
        reopened=fields.count("reopened"),
        closed=fields.count("closed"),
        forced=fields.count("forced"),
        dropped=dropped,
        drops=drops,
        reconnects=_reconnects(fields.fields("reconnects")),
        query_failures=tuple(read_failure(item) for item in fields.items("query_failures")),
        held_peak=fields.count("held_peak"),
        emptied=fields.flag("emptied"),
        open_s=fields.number("open_s"),
        hold_s=fields.number("hold_s"),
        close_s=fields.number("close_s"),
        keepalive_ms=read_summary(fields.fields("keepalive_ms")),
        keepalive_histogram=fields.histogram("keepalive_histogram"),
        active_ms=read_summary(fields.fields("active_ms")),
        active_histogram=fields.histogram("active_histogram"),
        survival=tuple(_point(item) for item in fields.items("survival")),
        timeline=timeline,
        base_rss_bytes=fields.count("base_rss_bytes"),
        held_rss_bytes=fields.count("held_rss_bytes"),
        client_bytes_each=fields.optional_number("client_bytes_each"),
        cpu_s=fields.number("cpu_s"),
        cpu_share=fields.optional_number("cpu_share"),
    )


def _drop(fields: Fields) -> LoadedDrop:
    lived = fields.fields("lifetime_s") if fields.has("lifetime_s") else None
    return LoadedDrop(
        kind=fields.text("kind"),
        phase=fields.text("phase"),
        sqlstate=fields.text("sqlstate") if fields.has("sqlstate") else None,
        count=fields.count("count"),
        sample=fields.text("sample"),
        lifetime_s=None if lived is None else (lived.number("min"), lived.number("p50"), lived.number("max")),
    )


def _reconnects(fields: Fields) -> LoadedReconnects:
    return LoadedReconnects(
        ok=fields.count("ok"),
        failed=fields.count("failed"),
        errors=read_counts(fields.fields("errors")),
        failures=tuple(read_failure(item) for item in fields.items("failures")),
        latency_ms=read_summary(fields.fields("latency_ms")),
        histogram=fields.histogram("histogram"),
    )


def _point(fields: Fields) -> SurvivalPoint:
    share = fields.number("share")
    if not -1e-9 <= share <= 1 + 1e-9:
        raise fields.wrong("share", "is not between 0 and 1")
    return SurvivalPoint(fields.number("age_s"), share)


def _second(fields: Fields) -> LoadedHoldSecond:
    return LoadedHoldSecond(
        t=fields.number("t"),
        seconds=fields.number("seconds"),
        stage=fields.text("stage"),
        held=fields.count("held"),
        held_peak=fields.count("held_peak"),
        opened=fields.count("opened"),
        dropped=fields.count("dropped"),
        closed=fields.count("closed"),
        keepalives=fields.count("keepalives"),
        keepalive_p50=fields.optional_number("keepalive_p50"),
        keepalive_max=fields.optional_number("keepalive_max"),
        actives=fields.count("actives"),
        active_p50=fields.optional_number("active_p50"),
        active_p99=fields.optional_number("active_p99"),
    )
