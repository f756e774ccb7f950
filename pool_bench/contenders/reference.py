"""The reference pool, `pool_bench.pool`, over any connections; here over asyncpg's."""

from typing import Final, Generic

from pool_bench import __version__
from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens, explained
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pool import ConnectionPool, Lease, PoolConfig, PoolTimeoutError, ResetPolicy
from pool_bench.pool.connections import C, C_co, Connector
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget

_POLICIES: Final[dict[str, ResetPolicy]] = {"own": "always", "always": "always", "never": "never"}
# As long as psycopg_pool takes; how long an acquire may take says nothing of it.
_OPEN_TIMEOUT_S: Final = 30.0


class _Counting(Generic[C_co]):
    """A connector whose connects are counted."""

    def __init__(self, connector: Connector[C_co], opens: Opens) -> None:
        self._connector = connector
        self._opens = opens

    async def connect(self) -> C_co:
        async with self._opens.count():
            return await self._connector.connect()


class Reference(Generic[C]):
    """The reference pool over the connections of a connector.

    Args:
        connector: opens connections.
        config: what all contenders are told.
        resets, checks: what a reset is, and what is done on checkout, in words.
        connect_timeout_s: bound on one connect, seconds.
    """

    name: ContenderName = "reference"
    version = __version__

    def __init__(
        self,
        connector: Connector[C],
        config: ContenderConfig[Target],
        *,
        resets: str,
        checks: str,
        connect_timeout_s: float,
    ) -> None:
        self.opens = Opens()
        policy = _POLICIES[config.reset]
        self.behaviour = f"return: {resets if policy == 'always' else 'no reset'}; checkout: {checks}"
        self._timeout_s = config.timeout_s
        self._pool: ConnectionPool[C] = ConnectionPool(
            _Counting(connector, self.opens),
            PoolConfig(
                min_size=config.least,
                max_size=config.size,
                acquire_timeout=config.timeout_s,
                connect_timeout=connect_timeout_s,
                reset_on_return=policy,
            ),
            name="reference",
        )

    @property
    def size(self) -> int:
        """Connections, those being opened and closed included."""
        return self._pool.get_stats().size

    @property
    def in_use(self) -> int:
        """Connections that are leased."""
        return self._pool.get_stats().in_use

    async def open(self) -> None:
        """Open the pool and all connections."""
        await self._pool.open(timeout=_OPEN_TIMEOUT_S)

    def lease(self) -> Lease[C]:
        """`pool.acquire()`."""
        return self._pool.acquire(self._timeout_s)

    async def close(self) -> None:
        """`pool.close()`."""
        await self._pool.close()

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """A pool error is told by its class, and by the failed connect behind it."""
        if isinstance(error, ConnectError):
            return explained(error)
        if isinstance(error, PoolTimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, str(error))
        cause = error.__cause__
        if isinstance(cause, ConnectError):
            return ConnectError(cause.kind, phase, str(error), sqlstate=cause.sqlstate)
        return ConnectError(FailureKind.OTHER, phase, f"{type(error).__name__}: {error}")


class PostgresReference(Reference[AsyncpgConnection]):
    """Over asyncpg.

    By itself it resets a connection on return where it was used, by asyncpg's reset (one round trip),
    and pings one before a checkout that showed no life for half a second.
    """

    def __init__(self, config: ContenderConfig[PostgresTarget]) -> None:
        super().__init__(
            AsyncpgDriver(config.target, statement_cache_size=None if config.prepared else 0),
            config,
            resets="reset if used (1 round trip)",
            checks="ping if idle for 0.5 s; queries: simple protocol",
            connect_timeout_s=10.0,
        )

    async def execute(self, leased: AsyncpgConnection, sql: str) -> None:
        """By the simple protocol."""
        await leased.execute(sql)
