"""asyncpg's connection, with a reset that leaves nothing of the last user's behind.

asyncpg's own unlocks, closes cursors, stops listening and resets settings. What else a session can carry
from one borrower to the next is the role, temporary tables, the state of sequences, statements prepared in
SQL, and, on this side, codecs and callbacks. The last three cost only who has used them.
https://www.postgresql.org/docs/current/sql-discard.html
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

import asyncpg

# SET ROLE goes with the session's authorization. All of it is allowed inside the transaction of a simple
# query, as DISCARD ALL is not, which would also forget the statements that asyncpg has prepared.
_MORE: Final = "\nRESET SESSION AUTHORIZATION;\nDISCARD TEMP;\nDISCARD SEQUENCES;"
# What the server gets, at least, to end a query that it is asked to cancel; then the connection is closed.
_CANCEL_S: Final = 5.0
_PREPARED: Final = "SELECT quote_ident(name) FROM pg_catalog.pg_prepared_statements WHERE from_sql"


class _Driven:
    """Runs a coroutine that awaits nothing but futures, without a task.

    Args:
        coroutine: must not ask for its task, so no `asyncio.timeout` either.
        ended: called once, with None or with what it raised.
    """

    __slots__ = ("_coroutine", "_ended")

    def __init__(
        self, coroutine: Coroutine[object, None, object], ended: Callable[[BaseException | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._ended = ended
        self._go_on(None)

    def _go_on(self, _done: object) -> None:
        try:
            future = self._coroutine.send(None)
        except StopIteration:
            error: BaseException | None = None
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        else:
            assert isinstance(future, asyncio.Future)  # noqa: S101  # nothing else is awaited
            # As a task tells a future that it was awaited properly.
            future._asyncio_future_blocking = False
            future.add_done_callback(self._go_on)
            return
        self._ended(error)


class Session(asyncpg.Connection):  # type: ignore[misc]  # asyncpg tells no types
    """One connection that knows what was prepared, set and listened for through it since the last reset.

    Attributes:
        query_timeout: limit of a query whose call names none, seconds; None for none.
    """

    __slots__ = ("_codecs", "_full_reset", "_has_prepared", "_loggers", "_watchers", "query_timeout")

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._has_prepared = False
        self._codecs: set[tuple[str, str]] = set()
        self._loggers: set[object] = set()
        self._watchers: set[object] = set()
        self._full_reset: str | None = None
        self.query_timeout: float | None = None

    def limit_queries(self, seconds: float | None) -> None:
        """Have asyncpg cancel each query that takes longer, as with its `command_timeout`."""
        self.query_timeout = seconds
        self._bound(seconds)

    def _bound(self, seconds: float | None) -> None:
        # All that asyncpg runs without a limit of its own looks it up here, whoever opened the connection.
        config = self._config  # type: ignore[has-type]  # asyncpg's
        self._config = config._replace(command_timeout=seconds)  # type: ignore[misc]

    async def _cancel(self, *waiters: object) -> None:
        """As asyncpg's, which has only the time of a query for it, however short that is."""
        if self.query_timeout is not None:
            self._bound(max(self.query_timeout, _CANCEL_S))
        try:
            await super()._cancel(*waiters)
        finally:
            if self.query_timeout is not None:
                self._bound(self.query_timeout)

    def settle(self) -> None:
        """Let what has been set and listened for until now, on this side, outlast every reset."""
        for noted in (self._codecs, self._loggers, self._watchers):
            noted.clear()

    def get_reset_query(self) -> str:
        """asyncpg's own and, where the server knows RESET ALL, what that leaves."""
        if self._full_reset is None:
            own: str = super().get_reset_query()
            self._full_reset = own + _MORE if "RESET ALL" in own else own
        return self._full_reset

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        """As asyncpg's."""
        if "repare" in query or "REPARE" in query:
            self._has_prepared = True
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    async def set_type_codec(self, typename: str, *, schema: str = "public", **how: object) -> None:
        """As asyncpg's."""
        self._codecs.add((typename, schema))
        await super().set_type_codec(typename, schema=schema, **how)

    async def set_builtin_type_codec(self, typename: str, *, schema: str = "public", **how: object) -> None:
        """As asyncpg's."""
        self._codecs.add((typename, schema))
        await super().set_builtin_type_codec(typename, schema=schema, **how)

    def add_query_logger(self, callback: object) -> None:
        """As asyncpg's."""
        self._loggers.add(callback)
        super().add_query_logger(callback)

    def add_termination_listener(self, callback: object) -> None:
        """As asyncpg's."""
        self._watchers.add(callback)
        super().add_termination_listener(callback)

    def begin_reset(self, ended: Callable[[BaseException | None], None]) -> bool:
        """Begin `reset` without a task, where it is one query; `ended` is called once, when it is over.

        Returns:
            False where there is more to undo; nothing was begun then.
        """
        protocol = self._protocol
        if (
            self._has_prepared
            or self._codecs
            or self._loggers
            or self._watchers
            # asyncpg's own: whoever looks on at queries, a transaction, a request to cancel.
            or self._query_loggers
            or self._top_xact is not None
            or protocol is None
            or protocol.is_in_transaction()
            or protocol._is_cancelling()
            or self.is_closed()
        ):
            return False
        query = self._full_reset or self.get_reset_query()
        if not query:
            return False
        self._listeners.clear()
        self._log_listeners.clear()
        _Driven(protocol.query(query, None), ended)
        return True

    async def reset(self, *, timeout: float | None = None) -> None:
        """Give back the session as new."""
        await super().reset(timeout=timeout)
        while self._loggers:
            self.remove_query_logger(self._loggers.pop())
        while self._watchers:
            self.remove_termination_listener(self._watchers.pop())
        if self._has_prepared:
            for record in await self.fetch(_PREPARED, timeout=timeout):
                await super().execute(f"DEALLOCATE {record[0]}", timeout=timeout)
            self._has_prepared = False
        while self._codecs:
            typename, schema = next(iter(self._codecs))
            await self.reset_type_codec(typename, schema=schema)
            self._codecs.discard((typename, schema))
