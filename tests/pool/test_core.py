"""Who has which connection: what is counted, what is remembered, and what is forgotten."""

import asyncio
import gc
import logging
import weakref

import pytest

from pool_bench.pool import PoolError, PoolExhaustedError
from tests.support.simulation import FakeConnection, FakeServer, make_pool, now_s, simulate


@pytest.mark.parametrize("way", ["block, used", "block, unused", "by hand"])
def test_the_pool_forgets_who_has_returned_a_connection(way: str) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            returned, over = asyncio.Event(), asyncio.Event()

            async def borrow() -> None:
                if way == "by hand":
                    await pool.release(await pool.acquire())
                else:
                    async with pool.acquire() as conn:
                        if way == "block, used":
                            await conn.execute("SELECT 1")
                returned.set()
                await over.wait()

            task = asyncio.create_task(borrow())
            await returned.wait()
            await asyncio.sleep(1)
            (conn,) = pool._connector.connections  # type: ignore[attr-defined]  # the fake server's
            with pytest.raises(PoolError, match="released already"):
                await pool.release(conn)
            over.set()
            await task
            # The loop's own reference, to wake us, ends with this turn.
            await asyncio.sleep(0)
            borrower = weakref.ref(task)
            del task
            gc.collect()
            assert borrower() is None

    simulate(main())


def test_what_is_on_its_way_out_is_replaced_without_waiting_for_its_end() -> None:
    async def main() -> None:
        server = FakeServer(close_s=2)
        async with make_pool(server, min_size=2, max_size=4) as pool:
            pool.expire_connections()
            await asyncio.sleep(0.02)
            stats = pool.get_stats()
            assert (stats.size, stats.idle, stats.busy, stats.in_use) == (4, 2, 2, 0)
            async with pool.acquire(timeout=0):
                pass

    simulate(main())


def test_nothing_is_opened_for_a_caller_for_whom_a_connection_is_being_reset() -> None:
    async def main() -> None:
        server = FakeServer(reset_s=0.3)
        async with make_pool(server, min_size=1, max_size=5, reset_timeout=100.0) as pool:
            await asyncio.sleep(10)
            for _ in range(3):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
            assert len(server.attempts) == 1
            # What takes for longer than it should is not counted on.
            await asyncio.sleep(1)
            server.reset_s = 60
            async with pool.acquire() as conn:
                await conn.execute("SELECT 1")
            started = now_s()
            async with pool.acquire(timeout=10) as other:
                assert other is not conn
                assert 0.5 < now_s() - started < 1.6
            assert len(server.attempts) == 2

    simulate(main())


def test_nothing_is_opened_for_a_caller_for_whom_a_connection_is_being_opened() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=5)
        async with make_pool(server, min_size=0, max_size=5) as pool:
            waiting = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(2)]
            await asyncio.sleep(4.5)
            assert len(server.attempts) == 2
            for waiter in waiting:
                await pool.release(await waiter)

    simulate(main())


def test_nothing_is_opened_or_checked_for_those_who_wait_for_a_paused_pool() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=2, max_size=5, health_check_interval=None) as pool:
            await asyncio.sleep(2)
            await pool.pause()
            waiting = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(4)]
            await asyncio.sleep(5)
            assert len(server.attempts) == 2
            assert not any(conn.done for conn in server.open)
            pool.resume()
            for waiter in waiting:
                await pool.release(await waiter)
            assert len(server.attempts) > 2

    simulate(main())


def test_one_who_could_only_wait_for_the_end_of_a_connection_is_one_too_many() -> None:
    async def main() -> None:
        server = FakeServer(close_s=2)
        async with make_pool(server, max_size=1, max_waiters=0) as pool:
            pool.expire_connections()
            with pytest.raises(PoolExhaustedError):
                await pool.acquire(timeout=5)
            await asyncio.sleep(3)
            async with pool.acquire(timeout=5):
                pass

    simulate(main())


def test_those_for_whom_a_connection_can_be_opened_are_not_too_many() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=0, max_size=3, max_waiters=0) as pool:
            asked = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(4)]
            await asyncio.wait(asked)
            assert isinstance(asked[3].exception(), PoolExhaustedError)
            for one in asked[:3]:
                await pool.release(one.result())

    simulate(main())


def test_the_peaks_are_remembered() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=0, max_size=5, max_idle=1.0) as pool:
            for conn in [await pool.acquire() for _ in range(5)]:
                await pool.release(conn)
            await asyncio.sleep(3)
            async with pool.acquire():
                assert (pool.get_stats().size, pool.get_stats().peak_size) == (1, 5)
        async with make_pool(FakeServer(), max_size=1) as pool:

            async def work() -> None:
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")

            await asyncio.gather(*(work() for _ in range(6)))
            await asyncio.gather(*(work() for _ in range(2)))
            assert pool.get_stats().peak_waiters == 5

    simulate(main())


def test_a_leak_of_one_who_had_to_wait_has_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, leak_threshold=1.0) as pool:

            async def the_waiting_function() -> FakeConnection:
                return await pool.acquire()

            async with pool.acquire():
                waiter = asyncio.create_task(the_waiting_function())
                await asyncio.sleep(0.1)
            conn = await waiter
            await asyncio.sleep(3)
            await pool.release(conn)

    simulate(main())
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert "the_waiting_function" in warning
