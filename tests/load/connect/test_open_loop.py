"""Open-loop load against servers of known behaviour: every operation that is due is accounted for."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from pool_bench.analysis.verdict import judge
from pool_bench.drivers.base import DriverName
from pool_bench.errors import FailureKind, Phase
from pool_bench.load.arrivals import Profile, constant, spike, steps
from pool_bench.load.generator import generate
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.report.summary.run import CLOSED_LOOP_NOTE, run_summary
from pool_bench.results.run import RunRecord
from pool_bench.servers.pgbouncer import PgBouncer
from pool_bench.stats.histogram import Histogram, bucket_lower_us
from pool_bench.stats.operations import BenchStats, ClientUsage
from pool_bench.stats.runs import RunResult, Snapshot
from tests.support import hostile_postgres as h
from tests.support.generators import (
    ENGINES,
    MARGIN_S,
    LoopName,
    Outcome,
    PollerName,
    assert_missed_ticks_are_not_made_up_for,
    client_sockets,
    enough,
    nothing_left,
    run,
    target,
)
from tests.support.scripted import Behaviour, KnownServer

every_engine = pytest.mark.parametrize(("loop", "poller"), ENGINES)
every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
STALL_S = 0.6


def _spec(*urls: str, rate: float | Profile = 200, **changes: object) -> ConnectSpec:
    profile = rate if isinstance(rate, Profile) else constant(rate)
    given: dict[str, object] = {
        "targets": tuple(target(url) for url in urls),
        "open_loop": OpenLoop(profile=profile),
        "concurrency": 1000,
        "warmup_s": 0.0,
        "duration_s": 0.5,
        "connect_timeout_s": 60.0,
        "grace_s": 20.0,
        "tick_s": 0.1,
        "seed": 1,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


def _balanced(outcome: Outcome) -> BenchStats:
    """All targets together, after checking that nothing that was due is missing."""
    for stats in (*outcome.targets, outcome.warmup):
        assert stats.offered == stats.ok + stats.failed + stats.unfinished + stats.dropped
    total = outcome.total
    assert sum(interval.offered for interval in total.intervals) == total.offered
    assert sum(interval.dropped for interval in total.intervals) == total.dropped
    assert total.service.count == total.ok
    assert total.schedule_error.count == total.attempts
    assert total.service.total_s <= total.latency.total_s + 1e-9
    return total


def _assert_nothing_else_is_in_the_response_time(total: BenchStats) -> None:
    """Where all were ok and there was room for each, it is the service time and this client's lateness."""
    assert total.ok == total.attempts
    waited_s = total.latency.total_s - total.service.total_s
    assert waited_s == pytest.approx(total.schedule_error.total_s, abs=1e-6 * total.ok)
    assert total.latency.max_ns <= total.service.max_ns + total.schedule_error.max_ns
    assert total.latency.min_ns >= total.service.min_ns


def _longer_than(histogram: Histogram, seconds: float) -> int:
    indices, counts = histogram.nonzero()
    return int(counts[bucket_lower_us(indices) >= seconds * 1e6].sum())


def _result(spec: ConnectSpec, outcome: Outcome) -> RunResult:
    """What the runner makes of it."""
    client = ClientUsage()
    for snapshot in outcome.snapshots:
        client.merge(snapshot.client)
    rate = None if spec.open_loop is None else spec.open_loop.profile.first
    return RunResult(
        label="r",
        concurrency=spec.concurrency,
        driver=spec.driver,
        targets=("t",),
        duration_s=spec.duration_s,
        total=outcome.total,
        client=client,
        rate=rate,
    )


@every_engine
def test_exactly_what_is_due_is_offered_and_reaches_the_server(loop: LoopName, poller: PollerName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(_spec(server.url(), warmup_s=0.2, duration_s=0.4), loop=loop, poller=poller)
        assert _balanced(outcome).ok == 80
        assert outcome.warmup.ok == 40
        assert server.accepted == 120


@every_driver
def test_every_driver_is_offered_exactly_what_is_due(driver: DriverName) -> None:
    with nothing_left(), h.HostileServer(h.POLITE_QUERY) as server:
        outcome = run(_spec(server.url(), driver=driver, rate=100, duration_s=0.5, query="SELECT 1"))
        total = _balanced(outcome)
        assert total.ok == 50
        _assert_nothing_else_is_in_the_response_time(total)
        assert server.accepted == 50


@every_driver
def test_l1_a_stall_is_seen_by_all_who_would_have_come_meanwhile(driver: DriverName) -> None:
    stall = Behaviour(stall_after_s=0.3, stall_s=STALL_S)
    with nothing_left(), KnownServer(stall) as server:
        spec = _spec(server.url, rate=100, driver=driver, duration_s=0.3 + 2 * STALL_S)
        outcome = run(spec, loop="uvloop")
        total = _balanced(outcome)
        assert total.ok == total.offered == 150
        _assert_nothing_else_is_in_the_response_time(total)
        assert total.latency.max_ns / 1e9 <= outcome.elapsed_s
        # Due evenly over the stall, so responses are spread evenly up to its length.
        for share in (0.9, 0.5, 0.1):
            assert _longer_than(total.latency, share * STALL_S) >= (1 - share) * STALL_S * 100 - 2


def test_a_closed_loop_hides_the_same_stall_and_says_so() -> None:
    def is_seen(targets: list[BenchStats]) -> bool:
        return targets[0].ok >= 500 and targets[0].latency.max_ns >= STALL_S * 1e9

    with nothing_left(), KnownServer(Behaviour(stall_after_s=0.1, stall_s=STALL_S)) as server:
        spec = replace(_spec(server.url, duration_s=MARGIN_S), open_loop=None, concurrency=1)
        outcome = run(spec, stop_when=enough(is_seen))
        # Once, unless this machine stalls, too.
        assert 1 <= _longer_than(outcome.total.latency, STALL_S / 2) <= 4
        assert outcome.total.latency.percentile_ms(99) < 500 * STALL_S  # type: ignore[operator]  # some were ok
        result = _result(spec, outcome)
        words = " ".join(run_summary(RunRecord.of(result)).split())
        # Where the verdict has seen the pause itself, it says so in its own words.
        assert CLOSED_LOOP_NOTE in words or [note.code for note in judge(result).notes] == ["hidden_pause"]


def test_what_waits_for_a_connection_keeps_the_time_when_it_was_due() -> None:
    # One at a time and 50 ms each: the n-th waits for the n before it, and nothing more is due for long.
    with nothing_left(), KnownServer(Behaviour(delay_s=0.05)) as server:
        spec = _spec(server.url, rate=steps((100, 0.001), 0.4), concurrency=1, duration_s=MARGIN_S)
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].ok == 21))
        total = _balanced(outcome)
        assert total.offered == total.ok == 20 + 1
        # What waited was not served meanwhile.
        assert total.service.total_s <= outcome.elapsed_s
        assert total.latency.max_ns / 1e6 > 20 * 50 - 200
        waited_s = total.latency.total_s - total.service.total_s
        assert waited_s > sum(n * (0.05 - 0.01) for n in range(21)) - 0.2
        # Waiting for a connection is not this client's lateness.
        assert total.schedule_error.total_s < 0.2 * waited_s


@every_engine
def test_what_never_gets_a_connection_is_dropped_and_counted(loop: LoopName, poller: PollerName) -> None:
    with nothing_left(), h.HostileServer((h.stall,)) as server:
        spec = _spec(server.url(), concurrency=7, duration_s=0.25, grace_s=0.0)
        total = _balanced(run(spec, loop=loop, poller=poller))
        assert (total.offered, total.unfinished, total.dropped) == (50, 7, 43)
        assert server.accepted <= 7


def test_what_has_waited_longer_than_an_operation_may_take_is_dropped_before_the_end() -> None:
    with nothing_left(), h.HostileServer((h.stall,)) as server:
        spec = _spec(server.url(), concurrency=5, duration_s=60.0, grace_s=0.0, connect_timeout_s=0.2)
        outcome = run(spec, stop_when=enough(lambda targets: targets[0].dropped > 0))
        total = _balanced(outcome)
        assert outcome.elapsed_s < MARGIN_S
        assert {key.kind for key in total.failures} == {FailureKind.TIMEOUT}


@every_driver
def test_failures_do_not_stop_arrivals(driver: DriverName) -> None:
    with nothing_left(), h.HostileServer((h.read_startup, h.hang_up)) as server:
        total = _balanced(run(_spec(server.url(), driver=driver, rate=100)))
        assert total.offered == total.failed == 50
        assert server.accepted == 50


@every_driver
def test_targets_take_turns_and_a_dead_one_gets_its_share(driver: DriverName) -> None:
    with h.HostileServer(h.POLITE) as gone:
        dead_url = gone.url()
    with nothing_left(), h.HostileServer(h.POLITE) as alive:
        outcome = run(_spec(dead_url, alive.url(), driver=driver, rate=100))
        _balanced(outcome)
        assert [stats.offered for stats in outcome.targets] == [25, 25]
        assert [stats.ok for stats in outcome.targets] == [0, 25]


def test_a_name_is_looked_up_for_each_operation_that_is_due() -> None:
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        total = _balanced(run(_spec(server.url(host="localhost"))))
        assert total.ok == total.phases[Phase.RESOLVE].count == 100
    with nothing_left(), h.HostileServer(h.POLITE) as server:
        total = _balanced(run(_spec(server.url(host="localhost"), resolve_once=True)))
        assert total.ok == 100
        assert Phase.RESOLVE not in total.phases


def test_a_spike_is_in_the_seconds_where_it_was_asked_for() -> None:
    with nothing_left(), KnownServer(Behaviour()) as server:
        profile = spike(20, 400, 0.4, 0.2)
        outcome = run(_spec(server.url, rate=profile, duration_s=1.0))
        total = _balanced(outcome)
        assert total.ok == total.offered == 8 + 80 + 8
        late_s = outcome.lag_max_ms / 1e3 + 0.02
        so_far = 0
        for interval in total.intervals:
            so_far += interval.offered
            # Never early, and no later than this client was.
            due = profile.count(min(interval.t, 1.0))
            assert profile.count(max(0.0, min(interval.t, 1.0) - late_s)) - 1 <= so_far <= due + 2


def test_poisson_arrivals_are_repeated_by_their_seed() -> None:
    offered = []
    with nothing_left(), KnownServer(Behaviour()) as server:
        for seed in (5, 5, 6, 7, 8):
            spec = _spec(server.url, seed=seed, duration_s=0.25)
            open_loop = OpenLoop(profile=constant(400), spacing="poisson")
            offered.append(_balanced(run(replace(spec, open_loop=open_loop))).offered)
    assert offered[0] == offered[1]
    assert len(set(offered)) > 1


@every_driver
def test_a_stop_ends_the_schedule_where_it_is(driver: DriverName) -> None:
    def stop(snapshot: Snapshot) -> bool:
        return snapshot.elapsed_s >= 0.25

    with nothing_left(), h.HostileServer(h.POLITE) as server:
        outcome = run(_spec(server.url(), driver=driver, rate=50, duration_s=60.0), stop_when=stop)
        total = _balanced(outcome)
        assert 10 <= total.offered < 50 * outcome.elapsed_s + 1


def test_l5_a_client_without_time_falls_behind_visibly() -> None:
    async def burn(stop: asyncio.Event) -> None:
        while not stop.is_set():
            busy_until = time.monotonic() + 0.05
            while time.monotonic() < busy_until:
                pass
            await asyncio.sleep(0)

    with nothing_left(), KnownServer(Behaviour()) as server:
        spec = _spec(server.url, rate=2000, concurrency=20, duration_s=0.5)
        outcome = run(spec, during=burn)
        total = _balanced(outcome)
        assert total.offered == 1000
        assert total.ok < 0.9 * total.offered
        result = _result(spec, outcome)
        # Whether the burning or others had its core, a busy machine decides; late it was.
        assert result.client_trouble is not None
        words = " ".join(run_summary(RunRecord.of(result)).split())
        assert {one.code for one in judge(result).reasons} & {
            "client_saturated",
            "client_blocked",
            "client_starved",
        }
        assert "of 2,000/s due" in words
        assert f"{total.dropped:,} dropped" in words


@every_engine
def test_l6_what_a_blocked_event_loop_delays_is_marked_as_late(loop: LoopName, poller: PollerName) -> None:
    async def block(stop: asyncio.Event) -> None:
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)

    with nothing_left(), h.HostileServer(h.POLITE) as server:
        # Ten ticks are missed.
        spec = _spec(server.url(), rate=100, tick_s=0.02)
        outcome = run(spec, loop=loop, poller=poller, during=block)
        total = _balanced(outcome)
        assert total.ok == 50
        assert outcome.lag_max_ms >= 150
        assert total.schedule_error.max_ns >= 150e6
        assert total.latency.max_ns >= 150e6
        assert max(interval.late_ms for interval in total.intervals) >= 150
        assert max(interval.lag_ms for interval in total.intervals) >= 150
        assert_missed_ticks_are_not_made_up_for(outcome.snapshots[:-2], spec.tick_s)


def test_l8_a_slow_start_belongs_to_the_warm_up() -> None:
    # Slower than anything that this machine does to the others.
    with nothing_left(), KnownServer(Behaviour(slow_first=20, slow_s=3.0)) as server:
        outcome = run(_spec(server.url, rate=100, warmup_s=0.3, duration_s=0.5))
        total = _balanced(outcome)
        assert (outcome.warmup.offered, total.offered) == (30, 50)
        assert _longer_than(outcome.warmup.latency, 2.95) == 20
        assert _longer_than(total.latency, 2.95) == 0


@pytest.mark.parametrize("is_open", [True, False])
def test_l11_connects_that_take_long_do_not_wait_for_each_other(is_open: bool) -> None:
    with nothing_left(), KnownServer(Behaviour(delay_s=0.2)) as server:
        spec = _spec(server.url, rate=40, duration_s=0.6)
        if not is_open:
            spec = replace(spec, open_loop=None, concurrency=8)
        outcome = run(spec)
        served = outcome.total.service if is_open else outcome.total.latency
        assert served.min_ns >= 195e6
        # One after the other they would take no more time together than the run.
        assert served.total_s > 1.2 * outcome.elapsed_s


@pytest.fixture(scope="module")
def slow_server() -> Iterator[KnownServer]:
    """One that takes 100 ms to answer a start-up."""
    with KnownServer(Behaviour(delay_s=0.1)) as server:
        yield server


@every_driver
@pytest.mark.parametrize("is_open", [True, False])
def test_l12_a_delayed_connect_shows_in_its_phase_and_in_the_total(
    driver: DriverName, is_open: bool, slow_server: KnownServer
) -> None:
    spec = _spec(slow_server.url, rate=50, duration_s=0.3, driver=driver, query="SELECT 1")
    if not is_open:
        spec = replace(spec, open_loop=None, concurrency=4)
    total = run(spec).total
    phase = total.phases[Phase.AUTH if driver == "wire" else Phase.CONNECT]
    assert phase.count == total.ok > 0
    assert phase.min_ns >= 95e6
    assert total.latency.min_ns >= 95e6
    assert total.phases[Phase.QUERY].min_ns < 95e6


@every_driver
def test_a_generator_that_is_cancelled_leaves_nothing(driver: DriverName) -> None:
    async def main(port: int, spec: ConnectSpec) -> None:
        seen = asyncio.Event()
        task = asyncio.create_task(generate(spec, lambda snapshot: seen.set(), asyncio.Event()))
        await seen.wait()
        for _ in range(2):
            task.cancel()
            # Its way out is the grace period; the second cancel cuts that short, too.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        del task  # its error holds frames, and they what they were waiting for
        for _ in range(10):
            await asyncio.sleep(0)
        assert client_sockets([port]) == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with nothing_left(), h.HostileServer((h.stall,)) as server:
        spec = _spec(server.url(), driver=driver, rate=100, duration_s=60.0, grace_s=60.0)
        asyncio.run(main(server.port, spec))


@every_driver
def test_a_pooler_is_offered_what_is_due(driver: DriverName, pgbouncer: PgBouncer) -> None:
    with nothing_left():
        total = _balanced(run(_spec(pgbouncer.url, rate=100, duration_s=0.5, driver=driver), loop="uvloop"))
        assert total.ok == total.offered == 50
        assert all(a.t < b.t for a, b in pairwise(total.intervals))
