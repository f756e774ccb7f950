"""No pool at all: a connection for each query, to show what pooling buys."""

from types import TracebackType

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.errors import ConnectError, FailureKind, Phase


class _Visit:
    """One connection, opened on entry and closed on exit."""

    __slots__ = ("_connection", "_contender")

    def __init__(self, contender: "NaiveContender") -> None:
        self._contender = contender
        self._connection: AsyncpgConnection | None = None

    async def __aenter__(self) -> AsyncpgConnection:
        self._connection = connection = await self._contender.connect()
        return connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connection is not None  # noqa: S101  # entered
        self._contender.held -= 1
        if exc_type is None:
            await self._connection.close()
        else:
            self._connection.terminate()


class NaiveContender:
    """asyncpg connections that serve one query each; nobody waits for anybody.

    Attributes:
        held: connections that are open.
    """

    name: ContenderName = "naive"

    def __init__(self, config: ContenderConfig) -> None:
        import asyncpg

        self.version: str = asyncpg.__version__
        self.manner = "checkout: connect; return: close; queries: simple protocol"
        self.opens = Opens()
        self.held = 0
        self._driver = AsyncpgDriver(config.postgres_target)
        self._timeout_s = config.timeout_s

    @property
    def size(self) -> int:
        """Connections that are open."""
        return self.held

    async def open(self) -> None:
        """Connect once, so that a target that is not there shows at once."""
        async with self.lease():
            return

    async def connect(self) -> AsyncpgConnection:
        """Open a connection within the limit of an acquire."""
        import asyncio

        async with asyncio.timeout(self._timeout_s), self.opens.count():
            connection = await self._driver.connect()
        self.held += 1
        return connection

    def lease(self) -> _Visit:
        """Connect on entry, close on exit."""
        return _Visit(self)

    async def execute(self, leased: AsyncpgConnection, sql: str) -> None:
        """By the simple protocol."""
        await leased.execute(sql)

    async def close(self) -> None:
        """Nothing is kept."""

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """The driver has named its errors already."""
        if isinstance(error, ConnectError):
            return error
        if isinstance(error, TimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, f"no connection within {self._timeout_s:g} s")
        return ConnectError(FailureKind.OTHER, phase, f"{type(error).__name__}: {error}")
