"""The reference pool over asyncpg connections."""

from pool_bench import __version__
from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens, explained
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pool import ConnectionPool, Lease, PoolConfig, PoolTimeoutError, ResetPolicy

_POLICIES: dict[str, ResetPolicy] = {"own": "always", "always": "always", "never": "never"}


class _CountingDriver:
    """An asyncpg driver whose connects are counted."""

    def __init__(self, config: ContenderConfig, opens: Opens) -> None:
        cache = None if config.prepared else 0
        self._driver = AsyncpgDriver(config.postgres_target, statement_cache_size=cache)
        self._opens = opens

    async def connect(self) -> AsyncpgConnection:
        async with self._opens.count():
            return await self._driver.connect()


class ReferenceContender:
    """`pool_bench.pool` over asyncpg.

    By itself it resets a connection on return where it was used, by asyncpg's reset (one round trip),
    and pings one before a checkout that showed no life for half a second.
    """

    name: ContenderName = "reference"
    version = __version__

    def __init__(self, config: ContenderConfig) -> None:
        self.opens = Opens()
        policy = _POLICIES[config.reset]
        resets = "reset if used (1 round trip)" if policy == "always" else "no reset"
        self.manner = f"return: {resets}; checkout: ping if idle for 0.5 s; queries: simple protocol"
        self._timeout_s = config.timeout_s
        self._pool: ConnectionPool[AsyncpgConnection] = ConnectionPool(
            _CountingDriver(config, self.opens),
            PoolConfig(
                min_size=config.size,
                max_size=config.size,
                acquire_timeout=config.timeout_s,
                reset_on_return=policy,
            ),
            name="reference",
        )

    @property
    def size(self) -> int:
        """Connections, those being opened and closed included."""
        return self._pool.get_stats().size

    async def open(self) -> None:
        """Open the pool and all connections."""
        await self._pool.open()

    def lease(self) -> Lease[AsyncpgConnection]:
        """`pool.acquire()`."""
        return self._pool.acquire(self._timeout_s)

    async def execute(self, leased: AsyncpgConnection, sql: str) -> None:
        """By the simple protocol."""
        await leased.execute(sql)

    async def close(self) -> None:
        """`pool.close()`."""
        await self._pool.close()

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """A pool error is told by its class, and by the failed connect behind it."""
        if isinstance(error, ConnectError):
            return explained(error)
        if isinstance(error, PoolTimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, str(error))
        if isinstance(error.__cause__, ConnectError):
            cause = error.__cause__
            return ConnectError(cause.kind, phase, str(error), sqlstate=cause.sqlstate)
        return ConnectError(FailureKind.OTHER, phase, f"{type(error).__name__}: {error}")
