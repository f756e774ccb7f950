"""A fail-over under a pool: its connections work, but their server is not of the wanted sort any more."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import AsyncExitStack

import psycopg
import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.psycopg import PsycopgConnection, PsycopgDriver
from pool_bench.errors import ConnectError
from pool_bench.pool import ConnectionPool, EventKind, PoolConfig, PoolEvent
from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import target
from tests.support.replication import replicated_pair, replicated_url
from tests.support.servers import StartPgBouncer

_SIZE = 3
_PATIENCE_S = 60.0
_CHECK_EVERY_S = 0.1
# The checks are to find out, neither age nor use.
_CONFIG = PoolConfig(
    min_size=_SIZE,
    max_size=_SIZE,
    max_lifetime=None,
    validate_after_idle=None,
    health_check_interval=_CHECK_EVERY_S,
    retry_cap=0.1,
)
_Pool = ConnectionPool[AsyncpgConnection] | ConnectionPool[PsycopgConnection]


@pytest.fixture
def replicated() -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    """A primary and its streaming standby, which the test may promote."""
    with replicated_pair() as pair:
        yield pair


class _Watched:
    """A pool, and why its connections were closed."""

    def __init__(self, driver: str, url: str, config: PoolConfig = _CONFIG) -> None:
        to = target(url)
        self.pool: _Pool
        if driver == "asyncpg":
            self.pool = ConnectionPool(AsyncpgDriver(to), config)
        else:
            self.pool = ConnectionPool(PsycopgDriver(to), config)
        self.closed: list[str] = []
        self._heard = asyncio.Event()
        self.pool.subscribe(self._hear)

    async def _hear(self, event: PoolEvent) -> None:
        if event.kind is EventKind.CONNECTION_CLOSED:
            self.closed.append(event.message)
        self._heard.set()

    async def left(self, count: int = _SIZE) -> None:
        """Wait until so many connections have been closed, all that there were at first if not said."""
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.closed) < count:
                self._heard.clear()
                await self._heard.wait()

    async def ports(self) -> set[int]:
        """Where the connections lead that the pool lends when it lends all of them."""
        held = [await self.pool.acquire(timeout=_PATIENCE_S) for _ in range(_SIZE)]
        addresses = {connection.address for connection in held}
        for connection in held:
            # One pool has connections of one class, but its type does not say so for a union.
            await self.pool.release(connection)  # type: ignore[arg-type]
        return {int(address.rpartition(":")[2]) for address in addresses}


def _tell(url: str, *statements: str) -> None:
    with psycopg.connect(url, connect_timeout=60, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


def _until_it_succeeds(url: str, statement: str) -> None:
    with psycopg.connect(url, connect_timeout=60, autocommit=True) as admin:
        while True:
            try:
                admin.execute(statement.encode())
            except psycopg.errors.DivisionByZero:
                continue
            return


def _wanting(attrs: str, *servers: EmbeddedPostgres) -> str:
    return replicated_url(*servers, options=f"target_session_attrs={attrs}")


_READ_ONLY = ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
_PROMOTE = "SELECT pg_promote(true, 60)"
_DRIVERS = ("asyncpg", "psycopg")


async def test_p12_a_primary_that_turns_read_only_is_left_for_the_standby_that_is_promoted(
    replicated: tuple[EmbeddedPostgres, EmbeddedPostgres],
) -> None:
    primary, standby = replicated
    async with AsyncExitStack() as stack:

        async def watched(attrs: str, *servers: EmbeddedPostgres) -> list[_Watched]:
            made = [_Watched(driver, _wanting(attrs, *servers)) for driver in _DRIVERS]
            for one in made:
                await stack.enter_async_context(one.pool)
            return made

        writers = await watched("read-write", primary, standby)
        readers = await watched("standby", standby)
        others = [*await watched("any", standby), *await watched("prefer-standby", standby)]
        assert [await one.ports() for one in writers] == [{primary.port}] * 2

        # The connections are idle: nobody but the pool asks them anything.
        _tell(primary.superuser_url, *_READ_ONLY)
        for one in writers:
            await one.left()
            assert all("session is read-only" in message for message in one.closed)

        await asyncio.to_thread(_tell, standby.superuser_url, _PROMOTE)
        for one in readers:
            await one.left()
            assert all("server is not in hot standby mode" in message for message in one.closed)
            assert one.pool.get_stats().unfit == _SIZE
        for one in writers:
            assert await one.ports() == {standby.port}
            assert (len(one.closed), one.pool.get_stats().unfit) == (_SIZE, _SIZE)
        # Whoever takes any server is not disturbed.
        assert [await other.ports() for other in others] == [{standby.port}] * 4
        assert not any(other.closed or other.pool.get_stats().unfit for other in others)


async def test_p12_a_primary_that_stops_is_left_for_the_standby_that_is_promoted(
    replicated: tuple[EmbeddedPostgres, EmbeddedPostgres],
) -> None:
    primary, standby = replicated
    async with AsyncExitStack() as stack:
        writers = [_Watched(driver, _wanting("read-write", primary, standby)) for driver in _DRIVERS]
        for one in writers:
            await stack.enter_async_context(one.pool)
            async with one.pool.acquire() as connection:
                await connection.execute(f"CREATE TABLE before_{type(connection).__name__} ()")
            assert await one.ports() == {primary.port}
        lag = (
            "SELECT 1 / (pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) = 0)::int FROM pg_stat_replication"
        )
        await asyncio.to_thread(_until_it_succeeds, primary.superuser_url, lag)

        await asyncio.to_thread(primary.stop)
        for one in writers:
            await one.left()
        await asyncio.to_thread(_tell, standby.superuser_url, _PROMOTE)
        for one in writers:
            assert await one.ports() == {standby.port}
            async with one.pool.acquire() as connection:
                # What had been written is there, and it can be written to.
                await connection.execute(f"DROP TABLE before_{type(connection).__name__}")
            assert one.pool.get_stats().unfit == 0


async def test_p12_a_server_that_does_not_say_what_it_is_is_asked(start_pgbouncer: StartPgBouncer) -> None:
    never = dataclasses.replace(_CONFIG, health_check_interval=None)
    with EmbeddedPostgres() as server:
        # PgBouncer says what its server was at first, and what that says later one of its clients hears.
        settings = {"pool_mode": "transaction"}
        front = PgBouncerConfig(backend_port=server.port, default_pool_size=1, settings=settings)
        bouncer = start_pgbouncer(front)
        url = f"{bouncer.url}&target_session_attrs=read-write"
        async with AsyncExitStack() as stack:
            checked = [_Watched(driver, url) for driver in _DRIVERS]
            refused = [_Watched(driver, url, never) for driver in _DRIVERS]
            for one in (*checked, *refused):
                await stack.enter_async_context(one.pool)
                await one.ports()

            async def write(one: _Watched, before: str = "") -> None:
                with pytest.raises(ConnectError, match="read-only transaction"):
                    async with one.pool.acquire() as connection:
                        await connection.execute(f"{before} CREATE TABLE never ()")

            # One that its user has made read-only says nothing of the server.
            for one in refused:
                await write(one, "BEGIN READ ONLY;")
                await one.ports()
            assert not any(one.closed for one in (*checked, *refused))
            await asyncio.to_thread(_tell, server.superuser_url, *_READ_ONLY)
            for one in checked:
                await one.left()
            for one in refused:
                await write(one)
                await one.left(1)
                # The others are asked before they are lent.
                await one.ports()
                await one.left()
                assert (len(one.closed), one.pool.get_stats().unfit) == (_SIZE, _SIZE)
            for one in (*checked, *refused):
                assert all("session is read-only" in message for message in one.closed)
