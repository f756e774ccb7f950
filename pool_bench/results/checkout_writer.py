"""A pool under load in the result file: what `runs[]` has beyond other runs, and `runs[].checkout`.

Reading it back is `checkout_reader.py`. How long callers waited is `runs[].phases_ms.checkout`.
"""

from dataclasses import replace

from pool_bench.analysis.scalability import Sizing, statement
from pool_bench.results.json_parts import JsonObject, finite, histogram_to_json, rounded
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats, Fairness, Recovery
from pool_bench.stats.runs import PoolSetting


def setting_to_json(setting: PoolSetting) -> JsonObject:
    """Fields of `runs[]` that say what load which pool was put under."""
    return {
        "pool": setting.name,
        "scenario": setting.scenario,
        "clients": setting.clients,
        "size": setting.size,
        "reset": setting.reset,
        "prepared": setting.prepared,
        "query": setting.query,
        "hold_s": rounded(setting.hold_s),
        "timeout_s": rounded(setting.timeout_s),
        "round": setting.round,
    }


def sizing_to_json(sizing: Sizing) -> JsonObject:
    """`sizing`: what a sweep of pool sizes allows to be said; an infinite peak is null."""
    law = sizing.law
    return {
        "recommended": None if sizing.why_not else sizing.knee,
        "knee": sizing.knee,
        "knee_interval": [sizing.knee_low, sizing.knee_high],
        "peak_interval": [rounded(sizing.peak_low), rounded(sizing.peak_high)],
        "law": None
        if law is None
        else {
            "name": "universal scalability law",
            "rate": rounded(law.rate),
            "contention": finite(law.contention),
            "coherency": finite(law.coherency),
            "error": finite(sizing.fit_error),
        },
        "why_not": sizing.why_not,
        "statement": statement(sizing),
    }


def checkout_to_json(stats: CheckoutStats) -> JsonObject:
    """`runs[].checkout`."""
    return {
        "version": stats.version,
        "manner": stats.behaviour,
        "opened": stats.opened,
        "open_failed": stats.open_failed,
        "opening_peak": stats.opening_peak,
        "size_peak": stats.size_peak,
        "open_s": rounded(stats.open_s),
        "close_s": rounded(stats.close_s),
        "base_rss_bytes": stats.base_rss_bytes,
        "fairness": _fairness(stats.fairness),
        "bursts_ms": stats.bursts.summary_ms(),
        "bursts_histogram": histogram_to_json(stats.bursts),
        "recovery": None if stats.recovery is None else _recovery(stats.recovery),
        "timeline": [_interval(interval) for interval in stats.intervals],
    }


def _fairness(fairness: Fairness) -> JsonObject:
    waits = fairness.client_waits_ms()
    return {
        "granted": fairness.granted,
        "overtaken": fairness.overtaken,
        "starved": fairness.starved,
        "index": finite(fairness.index),
        "neighbours_ms": fairness.neighbours.summary_ms(),
        "neighbours_histogram": histogram_to_json(fairness.neighbours),
        "client_waits_ms": None
        if waits is None
        else {name: rounded(value) for name, value in zip(("min", "p50", "max"), waits, strict=True)},
    }


def _recovery(recovery: Recovery) -> JsonObject:
    return {
        "stopping_s": rounded(recovery.stopping_s),
        "down_s": rounded(recovery.down_s),
        "up_s": rounded(recovery.up_s),
        "first_s": rounded(recovery.first_s),
        "all_s": rounded(recovery.all_s),
        "recovered": recovery.recovered,
        "clients": recovery.clients,
        "opening_peak": recovery.opening_peak,
        "opened": recovery.opened,
        "failed": recovery.failed,
    }


def _interval(interval: CheckoutInterval) -> JsonObject:
    # A copy, so that an interval still open can be read without closing it.
    sealed = replace(interval)
    sealed.seal()
    return {
        "t": rounded(sealed.t),
        "clients": sealed.clients,
        "connections": sealed.connections,
        "opened": sealed.opened,
        "wait_p50": rounded(sealed.wait_p50),
        "wait_p99": rounded(sealed.wait_p99),
    }
