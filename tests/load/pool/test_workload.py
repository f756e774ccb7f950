"""Pools under load on a real PostgreSQL: every scenario, small and short, and what adds up in it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import uvloop

from pool_bench.contenders import CONTENDER_NAMES, ContenderName
from pool_bench.contenders.reference import PostgresReference
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.generator import generate
from pool_bench.load.pool import workload
from pool_bench.load.spec import SCENARIO_NAMES, PoolSpec, ScenarioName
from pool_bench.load.workload import ServerEvents, Stretch
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.stats.checkouts import CheckoutStats
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureKey
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import surreal_target
from tests.support.generators import MARGIN_S, client_sockets, enough, nothing_left, target
from tests.support.servers import StartPostgres

POOLS: tuple[ContenderName, ...] = ("reference", "asyncpg", "psycopg", "sqlalchemy")


@dataclass(slots=True)
class Outcome:
    """What a run gave."""

    snapshots: list[Snapshot] = field(default_factory=list)
    total: BenchStats = field(default_factory=BenchStats)
    warmup: BenchStats = field(default_factory=BenchStats)
    checkout: CheckoutStats = field(default_factory=CheckoutStats)


def spec_of(server: EmbeddedPostgres, **settings: object) -> PoolSpec:
    """A short run against `server`."""
    spec = PoolSpec(
        targets=(target(server.url),),
        pool="reference",
        scenario="query",
        clients=12,
        size=3,
        query="SELECT 1",
        timeout_s=30.0,
        warmup_s=0.05,
        duration_s=0.15,
        grace_s=20.0,
        interval_s=0.1,
        tick_s=0.1,
    )
    return replace(spec, **settings)  # type: ignore[arg-type]


def run(
    spec: PoolSpec,
    *,
    during: Callable[[asyncio.Event, ServerEvents], None] | None = None,
    when: Callable[[Snapshot], bool] = lambda snapshot: False,
    stop_when: Callable[[Snapshot], bool] = lambda snapshot: False,
) -> Outcome:
    """Run `spec` to its end; checks that its sums are right and that nothing is left.

    Args:
        stop_when: asks for an early end when a snapshot is such.
        during: called once, in a thread, when a snapshot is such as `when` says.
    """
    outcome = Outcome()
    ports = [host.port for one in spec.targets if isinstance(one, PostgresTarget) for host in one.hosts]

    async def main() -> None:
        stop, notes = asyncio.Event(), ServerEvents()
        beside: list[asyncio.Task[None]] = []

        def send(snapshot: Snapshot) -> None:
            outcome.snapshots.append(snapshot)
            if stop_when(snapshot):
                stop.set()
            if during is not None and not beside and when(snapshot):
                beside.append(asyncio.create_task(asyncio.to_thread(during, stop, notes)))

        await generate(spec, send, stop, notes)
        await asyncio.gather(*beside)
        # Closed transports end in a later turn of the loop.
        deadline = time.monotonic() + 10
        while client_sockets(ports) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert client_sockets(ports) == []
        await asyncio.get_running_loop().shutdown_default_executor()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with nothing_left(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    for snapshot in outcome.snapshots:
        outcome.total.merge(snapshot.targets[0])
        outcome.warmup.merge(snapshot.warmup)
        assert snapshot.checkout is not None
        outcome.checkout.merge(snapshot.checkout)
    check_sums(spec, outcome)
    return outcome


def check_sums(spec: PoolSpec, outcome: Outcome) -> None:
    """What holds after every run."""
    total, checkout = outcome.total, outcome.checkout
    assert [snapshot.final for snapshot in outcome.snapshots].count(True) == 1
    assert outcome.snapshots[-1].final
    assert outcome.snapshots[-1].stage is Stage.DONE
    assert outcome.snapshots[-1].in_flight == 0
    assert total.attempts == total.ok + total.failed + total.unfinished
    assert total.latency.count == total.ok
    assert total.failure_latency.count == total.failed
    assert sum(interval.ok for interval in total.intervals) == total.ok
    assert sum(interval.failed for interval in total.intervals) == total.failed
    assert total.phases[Phase.CHECKOUT].count == total.phases[Phase.RETURN].count == total.ok
    parts_s = sum(histogram.total_s for histogram in total.phases.values())
    assert parts_s <= total.latency.total_s * (1 + 1e-9) + 1e-9
    fairness = checkout.fairness
    # Granted from the moment of measuring on, those of the warm-up's last operations included.
    assert total.ok <= fairness.granted <= total.attempts + spec.clients
    assert fairness.grants.sum() == fairness.granted
    assert fairness.starved <= total.failed
    assert len(fairness.grants) == spec.clients
    assert checkout.opening_peak >= 1
    if spec.pool != "naive":
        assert checkout.size_peak <= spec.size
    assert checkout.version
    assert checkout.behaviour
    assert [one.t for one in checkout.intervals] == [one.t for one in total.intervals]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("scenario", [name for name in SCENARIO_NAMES if name not in ("naive", "reconnect")])
def test_every_scenario_adds_up_with_every_pool(
    pool: ContenderName, scenario: ScenarioName, embedded: EmbeddedPostgres
) -> None:
    query = None if scenario == "churn" else "SELECT 1"
    outcome = run(spec_of(embedded, pool=pool, scenario=scenario, query=query))
    assert outcome.total.ok > 0
    assert outcome.total.failed == outcome.total.unfinished == 0
    assert outcome.checkout.opened == 3
    assert (Phase.QUERY in outcome.total.phases) is (query is not None)
    assert (Phase.HOLD in outcome.total.phases) is (query is None)
    assert outcome.warmup.ok > 0


@pytest.mark.parametrize("pool", POOLS)
def test_after_a_stress_nothing_is_leased_and_nothing_is_left_open(
    pool: ContenderName, embedded: EmbeddedPostgres
) -> None:
    checkout = run(spec_of(embedded, pool=pool, scenario="stress", clients=200)).checkout
    assert (checkout.dead_met, checkout.leaked, checkout.left_open) == (0, 0, 0)
    assert checkout.close_failure == ""
    # A socket's reader and writer cannot be had for less, and a waiter has a future at least.
    assert checkout.connection_bytes is not None
    assert 1_000 < checkout.connection_bytes < 1_000_000
    assert checkout.waiter_bytes is not None
    assert 50 < checkout.waiter_bytes < 100_000


def test_only_stress_looks_for_what_is_left(embedded: EmbeddedPostgres) -> None:
    checkout = run(spec_of(embedded, scenario="query")).checkout
    assert (checkout.dead_met, checkout.leaked, checkout.left_open) == (None, None, None)


def test_operations_whose_connection_was_ended_met_a_dead_one(embedded: EmbeddedPostgres) -> None:
    suicide = "SELECT pg_terminate_backend(pg_backend_pid())"
    spec = spec_of(embedded, pool="asyncpg", scenario="stress", query=suicide, warmup_s=0.0)
    total, checkout = BenchStats(), CheckoutStats()

    def send(snapshot: Snapshot) -> None:
        assert snapshot.checkout is not None
        total.merge(snapshot.targets[0])
        checkout.merge(snapshot.checkout)

    asyncio.run(generate(spec, send, asyncio.Event()))
    ended = {FailureKind.SERVER_SHUTDOWN, FailureKind.RESET, FailureKind.CLOSED}
    assert {key.kind for key in total.failures} <= ended
    assert checkout.dead_met == total.failed > 0


def test_a_lease_that_nobody_gives_back_is_a_leak_and_stays_open_after_the_close(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "_SETTLE_S", 0.1)
    # Its close does not wait for what is leased.
    spec = spec_of(embedded, pool="psycopg", scenario="stress")

    async def main() -> CheckoutStats:
        load = workload.PoolWorkload(spec, ServerEvents())
        await load.prepare()
        lost = load._contender.lease()
        await lost.__aenter__()
        await load.start()
        load.measure()
        load.stop()
        await load.drain(spec.grace_s)
        await load.close()
        checkout = load.take(Stretch(Stage.DONE, 1.0, 1.0, ClientUsage())).checkout
        await lost.__aexit__(None, None, None)
        assert checkout is not None
        return checkout

    checkout = asyncio.run(main())
    assert (checkout.leaked, checkout.left_open) == (1, 1)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_pool_that_cannot_be_closed_is_told(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(workload, "_CLOSE_S", 0.1 if hangs else 60.0)
    close = PostgresReference.close

    async def cannot(self: PostgresReference) -> None:
        await close(self)
        if hangs:
            await asyncio.sleep(600)
        raise RuntimeError("it is stuck")

    monkeypatch.setattr(PostgresReference, "close", cannot)
    checkout = run(spec_of(embedded, scenario="query")).checkout
    assert checkout.close_failure == ("not closed after 0.1 s" if hangs else "RuntimeError: it is stuck")


def test_bursts_are_whole_and_counted(embedded: EmbeddedPostgres) -> None:
    outcome = run(spec_of(embedded, scenario="burst", clients=30, duration_s=0.5))
    bursts = outcome.checkout.bursts.count
    assert bursts >= 1
    assert outcome.total.ok == 30 * bursts
    assert outcome.warmup.ok == 30


def test_a_first_in_first_out_pool_overtakes_nobody_and_treats_all_alike(embedded: EmbeddedPostgres) -> None:
    # Each of forty several times, so that one time more or less makes no difference.
    spec = spec_of(embedded, clients=40, duration_s=MARGIN_S)
    outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok >= 1000))
    fairness = outcome.checkout.fairness
    assert fairness.overtaken <= fairness.granted * 0.01
    assert fairness.index is not None
    assert fairness.index > 0.9


def test_clients_join_and_leave_as_the_profile_says(embedded: EmbeddedPostgres) -> None:
    for _ in range(4):
        outcome = run(spec_of(embedded, scenario="spike", clients=20, hold_s=0.01, duration_s=1.2))
        # What stands still through a step cannot show it.
        if max(snapshot.client.lag.max_ns for snapshot in outcome.snapshots) < 100e6:
            break
    clients = [one.clients for one in outcome.checkout.intervals]
    assert clients[0] == 2
    assert max(clients) == 20
    assert 2 in clients[-4:]


def test_both_timelines_of_a_client_that_stood_still_are_of_the_same_moments(
    embedded: EmbeddedPostgres,
) -> None:
    stood_still = False

    def stand_still(snapshot: Snapshot) -> bool:
        nonlocal stood_still
        if snapshot.stage is Stage.MEASURE and not stood_still:
            stood_still = True
            time.sleep(0.4)
        return False

    spec = spec_of(embedded, hold_s=0.005, duration_s=0.6, interval_s=0.02, tick_s=0.1)
    outcome = run(spec, stop_when=stand_still)
    times = [interval.t for interval in outcome.total.intervals]
    assert stood_still
    # Moments that were missed are not made up for: there is one stretch for all of them.
    assert max(interval.seconds for interval in outcome.total.intervals) >= 0.4
    assert min(b - a for a, b in pairwise(times)) >= 0.001 - 1e-9
    assert len(times) <= (0.6 - 0.4) / 0.02 + 4


def test_a_connection_that_is_held_makes_the_others_wait(embedded: EmbeddedPostgres) -> None:
    outcome = run(spec_of(embedded, scenario="sustained", hold_s=0.02, clients=9, size=3, duration_s=0.5))
    held = outcome.total.phases[Phase.HOLD]
    assert held.min_ns >= 19_000_000
    waits = outcome.total.phases[Phase.CHECKOUT].percentile_ms(50)
    assert waits is not None
    # Three rounds of holders: who comes last waits for two of them.
    assert waits >= 20


@pytest.mark.parametrize("pool", POOLS)
def test_acquires_that_time_out_are_counted_by_kind_and_phase(
    pool: ContenderName, embedded: EmbeddedPostgres
) -> None:
    spec = spec_of(
        embedded,
        pool=pool,
        scenario="sustained",
        hold_s=0.5,
        timeout_s=0.2,
        size=1,
        clients=4,
        duration_s=0.6,
    )
    outcome = run(spec)
    assert set(outcome.total.failures) == {FailureKey(FailureKind.TIMEOUT, Phase.CHECKOUT)}
    assert outcome.total.failed >= 2
    assert outcome.total.ok >= 1


def test_operations_that_outlast_the_grace_period_are_unfinished(embedded: EmbeddedPostgres) -> None:
    spec = spec_of(
        embedded, query="SELECT pg_sleep(60)", clients=5, size=2, warmup_s=0.0, duration_s=0.2, grace_s=0.2
    )
    outcome = Outcome()
    stop = asyncio.Event()
    asyncio.run(generate(spec, outcome.snapshots.append, stop))
    for snapshot in outcome.snapshots:
        outcome.total.merge(snapshot.targets[0])
    assert (outcome.total.ok, outcome.total.failed, outcome.total.unfinished) == (0, 0, 5)


@pytest.mark.parametrize("scenario", ["query", "burst"])
def test_a_stop_ends_the_run_early(scenario: ScenarioName, embedded: EmbeddedPostgres) -> None:
    spec = spec_of(embedded, scenario=scenario, duration_s=60.0)
    begin = time.monotonic()

    async def main() -> Outcome:
        stop = asyncio.Event()
        outcome = Outcome()

        def send(snapshot: Snapshot) -> None:
            outcome.snapshots.append(snapshot)
            if snapshot.stage is Stage.MEASURE:
                stop.set()

        await generate(spec, send, stop)
        return outcome

    outcome = asyncio.run(main())
    assert outcome.snapshots[-1].final
    assert time.monotonic() - begin < 30


# psycopg_pool tries for 30 s before it says so.
@pytest.mark.parametrize("pool", [name for name in CONTENDER_NAMES if name != "psycopg"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_pool_that_cannot_open_says_why_in_one_line(pool: ContenderName, size: int) -> None:
    target_ = target("postgresql://u:s3cr3t@127.0.0.1:1/db?sslmode=disable")
    own = "its connection" if size == 1 or pool == "naive" else "its 2 connections"
    assert "s3cr3t" not in failure_to_open(target_, pool, size, own)


@pytest.mark.parametrize(("pool", "own"), [("reference", "its 2 connections"), ("shared", "its connection")])
def test_a_pool_of_surrealdb_that_cannot_open_names_its_own_number(pool: ContenderName, own: str) -> None:
    target_ = surreal_target("ws://u:s3cr3t@127.0.0.1:1", environ={})
    assert "s3cr3t" not in failure_to_open(target_, pool, 2, own)


def failure_to_open(target_: Target, pool: ContenderName, size: int, own: str) -> str:
    """What is said where such a pool cannot open what is its `own`."""
    spec = PoolSpec(
        targets=(target_,),
        pool=pool,
        scenario="query",
        clients=1,
        size=size,
        timeout_s=0.5,
    )

    async def main() -> None:
        await generate(spec, lambda snapshot: None, asyncio.Event())

    with pytest.raises(ConnectError, match=f"the pool {pool} did not open {own}: ") as caught:
        asyncio.run(main())
    return str(caught.value)


@pytest.fixture(scope="module")
def restartable(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A server of this module's own."""
    return start_postgres(PostgresConfig(max_connections=30))


@pytest.mark.parametrize("pool", POOLS)
def test_clients_come_back_after_a_restart_and_their_times_are_told(
    pool: ContenderName, restartable: EmbeddedPostgres
) -> None:
    spec = spec_of(
        restartable,
        pool=pool,
        scenario="reconnect",
        clients=6,
        size=3,
        # Clients without a pause would take a core for all of it.
        query="SELECT pg_sleep(0.02)",
        duration_s=2.5,
        grace_s=40.0,
        timeout_s=40.0,
    )
    loops: list[asyncio.AbstractEventLoop] = []

    def restart(stop: asyncio.Event, notes: ServerEvents) -> None:
        def tell(mark: str) -> None:
            loops[0].call_soon_threadsafe(notes.on_event, mark, time.perf_counter_ns())

        tell("stopping")
        restartable.restart(stopped=lambda: tell("down"))
        tell("up")

    def measuring(snapshot: Snapshot) -> bool:
        if snapshot.stage is not Stage.MEASURE:
            return False
        loops.append(asyncio.get_running_loop())
        return True

    outcome = run(spec, during=restart, when=measuring)
    recovery = outcome.checkout.recovery
    assert recovery is not None
    assert recovery.recovered == recovery.clients == 6
    assert recovery.down_s is not None
    assert recovery.up_s is not None
    assert recovery.first_s is not None
    assert recovery.all_s is not None
    assert recovery.stopping_s < recovery.down_s < recovery.up_s
    assert recovery.down_s < recovery.first_s <= recovery.all_s
    # What began before the measuring did counts there.
    assert recovery.failed <= outcome.total.failed + outcome.warmup.failed
    assert 1 <= recovery.opened <= outcome.checkout.opened
    assert outcome.total.unfinished == 0


def test_a_restart_after_the_time_is_up_is_none(restartable: EmbeddedPostgres) -> None:
    spec = spec_of(restartable, pool="reference", scenario="reconnect", clients=2, size=1, duration_s=0.2)

    def too_late(stop: asyncio.Event, notes: ServerEvents) -> None:
        after_ns = time.perf_counter_ns() + round(spec.duration_s * 1e9)
        for mark in ("stopping", "down", "up"):
            notes.on_event(mark, after_ns)

    outcome = run(spec, during=too_late, when=lambda snapshot: snapshot.stage is Stage.MEASURE)
    assert outcome.total.ok > 0
    assert outcome.checkout.recovery is None
