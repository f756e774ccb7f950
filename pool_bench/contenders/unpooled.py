"""No pool at all: a connection for each lease, to show what pooling buys; nobody has to wait."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from pool_bench.contenders.base import ContenderConfig, ContenderName, Opens
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.postgres import PostgresTarget


class Closable(Protocol):
    """A connection, as far as it is closed."""

    async def close(self) -> None:
        """Say goodbye."""

    def terminate(self) -> None:
        """End it at once."""


C = TypeVar("C", bound=Closable)


class Unpooled(Generic[C]):
    """Connects for every lease.

    Args:
        connect: opens a connection.
        timeout_s: limit of one connect, seconds.

    Attributes:
        opens: what it opened.
        held: connections that are open.
    """

    name: ContenderName = "naive"

    def __init__(self, connect: Callable[[], Awaitable[C]], timeout_s: float) -> None:
        self.opens = Opens()
        self.held = 0
        self._connect = connect
        self._timeout_s = timeout_s

    @property
    def size(self) -> int:
        """Connections that are open."""
        return self.held

    @property
    def in_use(self) -> int:
        """Connections that are open."""
        return self.held

    async def open(self) -> None:
        """Connect once, so that a target that is not there shows at once."""
        async with self.lease():
            return

    async def connect(self) -> C:
        """Open a connection within the limit of an acquire.

        Raises:
            TimeoutError: it was not open by then.
        """
        async with asyncio.timeout(self._timeout_s), self.opens.count():
            connection = await self._connect()
        self.held += 1
        return connection

    def lease(self) -> "_Lease[C]":
        """Connect on entry, close on exit."""
        return _Lease(self)

    async def close(self) -> None:
        """Nothing is kept."""

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """Our limit; a driver names its errors itself."""
        if isinstance(error, ConnectError):
            return error
        if isinstance(error, TimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, f"no connection within {self._timeout_s:g} s")
        return ConnectError(FailureKind.OTHER, phase, f"{type(error).__name__}: {error}")


class _Lease(Generic[C]):
    """One connection."""

    __slots__ = ("_connection", "_unpooled")

    def __init__(self, unpooled: Unpooled[C]) -> None:
        self._unpooled = unpooled
        self._connection: C | None = None

    async def __aenter__(self) -> C:
        self._connection = connection = await self._unpooled.connect()
        return connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connection is not None  # noqa: S101  # entered
        self._unpooled.held -= 1
        if exc_type is None:
            await self._connection.close()
        else:
            self._connection.terminate()


class NaivePostgres(Unpooled[AsyncpgConnection]):
    """asyncpg connections that serve one query each; nobody waits for anybody."""

    def __init__(self, config: ContenderConfig[PostgresTarget]) -> None:
        import asyncpg

        super().__init__(AsyncpgDriver(config.target).connect, config.timeout_s)
        self.version: str = asyncpg.__version__
        self.behaviour = "checkout: connect; return: close; queries: simple protocol"

    async def execute(self, leased: AsyncpgConnection, sql: str) -> None:
        """By the simple protocol."""
        await leased.execute(sql)
