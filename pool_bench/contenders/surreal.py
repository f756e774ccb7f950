"""What SurrealDB's connections are lent by: the reference pool, one that all share, none, and purreal.

All of them hand out the official client. With the others it is as it comes; the reference pool's carries
its requests over a WebSocket and a codec of its own (`drivers/surreal/client_transport.py`), as
`SurrealDBConnectionPool` does.
"""

from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens
from pool_bench.contenders.reference import Reference
from pool_bench.contenders.unpooled import Unpooled
from pool_bench.drivers.surreal.client import (
    SurrealClientConnection,
    SurrealClientDriver,
    client_credentials,
    connect_error,
)
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.pool import PoolTimeoutError
from pool_bench.surreal_pool.pool import PooledClient, SurrealClientConnector
from pool_bench.targets.surreal import SurrealTarget

if TYPE_CHECKING:
    from surrealdb.connections.async_ws import AsyncWsSurrealConnection


class SurrealReference(Reference[PooledClient]):
    """The reference pool over the official client, as `SurrealDBConnectionPool` has it."""

    def __init__(self, config: ContenderConfig[SurrealTarget]) -> None:
        carrier = "; its own WebSocket and codec" if config.target.is_websocket else ""
        super().__init__(
            SurrealClientConnector(config.target),
            config,
            resets="reset of what was changed",
            checks=f"a request if idle for 0.5 s{carrier}",
            connect_timeout_s=30.0,
        )

    async def execute(self, leased: PooledClient, sql: str) -> None:
        """By the client's own method, as a borrower does."""
        await leased.raw.query(sql)

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """A pool error is told by its class, what the client raises by the client's own."""
        is_pools = isinstance(error, PoolTimeoutError) or isinstance(error.__cause__, ConnectError)
        return super().as_error(error, phase) if is_pools else _as_error(error, phase)


class _Shared:
    """Everybody's connection, for a moment that costs nothing."""

    __slots__ = ("_connection",)

    def __init__(self, connection: SurrealClientConnection) -> None:
        self._connection = connection

    async def __aenter__(self) -> SurrealClientConnection:
        return self._connection

    async def __aexit__(self, *exc_info: object) -> None:
        return


class SharedSurreal:
    """One connection for all clients at once, which the official client allows: answers find their way.

    Args:
        config: what to connect to.
        direct: over what the reference pool's connections are carried by.
    """

    name: ContenderName = "shared"

    def __init__(self, config: ContenderConfig[SurrealTarget], *, direct: bool = False) -> None:
        self.version = version("surrealdb")
        self.behaviour = "one connection, which all clients use at the same time and whose session they share"
        self.opens = Opens()
        self._driver = SurrealClientDriver(config.target, direct=direct)
        self._connection: SurrealClientConnection | None = None

    @property
    def size(self) -> int:
        """One, once it is open."""
        return 0 if self._connection is None else 1

    @property
    def in_use(self) -> None:
        """Nobody gives back what all have."""
        return None

    async def open(self) -> None:
        """Open the connection."""
        async with self.opens.count():
            self._connection = await self._driver.connect()

    def lease(self) -> _Shared:
        """The connection that everybody has."""
        assert self._connection is not None  # noqa: S101  # it was opened
        return _Shared(self._connection)

    async def execute(self, leased: SurrealClientConnection, sql: str) -> None:
        """By the client's own method."""
        await leased.raw.query(sql)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """The client's own errors."""
        return _as_error(error, phase)


class NaiveSurreal(Unpooled[SurrealClientConnection]):
    """A connection for each query, with sign-in and all."""

    def __init__(self, config: ContenderConfig[SurrealTarget]) -> None:
        super().__init__(SurrealClientDriver(config.target).connect, config.timeout_s)
        self.version = version("surrealdb")
        self.behaviour = "checkout: connect, sign in, select; return: close"

    async def execute(self, leased: SurrealClientConnection, sql: str) -> None:
        """By the client's own method."""
        await leased.raw.query(sql)

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """The client's own errors, and our limit."""
        return super().as_error(error, phase) if isinstance(error, TimeoutError) else _as_error(error, phase)


class PurrealContender:
    """purreal's pool with its own defaults, but for the size, the timeout, and the number of waiters."""

    name: ContenderName = "purreal"

    def __init__(self, config: ContenderConfig[SurrealTarget]) -> None:
        import purreal

        target = config.target
        if not target.is_websocket or target.user is None:
            raise UsageError("--pool purreal needs a ws:// or wss:// URL and a user")
        self.version = version("purreal")
        self.behaviour = "its own defaults; as many waiters as ask"
        self.opens = Opens()
        self._pool: Any = purreal.SurrealDBConnectionPool(
            uri=f"{target.url}/rpc",
            credentials=client_credentials(target),
            namespace=target.namespace or "",
            database=target.database or "",
            pool_size=config.size,
            max_overflow=0,
            min_connections=config.size,
            acquisition_timeout=config.timeout_s,
            connection_timeout=30.0,
            max_waiters=1_000_000,
            adaptive=False,
        )

    @property
    def size(self) -> int:
        """Connections, as it counts them."""
        return len(self._pool._all_connections)

    @property
    def in_use(self) -> None:
        """It does not say."""
        return None

    async def open(self) -> None:
        """Open the pool; its connects cannot be counted one by one."""
        async with self.opens.count():
            await self._pool.initialize()

    def lease(self) -> "AbstractAsyncContextManager[AsyncWsSurrealConnection]":
        """`pool.acquire()`."""
        leased: AbstractAsyncContextManager[AsyncWsSurrealConnection] = self._pool.acquire()
        return leased

    async def execute(self, leased: "AsyncWsSurrealConnection", sql: str) -> None:
        """By the client's own method."""
        await leased.query(sql)

    async def close(self) -> None:
        """`pool.close()`."""
        await self._pool.close()

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """Its own errors by their names, the client's by theirs."""
        if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            return ConnectError(FailureKind.TIMEOUT, phase, str(error) or "no connection in time")
        return _as_error(error, phase)


def _as_error(error: Exception, phase: Phase) -> ConnectError:
    return error if isinstance(error, ConnectError) else connect_error(error, phase)
