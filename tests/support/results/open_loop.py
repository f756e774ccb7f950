"""Open-loop runs and searches of any shape without measuring anything."""

from dataclasses import replace

import numpy as np

from pool_bench.results.session import Limit, SearchResult, SearchStep, Session
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import RunResult
from pool_bench.stats.timeline import Timeline
from tests.support.results.runs import (
    PHASE_SHARES,
    FloatArray,
    client_of,
    histogram_of_ms,
    intervals_of,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
)


def open_stats(
    service_ms: FloatArray, *, waited_ms: float = 3.0, dropped: int = 0, duration_s: float = 10.0
) -> BenchStats:
    """Operations that waited for so long, on average, before they took `service_ms`."""
    waited = np.random.default_rng(3).exponential(waited_ms, len(service_ms))
    response = service_ms + waited
    stats = stats_of(response)
    stats.phases = stats_of(service_ms, phases=PHASE_SHARES).phases
    stats.service = histogram_of_ms(service_ms)
    stats.schedule_error = histogram_of_ms(waited / 50)
    stats.offered, stats.dropped = len(service_ms) + dropped, dropped
    stats.intervals = Timeline(
        [
            replace(one, offered=one.ok + 5, dropped=5, late_ms=0.3, service_p50=1.0, service_p99=2.0)
            for one in intervals_of(response, duration_s)
        ]
    )
    return stats


def open_run(
    rate: float = 500, *, duration_s: float = 10.0, dropped: int = 0, median: float = 4.0
) -> RunResult:
    """A run at so many operations a second."""
    service = lognormal_ms(int(rate * duration_s) - dropped, median=median)
    run = run_of(
        open_stats(service, dropped=dropped, duration_s=duration_s), concurrency=1000, duration_s=duration_s
    )
    run.label, run.rate = f"r{rate:g}", rate
    return run


def search_session(
    rates: tuple[float, ...] = (100, 200, 400, 800, 566), *, capacity: float = 600, client: bool = False
) -> Session:
    """A search against a server of some capacity; with `client`, a client of that capacity instead."""
    runs, steps = [], []
    for index, rate in enumerate(rates):
        passed = rate <= capacity
        run = open_run(rate, duration_s=4.0, median=4 if passed else 90, dropped=0 if passed else 40)
        why = None
        if client and not passed:
            run.client = client_of(cpu_share=0.99)
            why = run.saturation
        breaches = () if passed else ("p99 180ms, wanted p99<50ms",)
        steps.append(SearchStep(index, rate, "raise", passed, breaches, why, client and not passed))
        runs.append(run)
    steps[-1] = replace(steps[-1], kind="confirm")
    limit = Limit.CLIENT if client else Limit.SERVER
    session = session_of(*runs)
    why = "at 800/s the client was the bottleneck" if client else "at 800/s: p99 180ms, wanted p99<50ms"
    session.find_max = SearchResult("p99<50ms,errors<1%", 50.0, 0.05, steps, rates[-1], limit, why)
    return session
