"""A fail-over under a pool: its connections work, but their server is not of the wanted sort any more."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import psycopg
import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.psycopg import PsycopgConnection, PsycopgDriver
from pool_bench.pool import ConnectionPool, EventKind, PoolConfig, PoolEvent
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import target
from tests.support.replication import replicated_pair, replicated_url

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

    def __init__(self, driver: str, attrs: str, *servers: EmbeddedPostgres) -> None:
        to = target(replicated_url(*servers, options=f"target_session_attrs={attrs}"))
        self.pool: _Pool
        if driver == "asyncpg":
            self.pool = ConnectionPool(AsyncpgDriver(to), _CONFIG)
        else:
            self.pool = ConnectionPool(PsycopgDriver(to), _CONFIG)
        self.closed: list[str] = []
        self._heard = asyncio.Event()
        self.pool.subscribe(self._hear)

    async def _hear(self, event: PoolEvent) -> None:
        if event.kind is EventKind.CONNECTION_CLOSED:
            self.closed.append(event.message)
        self._heard.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for events until something holds."""
        async with asyncio.timeout(_PATIENCE_S):
            while not holds():
                self._heard.clear()
                await self._heard.wait()

    async def left_all(self) -> None:
        """Wait until all connections there were at first have been closed."""
        await self.until(lambda: len(self.closed) >= _SIZE)

    async def ports(self) -> set[int]:
        """Where the connections lead that the pool lends when it lends all of them."""
        held = [await self.pool.acquire(timeout=_PATIENCE_S) for _ in range(_SIZE)]
        addresses = {connection.address for connection in held}
        for connection in held:
            # One pool has connections of one class, but its type does not say so for a union.
            await self.pool.release(connection)  # type: ignore[arg-type]
        return {int(address.rpartition(":")[2]) for address in addresses}


def _tell(server: EmbeddedPostgres, *statements: str) -> None:
    with psycopg.connect(replicated_url(server, options="connect_timeout=60"), autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement.encode())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_primary_that_turns_read_only_is_left_for_the_standby_that_is_promoted(
    replicated: tuple[EmbeddedPostgres, EmbeddedPostgres], driver: str
) -> None:
    primary, standby = replicated
    async with AsyncExitStack() as stack:

        async def watched(attrs: str, *servers: EmbeddedPostgres) -> _Watched:
            made = _Watched(driver, attrs, *servers)
            await stack.enter_async_context(made.pool)
            return made

        writers = await watched("read-write", primary, standby)
        readers = await watched("standby", standby)
        others = [await watched(attrs, standby) for attrs in ("any", "prefer-standby")]
        assert await writers.ports() == {primary.port}

        # The connections are idle: nobody but the pool asks them anything.
        _tell(primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        await writers.left_all()
        assert all("session is read-only" in message for message in writers.closed)

        await asyncio.to_thread(_tell, standby, "SELECT pg_promote(true, 60)")
        await readers.left_all()
        assert all("server is not in hot standby mode" in message for message in readers.closed)
        assert await writers.ports() == {standby.port}
        assert len(writers.closed) == _SIZE
        # Whoever takes any server is not disturbed.
        assert [await other.ports() for other in others] == [{standby.port}] * 2
        assert not any(other.closed for other in others)
