"""What is done from time to time: and what is left alone then."""

import asyncio

import pytest

from pool_bench.pool import PoolTimeoutError, ScalingConfig
from tests.support.simulation import FakeError, FakeServer, make_pool, simulate


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=2) as pool:
            for _ in range(200):
                async with pool.acquire():
                    pass
                await asyncio.sleep(0.1)
            assert pool.get_stats().checkout_rate == pytest.approx(10, rel=0.02)
            await asyncio.sleep(5)
            assert pool.get_stats().checkout_rate == pytest.approx(5, rel=0.2)
            await asyncio.sleep(7)
            assert pool.get_stats().checkout_rate == 0

    simulate(main())


def test_scaling_counts_those_who_wait() -> None:
    async def main() -> None:
        scaling = ScalingConfig(interval=2.0, step=1.0)
        async with make_pool(FakeServer(), min_size=2, max_size=20, scaling=scaling) as pool:
            await pool.pause()
            waiting = [asyncio.ensure_future(pool.acquire(timeout=30).__aenter__()) for _ in range(7)]
            await asyncio.sleep(20)
            # 7 are 70 % of 10.
            assert pool.get_stats().floor == 10
            await asyncio.wait(waiting)
            assert all(isinstance(task.exception(), PoolTimeoutError) for task in waiting)

    simulate(main())


def test_scaling_down_closes_nothing_that_is_still_to_be_kept() -> None:
    async def main() -> None:
        server = FakeServer()
        scaling = ScalingConfig(interval=2.0, step=1.0)
        async with make_pool(server, min_size=2, max_size=20, scaling=scaling) as pool:
            server.down = True
            await pool.pause()
            waiting = [asyncio.ensure_future(pool.acquire(timeout=10).__aenter__()) for _ in range(7)]
            await asyncio.sleep(9)
            assert (pool.get_stats().floor, pool.get_stats().idle) == (10, 2)
            await asyncio.wait(waiting)
            assert all(isinstance(task.exception(), PoolTimeoutError) for task in waiting)
            await asyncio.sleep(20)
            assert (pool.get_stats().floor, pool.get_stats().idle, pool.get_stats().closed) == (2, 2, 0)

    simulate(main())


def test_scaling_down_closes_what_is_coldest() -> None:
    async def main() -> None:
        server = FakeServer()
        scaling = ScalingConfig(interval=2.0)
        async with make_pool(server, min_size=1, max_size=10, scaling=scaling) as pool:
            held = [await pool.acquire() for _ in range(10)]
            await asyncio.sleep(20)
            assert pool.get_stats().floor == 10
            hottest = held[0]
            for conn in reversed(held):
                await pool.release(conn)
            for _ in range(400):
                async with pool.acquire() as conn:
                    assert conn is hottest
                await asyncio.sleep(0.1)
            assert (pool.get_stats().floor, server.open) == (1, [hottest])

    simulate(main())


def test_with_scaling_one_connection_is_warm_at_least() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=0, max_size=4, scaling=ScalingConfig()) as pool:
            await asyncio.sleep(1)
            assert pool.get_stats().idle == 1

    simulate(main())


def test_checks_do_not_keep_alive_what_nobody_uses() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(
            server, min_size=1, max_size=5, max_idle=60.0, health_check_interval=10.0
        ) as pool:
            for conn in [await pool.acquire() for _ in range(5)]:
                await pool.release(conn)
            await asyncio.sleep(59)
            assert pool.get_stats().size == 5
            assert all(conn.done.count("ping") >= 4 for conn in server.open)
            await asyncio.sleep(3)
            assert pool.get_stats().size == 1

    simulate(main())


@pytest.mark.parametrize("policy", ["always", "never"])
def test_what_is_used_now_and_then_is_not_idle_for_long(policy: str) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=0, max_idle=5.0, reset_on_return=policy) as pool:
            for _ in range(20):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                await asyncio.sleep(2)
            assert pool.get_stats().created == 1

    simulate(main())


def test_a_leak_that_is_only_to_be_reported_is_not_taken_away() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, leak_threshold=1.0) as pool:
            async with pool.acquire() as conn:
                await asyncio.sleep(5)
                await conn.execute("SELECT 1")
                assert (pool.get_stats().leaks, pool.get_stats().in_use) == (1, 1)
            async with pool.acquire() as again:
                assert again is conn

    simulate(main())


def test_one_that_is_found_dead_makes_the_pool_look_at_the_others_before_it_lends_them() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"validate_after_idle": 3600.0, "health_check_interval": None}
        async with make_pool(server, min_size=4, max_size=4, **settings) as pool:
            for conn in server.open:
                conn.dead = True
            server.open[1].closed = True
            await asyncio.sleep(1.5)
            for _ in range(6):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")

    simulate(main())


def test_without_a_sign_of_death_nothing_is_looked_at() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"validate_after_idle": 3600.0, "health_check_interval": None}
        async with make_pool(server, min_size=4, max_size=4, **settings) as pool:
            await asyncio.sleep(100)
            server.open[-1].dead = True
            async with pool.acquire() as conn:
                with pytest.raises(FakeError):
                    await conn.execute("SELECT 1")
            assert all(one.done in ([], ["SELECT 1"]) for one in server.open)

    simulate(main())
