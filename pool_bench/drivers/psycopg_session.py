"""psycopg's connection, with queries that a cancellation ends at once and a limit that ends them in order."""

import asyncio
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from psycopg import waiting

from pool_bench.drivers.base import beyond_limit

_Result = TypeVar("_Result")

# What the server gets to end a query that it is asked to cancel; then the connection is closed.
_CANCEL_S: Final = 5.0
_ACTIVE: Final = psycopg.pq.TransactionStatus.ACTIVE


class QueryTimeout(psycopg.errors.QueryCanceled, TimeoutError):  # noqa: N818  # named as psycopg's own are
    """A query did not end within its limit, and was cancelled."""


class Session(psycopg.AsyncConnection[tuple[object, ...]]):
    """A connection that a cancelled query closes.

    psycopg's own asks the server to cancel the query, and waits ten seconds for a server that is silent.

    Attributes:
        query_timeout: limit of a query, seconds; None for none.
    """

    query_timeout: float | None = None

    async def wait(
        self, gen: Generator[Any, Any, _Result], interval: float = 0.1, timeout: float | None = None
    ) -> _Result:
        """As psycopg's.

        Raises:
            QueryTimeout: the query did not end within `query_timeout`.
        """
        # Older versions know no timeout, and pass none.
        limit = {} if timeout is None else {"timeout": timeout}
        try:
            if self.query_timeout is None or limit:
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, **limit)
            return await self._wait_within(self.query_timeout, gen, interval)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise

    async def _wait_within(
        self, limit_s: float, gen: Generator[Any, Any, _Result], interval: float
    ) -> _Result:
        try:
            async with asyncio.timeout(limit_s):
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval)
        except TimeoutError:
            if self.pgconn.transaction_status != _ACTIVE:
                # It waits for notifications: there is nothing that the server could cancel.
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval)
        try:
            async with asyncio.timeout(_CANCEL_S):
                await self.cancel_safe(timeout=_CANCEL_S)
                # One that has ended meanwhile has done its work, and is not told as if it had not.
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval)
        except psycopg.errors.QueryCanceled as error:
            raise QueryTimeout(beyond_limit(limit_s)) from error
        except (TimeoutError, psycopg.Error) as error:
            if self.pgconn.transaction_status != _ACTIVE and not isinstance(error, TimeoutError):
                raise  # of the query itself, which has ended
            self.pgconn.finish()
            raise QueryTimeout(f"{beyond_limit(limit_s)}, which the server did not confirm") from error
