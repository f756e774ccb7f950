"""Connections through the official client `surrealdb`: what an application that uses it pays."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pool_bench.drivers.base import Connection, Driver, DriverName, given_up_in
from pool_bench.drivers.network.failures import StreamError, one_line, socket_failure
from pool_bench.drivers.network.tls import surreal_context
from pool_bench.drivers.surreal.rpc import check_statements, kind_of_close, kind_of_error, kind_of_status
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.targets.surreal import SurrealTarget

if TYPE_CHECKING:
    from surrealdb.types import Value
    from websockets.exceptions import ConnectionClosed

    from pool_bench.drivers.surreal.client_session import TrackedHttp, TrackingWebSocket

_CLOSE_WAIT_S: Final = 5.0


class SurrealClientConnection(Connection):
    """One connection of the official client behind the driver protocol.

    Attributes:
        raw: the client; whatever is done with it, `reset` undoes what it changed in the session.
        target: what it is connected to.
        credentials: what it signed in with, None where it did not.
    """

    __slots__ = ("_is_leaving", "credentials", "raw", "target")

    def __init__(
        self,
        raw: "TrackingWebSocket | TrackedHttp",
        target: SurrealTarget,
        credentials: dict[str, Any] | None,
    ) -> None:
        self.raw = raw
        self.target = target
        self.credentials = credentials
        self._is_leaving = False

    async def ping(self) -> None:
        """The RPC method `version`: the client's cheapest request.

        Raises:
            ConnectError: the connection is of no further use.
        """
        await self._guarded(self.raw.version(), Phase.QUERY)

    async def execute(self, sql: str, params: "dict[str, Value] | None" = None) -> None:
        """Run the statements of a query; their results are looked at for errors and thrown away.

        Raises:
            ConnectError: a statement failed, or the connection was lost; nothing is ever run again.
        """
        await self.query(sql, params)

    async def query(self, sql: str, params: "dict[str, Value] | None" = None) -> "Value":
        """Run the statements of a query and return the result of the first, as the client does.

        Args:
            sql: SurrealQL.
            params: values for the variables in it.

        Raises:
            ConnectError: a statement failed, whichever, or the connection was lost; nothing is ever run
                again.
        """
        answer = await self._guarded(self.raw.query_raw(sql, params), Phase.QUERY)
        try:
            self.raw.check_response_for_error(answer, "query")
        except Exception as error:
            raise connect_error(error, Phase.QUERY) from error
        results: list[dict[str, Value]] = answer.get("result")
        check_statements(results)
        return results[0]["result"] if results else None

    async def reset(self) -> None:
        """Make the session what it was after `connect`: sign-in, namespace, database, no variables.

        Costs requests only for what was changed, and a password's hashing only where the sign-in was.

        Raises:
            ConnectError: the connection is of no further use.
        """
        if self.is_closed():
            raise ConnectError(FailureKind.CLOSED, Phase.QUERY, "the connection is closed")
        await self._guarded(self._restore(), Phase.QUERY)

    async def _restore(self) -> None:
        from pool_bench.drivers.surreal.client_session import SessionChanges

        raw, target, changes = self.raw, self.target, self.raw.changes
        await raw.tidy()
        sign_in, place = changes.sign_in, changes.place
        if sign_in:
            # Also of what the user's own sign-in brought along: its token, its record.
            await raw.invalidate()
            if self.credentials is not None:
                await raw.signin(self.credentials)
        if sign_in or place:
            if target.namespace is None or target.database is None:
                raise ConnectError(FailureKind.OTHER, Phase.USE, "the client cannot select nothing again")
            await raw.use(target.namespace, target.database)
        raw.changes = SessionChanges()

    async def close(self) -> None:
        """Say goodbye and wait until the server has closed, at most five seconds."""
        self._is_leaving = True
        try:
            async with asyncio.timeout(_CLOSE_WAIT_S):
                await self.raw.close()
        except Exception:
            self.raw.abort()

    def terminate(self) -> None:
        """Close the socket at once."""
        self._is_leaving = True
        self.raw.abort()

    def is_closed(self) -> bool:
        """True once either side is known to have ended."""
        return self.raw.is_lost

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once, in the event loop, when the connection ends without our asking.

        The client has a task for each WebSocket that reads from it; its end is the connection's. Over HTTP
        there is none to watch: see `check_holdable`.
        """
        from pool_bench.drivers.surreal.client_session import TrackingWebSocket

        raw = self.raw
        assert isinstance(raw, TrackingWebSocket)  # noqa: S101  # connections of others are not held
        reader = raw.recv_task

        def tell(_: object = None) -> None:
            if not self._is_leaving:
                lost(_ending(raw))

        if reader is None or reader.done():
            asyncio.get_running_loop().call_soon(tell)
        else:
            reader.add_done_callback(tell)

    async def _guarded(self, request: Any, phase: Phase) -> Any:
        try:
            return await request
        except asyncio.CancelledError:
            # The server goes on with it: what the next user asks for would wait for it, or mix with it.
            self.terminate()
            raise
        except ConnectError:
            raise
        except Exception as error:
            raise connect_error(error, phase) from error


class SurrealClientDriver(Driver):
    """Opens connections of the official client to one SurrealDB; without a user they stay anonymous.

    Args:
        target: where to, and as whom.
        direct: have WebSockets carried by `client_transport.py` instead of what the client itself uses.

    Raises:
        UsageError: the target asks for what the client does not do.
    """

    name: DriverName = "surrealdb"

    def __init__(self, target: SurrealTarget, *, direct: bool = False) -> None:
        # Now, or the first connection would pay for it.
        import pool_bench.drivers.surreal.client_session  # noqa: F401

        self._is_direct = direct and target.is_websocket
        if not self._is_direct and (target.ca_file is not None or not target.verify):
            raise UsageError("the official client trusts the system's authorities; it can be given no other")
        self._tls = surreal_context(target) if self._is_direct and target.is_secure else None
        if (target.namespace is None) != (target.database is None):
            raise UsageError("the official client selects a namespace and a database together")
        self._target = target
        self._credentials = None if target.user is None else client_credentials(target)

    async def connect(self) -> SurrealClientConnection:
        """Open one connection, sign in, select namespace and database; cancelling it leaves no socket.

        Raises:
            ConnectError: it could not be opened.
        """
        from pool_bench.drivers.surreal.client_session import SessionChanges

        target, raw = self._target, self._new_client()
        phase = Phase.CONNECT
        try:
            await raw.connect()
            if self._credentials is not None:
                phase = Phase.SIGNIN
                await raw.signin(self._credentials)
            if target.namespace is not None and target.database is not None:
                phase = Phase.USE
                await raw.use(target.namespace, target.database)
        except BaseException as error:
            raw.abort()
            if isinstance(error, Exception):
                raise connect_error(error, phase) from error
            if isinstance(error, asyncio.CancelledError):
                given_up_in(error, phase)
            raise
        raw.changes = SessionChanges()
        return SurrealClientConnection(raw, target, self._credentials)

    def _new_client(self) -> "TrackingWebSocket | TrackedHttp":
        from pool_bench.drivers.surreal.client_session import TrackedHttp, TrackingWebSocket

        target = self._target
        if self._is_direct:
            from pool_bench.drivers.surreal.client_transport import FastWebSocket

            return FastWebSocket(target, self._tls)
        return TrackingWebSocket(target.url) if target.is_websocket else TrackedHttp(target.url)


def check_holdable(target: SurrealTarget) -> None:
    """Make sure that the official client has connections to `target` that can be held.

    Raises:
        UsageError: it has none.
    """
    if not target.is_websocket:
        raise UsageError(
            f"--driver surrealdb holds nothing over {target.scheme}://: the official client opens a "
            "connection for each request"
        )


def client_credentials(target: SurrealTarget) -> dict[str, Any]:
    """The sign-in of `target` as the official client takes it.

    Raises:
        UsageError: there is no user or no password, or no place at the user's level.
    """
    names = {"user": "username", "pass": "password", "ns": "namespace", "db": "database"}
    return {names[name]: value for name, value in target.credentials().items()}


def _kind_of_closed(error: "ConnectionClosed") -> FailureKind:
    return kind_of_close(None if error.rcvd is None else error.rcvd.code)


def _ending(raw: "TrackingWebSocket") -> ConnectError:
    """Why a connection has ended."""
    from websockets.protocol import State

    own = raw.socket
    if own is None or own.state is not State.CLOSED:
        return ConnectError(FailureKind.CLOSED, Phase.HOLD, "the client stopped to listen")
    goodbye: Exception = own.protocol.close_exc
    return connect_error(goodbye, Phase.HOLD)


def connect_error(error: Exception, phase: Phase) -> ConnectError:
    """What went wrong in the official client, in this package's terms."""
    import aiohttp
    from surrealdb import errors
    from websockets import exceptions

    message = one_line(error) if str(error) else type(error).__name__
    kind = FailureKind.OTHER
    if isinstance(error, errors.ServerError):
        kind = kind_of_error(error.kind, error.details, message)
    elif isinstance(error.__cause__, StreamError):
        kind = error.__cause__.kind
    elif isinstance(error, errors.ConnectionUnavailableError):
        closed = error.__cause__
        kind = (
            _kind_of_closed(closed) if isinstance(closed, exceptions.ConnectionClosed) else FailureKind.CLOSED
        )
    elif isinstance(error, exceptions.ConnectionClosed):
        kind = _kind_of_closed(error)
    elif isinstance(error, exceptions.InvalidStatus):
        kind = kind_of_status(error.response.status_code)
    elif isinstance(error, (exceptions.InvalidMessage, aiohttp.ServerDisconnectedError)):
        # Nothing came at all, or what came was not HTTP.
        nothing = isinstance(error.__cause__, EOFError) or isinstance(error, aiohttp.ServerDisconnectedError)
        kind = FailureKind.CLOSED if nothing else FailureKind.PROTOCOL
    elif isinstance(error, exceptions.InvalidHandshake):
        kind = FailureKind.PROTOCOL
    elif isinstance(error, aiohttp.ClientResponseError):
        kind = kind_of_status(error.status)
    elif isinstance(error, (socket.gaierror, aiohttp.ClientConnectorDNSError)):
        kind = FailureKind.DNS
    elif isinstance(error, (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError)):
        kind = FailureKind.TLS
    elif isinstance(error, (OSError, ssl.SSLError)):
        kind, message = socket_failure(error)
    elif isinstance(error, errors.UnexpectedResponseError):
        kind = FailureKind.PROTOCOL
    return ConnectError(kind, phase, message)
