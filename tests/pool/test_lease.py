"""Leases: who gets a connection, in which order, and what they are told who get none."""

import asyncio
import os
import threading

import pytest

from pool_bench.pool import (
    ConnectionPool,
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolExhaustedError,
    PoolTimeoutError,
)
from tests.support.simulation import FakeConnection, FakeServer, make_pool, now_s, simulate


def test_a_lease_is_entered_or_awaited_and_released() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server) as pool:
            async with pool.acquire(timeout=1) as first:
                assert pool.get_stats().in_use == 1
            second = await pool.acquire()
            assert second is first
            assert pool.get_stats().in_use == 1
            await pool.release(second)
            assert pool.get_stats().in_use == 0
        assert not server.open

    simulate(main())


def test_an_idle_connection_is_leased_without_a_turn_of_the_loop() -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            turns: list[int] = []
            asyncio.get_running_loop().call_soon(turns.append, 1)
            async with pool.acquire():
                pass
            assert not turns

    simulate(main())


def test_ten_thousand_tasks_on_fifty_connections_are_served_in_order() -> None:
    async def main() -> None:
        server = FakeServer()
        served: list[int] = []
        async with make_pool(server, max_size=50, acquire_timeout=5) as pool:

            async def work(number: int) -> None:
                async with pool.acquire() as conn:
                    served.append(number)
                    await conn.execute("SELECT 1")

            await asyncio.gather(*(work(number) for number in range(10_000)))
            stats = pool.get_stats()
        assert served == sorted(served)
        assert stats.acquisitions == 10_000
        assert (stats.timeouts, stats.created, server.peak) == (0, 50, 50)

    simulate(main())


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    async def main() -> None:
        order: list[str] = []
        async with make_pool(FakeServer(), max_size=1) as pool:

            async def work(name: str) -> None:
                async with pool.acquire():
                    order.append(name)

            held = await pool.acquire()
            waiter = asyncio.create_task(work("waiter"))
            await asyncio.sleep(0)
            await pool.release(held)
            # The waiter has been given the connection, but has not run yet.
            await work("newcomer")
            await waiter
        assert order == ["waiter", "newcomer"]

    simulate(main())


def test_the_timeout_says_sizes_holders_and_the_last_failure() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=2, retry_base=0.1, retry_cap=0.1) as pool:
            server.down = True
            async with pool.acquire():
                started = now_s()
                with pytest.raises(PoolTimeoutError) as caught:
                    await pool.acquire(timeout=0.5)
                assert now_s() - started == pytest.approx(0.5, abs=0.002)
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.size, error.in_use, error.waiters) == (2, 1, 0) or (error.size, error.in_use) == (1, 1)
        assert "0.5 s" in str(error)
        assert "1 in use" in str(error)
        assert "held longest by Task-" in str(error)
        assert "connection refused" in str(error)
        assert str(error.__cause__) == "connection refused"

    simulate(main())


@pytest.mark.parametrize("timeout", [0, 0.2, 3.0])
def test_the_deadline_covers_connecting(timeout: float) -> None:
    async def main() -> None:
        server = FakeServer(connect_s=float("inf"))
        pool = make_pool(server, min_size=0)
        async with pool:
            started = now_s()
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=timeout)
            assert now_s() - started == pytest.approx(timeout, abs=0.002)

    simulate(main())


def test_the_deadline_covers_validation_and_reset() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1, validate_timeout=60, reset_timeout=60) as pool:
            await asyncio.sleep(10)
            server.ping_s = float("inf")
            started = now_s()
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=1)
            assert now_s() - started == pytest.approx(1, abs=0.002)
        server = FakeServer(reset_s=float("inf"))
        async with make_pool(server, max_size=1, reset_timeout=60) as pool:
            async with pool.acquire() as conn:
                await conn.execute("SELECT 1")
            started = now_s()
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=1)
            assert now_s() - started == pytest.approx(1, abs=0.002)
            assert pool.get_stats().timeouts == 1

    simulate(main())


def test_deadlines_of_different_lengths_are_all_kept() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool, pool.acquire():
            ended: dict[float, float] = {}
            started = now_s()

            async def wait(limit: float) -> None:
                with pytest.raises(PoolTimeoutError):
                    await pool.acquire(timeout=limit)
                ended[limit] = now_s() - started

            limits = [3.0, 0.1, 2.0, 0.5, 1.0, 0.1001]
            await asyncio.gather(*(wait(limit) for limit in limits))
            for limit in limits:
                assert ended[limit] == pytest.approx(limit, abs=0.002)
            assert pool.get_stats().waiters == 0

    simulate(main())


def test_too_many_waiters_are_refused_at_once() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, max_waiters=2) as pool:
            async with pool.acquire():
                waiting = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(2)]
                await asyncio.sleep(0)
                started = now_s()
                with pytest.raises(PoolExhaustedError, match="2 callers are waiting"):
                    await pool.acquire()
                assert now_s() == started
            for task in waiting:
                await pool.release(await task)
            assert pool.get_stats().refusals == 1

    simulate(main())


def test_a_second_release_is_an_error_and_gives_nobody_a_second_owner() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=2) as pool:
            conn = await pool.acquire()
            await pool.release(conn)
            with pytest.raises(PoolError, match="released already"):
                await pool.release(conn)

            other_has_it, may_end = asyncio.Event(), asyncio.Event()

            async def other() -> None:
                async with pool.acquire() as mine:
                    assert mine is conn
                    other_has_it.set()
                    await may_end.wait()

            task = asyncio.create_task(other())
            await other_has_it.wait()
            with pytest.raises(PoolError, match="is leased to task"):
                await pool.release(conn)
            async with pool.acquire() as another:
                assert another is not conn
            may_end.set()
            await task
            with pytest.raises(PoolError, match="not, or no longer"):
                await pool.release(FakeConnection(FakeServer(), 99))

    simulate(main())


def test_releasing_within_the_block_makes_its_end_an_error() -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            with pytest.raises(PoolError, match="released already"):
                async with pool.acquire() as conn:
                    await pool.release(conn)
            lease = pool.acquire()
            async with lease:
                with pytest.raises(PoolError, match="entered already"):
                    await lease
            async with pool.acquire():
                assert pool.get_stats().in_use == 1

    simulate(main())


def test_the_end_of_a_block_does_not_end_the_lease_of_the_next_borrower() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            others: list[FakeConnection] = []

            async def other() -> None:
                others.append(await pool.acquire())

            async def release_early() -> None:
                async with pool.acquire() as conn:
                    await pool.release(conn)
                    await asyncio.create_task(other())

            with pytest.raises(PoolError, match="released already"):
                await release_early()
            assert len(others) == 1
            assert pool.get_stats().in_use == 1

    simulate(main())


def test_a_finished_task_may_leave_the_release_to_another() -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            conn = await asyncio.create_task(pool.acquire().__aenter__())
            await pool.release(conn)
            assert pool.get_stats().in_use == 0

    simulate(main())


def test_nested_acquires_time_out_with_the_holders_names_and_the_pool_survives() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=3) as pool:
            barrier = asyncio.Barrier(3)

            async def greedy() -> str:
                async with pool.acquire():
                    await barrier.wait()
                    with pytest.raises(PoolTimeoutError) as caught:
                        await pool.acquire(timeout=1)
                    await barrier.wait()
                    return str(caught.value)

            tasks = [asyncio.create_task(greedy(), name=f"greedy-{i}") for i in range(3)]
            messages = await asyncio.gather(*tasks)
            for message in messages:
                assert all(f"greedy-{i}" in message for i in range(3))
            held = [await pool.acquire(timeout=0.1) for _ in range(3)]
            for conn in held:
                await pool.release(conn)

    simulate(main())


def test_another_loop_is_an_error_at_once() -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            raised: list[BaseException] = []

            def elsewhere() -> None:
                async def use() -> None:
                    for attempt in (pool.acquire().__aenter__(), pool.pause(), pool.close()):
                        try:
                            await attempt
                        except PoolError as error:
                            raised.append(error)

                asyncio.run(use())

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join(60)
            assert [str(error) for error in raised] == ["pool test: it belongs to another event loop"] * 3

    simulate(main())


def _in_a_fork(pool: ConnectionPool[FakeConnection]) -> str:
    """What a forked process that leases from `pool`, in a loop of its own, is told."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio._set_running_loop(None)
            asyncio.run(pool.acquire().__aenter__())
            os.write(write, b"leased")
        except BaseException as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    said = os.read(read, 1000).decode()
    os.close(read)
    return said


def test_a_forked_process_is_told_to_open_its_own_pool() -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            assert "after the fork" in _in_a_fork(pool)

    simulate(main())


def test_a_pool_that_is_not_open_says_so() -> None:
    async def main() -> None:
        pool = make_pool(FakeServer())
        with pytest.raises(PoolClosedError, match="not open"):
            await pool.acquire()
        await pool.open()
        with pytest.raises(PoolClosedError, match="only once"):
            await pool.open()
        await pool.close()
        with pytest.raises(PoolClosedError, match="closed"):
            async with pool.acquire():
                pass
        never: ConnectionPool[FakeConnection] = ConnectionPool(FakeServer(), PoolConfig())
        await never.close()
        assert never.get_stats().created == 0

    simulate(main())


def test_execute_query_returns_what_the_connection_does_and_is_bounded() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server) as pool:
            assert await pool.execute_query("SELECT 7") == "SELECT 7"
            server.execute_s = float("inf")
            started = now_s()
            with pytest.raises(TimeoutError, match=r"did not end within 0\.5 s"):
                await pool.execute_query("SELECT 8", timeout=0.5)
            assert now_s() - started == pytest.approx(0.5, abs=0.01)

    simulate(main())
