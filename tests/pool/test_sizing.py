"""Sizes: warm-up, growth, shrinking, expiry, scaling; and never more than the maximum."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from pool_bench.pool import EventKind, PoolEvent, PoolUnavailableError, ScalingConfig
from pool_bench.pool.sizing import Growth, Scaler
from tests.support.simulation import FakeServer, make_pool, now_s, simulate


def test_opening_warms_up_to_the_minimum() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=4, max_size=9) as pool:
            stats = pool.get_stats()
            assert (stats.size, stats.idle, stats.created) == (4, 4, 4)

    simulate(main())


def test_a_cold_burst_is_served_in_three_connects_time_and_short_jobs_open_few() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.2)
        async with make_pool(server, min_size=0, max_size=48) as pool:
            started = now_s()
            held = await asyncio.gather(*(pool.acquire() for _ in range(48)))
            assert now_s() - started <= 0.61
            for conn in held:
                await pool.release(conn)
            assert server.peak == 48
        server = FakeServer(connect_s=0.2, reset_s=0)
        async with make_pool(server, min_size=1, max_size=100) as pool:

            async def job() -> None:
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")

            await asyncio.gather(*(job() for _ in range(500)))
            await asyncio.sleep(1)
            assert pool.get_stats().created <= 17

    simulate(main())


def test_no_more_are_opened_at_once_than_the_limit_says() -> None:
    async def main() -> None:
        most = 0
        server = FakeServer(connect_s=0.1)

        def look(_number: int) -> None:
            nonlocal most
            most = max(most, server.opening)

        server.on_connect = look
        async with make_pool(server, min_size=10, max_size=20, connecting_limit=3) as pool:
            held = await asyncio.gather(*(pool.acquire() for _ in range(20)))
            for conn in held:
                await pool.release(conn)
        assert most == 3

    simulate(main())


def test_growth_is_as_much_as_serves_the_queue_before_a_connect_would_end() -> None:
    growth = Growth()
    assert growth.useful(500, 1, 0) == 500
    growth.connected(200_000_000)
    growth.held(1_000_000, 50)
    assert growth.useful(500, 1, 50) == 2
    assert growth.useful(500, 5, 50) == 0
    assert growth.useful(500, 5, 200_000_051) == 500
    for _ in range(200):
        growth.held(10_000_000_000, 60)
    assert growth.useful(10, 5, 60) > 10


def test_a_wrong_estimate_of_the_leases_costs_no_more_than_a_connect() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.2)
        async with make_pool(server, min_size=1, max_size=5) as pool:
            for _ in range(50):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
            started = now_s()
            held = await asyncio.gather(*(pool.acquire(timeout=5) for _ in range(5)))
            assert now_s() - started <= 0.45
            for conn in held:
                await pool.release(conn)

    simulate(main())


def test_a_burst_leaves_no_connections_behind_when_a_trickle_follows() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=2, max_size=10, max_idle=1) as pool:
            held = await asyncio.gather(*(pool.acquire() for _ in range(10)))
            for conn in held:
                await pool.release(conn)
            for _ in range(60):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                await asyncio.sleep(0.05)
            assert pool.get_stats().size == 2
            assert pool.get_stats().created == 10

    simulate(main())


def test_an_idle_pool_keeps_its_minimum_without_churn() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=3, max_size=5, max_idle=0.5) as pool:
            await asyncio.sleep(30)
            assert pool.get_stats().size == 3
            assert len(server.attempts) == 3

    simulate(main())


@pytest.mark.parametrize("seed", range(5))
def test_connections_opened_together_are_not_replaced_together(seed: int) -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.001)
        settings = {"min_size": 50, "max_size": 50, "max_lifetime": 2.0, "seed": seed}
        async with make_pool(server, **settings):
            await asyncio.sleep(2.2)
        again = server.attempts[50:100]
        bins = Counter(int(when * 10) for when in again)
        assert len(again) >= 50
        assert max(bins.values()) <= 0.2 * len(again)

    simulate(main())


def test_the_lifetime_is_enforced_on_a_connection_that_is_never_idle() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1, max_lifetime=1.0) as pool:
            seen = set()
            end = now_s() + 3
            while now_s() < end:
                async with pool.acquire() as conn:
                    seen.add(conn.number)
                    await conn.execute("SELECT 1")
            assert 3 <= len(seen) <= 6

    simulate(main())


def test_scaling_steps_up_when_busy_and_down_when_not() -> None:
    config = ScalingConfig()
    scaler = Scaler(config, 10, 20, 0)
    second = 1_000_000_000
    assert [scaler.sample(9, t * second) for t in range(60)] == [None] * 60
    assert scaler.sample(9, 60 * second) == 12
    assert [scaler.sample(9, t * second) for t in range(61, 121)][-1] is None  # 75 %: as it should be
    assert [scaler.sample(14, t * second) for t in range(121, 181)][-1] == 14
    assert [scaler.sample(0, t * second) for t in range(181, 241)][-1] == 12
    assert [scaler.sample(0, t * second) for t in range(241, 301)][-1] == 10
    assert [scaler.sample(0, t * second) for t in range(301, 361)][-1] is None


def test_scaling_keeps_connections_warm_for_the_load_there_is() -> None:
    async def main() -> None:
        events: list[PoolEvent] = []
        server = FakeServer()
        scaling = ScalingConfig(interval=2.0)
        async with make_pool(server, min_size=5, max_size=20, scaling=scaling) as pool:

            async def note(event: PoolEvent) -> None:
                events.append(event)

            pool.subscribe(note)
            held = [await pool.acquire() for _ in range(10)]
            await asyncio.sleep(20)
            assert pool.get_stats().floor in range(13, 16)
            assert pool.get_stats().size == pool.get_stats().floor
            for conn in held:
                await pool.release(conn)
            await asyncio.sleep(40)
            assert (pool.get_stats().floor, pool.get_stats().size) == (5, 5)
        scaled = [event.at_ns for event in events if event.kind is EventKind.SCALED]
        assert len(scaled) > 5
        assert min(b - a for a, b in pairwise(scaled)) >= 2_000_000_000

    simulate(main())


def test_opening_a_pool_whose_target_is_down_fails_or_goes_on_trying() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        pool = make_pool(server, min_size=3, max_size=3, retry_cap=0.5)
        with pytest.raises(PoolUnavailableError, match="connection refused"):
            await pool.open()
        assert pool.state == "closed"
        pool = make_pool(server, min_size=3, max_size=3, retry_cap=0.5)
        await pool.open(wait=False)
        await asyncio.sleep(5)
        server.down = False
        async with pool.acquire(timeout=1):
            pass
        await asyncio.sleep(0.1)
        assert pool.get_stats().idle == 3
        await pool.close()

    simulate(main())
