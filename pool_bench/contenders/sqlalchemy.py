"""SQLAlchemy's asynchronous engine over asyncpg."""

from typing import TYPE_CHECKING

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens, explained
from pool_bench.drivers.asyncpg import asyncpg_options, connect_error
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.targets.postgres import PostgresTarget

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState


class SqlalchemyContender:
    """`create_async_engine` with its queue pool, without overflow, in autocommit.

    By itself it rolls back on return, which in autocommit asks nothing of the server. It checks nothing
    on checkout (`pool_pre_ping` is off). It opens connections when they are first asked for, so opening
    it here takes all of them once. Every query is a prepared statement, as its asyncpg dialect has it.
    """

    name: ContenderName = "sqlalchemy"

    def __init__(self, config: ContenderConfig[PostgresTarget]) -> None:
        import sqlalchemy
        from sqlalchemy import event
        from sqlalchemy.ext.asyncio import create_async_engine

        if not config.prepared:
            raise UsageError("--no-prepared: sqlalchemy's asyncpg dialect prepares every query; leave it out")
        self.version = sqlalchemy.__version__
        self.opens = Opens()
        resets = "reset always (1 round trip)" if config.reset == "always" else "no reset in autocommit"
        self.behaviour = f"return: {resets}; checkout: no check; queries: prepared"
        self._size = config.size
        self._options = asyncpg_options(config.target)
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=config.size,
            max_overflow=0,
            pool_timeout=config.timeout_s,
            isolation_level="AUTOCOMMIT",
        )
        if config.reset == "always":
            event.listen(self._engine.sync_engine, "reset", _reset)

    @property
    def size(self) -> int:
        """Connections that are open."""
        pool = self._engine.pool
        idle, leased = getattr(pool, "checkedin", None), getattr(pool, "checkedout", None)
        return (idle() if idle else 0) + (leased() if leased else 0)

    @property
    def in_use(self) -> int | None:
        """Connections that are checked out."""
        leased = getattr(self._engine.pool, "checkedout", None)
        return leased() if leased else None

    async def _connect(self) -> "asyncpg.Connection":
        import asyncpg

        async with self.opens.count():
            return await asyncpg.connect(**self._options)

    async def open(self) -> None:
        """Take every connection once."""
        held: list[AsyncConnection] = []
        try:
            for _ in range(self._size):
                held.append(await self._engine.connect())  # noqa: PERF401  # what is held is closed below
        finally:
            for connection in held:
                await connection.close()

    def lease(self) -> "AsyncConnection":
        """`engine.connect()`."""
        return self._engine.connect()

    async def execute(self, leased: "AsyncConnection", sql: str) -> None:
        """As the driver takes it: nothing in `sql` is a parameter."""
        await leased.exec_driver_sql(sql)

    async def close(self) -> None:
        """`engine.dispose()`."""
        await self._engine.dispose()

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """SQLAlchemy wraps asyncpg's errors twice; its own timeout is a class of its own."""
        from sqlalchemy import exc

        if isinstance(error, exc.TimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, str(error))
        innermost: BaseException = error
        if isinstance(error, exc.DBAPIError) and error.orig is not None:
            innermost = error.orig.__cause__ or error.orig
        return explained(connect_error(innermost if isinstance(innermost, Exception) else error, phase))


def _reset(connection: "DBAPIConnection", record: "ConnectionPoolEntry", state: "PoolResetState") -> None:
    """asyncpg's own reset, on a connection that is not being thrown away."""
    if not state.terminate_only:
        connection.run_async(lambda raw: raw.reset())
