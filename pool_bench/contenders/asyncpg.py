"""asyncpg's own pool."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens, explained
from pool_bench.drivers.asyncpg import asyncpg_options, connect_error
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.postgres import PostgresTarget

if TYPE_CHECKING:
    import asyncpg


async def _no_reset(connection: "asyncpg.Connection") -> None:
    """Leave the session as it is."""


class AsyncpgContender:
    """`asyncpg.Pool`.

    By itself it resets every connection on return, used or not, in one round trip: advisory locks,
    cursors, LISTEN and settings. It checks nothing on checkout, and replaces connections after 50,000
    queries and after five minutes without use.
    """

    name: ContenderName = "asyncpg"

    def __init__(self, config: ContenderConfig[PostgresTarget]) -> None:
        import asyncpg

        self.version: str = asyncpg.__version__
        self.opens = Opens()
        resets = "no reset" if config.reset == "never" else "reset always (1 round trip)"
        self.behaviour = f"return: {resets}; checkout: no check; queries: simple protocol"
        self._config = config
        self._pool: asyncpg.Pool | None = None

    @property
    def size(self) -> int:
        """Connections that are open."""
        return self._pool.get_size() if self._pool is not None else 0

    @property
    def in_use(self) -> int:
        """Connections that are open and not idle."""
        return self.size - self._pool.get_idle_size() if self._pool is not None else 0

    async def _connect(self, *args: object, **kwargs: object) -> "asyncpg.Connection":
        import asyncpg

        async with self.opens.count():
            return await asyncpg.connect(*args, **kwargs)

    async def open(self) -> None:
        """Open the pool and all connections."""
        import asyncpg

        self._pool = await asyncpg.create_pool(
            min_size=self._config.least,
            max_size=self._config.size,
            connect=self._connect,
            reset=_no_reset if self._config.reset == "never" else None,
            **asyncpg_options(self._config.target),
            **({} if self._config.prepared else {"statement_cache_size": 0}),
        )

    def lease(self) -> "AbstractAsyncContextManager[asyncpg.pool.PoolConnectionProxy]":
        """`pool.acquire()`."""
        assert self._pool is not None  # noqa: S101  # opened
        leasing: AbstractAsyncContextManager[asyncpg.pool.PoolConnectionProxy] = self._pool.acquire(
            timeout=self._config.timeout_s
        )
        return leasing

    async def execute(self, leased: "asyncpg.pool.PoolConnectionProxy", sql: str) -> None:
        """By the simple protocol, as a query without parameters goes."""
        await leased.execute(sql)

    async def close(self) -> None:
        """`pool.close()`; waits for leases."""
        if self._pool is not None:
            try:
                await self._pool.close()
            except BaseException:
                self._pool.terminate()
                raise

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """asyncpg's errors; a wait that was too long is a bare `TimeoutError`."""
        if isinstance(error, TimeoutError) and phase is Phase.CHECKOUT:
            limit = f"no connection within {self._config.timeout_s:g} s"
            return ConnectError(FailureKind.TIMEOUT, phase, limit)
        return explained(connect_error(error, phase))
