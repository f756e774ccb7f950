"""No pool at all: a connection for each visit, opened on entry and closed on exit; nobody has to wait."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from pool_bench.contenders.base import ContenderName, Opens
from pool_bench.errors import ConnectError, FailureKind, Phase


class Visited(Protocol):
    """A connection, as far as it is closed."""

    async def close(self) -> None:
        """Say goodbye."""

    def terminate(self) -> None:
        """End it at once."""


C = TypeVar("C", bound=Visited)


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

    def lease(self) -> "_Visit[C]":
        """Connect on entry, close on exit."""
        return _Visit(self)

    async def close(self) -> None:
        """Nothing is kept."""

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """Our limit; a driver names its errors itself."""
        if isinstance(error, ConnectError):
            return error
        if isinstance(error, TimeoutError):
            return ConnectError(FailureKind.TIMEOUT, phase, f"no connection within {self._timeout_s:g} s")
        return ConnectError(FailureKind.OTHER, phase, f"{type(error).__name__}: {error}")


class _Visit(Generic[C]):
    """One connection."""

    __slots__ = ("_connection", "_visits")

    def __init__(self, visits: Unpooled[C]) -> None:
        self._visits = visits
        self._connection: C | None = None

    async def __aenter__(self) -> C:
        self._connection = connection = await self._visits.connect()
        return connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connection is not None  # noqa: S101  # entered
        self._visits.held -= 1
        if exc_type is None:
            await self._connection.close()
        else:
            self._connection.terminate()
