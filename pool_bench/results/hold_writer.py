"""Held connections in the result file: `runs[].hold`.

Reading them back is `hold_reader.py`.
"""

from dataclasses import replace

from pool_bench.results.json_parts import JsonObject, failures_to_json, finite, histogram_to_json, rounded
from pool_bench.stats.holds import Ages, DropCount, HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, FailureKey, errors_by_name


def ranked_drops(hold: HoldStats) -> list[tuple[FailureKey, DropCount]]:
    """Sorts of drops, the most frequent first."""
    return sorted(hold.drops.items(), key=lambda item: (-item[1].count, item[0]))


def lifetimes_s(ages: Ages) -> tuple[float, float, float] | None:
    """The shortest, the median (nearest rank) and the longest of `ages`, seconds; None of none."""
    items = ages.items_s()
    if not items:
        return None
    middle, seen = (ages.total + 1) // 2, 0
    for age_s, count in items:
        seen += count
        if seen >= middle:
            return items[0][0], age_s, items[-1][0]
    return None


def hold_to_json(hold: HoldStats, *, connections: int, asked: int | None) -> JsonObject:
    """`runs[].hold`; `connections` is how many the run was to open, `asked` how many the user asked for."""
    return hold_numbers(hold, connections=connections, asked=asked) | {
        "drops": [_drop(key, drop) for key, drop in ranked_drops(hold)],
        "query_failures": failures_to_json(hold.query_failures),
        "keepalive_histogram": histogram_to_json(hold.keepalive),
        "active_histogram": histogram_to_json(hold.active),
        "reconnects": _reconnects(hold.reconnects)
        | {"histogram": histogram_to_json(hold.reconnects.latency)},
        "survival": [{"age_s": point.age_s, "share": finite(point.share)} for point in hold.survival()],
        "timeline": [_interval(interval) for interval in hold.intervals],
    }


def hold_numbers(hold: HoldStats, *, connections: int, asked: int | None) -> JsonObject:
    """`runs[].hold` without histograms and lists: cheap enough for every second of a run."""
    return {
        "asked": connections if asked is None else asked,
        "connections": connections,
        "opened": hold.opened,
        "reopened": hold.reopened,
        "closed": hold.closed,
        "forced": hold.forced,
        "dropped": hold.dropped,
        "reconnects": _reconnects(hold.reconnects),
        "held_peak": hold.held_peak,
        "emptied": hold.emptied,
        "open_s": rounded(hold.open_s),
        "hold_s": rounded(hold.hold_s),
        "close_s": rounded(hold.close_s),
        "gave_up_s": rounded(hold.gave_up_s),
        "keepalive_ms": hold.keepalive.summary_ms(),
        "active_ms": hold.active.summary_ms(),
        "base_rss_bytes": hold.base_rss_bytes,
        "held_rss_bytes": hold.held_rss_bytes,
        "client_bytes_each": rounded(hold.client_bytes_each),
        "cpu_s": rounded(hold.hold_cpu_s),
        "cpu_share": rounded(hold.hold_cpu_share),
    }


def _drop(key: FailureKey, drop: DropCount) -> JsonObject:
    lived = lifetimes_s(drop.ages)
    return {
        "kind": str(key.kind),
        "phase": str(key.phase),
        "sqlstate": key.sqlstate or None,
        "count": drop.count,
        "sample": drop.sample,
        "lifetime_s": None if lived is None else dict(zip(("min", "p50", "max"), lived, strict=True)),
    }


def _reconnects(stats: BenchStats) -> JsonObject:
    return {
        "ok": stats.ok,
        "failed": stats.failed,
        "errors": errors_by_name(stats.errors),
        "failures": failures_to_json(stats),
        "latency_ms": stats.latency.summary_ms(),
    }


def _interval(interval: HoldInterval) -> JsonObject:
    # A copy, so that an interval still open can be read without closing it.
    sealed = replace(interval)
    sealed.seal()
    return {
        "t": rounded(sealed.t),
        "seconds": rounded(sealed.seconds),
        "stage": sealed.stage,
        "held": sealed.held,
        "held_peak": sealed.held_peak,
        "opened": sealed.opened,
        "dropped": sealed.dropped,
        "closed": sealed.closed,
        "keepalives": sealed.keepalives,
        "keepalive_p50": rounded(sealed.keepalive_p50),
        "keepalive_max": rounded(sealed.keepalive_max),
        "actives": sealed.actives,
        "active_p50": rounded(sealed.active_p50),
        "active_p99": rounded(sealed.active_p99),
    }
