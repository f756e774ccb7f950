"""Where connections come from: what is opened, how many at once, and what is found out on the way."""

import asyncio

import pytest

from pool_bench.pool import BreakerConfig, BreakerState, PoolUnavailableError
from tests.support.simulation import FakeServer, make_pool, now_s, simulate


def test_a_pool_whose_connect_was_cancelled_by_somebody_else_goes_on() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=1)
        async with make_pool(server, min_size=0, max_size=2) as pool:
            waiter = asyncio.ensure_future(pool.acquire(timeout=10).__aenter__())
            await asyncio.sleep(0.5)
            (connect,) = (task for task in asyncio.all_tasks() if task.get_name() == "test:connect")
            connect.cancel()
            conn = await waiter
            assert len(server.attempts) == 2
            async with pool.acquire(timeout=10):
                assert len(server.attempts) == 3
            await pool.release(conn)

    simulate(main())


def test_any_number_of_connections_that_died_idle_are_found_in_one_go() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"min_size": 2000, "max_size": 2000, "max_lifetime": None, "health_check_interval": None}
        async with make_pool(server, **settings) as pool:
            dead = server.open
            for conn in dead:
                conn.closed = True
            async with pool.acquire(timeout=1) as conn:
                assert conn not in dead
            # Who is gone need not be told goodbye.
            assert all(conn.done == ["terminate"] for conn in dead)

    simulate(main())


def test_a_connection_past_its_lifetime_is_replaced_and_not_checked() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"max_lifetime": 10.5, "max_lifetime_jitter": 0.0, "validate_after_idle": 0.0}
        async with make_pool(server, max_size=1, **settings) as pool:
            expires = now_s() + 10.5
            await asyncio.sleep(9.5)
            async with pool.acquire() as old:
                await asyncio.sleep(expires - now_s() - 0.05)
            await asyncio.sleep(0.1)
            assert server.open == [old], "the upkeep was sooner"
            pings = old.done.count("ping")
            async with pool.acquire() as new:
                assert new is not old
            assert old.done.count("ping") == pings
            assert old.done[-1] == "close"

    simulate(main())


def test_one_caller_makes_the_pool_check_one_connection() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=8, max_size=8, health_check_interval=None) as pool:
            await asyncio.sleep(2)
            async with pool.acquire():
                assert sum(conn.done.count("ping") for conn in server.open) == 1
                assert pool.get_stats().idle == 7

    simulate(main())


def test_a_pool_that_lost_all_connections_does_not_wait_for_leases_to_end() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.2)
        async with make_pool(server, min_size=0, max_size=8, connecting_limit=8) as pool:
            for _ in range(20):
                # Short leases: a queue would be served before another connection were open.
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
            await asyncio.sleep(0.01)
            assert pool.get_stats().idle == 1
            server.open[0].closed = True
            started = now_s()
            held = await asyncio.gather(*(pool.acquire(timeout=5) for _ in range(8)))
            assert now_s() - started == pytest.approx(0.2)
            for conn in held:
                await pool.release(conn)

    simulate(main())


def test_the_peak_counts_connections_that_were_never_open() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        async with make_pool(server, min_size=0, max_size=3) as pool:
            await asyncio.gather(*(_fails(pool.acquire(timeout=0.005)) for _ in range(3)))
            assert (pool.get_stats().created, pool.get_stats().peak_size) == (0, 3)
            await asyncio.sleep(1)

    async def _fails(lease: object) -> None:
        with pytest.raises(TimeoutError):
            await lease  # type: ignore[misc]  # a lease is awaitable

    simulate(main())


def test_a_breaker_that_was_closed_by_hand_leaves_the_pauses_as_short_as_ever() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        pool = make_pool(server, min_size=1, breaker=BreakerConfig(failures=3, open_for=60))
        await pool.open(wait=False)
        await asyncio.sleep(5)
        assert pool.get_stats().breaker is BreakerState.OPEN
        before = len(server.attempts)
        pool.reset_breaker()
        await asyncio.sleep(0.011)
        # One more has failed, and the next one is not due when the breaker's would have been.
        assert len(server.attempts) == before + 1
        server.down = False
        await asyncio.sleep(0.07)
        assert pool.get_stats().idle == 1
        await pool.close()

    simulate(main())


def test_a_caller_who_was_turned_away_costs_one_connection_when_the_target_is_back() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        async with make_pool(server, min_size=0, max_size=5, fail_fast=True) as pool:
            for _ in range(3):
                with pytest.raises(PoolUnavailableError):
                    await pool.acquire(timeout=5)
            assert pool.get_stats().refusals == 3
            server.down = False
            await asyncio.sleep(2)
            assert pool.get_stats().idle == 1
            for _ in range(3):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                await asyncio.sleep(1)
            assert pool.get_stats().created == 1

    simulate(main())


def test_those_who_wait_for_a_paused_pool_are_not_turned_away_when_its_target_goes_down() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=2, max_size=2, fail_fast=True) as pool:
            await pool.pause()
            waiter = asyncio.ensure_future(pool.acquire(timeout=60).__aenter__())
            server.down = True
            for conn in server.open:
                conn.closed = True
            await asyncio.sleep(10)
            assert pool.get_stats().connect_errors > 3
            assert not waiter.done()
            server.down = False
            await asyncio.sleep(2)
            pool.resume()
            await pool.release(await waiter)

    simulate(main())


def test_closing_ends_an_opening_that_waits_and_a_connect_that_was_given_up_is_no_failed_one() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=float("inf"))
        pool = make_pool(server, min_size=2, connect_timeout=3600.0)
        opening = asyncio.ensure_future(pool.open(timeout=600))
        await asyncio.sleep(1)
        started = now_s()
        await pool.close(timeout=0)
        await opening
        assert now_s() == started
        assert (pool.get_stats().connect_errors, pool.get_stats().created) == (0, 0)

    simulate(main())


def test_closing_the_breaker_by_hand_ends_the_pause_too() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        settings = {"retry_base": 60.0, "retry_cap": 60.0, "breaker": BreakerConfig(failures=1)}
        pool = make_pool(server, min_size=1, **settings)
        await pool.open(wait=False)
        await asyncio.sleep(0.1)
        server.down = False
        pool.reset_breaker()
        await asyncio.sleep(0.011)
        assert pool.get_stats().idle == 1
        await pool.close()

    simulate(main())
