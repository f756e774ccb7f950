"""SurrealDB connections with every step of the connect timed: the cheapest honest client there is.

`resolve, tcp, tls, upgrade, signin, use`, then `query` and `close`; over HTTP there is no upgrade, and
signing in and selecting are requests as any other. A step ends when the event loop learnt of the data that
ended it, not when the waiting task ran. A connection has one request under way at a time; one that was given
up in the middle of a request is closed, because the answer could be taken for another's.
"""

import asyncio
import base64
import binascii
import json
import ssl
from collections.abc import Callable
from time import perf_counter_ns, time
from typing import Any, Final, cast

from pool_bench.drivers.base import Connection, Driver, DriverName, ServerInfo, given_up_in
from pool_bench.drivers.network.addresses import SocketEndpoint, literal_endpoint, resolve
from pool_bench.drivers.network.connecting import Tried, connect
from pool_bench.drivers.network.failures import StreamError
from pool_bench.drivers.network.source_addresses import SourceAddresses
from pool_bench.drivers.network.tls import surreal_context
from pool_bench.drivers.surreal.channel import Channel
from pool_bench.drivers.surreal.http_channel import HttpChannel
from pool_bench.drivers.surreal.rpc import check_statements, encode_request, result_of
from pool_bench.drivers.surreal.websocket_channel import WebSocketChannel
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.addresses import label_of
from pool_bench.targets.surreal import AuthMode, SurrealTarget
from pool_bench.units import format_duration

_PING: Final = encode_request("ping")
# A token is renewed when it has this little left.
_TOKEN_RESERVE_S: Final = 60.0
_TOKEN_LIFE_S: Final = 600.0


class SurrealConnection(Connection):
    """One open connection.

    Attributes:
        phases_ns: how long each step took, nanoseconds; `query` and `close` are those of the latest.
    """

    __slots__ = ("_channel", "_tried", "_use", "phases_ns")

    phases_ns: dict[Phase, int]

    def __init__(self, channel: Channel, use: bytes, phases_ns: dict[Phase, int], tried: Tried) -> None:
        self._channel = channel
        self._tried = tried
        self._use = use
        self.phases_ns = phases_ns

    @property
    def address(self) -> str:
        """Where it is open to."""
        return _label(self._tried)

    @property
    def passed_over(self) -> tuple[tuple[str, FailureKind], ...]:
        """The addresses that were tried before, and what was wrong there."""
        return _passed(self._tried)

    async def ping(self) -> None:
        """The RPC method `ping`: a round trip without a query.

        Raises:
            ConnectError: the connection is of no further use.
        """
        await self._call(_PING, Phase.QUERY)

    async def execute(self, sql: str, params: dict[str, object] | None = None) -> None:
        """Run the statements of a query; their results are looked at for errors and thrown away.

        Args:
            sql: SurrealQL.
            params: values for the variables in it.

        Raises:
            ConnectError: a statement failed, or the connection was lost.
            TypeError: a parameter cannot be sent.
        """
        await self.query(sql, params)

    async def query(self, sql: str, params: dict[str, object] | None = None) -> list[Any]:
        """Run the statements of a query and return the result of each, as `cbor2` reads it.

        Args:
            sql: SurrealQL.
            params: values for the variables in it.

        Raises:
            ConnectError: a statement failed, or the connection was lost.
            TypeError: a parameter cannot be sent.
        """
        answer = await self._call(encode_request("query", sql, params or {}), Phase.QUERY)
        check_statements(answer)
        return [statement.get("result") for statement in answer]

    async def version(self) -> str:
        """What the server says it is, such as `surrealdb-3.2.4`.

        Raises:
            ConnectError: the connection is of no further use.
        """
        answer = await self._call(encode_request("version"), Phase.QUERY)
        return answer if isinstance(answer, str) else ""

    async def reset(self) -> None:
        """Select namespace and database as at the beginning.

        Nothing else outlasts a query: variables and sign-ins are changed by methods that this class does
        not have.

        Raises:
            ConnectError: the connection is of no further use.
        """
        await self._call(self._use, Phase.USE)

    async def close(self) -> None:
        """Say goodbye and wait until the server has closed, at most five seconds."""
        if self._channel.is_closed:
            self._channel.abort()
            return
        began_ns = perf_counter_ns()
        await self._channel.close()
        self.phases_ns[Phase.CLOSE] = perf_counter_ns() - began_ns

    def terminate(self) -> None:
        """Close the socket at once."""
        self._channel.abort()

    def is_closed(self) -> bool:
        """True once either side is known to have ended."""
        return self._channel.is_closed

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once, in the event loop, when the connection ends without our asking."""

        channel = self._channel

        def tell(error: StreamError) -> None:
            phase = Phase.QUERY if channel.is_waiting else Phase.HOLD
            lost(ConnectError(error.kind, phase, error.message))

        if channel.is_closed:
            ended = StreamError(FailureKind.CLOSED, "the server closed the connection")
            asyncio.get_running_loop().call_soon(tell, ended)
        else:
            channel.on_end = tell

    async def _call(self, request: bytes, phase: Phase) -> Any:
        began_ns = perf_counter_ns()
        try:
            answer = await self._channel.request(request)
        except StreamError as error:
            raise ConnectError(error.kind, phase, error.message) from error
        self.phases_ns[phase] = self._channel.arrived_ns - began_ns
        return result_of(answer, phase)


class SurrealDriver(Driver):
    """Opens connections to one SurrealDB.

    Args:
        target: where to, and as whom.
        auth: `signin` sends user and password on each connection; `token` does so once and then sends the
            token that it was given, which costs the server no password hashing; `none` stays anonymous.
        connect_timeout_s: bound on one connect, seconds, in addition to the caller's own; the error then
            names the step that took too long.
        resolve_once: look the host's name up once for all connections.
        sources: local addresses to connect from; None leaves the choice to the system.

    Raises:
        UsageError: the target has no user or password to sign in with, or its CA file is unusable.
    """

    name: DriverName = "surreal"

    def __init__(
        self,
        target: SurrealTarget,
        *,
        auth: AuthMode = "signin",
        connect_timeout_s: float | None = None,
        resolve_once: bool = False,
        sources: SourceAddresses | None = None,
    ) -> None:
        self._target = target
        self._auth = auth
        self._connect_timeout_s = connect_timeout_s
        self._sign_in = b"" if auth == "none" else encode_request("signin", target.credentials())
        self._use = encode_request("use", target.namespace, target.database)
        self._tls = surreal_context(target) if target.is_secure else None
        literal = literal_endpoint(target.host, target.port)
        self._endpoints = None if literal is None else [literal]
        self._resolve_once = resolve_once
        self._sources = sources
        self._authenticate = b""
        self._token = ""
        self._token_until_s = 0.0
        self._token_lock = asyncio.Lock()

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps that a connection by this driver can have, in order."""
        has = {
            Phase.RESOLVE: self._endpoints is None and not self._resolve_once,
            Phase.TCP: True,
            Phase.TLS: self._target.is_secure,
            Phase.UPGRADE: self._target.is_websocket,
            Phase.SIGNIN: self._auth != "none",
            Phase.USE: self._target.namespace is not None,
            Phase.QUERY: True,
            Phase.CLOSE: True,
        }
        return tuple(phase for phase, present in has.items() if present)

    async def prepare(self) -> None:
        """Do what is done once for all connections: look up the name where that is enough, and with `token`
        sign in.

        `connect` does it itself where it was not done; its caller's clock would then count it.

        Raises:
            ConnectError: looking up or signing in failed.
        """
        if self._resolve_once and self._endpoints is None:
            try:
                self._endpoints = await resolve(self._target.host, self._target.port)
            except StreamError as error:
                raise ConnectError(error.kind, Phase.RESOLVE, error.message) from error
        if self._auth != "token":
            return
        async with self._token_lock:
            if time() < self._token_until_s:
                return
            # For what signing in answers; the connection was only for that.
            attempt = await self._bounded(self._sign_in, "", use=False)
            self._token = attempt.token
            await attempt.opened.close()
            self._authenticate = encode_request("authenticate", self._token)
            self._token_until_s = _expiry_s(self._token) - _TOKEN_RESERVE_S

    async def connect(self) -> SurrealConnection:
        """Open one connection; cancelling it leaves no socket.

        Raises:
            ConnectError: it could not be opened; it names the step that failed.
        """
        await self.prepare()
        if self._auth == "token":
            attempt = await self._bounded(self._authenticate, self._token, use=True)
        else:
            attempt = await self._bounded(self._sign_in, "", use=True)
        return attempt.opened

    async def _bounded(self, sign_in: bytes, token: str, *, use: bool) -> "_Connect":
        attempt = _Connect(self._target, self._endpoints, self._tls, self._sources)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await attempt.run(sign_in, self._use, token, use=use)
        except ConnectError as error:
            attempt.placed(error)
            raise
        except StreamError as error:
            raise attempt.placed(ConnectError(error.kind, attempt.phase, error.message)) from error
        except TimeoutError:
            limit = format_duration(self._connect_timeout_s or 0.0)
            message = f"no end after {limit}"
            raise attempt.placed(ConnectError(FailureKind.TIMEOUT, attempt.phase, message)) from None
        except asyncio.CancelledError as given_up:
            given_up_in(given_up, attempt.phase)
            raise
        return attempt


class _Connect:
    """One connect, from the name to the selected database.

    Attributes:
        phase: the step it is at.
        token: what signing in answered.
        opened: the connection, once it is open.
    """

    def __init__(
        self,
        target: SurrealTarget,
        endpoints: list[SocketEndpoint] | None,
        tls: ssl.SSLContext | None,
        sources: SourceAddresses | None,
    ) -> None:
        self._target = target
        self._endpoints = endpoints
        self._tls = tls
        self._sources = sources
        self._phases_ns: dict[Phase, int] = {}
        self._tried = Tried()
        self.phase = Phase.RESOLVE
        self.token = ""
        self.opened: SurrealConnection

    async def run(self, sign_in: bytes, use_request: bytes, token: str, *, use: bool) -> None:
        """Go through all steps.

        Args:
            sign_in: the request that signs in; empty for none.
            use_request: the request that selects.
            token: what HTTP sends along from the first request on; empty for what `sign_in` answers.
            use: whether to select.

        Raises:
            StreamError: the connection failed.
            ConnectError: the server refused something.
        """
        target = self._target
        channel: Channel = WebSocketChannel(target) if target.is_websocket else HttpChannel(target)
        try:
            await self._open(channel)
            if sign_in:
                channel.signed_in(token)
                result = await self._request(channel, sign_in, Phase.SIGNIN)
                self.token = _access_token(result) or token
                channel.signed_in(self.token)
            if use and target.namespace is not None:
                await self._request(channel, use_request, Phase.USE)
                channel.selected(target.namespace, target.database)
        except BaseException:
            channel.abort()
            raise
        self.opened = SurrealConnection(channel, use_request, self._phases_ns, self._tried)

    def placed(self, error: ConnectError) -> ConnectError:
        """`error` with the addresses that this connect has come to."""
        error.address, error.passed_over = _label(self._tried), _passed(self._tried)
        return error

    async def _open(self, channel: Channel) -> None:
        target = self._target
        endpoints = self._endpoints
        if endpoints is None:
            began_ns = perf_counter_ns()
            endpoints = await resolve(target.host, target.port)
            self._phases_ns[Phase.RESOLVE] = perf_counter_ns() - began_ns
        self.phase = Phase.TCP
        began_ns = perf_counter_ns()
        sock = await connect(endpoints, self._sources, self._tried)
        self._phases_ns[Phase.TCP] = perf_counter_ns() - began_ns
        await channel.stream.open(sock)
        if self._tls is not None:
            self.phase = Phase.TLS
            began_ns = perf_counter_ns()
            await channel.stream.start_tls(self._tls, target.host)
            self._phases_ns[Phase.TLS] = channel.stream.arrived_ns - began_ns
        if channel.upgrades:
            self.phase = Phase.UPGRADE
            began_ns = perf_counter_ns()
            await channel.open()
            self._phases_ns[Phase.UPGRADE] = channel.arrived_ns - began_ns

    async def _request(self, channel: Channel, request: bytes, phase: Phase) -> Any:
        self.phase = phase
        began_ns = perf_counter_ns()
        answer = await channel.request(request)
        self._phases_ns[phase] = channel.arrived_ns - began_ns
        return result_of(answer, phase)


async def ask_surreal(target: SurrealTarget, *, auth: AuthMode = "signin") -> ServerInfo:
    """Connect once and let the server say what it is.

    Raises:
        ConnectError: no connection could be opened.
        UsageError: the target cannot be used like this.
    """
    connection = await SurrealDriver(target, auth=auth).connect()
    try:
        return info_of(await connection.version())
    finally:
        await connection.close()


def info_of(answer: str) -> ServerInfo:
    """What a server is that answers this to the method `version`."""
    version = answer.removeprefix("surrealdb-")
    number, plus, _build = version.partition("+embedded")
    if plus:
        # The engine in a process of ours is not the program `surreal`; nobody shall take it for that.
        return ServerInfo("embedded SurrealDB engine", number, pooled=False)
    return ServerInfo("SurrealDB", version, pooled=False)


def _label(tried: Tried) -> str:
    return "" if tried.at is None else label_of(tried.at)


def _passed(tried: Tried) -> tuple[tuple[str, FailureKind], ...]:
    return tuple((label_of(address), kind) for address, kind in tried.passed)


def _access_token(result: object) -> str:
    """The token in what `signin` answers: itself, or one of two where the server gives refresh tokens."""
    if isinstance(result, str):
        return result
    if isinstance(result, dict) and isinstance(result.get("access"), str):
        return cast("str", result["access"])
    return ""


def _expiry_s(token: str) -> float:
    """When a JSON Web Token expires (RFC 7519, section 4.1.4), seconds since the epoch."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return time() + _TOKEN_LIFE_S
