"""Makes runs and sessions of any shape without measuring anything; the same seed, the same data."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from pool_bench.errors import FailureKind, Phase
from pool_bench.results.session import Session
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureCount, FailureKey, Interval
from pool_bench.stats.runs import RunResult, Snapshot, Stage
from pool_bench.stats.timeline import Timeline

FloatArray = npt.NDArray[np.float64]
STARTED: Final = datetime(2026, 11, 21, 2, 30, tzinfo=UTC)
TARGET: Final = "postgresql://bench@db.example.com:6432/app"
REFUSED: Final = FailureKey(FailureKind.REFUSED, Phase.TCP)
TOO_MANY: Final = FailureKey(FailureKind.TOO_MANY_CONNECTIONS, Phase.AUTH, "53300")
SAMPLES: Final = {REFUSED: "Connection refused", TOO_MANY: "sorry, too many clients already"}
PHASE_SHARES: Final = {
    Phase.RESOLVE: 0.01,
    Phase.TCP: 0.12,
    Phase.TLS: 0.3,
    Phase.AUTH: 0.42,
    Phase.READY: 0.1,
    Phase.CLOSE: 0.05,
}


def histogram_of_ms(values_ms: Sequence[float] | FloatArray) -> Histogram:
    """A histogram of durations given in milliseconds."""
    histogram = Histogram()
    histogram.record((np.asarray(values_ms, dtype=np.float64) * 1e6).astype(np.int64))
    return histogram


def lognormal_ms(count: int, *, median: float = 4.0, sigma: float = 0.3, seed: int = 1) -> FloatArray:
    """`count` durations with one mode and a tail, milliseconds."""
    return np.random.default_rng(seed).lognormal(np.log(median), sigma, count)


def bimodal_ms(count: int, *, seed: int = 1) -> FloatArray:
    """Durations of a pooler of which a tenth waits for a slot: two modes a decade apart."""
    fast = lognormal_ms(count - count // 10, median=2.2, sigma=0.22, seed=seed)
    slow = lognormal_ms(count // 10, median=34.0, sigma=0.35, seed=seed + 1)
    return np.random.default_rng(seed).permutation(np.concatenate([fast, slow]))


def stats_of(
    latencies_ms: Sequence[float] | FloatArray = (),
    *,
    failures: Mapping[FailureKey, int] | None = None,
    time_to_fail_ms: float = 1.5,
    unfinished: int = 0,
    phases: Mapping[Phase, float] | None = None,
) -> BenchStats:
    """Statistics of given latencies; each of `phases` took a given share of every one of them."""
    values = np.asarray(latencies_ms, dtype=np.float64)
    stats = BenchStats(ok=len(values), unfinished=unfinished, latency=histogram_of_ms(values))
    noise = np.random.default_rng(7)
    for phase, share in (phases or {}).items():
        if len(values):
            stats.phases[phase] = histogram_of_ms(values * share * noise.uniform(0.7, 1.3, len(values)))
    for key, count in (failures or {}).items():
        stats.failures[key] = FailureCount(count, SAMPLES.get(key, f"it failed: {key.kind}"))
        stats.failed += count
        stats.failure_latency.merge(histogram_of_ms(lognormal_ms(count, median=time_to_fail_ms, seed=3)))
    return stats


def client_of(
    *, cpu_share: float = 0.42, wall_s: float = 10.0, lag_ms: float = 0.2, processes: int = 1
) -> ClientUsage:
    """A generator that used this share of its core and was late by about `lag_ms`."""
    lags = histogram_of_ms(lognormal_ms(200, median=lag_ms, sigma=0.4, seed=5))
    return ClientUsage(
        cpu_s=cpu_share * wall_s, wall_s=wall_s, rss_bytes=58 << 20, lag=lags, processes=processes
    )


def intervals_of(
    latencies_ms: Sequence[float] | FloatArray, duration_s: float, failures: Mapping[int, int] | None = None
) -> Timeline[Interval]:
    """The latencies spread over the seconds of a run, sealed; `failures` per second."""
    seconds = max(int(duration_s), 1)
    rng = np.random.default_rng(11)
    values = np.asarray(latencies_ms, dtype=np.float64)
    weights = rng.uniform(0.9, 1.1, seconds)
    ends = np.round(np.cumsum(weights) / weights.sum() * len(values)).astype(int)
    parts = np.split(values, ends[:-1])
    intervals: Timeline[Interval] = Timeline()
    for index, part in enumerate(parts):
        failed = (failures or {}).get(index, 0)
        one = Interval(index + 1.0, 1.0, len(part), failed, 50, 0.4, 0.42, histogram_of_ms(part))
        one.seal()
        intervals.append(one)
    return intervals


def run_of(
    stats: BenchStats | None = None,
    *,
    concurrency: int = 50,
    driver: str = "wire",
    duration_s: float = 10.0,
    warmup_ok: int = 512,
    client: ClientUsage | None = None,
    per_target: Sequence[BenchStats] = (),
    targets: Sequence[str] = (TARGET,),
    interrupted: bool = False,
) -> RunResult:
    """A finished run around `stats`."""
    total = stats if stats is not None else BenchStats.merged(per_target)
    return RunResult(
        label=f"concurrency {concurrency}",
        concurrency=concurrency,
        driver=driver,
        targets=tuple(targets),
        warmup_s=1.0,
        duration_s=duration_s,
        per_target=tuple(per_target) or (total,),
        total=total,
        warmup=stats_of([3.0] * warmup_ok),
        client=client or client_of(wall_s=duration_s),
        event_loop="uvloop",
        interrupted=interrupted,
    )


def typical_run(count: int = 20_000, *, duration_s: float = 30.0, concurrency: int = 50) -> RunResult:
    """A run with two modes, all phases, a timeline and a few failures in seconds 11 and 12."""
    values = bimodal_ms(count)
    stats = stats_of(values, failures={TOO_MANY: 210, REFUSED: 12}, unfinished=3, phases=PHASE_SHARES)
    stats.intervals = intervals_of(values, duration_s, {11: 150, 12: 72})
    return run_of(stats, duration_s=duration_s, concurrency=concurrency)


def sweep_runs(
    levels: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), *, dead: Sequence[int] = (16,)
) -> list[RunResult]:
    """A sweep that gets faster, then only slower; in `dead` levels nothing succeeds."""
    runs = []
    for level in levels:
        if level in dead:
            runs.append(run_of(stats_of(failures={TOO_MANY: 4000}), concurrency=level))
            continue
        rate = 9000 * level / (level + 6)
        latencies = lognormal_ms(int(rate), median=level / rate * 1000, sigma=0.35, seed=level)
        saturated = client_of(cpu_share=0.97, lag_ms=14.0) if level >= 32 else client_of(cpu_share=level / 40)
        stats = stats_of(np.tile(latencies, 10), phases={Phase.TCP: 0.2, Phase.AUTH: 0.6})
        runs.append(run_of(stats, concurrency=level, client=saturated))
    return runs


def session_of(*runs: RunResult, name: str = "") -> Session:
    """A finished session of `runs`."""
    return Session(
        tool="pg-connection-bench",
        name=name,
        started_at=STARTED,
        argv=("pg-connection-bench", "--concurrency", "50"),
        targets=runs[0].targets if runs else (TARGET,),
        server={"product": "PostgreSQL", "version": "18.1"},
        config={"concurrency": 50, "query": None},
        runs=list(runs),
        finished_at=STARTED + timedelta(seconds=12),
    )


def snapshot_of(
    *targets: BenchStats,
    stage: Stage = Stage.MEASURE,
    elapsed_s: float = 3.0,
    warmup: BenchStats | None = None,
    backing_off: int = 0,
    final: bool = False,
) -> Snapshot:
    """One second of a generator."""
    return Snapshot(
        stage=stage,
        elapsed_s=elapsed_s,
        seconds=1.0,
        targets=targets,
        warmup=warmup or BenchStats(),
        in_flight=50,
        backing_off=backing_off,
        client=client_of(wall_s=1.0),
        final=final,
    )
