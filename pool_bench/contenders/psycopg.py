"""psycopg's pool, psycopg_pool."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens, explained
from pool_bench.drivers.psycopg import connect_error, libpq_options
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.postgres import PostgresTarget

if TYPE_CHECKING:
    from typing import Self

    import psycopg

    Connection = psycopg.AsyncConnection[tuple[object, ...]]

# What asyncpg's reset does, so that both reset the same.
_RESET: Final = b"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;"


async def _reset(connection: "Connection") -> None:
    await connection.execute(_RESET)


class PsycopgContender:
    """`psycopg_pool.AsyncConnectionPool`.

    By itself it resets nothing on return; it rolls back a transaction that was left open. It checks
    nothing on checkout. Connections are opened and closed by three worker tasks. psycopg prepares a
    query when it comes for the sixth time on a connection.
    """

    name: ContenderName = "psycopg"

    def __init__(self, config: ContenderConfig[PostgresTarget]) -> None:
        import psycopg
        import psycopg_pool

        self.version = psycopg_pool.__version__
        self.opens = opens = Opens()
        resets = "reset always (1 round trip)" if config.reset == "always" else "no reset, rollback if needed"
        queries = "prepared from the 6th on" if config.prepared else "not prepared"
        self.behaviour = f"return: {resets}; checkout: no check; queries: {queries}"
        self._timeout_s = config.timeout_s

        class Counted(psycopg.AsyncConnection[tuple[object, ...]]):
            """A connection whose opening is counted."""

            @classmethod
            async def connect(cls, conninfo: str = "", **kwargs: object) -> "Self":
                async with opens.count():
                    return await super().connect(conninfo, **kwargs)  # type: ignore[arg-type]

        self._pool: psycopg_pool.AsyncConnectionPool[Connection] = psycopg_pool.AsyncConnectionPool(
            connection_class=Counted,
            kwargs={
                **libpq_options(config.target),
                "autocommit": True,
                **({} if config.prepared else {"prepare_threshold": None}),
            },
            min_size=config.least,
            max_size=config.size,
            timeout=config.timeout_s,
            reset=_reset if config.reset == "always" else None,
            open=False,
        )

    @property
    def size(self) -> int:
        """Connections, those being opened included."""
        return self._pool.get_stats().get("pool_size", 0)

    @property
    def in_use(self) -> int | None:
        """Connections that are not in the pool; None where those may be among them that it tries to open."""
        if self.opens.failed:
            return None
        stats = self._pool.get_stats()
        return stats.get("pool_size", 0) - stats.get("pool_available", 0) - self.opens.opening

    async def open(self) -> None:
        """Open the pool and all connections."""
        await self._pool.open(wait=True)

    def lease(self) -> "AbstractAsyncContextManager[Connection]":
        """`pool.connection()`."""
        return self._pool.connection(self._timeout_s)

    async def execute(self, leased: "Connection", sql: str) -> None:
        """As psycopg sends a query without parameters."""
        await leased.execute(sql.encode())

    async def close(self) -> None:
        """`pool.close()`."""
        await self._pool.close()

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """psycopg's errors; those of its pool are told by their class."""
        import psycopg_pool

        if isinstance(error, psycopg_pool.PoolTimeout):
            return ConnectError(FailureKind.TIMEOUT, phase, str(error))
        return explained(connect_error(error, phase))
