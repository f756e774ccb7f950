"""A pool's statistics as Prometheus metrics; needs `prometheus-client`, the extra `metrics`.

    prometheus_client.REGISTRY.register(PoolCollector([pool]))

Everything is read from `get_stats()` when the metrics are asked for; a checkout pays nothing for it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from pool_bench.pool.health import HealthState
from pool_bench.pool.retry import BreakerState
from pool_bench.pool.statistics import Numbers, PoolState, PoolStatistics

_PREFIX: Final = "pool_bench_pool"

_COUNTERS: Final[tuple[tuple[str, str, Callable[[PoolStatistics], int]], ...]] = (
    ("acquisitions", "Leases granted", lambda s: s.acquisitions),
    ("releases", "Leases that ended", lambda s: s.releases),
    ("timeouts", "Acquires that timed out", lambda s: s.timeouts),
    ("refusals", "Acquires refused at once", lambda s: s.refusals),
    ("cancelled", "Acquires cancelled while they waited", lambda s: s.cancelled),
    ("connect_errors", "Connects that failed", lambda s: s.connect_errors),
    ("health_check_failures", "Health checks and validations that failed", lambda s: s.health_check_failures),
    ("reset_failures", "Connections that came back broken", lambda s: s.reset_failures),
    ("leaks", "Leases held for too long", lambda s: s.leaks),
    ("connections_unfit", "Connections closed because their server changed its role", lambda s: s.unfit),
    ("connections_created", "Connections opened", lambda s: s.created),
    ("connections_closed", "Connections that are gone again", lambda s: s.closed),
    ("events_dropped", "Events that subscribers were too slow for", lambda s: s.events_dropped),
    ("subscriber_faults", "Events that subscribers raised at", lambda s: s.subscriber_faults),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[PoolStatistics], float]], ...]] = (
    ("size", "Connections", lambda s: s.size),
    ("idle", "Connections to be had at once", lambda s: s.idle),
    ("in_use", "Leased connections", lambda s: s.in_use),
    ("opening", "Connections being opened", lambda s: s.opening),
    ("busy", "Connections being checked, reset or closed", lambda s: s.busy),
    ("waiters", "Callers that wait", lambda s: s.waiters),
    ("min_size", "Least connections", lambda s: s.min_size),
    ("max_size", "Most connections", lambda s: s.max_size),
    ("floor", "Connections kept warm", lambda s: s.floor),
    ("peak_size", "Most connections there ever were", lambda s: s.peak_size),
    ("peak_waiters", "Most callers that ever waited at once", lambda s: s.peak_waiters),
    ("utilisation", "Share of the maximum that is leased", lambda s: s.utilisation),
    ("recent_utilisation", "The same over the last ten seconds", lambda s: s.recent_utilisation),
    ("checkout_rate", "Leases a second over the last ten seconds", lambda s: s.checkout_rate),
    ("return_rate", "Leases that ended, a second over the last ten", lambda s: s.return_rate),
    ("connect_rate", "Connections opened, a second over the last ten", lambda s: s.connect_rate),
    (
        "failure_rate",
        "Timeouts, refusals, failed connects, checks and resets, a second over the last ten",
        lambda s: s.failure_rate,
    ),
    ("uptime_seconds", "Seconds since the pool was opened", lambda s: s.uptime_s),
)


class StatisticsSource(Protocol):
    """A pool, or anything else that has a pool's statistics."""

    def get_stats(self) -> Numbers:
        """The numbers."""


class PoolCollector(Collector):
    """Collects the metrics of `pools`, each labelled with its pool's name.

    A pool belongs to its event loop's thread, while an exporter may collect in another: what is read is
    integers that the loop's thread alone changes, so a figure can be one event old, never wrong.
    """

    def __init__(self, pools: Iterable[StatisticsSource]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known only when pools are asked, which may not be open yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, now."""
        taken = [pool.get_stats().statistics for pool in self._pools]
        for name, text, count in _COUNTERS:
            counter = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=["pool"])
            for stats in taken:
                counter.add_metric([stats.name], count(stats))
            yield counter
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=["pool"])
            for stats in taken:
                gauge.add_metric([stats.name], value(stats))
            yield gauge
        yield _latency(taken)
        breaker = StateSetMetricFamily(f"{_PREFIX}_breaker", "State of the circuit breaker", labels=["pool"])
        state = StateSetMetricFamily(f"{_PREFIX}_state", "State of the pool", labels=["pool"])
        health = StateSetMetricFamily(f"{_PREFIX}_health", "How well the pool does", labels=["pool"])
        for stats in taken:
            health.add_metric([stats.name], {str(state): state is stats.health for state in HealthState})
            breaker.add_metric([stats.name], {str(state): state is stats.breaker for state in BreakerState})
            state.add_metric([stats.name], {str(state): state is stats.state for state in PoolState})
        yield breaker
        yield state
        yield health


def _latency(taken: list[PoolStatistics]) -> SummaryMetricFamily:
    """Checkout latency in seconds, with quantiles: Prometheus' own summaries have none in Python."""
    name = f"{_PREFIX}_checkout_seconds"
    family = SummaryMetricFamily(name, "Checkout latency", labels=["pool"])
    for stats in taken:
        labels = {"pool": stats.name}
        family.add_metric([stats.name], count_value=stats.acquisitions, sum_value=stats.wait_total_s)
        for quantile, value_ms in (
            ("0.5", stats.wait_p50_ms),
            ("0.95", stats.wait_p95_ms),
            ("0.99", stats.wait_p99_ms),
        ):
            if value_ms is not None:
                family.add_sample(name, {**labels, "quantile": quantile}, value_ms / 1e3)
    return family
