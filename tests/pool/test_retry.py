"""Outages: how often a failing target is tried, who is told at once, and how the pool comes back.

And what the arithmetic of the head of `retry.py` is worth.
"""

import asyncio
import random
import statistics
from collections import Counter
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from pool_bench.pool import (
    BreakerConfig,
    BreakerState,
    CircuitOpenError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from pool_bench.pool.retry import Backoff, CircuitBreaker
from tests.support.simulation import FakeError, FakeServer, make_pool, now_s, simulate

SECOND = 1_000_000_000


def _outage(seed: int, seconds: float, base_s: float = 0.05, cap_s: float = 2.0) -> list[float]:
    """When attempts are made that fail at once, in seconds of an outage; the last one comes after its end."""
    backoff = Backoff(base_s, cap_s, random.Random(seed))
    attempts = [0.0]
    while attempts[-1] < seconds:
        now = round(attempts[-1] * SECOND)
        backoff.failed(now, now)
        attempts.append(backoff.retry_at_ns / SECOND)
    return attempts


def test_the_first_pauses_double_with_full_jitter() -> None:
    outages = [_outage(seed, 1.0, base_s=0.1) for seed in range(300)]
    for step, limit in enumerate((0.1, 0.2, 0.4, 0.4)):
        pauses = [attempts[step + 1] - attempts[step] for attempts in outages]
        assert 0.95 * limit < max(pauses) <= limit
        assert min(pauses) < 0.05 * limit


@pytest.mark.parametrize(
    ("base", "cap", "seconds"), [(0.05, 2.0, 60.0), (1.0, 2.0, 60.0), (0.01, 30.0, 900.0)]
)
def test_a_pause_is_as_long_as_a_tenth_of_the_outage_or_four_times_the_first_but_not_longer(
    base: float, cap: float, seconds: float
) -> None:
    shares = []
    for seed in range(100):
        for since, until in pairwise(_outage(seed, seconds, base, cap)[4:]):
            longest = min(cap, max(4 * base, 0.1 * since))
            assert until - since <= longest + 1e-9
            shares.append((until - since) / longest)
    assert max(shares) > 0.99
    assert 0.48 < sum(shares) / len(shares) < 0.52


@pytest.mark.parametrize(
    ("seconds", "median", "attempts"), [(1.0, 0.06, 12), (2.0, 0.06, 22), (5.0, 0.15, 41), (20.0, 0.6, 70)]
)
def test_short_outages_are_over_soon_and_cost_as_many_attempts_as_is_said(
    seconds: float, median: float, attempts: int
) -> None:
    outages = [_outage(seed, seconds) for seed in range(1000)]
    late = statistics.median(times[-1] - seconds for times in outages)
    assert late == pytest.approx(median, rel=0.1)
    assert max(times[-1] - seconds for times in outages) <= max(0.2, seconds / 10)
    # The last one succeeds.
    assert statistics.mean(len(times) - 1 for times in outages) == pytest.approx(attempts, rel=0.1)


def test_attempts_never_come_thick_however_long_the_outage() -> None:
    for seed in range(100):
        attempts = _outage(seed, 300.0)
        assert len(attempts) < 420
        assert all(later - now > 1 for now, later in zip(attempts, attempts[25:], strict=False))


def test_attempts_that_failed_together_count_once() -> None:
    backoff = Backoff(0.1, 2.0, random.Random(1))
    for _ in range(10):
        backoff.failed(0, SECOND)
    assert backoff.failures == 1
    backoff.failed(backoff.retry_at_ns, 2 * SECOND)
    assert backoff.failures == 2
    backoff.succeeded()
    assert (backoff.failures, backoff.retry_at_ns) == (0, 0)


def _go_down(server: FakeServer) -> None:
    """Refuse connects, and end all connections."""
    server.down = True
    for conn in server.open:
        conn.closed = True


def test_the_breaker_opens_after_five_failures_in_a_row_and_tries_one_after_a_minute() -> None:
    breaker = CircuitBreaker(BreakerConfig())
    for _ in range(4):
        assert not breaker.failed(0)
    breaker.succeeded()
    for count in range(5):
        assert breaker.state(0) is BreakerState.CLOSED
        assert breaker.failed(0) is (count == 4)
    assert breaker.state(60 * SECOND - 1) is BreakerState.OPEN
    assert not breaker.admits(60 * SECOND - 1)
    assert breaker.state(60 * SECOND) is BreakerState.HALF_OPEN
    assert breaker.admits(60 * SECOND)
    breaker.began()
    assert not breaker.admits(60 * SECOND), "half-open tries one"
    assert breaker.failed(61 * SECOND)
    assert breaker.state(120 * SECOND) is BreakerState.OPEN
    breaker.reset()
    assert breaker.state(120 * SECOND) is BreakerState.CLOSED
    assert CircuitBreaker(None).state(0) is BreakerState.OFF


def test_what_began_before_the_breaker_opened_does_not_keep_it_open() -> None:
    breaker = CircuitBreaker(BreakerConfig(failures=2, open_for=60))
    assert [breaker.failed(0) for _ in range(2)] == [False, True]
    assert not breaker.failed(5 * SECOND)
    assert breaker.state(60 * SECOND) is BreakerState.HALF_OPEN
    breaker.began()
    assert breaker.is_probing
    breaker.succeeded()
    assert breaker.state(60 * SECOND) is BreakerState.CLOSED
    assert not breaker.is_probing


@pytest.mark.parametrize("callers", [1, 25, 150])
@pytest.mark.parametrize("seed", range(3))
def test_an_outage_is_met_with_few_attempts_one_at_a_time_however_many_ask(callers: int, seed: int) -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.001)
        pool = make_pool(server, min_size=3, max_size=3, seed=seed)
        async with pool:
            _go_down(server)
            end = now_s() + 5

            async def caller() -> None:
                while now_s() < end:
                    with pytest.raises(PoolTimeoutError):
                        await pool.acquire(timeout=0.05)

            before = len(server.attempts)
            await asyncio.gather(*(caller() for _ in range(callers)))
            tried = server.attempts[before:]
            assert 25 <= len(tried) <= 58
            # All that were lost are tried together once, and from then on one.
            assert len([now for now in tried if now == tried[0]]) == 3
            assert min(b - a for a, b in pairwise(tried[3:])) >= 0.001
            assert max(b - a for a, b in pairwise(tried)) <= 0.51

    simulate(main())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("outage", [0.5, 4.0, 40.0])
def test_the_pool_recovers_by_itself_and_soon(seed: int, outage: float) -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=3, max_size=3, seed=seed) as pool:
            _go_down(server)
            with pytest.raises(PoolTimeoutError, match="connection refused"):
                await pool.acquire(timeout=outage)
            server.down = False
            started = now_s()
            held = [await pool.acquire(timeout=5) for _ in range(3)]
            # The attempt under way fails; then a pause, the probe, and the others.
            assert now_s() - started < min(2.0, max(0.2, outage / 10)) + 0.031
            for conn in held:
                await pool.release(conn)

    simulate(main())


def test_pools_that_lost_the_same_target_do_not_try_again_in_step() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.001)
        pools = [make_pool(server, min_size=1, max_size=1, seed=seed) for seed in range(200)]
        async with AsyncExitStack() as stack:
            for pool in pools:
                await stack.enter_async_context(pool)
            went_down = now_s()
            _go_down(server)
            await asyncio.sleep(4)
            server.down = False
            came_back = now_s()
            await asyncio.sleep(1)
            assert all(pool.get_stats().idle == 1 for pool in pools)
        # All try within a second of their loss, because each has found it out by then.
        during = Counter(int(when * 100) for when in server.attempts if went_down + 1.3 < when < came_back)
        after = Counter(int(when * 100) for when in server.attempts if when >= came_back)
        mean = sum(during.values()) / 270
        assert 5 < mean < 25
        assert max(during.values()) < 3 * mean
        assert sum(after.values()) <= 210
        assert max(after.values()) < 3 * mean

    simulate(main())


@pytest.mark.parametrize("seed", range(10))
def test_what_is_missing_is_opened_side_by_side_once_an_attempt_has_succeeded(seed: int) -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.1)
        async with make_pool(server, min_size=9, max_size=9, connecting_limit=4, seed=seed) as pool:
            _go_down(server)
            await asyncio.sleep(3)
            server.down = False
            before = len(server.attempts)
            async with pool.acquire(timeout=5):
                back = now_s()
            held = [await pool.acquire(timeout=5) for _ in range(9)]
            assert now_s() - back == pytest.approx(0.2), "8 more, 4 at a time"
            # The probe, and what is missing; before it, one may have been under way.
            assert len(server.attempts) - before in (8, 9)
            for conn in held:
                await pool.release(conn)

    simulate(main())


@pytest.mark.parametrize("seed", range(10))
def test_an_outage_is_over_as_soon_as_if_it_were_the_first(seed: int) -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"min_size": 3, "max_size": 3, "connect_attempts": 2, "fail_fast": True, "seed": seed}
        async with make_pool(server, **settings) as pool:
            _go_down(server)
            await asyncio.sleep(60)
            with pytest.raises(PoolUnavailableError):
                await pool.acquire(timeout=5)
            server.down = False
            await asyncio.sleep(5)
            assert pool.get_stats().idle == 3

            def refuse_the_first(number: int) -> None:
                if number <= allowed:
                    raise FakeError("connection refused")

            server.on_connect = refuse_the_first
            allowed = len(server.attempts) + 3
            for conn in server.open:
                conn.closed = True
            started = now_s()
            # Three that fail together are one failure, which is not enough to be down.
            async with pool.acquire(timeout=5):
                assert now_s() - started <= 0.05 + 0.021

    simulate(main())


def test_the_breaker_fails_callers_fast_and_closes_by_itself_or_by_hand() -> None:
    async def main() -> None:
        server = FakeServer()
        breaker = BreakerConfig(failures=5, open_for=60)
        async with make_pool(server, min_size=0, max_size=3, breaker=breaker, connecting_limit=1) as pool:
            server.down = True
            started = now_s()
            with pytest.raises(CircuitOpenError, match="breaker is open") as caught:
                await pool.acquire(timeout=30)
            assert now_s() - started < 3
            assert len(server.attempts) == 5
            assert isinstance(caught.value.__cause__, FakeError)
            assert pool.get_stats().breaker is BreakerState.OPEN

            started = now_s()
            with pytest.raises(CircuitOpenError):
                await pool.acquire(timeout=30)
            assert now_s() == started
            await asyncio.sleep(60)
            assert pool.get_stats().breaker is BreakerState.HALF_OPEN
            with pytest.raises(CircuitOpenError):
                await pool.acquire(timeout=30)
            assert len(server.attempts) == 6

            server.down = False
            await asyncio.sleep(60)
            results = await asyncio.gather(
                *(pool.acquire(timeout=1).__aenter__() for _ in range(3)), return_exceptions=True
            )
            # One tries; the others are told at once that the breaker is open.
            assert [isinstance(result, CircuitOpenError) for result in results] == [False, True, True]
            assert len(server.attempts) == 7
            assert pool.get_stats().breaker is BreakerState.CLOSED
            assert not isinstance(results[0], BaseException)
            await pool.release(results[0])

            _go_down(server)
            with pytest.raises(CircuitOpenError):
                await pool.acquire(timeout=30)
            server.down = False
            pool.reset_breaker()
            async with pool.acquire(timeout=1):
                assert pool.get_stats().breaker is BreakerState.CLOSED

    simulate(main())


def test_an_open_breaker_recovers_without_callers_where_there_is_a_minimum() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        pool = make_pool(server, min_size=2, breaker=BreakerConfig(failures=3, open_for=10))
        await pool.open(wait=False)
        await asyncio.sleep(5)
        assert pool.get_stats().breaker is BreakerState.OPEN
        server.down = False
        await asyncio.sleep(6)
        assert pool.get_stats().breaker is BreakerState.CLOSED
        assert pool.get_stats().idle == 2
        await pool.close()

    simulate(main())


def test_a_pool_that_cannot_grow_still_serves_with_what_it_has() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"min_size": 2, "max_size": 4, "breaker": BreakerConfig(failures=2), "fail_fast": True}
        async with make_pool(server, **settings) as pool:
            server.down = True

            async def work() -> None:
                async with pool.acquire(timeout=10) as conn:
                    await conn.execute("SELECT 1")
                    await asyncio.sleep(0.3)

            for _ in range(2):
                await asyncio.gather(*(work() for _ in range(20)))
                assert pool.get_stats().breaker is BreakerState.OPEN
            assert pool.get_stats().acquisitions == 40

    simulate(main())


@pytest.mark.parametrize("fail_fast", [False, True])
def test_waiters_fail_fast_only_where_that_is_configured(fail_fast: bool) -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"fail_fast": fail_fast, "connect_attempts": 3, "retry_base": 0.01, "retry_cap": 0.1}
        async with make_pool(server, min_size=0, **settings) as pool:
            server.down = True
            started = now_s()
            error = PoolUnavailableError if fail_fast else PoolTimeoutError
            with pytest.raises(error, match="connection refused"):
                await pool.acquire(timeout=5)
            assert (now_s() - started < 1) is fail_fast
            if fail_fast:
                started = now_s()
                with pytest.raises(PoolUnavailableError, match="no connection can be opened"):
                    await pool.acquire(timeout=5)
                assert now_s() == started
                server.down = False
                await asyncio.sleep(0.2)
            server.down = False
            async with pool.acquire(timeout=1):
                pass

    simulate(main())


def test_a_connect_that_hangs_is_given_up_and_leaves_nothing() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=float("inf"))
        async with make_pool(server, min_size=0, max_size=2, connect_timeout=1, connecting_limit=1) as pool:
            with pytest.raises(PoolTimeoutError, match="no answer in time"):
                await pool.acquire(timeout=3)
            assert server.opening <= 1
            server.connect_s = 0.01
            async with pool.acquire(timeout=5):
                pass
        assert server.opening == 0

    simulate(main())


def test_a_connect_that_comes_too_late_is_dropped() -> None:
    class Stubborn(FakeServer):
        async def connect(self):  # type: ignore[no-untyped-def]
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(2)
            return await FakeServer.connect(self)

    async def main() -> None:
        server = Stubborn()
        async with make_pool(server, min_size=0, max_size=1, connect_timeout=1) as pool:
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=1.5)
            await asyncio.sleep(20)
            assert server.connections
            assert all(conn.done == ["terminate"] for conn in server.connections)
            assert pool.get_stats().created == 0

    simulate(main())


def test_validation_finds_dead_connections_before_a_caller_does() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=5, max_size=5, validate_after_idle=1.0) as pool:
            await asyncio.sleep(2)
            for conn in server.open:
                conn.dead = True
            for _ in range(12):
                async with pool.acquire(timeout=2) as conn:
                    await conn.execute("SELECT 1")
            assert pool.get_stats().health_check_failures >= 2

    simulate(main())


@pytest.mark.parametrize(("window", "pings"), [(0.0, 10), (1.0, 1), (None, 0)])
def test_validation_is_as_frequent_as_configured(window: float | None, pings: int) -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"max_size": 1, "validate_after_idle": window, "health_check_interval": None}
        async with make_pool(server, **settings) as pool:
            await asyncio.sleep(2)
            for _ in range(10):
                async with pool.acquire() as conn:
                    pass
            assert conn.done.count("ping") == pings

    simulate(main())


def test_one_failure_makes_the_pool_look_at_the_others() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=4, max_size=4, validate_after_idle=3600.0) as pool:
            for conn in server.open:
                conn.dead = True
            async with pool.acquire() as conn:
                with pytest.raises(FakeError):
                    await conn.execute("SELECT 1")
                conn.closed = True  # as every real driver notices
            for _ in range(6):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                    await asyncio.sleep(0.01)

    simulate(main())


def test_idle_connections_are_checked_with_the_configured_query_and_replaced() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"min_size": 3, "health_check_interval": 2.0, "health_check_query": "SELECT good"}
        async with make_pool(server, **settings) as pool:
            await asyncio.sleep(9)
            assert all(3 <= conn.done.count("SELECT good") <= 5 for conn in server.open)
            server.open[0].dead = True
            server.execute_s, dead = 0.001, server.open[0]
            await asyncio.sleep(3)
            assert dead.closed
            assert pool.get_stats().health_check_failures == 1
            assert (pool.get_stats().size, len(server.open)) == (3, 3)

    simulate(main())


def test_a_health_check_that_hangs_is_bounded_and_empties_no_pool() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"min_size": 8, "health_check_interval": 2.0, "health_check_timeout": 1.0}
        async with make_pool(server, **settings, validate_after_idle=None) as pool:
            server.ping_s = float("inf")
            await asyncio.sleep(2.7)
            assert pool.get_stats().idle >= 4
            assert 1 <= pool.get_stats().busy <= 4
            async with pool.acquire(timeout=0):
                pass
            server.ping_s = 0.001
            await asyncio.sleep(10)
            assert pool.get_stats().idle == 8
            assert pool.get_stats().health_check_failures >= 1

    simulate(main())


def test_a_check_does_not_make_a_cold_connection_the_first_to_be_used() -> None:
    async def main() -> None:
        settings = {"min_size": 2, "health_check_interval": 2.0, "validate_after_idle": None}
        async with make_pool(FakeServer(), **settings) as pool:
            async with pool.acquire() as warm:
                await warm.execute("SELECT 1")
            await asyncio.sleep(0.01)
            async with pool.acquire() as again:
                assert again is warm
            await asyncio.sleep(2.6)
            async with pool.acquire() as again:
                assert again is warm
            assert pool.get_stats().created == 2

    simulate(main())


def test_a_connection_known_to_be_closed_is_replaced_while_idle() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=3, max_size=3) as pool:
            server.open[1].closed = True
            await asyncio.sleep(1.5)
            assert pool.get_stats().created == 4
            assert len(server.open) == 3

    simulate(main())
