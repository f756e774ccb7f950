"""Where connections come from: what is opened, how many at once, and what is found out on the way."""

import asyncio

import pytest

from tests.pool.simulation import FakeError, FakeServer, make_pool, now_s, simulate


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
