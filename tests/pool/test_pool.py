"""Running a pool: pausing, draining, closing, failover, leaks, events, query logs, numbers."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pool_bench.pool import (
    ConnectionPoolManager,
    EventKind,
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolEvent,
    PoolState,
    PoolTimeoutError,
    PoolUnavailableError,
)
from pool_bench.pool.metrics import PoolCollector
from pool_bench.pool.query_log import shown, shown_surrealql
from pool_bench.pool.statistics import DRAIN_AT, Checkouts
from tests.support.simulation import FakeConnection, FakeServer, SimulatedLoop, make_pool, now_s, simulate


def test_a_paused_pool_lets_callers_wait_and_serves_them_in_order() -> None:
    async def main() -> None:
        order: list[int] = []
        async with make_pool(FakeServer(), min_size=2, max_size=2) as pool:

            async def work(number: int) -> None:
                async with pool.acquire():
                    order.append(number)

            held = await pool.acquire()
            await pool.pause()
            assert pool.state is PoolState.PAUSED
            tasks = [asyncio.create_task(work(number)) for number in range(5)]
            await asyncio.sleep(1)
            await pool.release(held)
            with pytest.raises(PoolTimeoutError, match="the pool is paused"):
                await pool.acquire(timeout=0.5)
            assert not order
            assert pool.get_stats().idle == 2
            pool.resume()
            await asyncio.gather(*tasks)
            assert order == [0, 1, 2, 3, 4]

    simulate(main())


def test_draining_waits_for_leases_and_says_whether_all_came_back() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=3) as pool:
            assert await pool.drain(timeout=0)
            pool.resume()

            async def hold(seconds: float) -> None:
                async with pool.acquire() as conn:
                    await conn.execute("BEGIN")
                    await asyncio.sleep(seconds)

            tasks = [asyncio.create_task(hold(seconds)) for seconds in (0.5, 1.0, 2.0)]
            await asyncio.sleep(0.1)
            started = now_s()
            assert not await pool.drain(timeout=1)
            assert now_s() - started == pytest.approx(1, abs=0.01)
            late = asyncio.create_task(hold(0))
            assert await pool.drain()
            assert now_s() - started == pytest.approx(1.9, abs=0.1)
            assert pool.state is PoolState.PAUSED
            assert not late.done()
            pool.resume()
            await asyncio.gather(*tasks, late)

    simulate(main())


def test_closing_turns_waiters_away_lets_leases_end_and_leaves_nothing() -> None:
    async def main() -> None:
        server = FakeServer()
        pool = make_pool(server, max_size=3)
        await pool.open()
        held = [await pool.acquire() for _ in range(3)]
        waiters = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        started = now_s()
        closing = [asyncio.ensure_future(pool.close(timeout=2)) for _ in range(3)]
        for waiter in waiters:
            with pytest.raises(PoolClosedError, match="was closed while"):
                await waiter
        assert now_s() == started
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        await asyncio.sleep(0.5)
        await pool.release(held[0])
        await asyncio.gather(*closing)
        assert now_s() - started == pytest.approx(2, abs=0.1)
        assert not server.open
        assert pool.state is PoolState.CLOSED
        for conn in held[1:]:
            await pool.release(conn)
        with pytest.raises(PoolError, match="no longer"):
            await pool.release(held[0])
        await pool.close()

    simulate(main())


def test_closing_under_a_holder_is_no_error_at_the_end_of_its_block() -> None:
    async def main() -> None:
        pool = make_pool(FakeServer())
        async with pool, pool.acquire() as conn:
            await pool.close(timeout=0.1)
            assert conn.closed

    simulate(main())


def test_a_loop_that_ends_under_an_open_pool_is_left_in_peace() -> None:
    server = FakeServer(reset_s=60, connect_s=0.001)
    complaints: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        pool = make_pool(server, min_size=3, max_size=3, reset_timeout=120)
        await pool.open()
        for _ in range(3):
            async with pool.acquire() as conn:
                await conn.execute("SELECT 1")
        waiter = asyncio.ensure_future(pool.acquire().__aenter__())
        await asyncio.sleep(0.1)
        assert not waiter.done()

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(main())
    assert len(server.attempts) == 3
    assert not server.open
    assert not complaints


@pytest.mark.parametrize("what", ["connect", "reset", "ping", "close"])
def test_closing_is_bounded_whatever_hangs(what: str) -> None:
    async def main() -> None:
        server = FakeServer()
        pool = make_pool(server, min_size=2, max_size=3, health_check_interval=1.0, close_timeout=100)
        await pool.open()
        setattr(server, f"{what}_s", float("inf"))
        async with pool.acquire() as conn:
            await conn.execute("SELECT 1")
        waiting = [asyncio.ensure_future(pool.acquire(timeout=99).__aenter__()) for _ in range(3)]
        await asyncio.sleep(3)
        started = now_s()
        await pool.close(timeout=1)
        assert now_s() - started < 2.1
        assert not server.open
        await asyncio.wait(waiting)
        assert all(isinstance(task.exception(), PoolClosedError) for task in waiting if task.exception())

    simulate(main())


def test_a_cancelled_close_closes_all_the_same() -> None:
    async def main() -> None:
        server = FakeServer(close_s=1)
        pool = make_pool(server, min_size=3, max_size=3)
        await pool.open()
        closing = asyncio.ensure_future(pool.close())
        await asyncio.sleep(0.5)
        closing.cancel()
        await asyncio.wait([closing])
        await pool.close()
        assert not server.open
        assert pool.state is PoolState.CLOSED

    simulate(main())


def test_a_failover_replaces_idle_connections_now_and_leased_ones_when_they_return() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=4, max_size=4) as pool:
            old = set(server.open_numbers())
            async with pool.acquire() as conn:
                assert pool.expire_connections() == 4
                await asyncio.sleep(1)
                assert set(server.open_numbers()) & old == {conn.number}
            await asyncio.sleep(1)
            assert not set(server.open_numbers()) & old
            assert pool.get_stats().size == 4

    simulate(main())


def test_a_leak_is_reported_once_with_the_stack_of_its_acquire(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=2, leak_threshold=1.0) as pool:

            async def the_leaking_function() -> FakeConnection:
                return await pool.acquire()

            conn = await the_leaking_function()
            async with pool.acquire():
                await asyncio.sleep(0.9)
            await asyncio.sleep(5)
            assert pool.get_stats().leaks == 1
            await pool.release(conn)
            again = await pool.acquire()
            await asyncio.sleep(2)
            assert pool.get_stats().leaks == 2
            await pool.release(again)

    simulate(main())
    first, second = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert "the_leaking_function" in first
    assert "return await pool.acquire()" in first
    assert Path(__file__).name in first
    assert "site-packages" not in first
    assert "/asyncio/" not in first
    assert "the_leaking_function" not in second


def test_a_leak_can_be_reclaimed_and_reported_without_a_stack(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"leak_threshold": 1.0, "leak_stack": False, "leak_reclaim": True}
        async with make_pool(server, max_size=1, **settings) as pool:
            async with pool.acquire() as conn:
                async with pool.acquire(timeout=5) as other:
                    assert other is not conn
                assert conn.closed
            assert pool.get_stats().in_use == 0
            async with pool.acquire(timeout=1):
                assert pool.get_stats().in_use == 1

    simulate(main())
    assert "acquired at" not in caplog.text
    assert "has been held for" in caplog.text


def test_subscribers_see_what_happens_and_none_can_harm_the_pool() -> None:
    seen: list[PoolEvent] = []
    threads: set[int] = set()
    release = threading.Event()

    def blocking(event: PoolEvent) -> None:
        threads.add(threading.get_ident())
        release.wait(60)
        seen.append(event)

    def raising(_event: PoolEvent) -> None:
        raise ZeroDivisionError

    async def hanging(_event: PoolEvent) -> None:
        await asyncio.sleep(3600)

    awaited: list[EventKind] = []

    async def main() -> None:
        server = FakeServer()
        pool = make_pool(server, max_size=1)

        async def noting(event: PoolEvent) -> None:
            awaited.append(event.kind)

        for callback in (blocking, raising, hanging, noting):
            pool.subscribe(callback)
        stop = pool.subscribe(raising)
        stop()
        async with pool, pool.acquire():
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0.1)
        release.set()

    started = time.monotonic()
    simulate(main())
    assert time.monotonic() - started < 30
    assert awaited == [
        EventKind.STATE_CHANGED,
        EventKind.CONNECTION_OPENED,
        EventKind.ACQUIRE_TIMED_OUT,
        EventKind.STATE_CHANGED,
        EventKind.CONNECTION_CLOSED,
        EventKind.STATE_CHANGED,
    ]
    _eventually(lambda: [event.kind for event in seen] == awaited)
    assert threading.get_ident() not in threads
    assert seen[1].connection == 1
    _eventually(lambda: not any(thread.name == "pool-events" for thread in threading.enumerate()))


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_events_that_a_subscriber_is_too_slow_for_are_dropped_and_counted() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1) as pool:

            async def slow(_event: PoolEvent) -> None:
                await asyncio.sleep(100)

            pool.subscribe(slow)
            async with pool.acquire():
                for _ in range(1100):
                    with pytest.raises(PoolTimeoutError):
                        await pool.acquire(timeout=0)
            assert 90 <= pool.get_stats().events_dropped <= 105

    simulate(main())


def test_queries_are_logged_with_their_times_and_without_literals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pool_bench.pool.queries")

    async def main() -> None:
        async with make_pool(FakeServer(), log_queries=True) as pool:
            await pool.execute_query("ALTER ROLE me PASSWORD 'geheim'")
        async with make_pool(FakeServer()) as pool:
            await pool.execute_query("SELECT unlogged")
        async with make_pool(FakeServer(), slow_query=0.0) as pool:
            await pool.execute_query("SELECT slow")

    simulate(main())
    first, second = caplog.records
    assert first.levelno == logging.INFO
    assert "query ok in" in first.message
    assert " ms after waiting " in first.message
    assert "geheim" not in caplog.text
    assert "SELECT unlogged" not in caplog.text
    assert second.levelno == logging.WARNING
    assert "slow query ok" in second.message


@pytest.mark.parametrize(
    ("sql", "logged"),
    [
        ("SELECT 'a''b', 1", "SELECT '…', 1"),
        ("SELECT 'open", "SELECT '…'"),
        (r"SELECT E'a\'b' FROM t", "SELECT E'…'"),
        (r"SELECT 'C:\', 'secret'", "SELECT '…'"),
        ("-- it's\nSELECT 'secret'", "SELECT '…'"),
        ("/* it's */ SELECT 'secret', 2", "SELECT '…', 2"),
        ("/* /* it's */ */ SELECT 'secret'", "'…'"),
        ("SELECT \"it's\", 'secret'", "SELECT \"it's\", '…'"),
        ("SELECT $1, 'a', $2", "SELECT $1, '…', $2"),
        ("DO $$ secret $$", "DO '…'"),
        ("DO $x$ se $$ cret $x$ END", "DO '…' END"),
        ("SELECT\n  1", "SELECT 1"),
        ("S" * 600, "S" * 500 + "…"),
    ],
)
def test_literals_are_left_out_of_logs(sql: str, logged: str) -> None:
    assert shown(sql) == logged


@pytest.mark.parametrize(
    ("query", "logged"),
    [
        (
            'DEFINE USER a ON ROOT PASSWORD "top secret" ROLES OWNER',
            "DEFINE USER a ON ROOT PASSWORD '…' ROLES OWNER",
        ),
        (r"CREATE a SET b = 'it\'s top secret', c = d'2020'", "CREATE a SET b = '…', c = d'…'"),
        (r'RETURN "a\"top secret" + `b"` + ⟨c"⟩ + "top secret"', "RETURN '…' + `b\"` + ⟨c\"⟩ + '…'"),
        ("RETURN 1 -- it's\n + 'top secret'", "RETURN 1 + '…'"),
        (
            "RETURN 1 // it's\n + 'top secret' # it's\n + 2 /* it's */ + 'top secret'",
            "RETURN 1 + '…' + 2 + '…'",
        ),
        ("RETURN a = /it's/ AND b = 'top secret'", "RETURN a = '…'"),
        ("RETURN 4 / 2 + 'top secret'", "RETURN 4 / 2 + '…'"),
        ("RETURN 'top secret", "RETURN '…'"),
        ("RETURN `top secret", "RETURN '…'"),
    ],
)
def test_a_logged_query_of_surrealdb_has_lost_its_literals(query: str, logged: str) -> None:
    assert shown_surrealql(query) == logged


def test_the_numbers_add_up() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=1, max_size=4) as pool:

            async def work() -> None:
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                    await asyncio.sleep(0.1)

            tasks = [asyncio.create_task(work()) for _ in range(10)]
            await asyncio.sleep(0.05)
            stats = pool.get_stats()
            assert (stats.in_use, stats.waiters, stats.size, stats.idle) == (4, 6, 4, 0)
            assert stats.utilisation == 1.0
            assert stats.peak_waiters >= 6
            await asyncio.gather(*tasks)
            await asyncio.sleep(4)
            stats = pool.get_stats()
            assert (stats.acquisitions, stats.releases, stats.in_use) == (10, 10, 0)
            assert (stats.created, stats.closed, stats.peak_size) == (4, 0, 4)
            assert stats.checkout_rate == pytest.approx(10 / stats.uptime_s, rel=0.01)
            assert stats.wait_p50_ms == pytest.approx(105, rel=0.1)
            assert stats.wait_max_ms is not None
            assert stats.wait_p99_ms is not None
            assert stats.wait_p99_ms <= stats.wait_max_ms < 220
            assert stats.wait_total_s == pytest.approx(4 * 0.1 + 2 * 0.2, rel=0.15)

    simulate(main())


def test_the_memory_of_latencies_does_not_grow() -> None:
    checkouts = Checkouts()
    for value in range(3 * DRAIN_AT):
        checkouts.samples.append(1000 + value)
        if len(checkouts.samples) >= DRAIN_AT:
            checkouts.drain()
    assert len(checkouts.samples) == 0
    assert checkouts.count == 3 * DRAIN_AT


def test_prometheus_gets_the_same_numbers() -> None:
    async def main() -> None:
        registry = CollectorRegistry()
        async with make_pool(FakeServer(), max_size=3) as pool:
            registry.register(PoolCollector([pool]))
            for _ in range(7):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
            async with pool.acquire():
                text = generate_latest(registry).decode()
        lines = text.splitlines()
        assert 'pool_bench_pool_acquisitions_total{pool="test"} 8.0' in lines
        assert 'pool_bench_pool_in_use{pool="test"} 1.0' in lines
        assert 'pool_bench_pool_checkout_seconds_count{pool="test"} 8.0' in lines
        assert any(
            line.startswith('pool_bench_pool_checkout_seconds{pool="test",quantile="0.5"}') for line in lines
        )
        assert 'pool_bench_pool_state{pool="test",pool_bench_pool_state="running"} 1.0' in lines
        assert 'pool_bench_pool_breaker{pool="test",pool_bench_pool_breaker="off"} 1.0' in lines

    simulate(main())


def test_a_manager_opens_all_pools_or_none_and_closes_all() -> None:
    async def main() -> None:
        good, bad = FakeServer(), FakeServer(down=True)
        manager = ConnectionPoolManager()
        first = manager.create("first", good, PoolConfig(retry_cap=0.1))
        manager.create("second", bad, PoolConfig(retry_cap=0.1))
        with pytest.raises(PoolError, match="a pool named first already"):
            manager.create("first", good)
        with pytest.raises(PoolUnavailableError):
            await manager.open()
        assert first.state is PoolState.CLOSED
        assert not good.open

        manager = ConnectionPoolManager()
        first = manager.create("first", good)
        second = manager.create("second", FakeServer(), PoolConfig(min_size=2))
        async with manager:
            async with first.acquire(), second.acquire():
                assert {name: s.in_use for name, s in manager.get_stats().items()} == {
                    "first": 1,
                    "second": 1,
                }
                assert not await manager.drain(timeout=0.1)
            assert await manager.drain(timeout=60)
            assert manager.expire_connections() == 3
            await manager.remove("first")
            assert (len(manager), manager["second"], list(manager)) == (1, second, [second])
        assert second.state is PoolState.CLOSED

    asyncio.run(main())  # the manager's pools live in real time
