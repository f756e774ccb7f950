"""Pools under operations that come when they are due, on a real PostgreSQL: what adds up, and since when."""

import asyncio
from collections.abc import Callable

import pytest

from pool_bench.contenders import ContenderName
from pool_bench.errors import FailureKind, Phase
from pool_bench.load.arrivals import Spacing, constant
from pool_bench.load.generator import generate
from pool_bench.load.spec import OPEN_SCENARIOS, OpenLoop, PoolSpec, ScenarioName
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot
from tests.load.pool.test_workload import POOLS, Outcome, spec_of
from tests.support.generators import MARGIN_S, enough, nothing_left


def open_spec(server: EmbeddedPostgres, rate: float, **settings: object) -> PoolSpec:
    """A short run against `server` at `rate` operations a second."""
    spacing: Spacing = settings.pop("spacing", "constant")  # type: ignore[assignment]
    return spec_of(
        server,
        **{
            "clients": 50,
            "duration_s": 0.3,
            "open_loop": OpenLoop(profile=constant(rate), spacing=spacing),
            **settings,
        },
    )


def run(spec: PoolSpec, *, stop_when: Callable[[Snapshot], bool] = lambda snapshot: False) -> Outcome:
    """Run `spec` to its end, or to a snapshot such as `stop_when` says; checks that its sums are right."""
    outcome = Outcome()

    async def main() -> None:
        stop = asyncio.Event()

        def send(snapshot: Snapshot) -> None:
            outcome.snapshots.append(snapshot)
            if stop_when(snapshot):
                stop.set()

        await generate(spec, send, stop)
        await asyncio.get_running_loop().shutdown_default_executor()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with nothing_left():
        asyncio.run(main())
    for snapshot in outcome.snapshots:
        assert snapshot.waiting is not None
        assert snapshot.checkout is not None
        outcome.total.merge(snapshot.targets[0])
        outcome.warmup.merge(snapshot.warmup)
        outcome.checkout.merge(snapshot.checkout)
    assert (outcome.snapshots[-1].in_flight, outcome.snapshots[-1].waiting) == (0, 0)
    for stats in (outcome.total, outcome.warmup):
        assert stats.offered == stats.ok + stats.failed + stats.unfinished + stats.dropped
        assert stats.schedule_error.count == stats.attempts
        assert stats.service.count == stats.latency.count == stats.ok
        assert stats.latency.total_s >= stats.service.total_s
        assert stats.latency.max_ns >= stats.service.max_ns
    check_timeline(outcome.total)
    parts_s = sum(histogram.total_s for histogram in outcome.total.phases.values())
    assert parts_s <= outcome.total.service.total_s * (1 + 1e-9) + 1e-9
    assert outcome.checkout.fairness.index is None
    return outcome


def check_timeline(total: BenchStats) -> None:
    """The timeline holds all that was counted."""
    assert sum(one.offered for one in total.intervals) == total.offered
    assert sum(one.dropped for one in total.intervals) == total.dropped
    assert sum(one.ok for one in total.intervals) == total.ok
    assert sum(one.failed for one in total.intervals) == total.failed


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("scenario", OPEN_SCENARIOS)
def test_every_pool_gets_exactly_what_is_due(
    pool: ContenderName, scenario: ScenarioName, embedded: EmbeddedPostgres
) -> None:
    query = None if scenario == "churn" else "SELECT 1"
    outcome = run(open_spec(embedded, 100, pool=pool, scenario=scenario, query=query))
    assert outcome.warmup.offered == 5
    assert outcome.total.offered == outcome.total.ok == 30
    assert outcome.checkout.fairness.granted == 30


def test_without_a_warm_up_all_that_is_due_counts(embedded: EmbeddedPostgres) -> None:
    outcome = run(open_spec(embedded, 100, warmup_s=0.0))
    assert (outcome.warmup.offered, outcome.total.offered) == (0, 30)


def test_poisson_arrivals_are_the_same_for_the_same_seed(embedded: EmbeddedPostgres) -> None:
    def offered(seed: int) -> list[int]:
        outcome = run(open_spec(embedded, 100, spacing="poisson", seed=seed))
        return [outcome.warmup.offered, outcome.total.offered]

    assert offered(7) == offered(7)


def test_what_a_pool_cannot_serve_waits_since_it_was_due_and_is_dropped_in_the_end(
    embedded: EmbeddedPostgres,
) -> None:
    # One connection that is kept for 50 ms serves 20 a second of 200, and two may ask at once.
    spec = open_spec(
        embedded, 200, scenario="sustained", hold_s=0.05, size=1, clients=2, warmup_s=0.0, duration_s=MARGIN_S
    )
    total = run(spec, stop_when=enough(lambda targets: targets[0].ok >= 20)).total
    assert total.dropped >= (20 * 0.05 * 200 - 20) * 0.8
    # The n-th to begin was due 5 ms after the one before it, and began 50 ms after that or later.
    waited_s = total.latency.total_s - total.service.total_s
    assert waited_s >= sum((n - 2) * 0.05 - n * 0.005 for n in range(3, 20)) * 0.98


def test_acquires_that_time_out_fail_and_nobody_comes_less_often_for_it(embedded: EmbeddedPostgres) -> None:
    spec = open_spec(
        embedded,
        50,
        scenario="sustained",
        hold_s=0.4,
        timeout_s=0.1,
        size=1,
        clients=100,
        warmup_s=0.0,
        duration_s=1.0,
    )
    total = run(spec).total
    assert total.offered == total.ok + total.failed == 50
    assert {(key.kind, key.phase) for key in total.failures} == {(FailureKind.TIMEOUT, Phase.CHECKOUT)}


def test_operations_that_outlast_the_grace_period_are_unfinished(embedded: EmbeddedPostgres) -> None:
    spec = open_spec(
        embedded,
        50,
        query="SELECT pg_sleep(60)",
        clients=5,
        size=2,
        warmup_s=0.0,
        duration_s=0.2,
        grace_s=0.2,
    )
    total = run(spec).total
    assert (total.ok, total.failed, total.unfinished, total.dropped) == (0, 0, 5, 5)
