"""The official client, made to remember what its user changed, and to say so when its connection is lost.

All its requests go through one method, `_send`. Left to itself the client would, after its socket was closed,
open another one without a sign-in; wait for ever where its reader has ended; and cancel whoever waits for an
answer when the connection is lost, which looks like the cancellation of a task.
"""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from uuid import UUID

from surrealdb.connections.async_http import AsyncHttpSurrealConnection
from surrealdb.connections.async_ws import AsyncWsSurrealConnection
from surrealdb.errors import ConnectionUnavailableError
from surrealdb.request_message.message import RequestMessage
from surrealdb.request_message.methods import RequestMethod
from websockets.protocol import State

from pool_bench.drivers.base import beyond_limit
from pool_bench.errors import QueryTimeoutError

T = TypeVar("T")

_SIGN_IN_METHODS: Final = frozenset(
    {RequestMethod.SIGN_IN, RequestMethod.SIGN_UP, RequestMethod.AUTHENTICATE, RequestMethod.INVALIDATE}
)
_USE: Final = re.compile(r"\buse\b", re.IGNORECASE)
_LIVE: Final = re.compile(r"\blive\b", re.IGNORECASE)
_USE_OR_LIVE: Final = re.compile(r"\b(?:use|live)\b", re.IGNORECASE)


async def answered_within(limit_s: float | None, request: Awaitable[T]) -> T:
    """Wait for the answer to a request, but not for longer than `limit_s` seconds; None for any time.

    Raises:
        QueryTimeoutError: the time is up. SurrealDB takes no cancellation: it may go on with the request.
    """
    if limit_s is None:
        return await request
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await request
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise QueryTimeoutError(beyond_limit(limit_s, outcome="is waited for no longer")) from error


@dataclass(slots=True)
class SessionChanges:
    """What a session is not any more as it was at first.

    Attributes:
        sign_in: somebody may be signed in who was not, or nobody.
        place: another namespace or database may be selected.
        variables: names that were given a value.
        sessions: further sessions that are attached.
        live: live queries that run.
        transactions: transactions that are open.
        given_up: a request was given up before it was answered, and may still be at work.
        cut_off: one was whose effects only its answer would have told.
    """

    sign_in: bool = False
    place: bool = False
    variables: set[str] = field(default_factory=set)
    sessions: set[UUID] = field(default_factory=set)
    live: set[UUID] = field(default_factory=set)
    transactions: set[UUID] = field(default_factory=set)
    given_up: bool = False
    cut_off: bool = False

    @property
    def is_any(self) -> bool:
        """Whether there is any of it."""
        return bool(
            self.sign_in
            or self.place
            or self.given_up
            or self.cut_off
            or self.variables
            or self.sessions
            or self.live
            or self.transactions
        )

    def note(self, message: RequestMessage) -> None:
        """Note what a request may change, before it is sent: it may take effect and its answer get lost."""
        method, values = message.method, message.kwargs
        if method is RequestMethod.ATTACH:
            self.sessions.add(values["session"])
        elif method is RequestMethod.DETACH:
            self.sessions.discard(values["session"])
        elif values.get("session") is not None:
            return  # what happens in a further session ends with it
        elif method in _SIGN_IN_METHODS:
            self.sign_in = True
        elif method is RequestMethod.LET:
            self.variables.add(values["key"])
        elif method is RequestMethod.QUERY:
            self.note_statements(values.get("query"))
        elif method is RequestMethod.USE:
            self.place = True
        elif method is RequestMethod.KILL:
            # By its words: the server says it where they are no UUID's.
            self.live -= {live for live in self.live if str(live) == str(values["uuid"])}
        elif method in (RequestMethod.COMMIT, RequestMethod.CANCEL):
            self.transactions.discard(values["txn"])

    def note_statements(self, query: object) -> bool:
        """Note what statements may change: servers before 3.0 keep what a statement USE selects.

        Returns:
            Whether `note_results` has to see the answer.
        """
        text = str(query)
        if _USE_OR_LIVE.search(text) is None:
            return False
        if _USE.search(text) is not None:
            self.place = True
        return _LIVE.search(text) is not None

    def note_results(self, answer: dict[str, Any]) -> None:
        """Note the live queries that a statement LIVE began."""
        results = answer.get("result")
        for statement in results if isinstance(results, list) else ():
            result = statement.get("result") if isinstance(statement, dict) else None
            if isinstance(result, UUID):
                # If it is that of anything else, the reset cannot end it, and gives the connection up.
                self.live.add(result)

    def note_answer(self, message: RequestMessage, answer: dict[str, Any]) -> None:
        """Note what a request that succeeded has left open."""
        result = answer.get("result")
        if message.kwargs.get("session") is not None:
            return
        if message.method is RequestMethod.QUERY and _LIVE.search(str(message.kwargs.get("query"))):
            self.note_results(answer)
        elif isinstance(result, UUID):
            if message.method is RequestMethod.LIVE:
                self.live.add(result)
            elif message.method is RequestMethod.BEGIN:
                self.transactions.add(result)


class TrackingWebSocket(AsyncWsSurrealConnection):
    """The official client over a WebSocket.

    Attributes:
        changes: what its user changed since they were last forgotten.
        query_timeout: limit of each request, seconds; None for none.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.changes = SessionChanges()
        self.query_timeout: float | None = None
        self._was_open = False

    @property
    def is_changed(self) -> bool:
        """Whether the session is not any more as when its changes were last forgotten."""
        return self.changes.is_any

    @property
    def is_lost(self) -> bool:
        """Whether no request can be answered any more."""
        reader = self.recv_task
        return self.socket is None or self.socket.state is not State.OPEN or reader is None or reader.done()

    async def connect(self, url: str | None = None) -> None:
        """Connect, once.

        Raises:
            ConnectionUnavailableError: it was connected before, and is not any more.
        """
        if self._was_open:
            if self.is_lost:
                raise ConnectionUnavailableError("the connection is closed")
            return
        await super().connect(url)
        self._was_open = True

    async def _send(self, message: RequestMessage, process: str, bypass: bool = False) -> dict[str, Any]:
        return await answered_within(self.query_timeout, self._send_unbounded(message, process, bypass))

    async def _send_unbounded(self, message: RequestMessage, process: str, bypass: bool) -> dict[str, Any]:
        self.changes.note(message)
        try:
            answer = await super()._send(message, process, bypass)
        except (asyncio.CancelledError, KeyError) as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                self.changes.cut_off = True
                raise asyncio.CancelledError from None
            if isinstance(error, KeyError) and not self.is_lost:
                raise
            # Nobody cancelled us: the client's reader ended, cancelled what we were waiting for, and forgot
            # it, over which the client then stumbles.
            raise ConnectionUnavailableError("the connection was lost within a request") from self._goodbye()
        self.changes.note_answer(message, answer)
        return answer

    async def tidy(self) -> None:
        """End what its user left open, and forget the variables."""
        changes = self.changes
        for live in tuple(changes.live):
            await self.kill(live)
        for transaction in tuple(changes.transactions):
            await self.cancel(transaction)
        for session in tuple(changes.sessions):
            await self.detach(session)
        for name in changes.variables:
            await self.unset(name)

    async def drain(self, timeout_s: float) -> bool:
        """Whether all requests that were given up have been answered: this client cannot tell."""
        return False

    def _goodbye(self) -> Exception | None:
        """What the server said when it closed the connection."""
        if self.socket is None or self.socket.state is not State.CLOSED:
            return None
        goodbye: Exception = self.socket.protocol.close_exc
        return goodbye

    def abort(self) -> None:
        """Close the socket at once."""
        reader, socket = self.recv_task, self.socket
        if reader is not None:
            reader.cancel()
        if socket is not None:
            socket.transport.abort()
        self.socket = None


class TrackedHttp(AsyncHttpSurrealConnection):
    """The official client over HTTP, which opens a connection for each request.

    Attributes:
        changes: what its user changed since they were last forgotten.
        query_timeout: limit of each request, seconds; None for none.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.changes = SessionChanges()
        self.query_timeout: float | None = None
        self.is_lost = False

    @property
    def is_changed(self) -> bool:
        """Whether the session is not any more as when its changes were last forgotten."""
        # Variables are kept by the client and sent along; to set one takes no request.
        return self.changes.is_any or bool(self.vars)

    async def _send(self, message: RequestMessage, operation: str, bypass: bool = False) -> dict[str, Any]:
        if self.is_lost:
            raise ConnectionUnavailableError("the connection is closed")
        self.changes.note(message)
        return await answered_within(self.query_timeout, super()._send(message, operation, bypass))

    async def tidy(self) -> None:
        """Forget the variables; nothing else outlives a request."""
        self.vars.clear()

    async def drain(self, timeout_s: float) -> bool:
        """Whether all requests that were given up have been answered: this client cannot tell."""
        return False

    async def connect(self, url: str | None = None) -> None:
        """Nothing is connected before the first request."""

    async def close(self) -> None:
        """Make no further request."""
        self.abort()

    def abort(self) -> None:
        """Make no further request."""
        self.is_lost = True
