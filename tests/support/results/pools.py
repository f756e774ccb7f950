"""Makes runs of pools of any shape without measuring anything; the same seed, the same data."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pool_bench.compare.pools import PoolComparison, group_by_load
from pool_bench.errors import FailureKind, Phase
from pool_bench.results.model import from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Session
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats, Fairness, Recovery
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.runs import PoolSetting, RunResult
from pool_bench.stats.timeline import Timeline
from tests.support.results.runs import (
    histogram_of_ms,
    intervals_of,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
)

TIMED_OUT = FailureKey(FailureKind.TIMEOUT, Phase.CHECKOUT)
POOLS = ("reference", "asyncpg", "psycopg", "sqlalchemy")
SHARES = {Phase.CHECKOUT: 0.7, Phase.QUERY: 0.2, Phase.RETURN: 0.05}


def pool_run(
    pool: str = "reference",
    *,
    scenario: str = "query",
    count: int = 5000,
    median_ms: float = 4.0,
    clients: int = 100,
    size: int = 20,
    round_: int = 1,
    duration_s: float = 6.0,
    timeouts: int = 0,
    dead: bool = False,
    cpu_share: float = 0.4,
    recovery: Recovery | None = None,
    name: str = "",
) -> RunResult:
    """One round of one pool, with a timeline in which clients come and go."""
    values = lognormal_ms(0 if dead else count, median=median_ms, sigma=0.4, seed=round_)
    stats = stats_of(values, failures={TIMED_OUT: timeouts} if timeouts else None, phases=SHARES)
    stats.intervals = intervals_of(values, duration_s)
    grants = np.full(clients, len(values) // clients, dtype=np.int64)
    fairness = Fairness(
        granted=len(values),
        overtaken=len(values) // 4 if pool == "asyncpg" else 0,
        starved=timeouts // 2,
        neighbours=histogram_of_ms(values * 0.1),
        grants=grants,
        waits_ns=grants * round(median_ms * 1e6),
    )
    resets = "reset always (1 round trip)" if pool == "asyncpg" else "no reset"
    checkout = CheckoutStats(
        version="1.2.3",
        behaviour=f"return: {resets}; checkout: no check",
        fairness=fairness,
        opened=size,
        opening_peak=size // 2,
        size_peak=size,
        open_s=0.05,
        bursts=histogram_of_ms(lognormal_ms(10, median=40.0, seed=round_)),
        recovery=recovery,
        base_rss_bytes=40 << 20,
        intervals=Timeline(
            [
                CheckoutInterval(
                    one.t,
                    clients if 2 < one.t <= 4 else max(clients // 10, 1),
                    size,
                    0,
                    histogram_of_ms(
                        lognormal_ms(50, median=median_ms * (10 if 2 < one.t <= 4 else 1), seed=4)
                    ),
                )
                for one in stats.intervals
            ]
        ),
    )
    run = run_of(stats, concurrency=clients, driver=pool, duration_s=duration_s)
    run.client.cpu_s = cpu_share * duration_s
    run.label = name or f"{scenario} · {pool}"
    run.pool = PoolSetting(
        name=pool,
        scenario=scenario,
        clients=clients,
        size=size,
        reset="own",
        query=None if scenario == "churn" else "SELECT 1",
        hold_s=0.001 if scenario == "sustained" else 0.0,
        timeout_s=5.0,
        round=round_,
    )
    run.checkout = checkout
    return run


def recovery_of(all_s: float | None, *, clients: int = 100) -> Recovery:
    """A restart between seconds 2 and 3.5; `all_s` None where some never came back."""
    return Recovery(
        stopping_s=2.0,
        down_s=2.1,
        up_s=3.5,
        first_s=3.6,
        all_s=all_s,
        recovered=clients if all_s is not None else clients // 2,
        clients=clients,
        opening_peak=7,
        opened=20,
        failed=33,
    )


def pool_session(
    scenarios: Sequence[str] = ("query",), *, pools: Sequence[str] = POOLS, rounds: int = 3, name: str = ""
) -> Session:
    """Rounds of pools under each of these loads; the first pool is the fastest."""
    runs = []
    for scenario in scenarios:
        for round_ in range(1, rounds + 1):
            for index, pool in enumerate(pools):
                recovery = recovery_of(4.0 + index + round_ / 10) if scenario == "reconnect" else None
                runs.append(
                    pool_run(
                        pool,
                        scenario=scenario,
                        count=6000 - 1200 * index + 20 * round_,
                        median_ms=2.0 * (index + 1),
                        round_=round_,
                        recovery=recovery,
                        timeouts=3 if pool == "asyncpg" else 0,
                    )
                )
    session = session_of(*runs, name=name)
    return replace(session, tool="pool-bench")


def size_session(throughputs: dict[int, float], *, rounds: int = 3, clients: int = 100) -> Session:
    """A sweep of sizes with these operations a second, give or take two percent."""
    rng = np.random.default_rng(2)
    runs = [
        pool_run(
            scenario="size",
            size=size,
            clients=clients,
            round_=round_,
            count=round(rate * 2.0 * float(rng.uniform(0.98, 1.02))),
            duration_s=2.0,
        )
        for round_ in range(1, rounds + 1)
        for size, rate in throughputs.items()
    ]
    return replace(session_of(*runs), tool="pool-bench")


def loaded_runs(session: Session) -> tuple[RunRecord, ...]:
    """The runs as they come back from the file."""
    return from_session(session).runs


def contest_of(session: Session) -> PoolComparison:
    """The one contest of `session`."""
    (contest,) = group_by_load(loaded_runs(session))
    return contest
