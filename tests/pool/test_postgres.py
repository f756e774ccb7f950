"""The pool on a real PostgreSQL, through asyncpg and psycopg."""

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.psycopg import PsycopgConnection, PsycopgDriver
from pool_bench.drivers.wire.driver import WireConnection, WireDriver
from pool_bench.errors import ConnectError, QueryTimeoutError
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget
from tests.support.generators import nothing_left, target

AnyConnection = AsyncpgConnection | PsycopgConnection
_numbers = itertools.count()
Make = Callable[[PoolConfig], ConnectionPool[AnyConnection]]


class _AnyDriver(Protocol):
    async def connect(self) -> AnyConnection:
        """Open a connection."""


@pytest.fixture(params=["asyncpg", "psycopg"])
def make(request: pytest.FixtureRequest, embedded: EmbeddedPostgres) -> Iterator[Make]:
    """Makes pools of each driver; they must leave no backend and no descriptor behind."""
    name = f"pool-test-{next(_numbers)}"
    driver: _AnyDriver = _driver(request.param, _named(embedded, name))

    def make_pool(config: PoolConfig) -> ConnectionPool[AnyConnection]:
        return ConnectionPool(driver, config)

    with psycopg.connect(embedded.superuser_url, autocommit=True) as admin, nothing_left():
        yield make_pool
        count = "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity WHERE application_name = %s"
        for _ in range(2000):
            if admin.execute(count, [name]).fetchall()[0][0] == 0:
                return
        pytest.fail("backends are left")


def _named(server: EmbeddedPostgres, name: str) -> PostgresTarget:
    return target(f"{server.url}&application_name={name}")


def _driver(name: str, to: PostgresTarget) -> _AnyDriver:
    return AsyncpgDriver(to) if name == "asyncpg" else PsycopgDriver(to)


async def fetch(conn: AnyConnection, sql: str) -> str:
    """The one value that a query gives, as text."""
    if isinstance(conn, AsyncpgConnection):
        return str(await conn.raw.fetchval(sql))
    row = await (await conn.raw.execute(sql.encode())).fetchone()
    assert row is not None
    return str(row[0])


async def pid(conn: AnyConnection) -> int:
    """The backend's process."""
    return int(await fetch(conn, "SELECT pg_backend_pid()"))


async def usable(pool: ConnectionPool[AnyConnection], size: int) -> None:
    """All `size` connections can be held at once, and work."""
    held = [await pool.acquire(timeout=60) for _ in range(size)]
    assert len({await pid(conn) for conn in held}) == size
    for conn in held:
        await pool.release(conn)


async def test_a_setting_does_not_reach_the_next_borrower(make: Make) -> None:
    async with make(PoolConfig(max_size=1)) as pool:
        async with pool.acquire() as conn:
            before = await fetch(conn, "SHOW work_mem")
            await conn.execute("SET work_mem = '77MB'")
            backend = await pid(conn)
        async with pool.acquire() as conn:
            assert await pid(conn) == backend
            assert await fetch(conn, "SHOW work_mem") == before != "77MB"


async def test_a_setting_made_behind_the_drivers_back_does_not_either(make: Make) -> None:
    async with make(PoolConfig(max_size=1)) as pool:
        async with pool.acquire() as conn:
            if isinstance(conn, AsyncpgConnection):
                await conn.raw.fetchval("SELECT set_config('work_mem', '77MB', false)")
            else:
                await conn.raw.execute("SELECT set_config('work_mem', '77MB', false)")
        async with pool.acquire() as conn:
            assert await fetch(conn, "SHOW work_mem") != "77MB"


@pytest.mark.parametrize("policy", ["always", "transaction", "never"])
@pytest.mark.parametrize("failed", [False, True])
async def test_a_transaction_left_open_is_gone_and_its_locks_too(
    make: Make, policy: str, failed: bool, embedded: EmbeddedPostgres
) -> None:
    # asyncpg tells the loop of a transaction that was open at a reset.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with make(PoolConfig(max_size=1, reset_on_return=policy)) as pool:  # type: ignore[arg-type]
        async with pool.acquire() as conn:
            await conn.execute("BEGIN")
            await conn.execute("SELECT pg_advisory_xact_lock(4711)")
            if failed:
                with suppress(ConnectError):
                    await conn.execute("SELECT 1/0")
            assert conn.in_transaction()
        async with pool.acquire() as conn:
            assert not conn.in_transaction()
            # Where the connection was retired, its backend may take a moment to end.
            async with asyncio.timeout(60):
                await conn.execute("SELECT pg_advisory_lock(4711)")
            assert await fetch(conn, "SELECT pg_advisory_unlock(4711)") in ("True", "true")


async def test_a_query_that_was_cancelled_leaves_no_answer_to_the_next(make: Make) -> None:
    async with make(PoolConfig(max_size=2)) as pool:

        async def slow(number: int) -> None:
            async with pool.acquire() as conn:
                await fetch(conn, f"SELECT {number}, pg_sleep(0.003)")

        for number in range(60):
            task = asyncio.create_task(slow(-number))
            await asyncio.sleep(number * 0.0001)
            task.cancel()
            await asyncio.wait([task])
            async with pool.acquire(timeout=60) as conn:
                for value in range(3):
                    assert await fetch(conn, f"SELECT {1000 * number + value}") == str(1000 * number + value)
        await usable(pool, 2)


async def test_backends_killed_under_their_holders_are_replaced(make: Make) -> None:
    async with make(PoolConfig(min_size=3, max_size=3)) as pool:
        for _ in range(9):
            async with pool.acquire(timeout=60) as conn:
                os.kill(await pid(conn), signal.SIGTERM)
                with pytest.raises(ConnectError):
                    await conn.execute("SELECT pg_sleep(10)")
        await usable(pool, 3)


async def test_backends_killed_while_idle_are_noticed_before_they_are_leased(
    make: Make, embedded: EmbeddedPostgres
) -> None:
    async with make(PoolConfig(min_size=3, max_size=3, validate_after_idle=0.0)) as pool:
        held = [await pool.acquire() for _ in range(3)]
        pids = [await pid(conn) for conn in held]
        for conn in held:
            await pool.release(conn)
        async with await psycopg.AsyncConnection.connect(embedded.superuser_url, autocommit=True) as admin:
            await admin.execute("SELECT pg_terminate_backend(p, 5000) FROM unnest(%s::int[]) p", [pids])
        for _ in range(12):
            async with pool.acquire(timeout=60) as conn:
                await conn.execute("SELECT 1")
        await usable(pool, 3)


async def test_session_files_and_callbacks_prepare_each_connection(make: Make, tmp_path: Path) -> None:
    (tmp_path / "session.sql").write_text("SET work_mem = '33MB'; SET statement_timeout = '44s';")
    (tmp_path / "schema.sql").write_text("CREATE TEMPORARY TABLE mine (a int); INSERT INTO mine VALUES (5);")
    seen: list[int] = []

    async def greet(conn: AnyConnection) -> None:
        seen.append(await pid(conn))

    config = PoolConfig(
        min_size=2,
        max_size=2,
        session_file=tmp_path / "session.sql",
        schema_file=tmp_path / "schema.sql",
        on_connect=greet,
    )
    async with make(config) as pool:
        for _ in range(4):
            async with pool.acquire() as first, pool.acquire() as second:
                for conn in (first, second):
                    assert await fetch(conn, "SHOW work_mem") == "33MB"
                    assert await fetch(conn, "SHOW statement_timeout") == "44s"
                    await conn.execute("SET work_mem = '1MB'")
        assert len(set(seen)) == len(seen) == 2


async def test_thousands_of_tasks_on_fifty_connections_all_succeed_in_order(
    make: Make, request: pytest.FixtureRequest
) -> None:
    # psycopg takes six times as long for each.
    tasks = {"asyncpg": 10_000, "psycopg": 2_000}[request.node.callspec.params["make"]]
    served: list[int] = []
    async with make(PoolConfig(max_size=50, acquire_timeout=100, connect_timeout=60)) as pool:

        async def work(number: int) -> None:
            async with pool.acquire() as conn:
                served.append(number)
                await conn.execute("SELECT 1")

        await asyncio.gather(*(work(number) for number in range(tasks)))
        stats = pool.get_stats()
    assert served == sorted(served)
    assert (stats.acquisitions, stats.timeouts, stats.connect_errors) == (tasks, 0, 0)
    assert stats.peak_size <= 50


async def test_tasks_cancelled_at_random_lose_no_connection(make: Make, embedded: EmbeddedPostgres) -> None:
    async with make(PoolConfig(min_size=0, max_size=3)) as pool:
        for ticks in range(80):

            async def use() -> None:
                async with pool.acquire(timeout=60) as conn:
                    await conn.execute("BEGIN")
                    await conn.execute("SELECT 1")
                    await conn.execute("COMMIT")

            task = asyncio.create_task(use())
            for _ in range(ticks):
                await asyncio.sleep(0)
            cancelling = task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() is cancelling
        await usable(pool, 3)


async def test_a_statement_logged_by_the_pool_runs_on_the_server(make: Make) -> None:
    # A backend that sleeps is to notice that its client has gone.
    config = PoolConfig(session_sql="SET client_connection_check_interval = '20ms'")
    async with make(config) as pool:
        await pool.execute_query("CREATE TEMPORARY TABLE t (a int)")
        with pytest.raises(ConnectError):
            await pool.execute_query("SELECT no_such_column")
        with pytest.raises(TimeoutError):
            await pool.execute_query("SELECT pg_sleep(60)", timeout=0.2)
        await usable(pool, 1)


@pytest.mark.parametrize(("through", "policy"), [("execute", "always"), ("raw", "always"), ("raw", "never")])
async def test_a_query_beyond_its_limit_is_cancelled_and_the_next_borrower_is_served(
    make: Make, embedded: EmbeddedPostgres, through: str, policy: str
) -> None:
    mark = f"mark-{next(_numbers)}-"
    running = (
        "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity "
        "WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE %s"
    )
    config = PoolConfig(max_size=1, query_timeout=0.2, reset_timeout=60, validate_timeout=60)
    async with make(replace(config, reset_on_return=policy)) as pool:  # type: ignore[arg-type]
        if through == "raw":
            with pytest.raises(TimeoutError):
                async with pool.acquire() as conn:
                    await fetch(conn, f"SELECT pg_sleep(600) /* {mark} */")
        else:
            with pytest.raises(QueryTimeoutError, match=r"within 0\.2 s \(query_timeout\)"):
                async with pool.acquire() as conn:
                    await conn.execute(f"BEGIN; SELECT pg_sleep(600) /* {mark} */")
        async with await psycopg.AsyncConnection.connect(embedded.superuser_url, autocommit=True) as admin:
            for _ in range(2000):
                row = await (await admin.execute(running, [f"%{mark}%"])).fetchone()
                if row is not None and row[0] == 0:
                    break
            else:
                pytest.fail("the server goes on with the query")
        served = ""
        async with asyncio.timeout(60):
            while not served:
                # On a machine that stands still a short query meets the limit, too.
                with suppress(TimeoutError):
                    async with pool.acquire(timeout=60) as conn:
                        assert not conn.in_transaction()
                        served = await fetch(conn, "SELECT 7")
        assert served == "7"


async def test_the_limit_of_queries_is_not_that_of_the_pools_own_round_trips(make: Make) -> None:
    config = PoolConfig(
        max_size=1,
        query_timeout=0.05,
        session_sql="SELECT pg_sleep(0.15)",
        reset_timeout=60,
        connect_timeout=60,
    )
    async with make(config) as pool:
        for _ in range(2):
            async with pool.acquire(timeout=60) as conn:
                with pytest.raises(TimeoutError):
                    await conn.execute("SELECT pg_sleep(600)")
        async with pool.acquire(timeout=60):
            stats = pool.get_stats()
        assert (stats.created, stats.reset_failures) == (1, 0)


async def test_queries_within_their_limit_are_not_disturbed(make: Make) -> None:
    async with make(PoolConfig(max_size=1, query_timeout=60)) as pool:
        for _ in range(2):
            async with pool.acquire() as conn:
                assert (await fetch(conn, "SELECT 7 FROM pg_sleep(0.01)")) == "7"
        assert pool.get_stats().created == 1


async def test_the_pool_recovers_when_its_server_was_restarted() -> None:
    with EmbeddedPostgres() as server:
        driver: _AnyDriver = AsyncpgDriver(_named(server, "restarted"))
        pool = ConnectionPool(driver, PoolConfig(min_size=3, max_size=3))
        async with pool:
            await usable(pool, 3)
            await asyncio.to_thread(server.restart)
            await usable(pool, 3)
            assert pool.get_stats().created >= 6


async def test_the_wire_driver_fits_as_it_is(embedded: EmbeddedPostgres) -> None:
    pool: ConnectionPool[WireConnection] = ConnectionPool(WireDriver(_named(embedded, "wired")), PoolConfig())
    with nothing_left():
        async with pool:
            async with pool.acquire() as conn:
                await conn.execute("SET work_mem = '77MB'")
            async with pool.acquire() as conn:
                tags = await conn.tags("SELECT 1 WHERE current_setting('work_mem') = '77MB'")
                assert tags[0].rows == 0


async def _is_error(awaitable: Awaitable[object]) -> bool:
    try:
        await awaitable
    except ConnectError:
        return True
    return False


async def test_two_tasks_on_one_connection_are_serialised_or_told_and_it_survives(make: Make) -> None:
    async with make(PoolConfig(max_size=1)) as pool:
        async with pool.acquire() as conn:
            errors = await asyncio.gather(
                *(_is_error(conn.execute("SELECT pg_sleep(0.02)")) for _ in range(3))
            )
            assert not all(errors)
            assert not conn.is_closed()
            assert await fetch(conn, "SELECT 7") == "7"
        await usable(pool, 1)
