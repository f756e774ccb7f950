"""One connect cycle over one non-blocking socket at a time, as a machine that somebody else drives.

`Dial` opens a connection (trying further addresses and TLS modes as libpq does), optionally runs a
query, and closes; or stops once ready. It never waits: `begin` and `step` say what they wait for,
and whoever drives it (the cycle engine, or a coroutine) calls `step` when that has come. Arrivals
are stamped with the time the driver passes in, the time the kernel reported them; sends with the
time they are made. What lies between is this process, and is in the total but in no phase.
"""

import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.failures import server_error, socket_failure
from pool_bench.drivers.plan import IN_PROGRESS, STREAM, Endpoint, WirePlan
from pool_bench.drivers.tls import ALPN_PROTOCOL, server_end_point, wrap
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import (
    NEED_DATA,
    AuthenticationError,
    Authenticator,
    Connection,
    NeedData,
    RemoteProtocolError,
)
from pool_bench.pgwire import events as ev

# What a dial waits for; the values are those of select.EPOLLIN and EPOLLOUT.
DONE: Final = 0
READ: Final = 1
WRITE: Final = 4

_RECEIVE_BYTES: Final = 8192
# A server reports about fifteen parameters; more than this in one start-up is an attack on our memory.
_MAX_PARAMETERS: Final = 256
_MAX_PARAMETER_CHARACTERS: Final = 100_000
_SSL_REQUEST: Final = ev.SSLRequest()
_TERMINATE: Final = ev.Terminate()
_ABSENT: Final = -1

_certificate_hash = lru_cache(maxsize=64)(server_end_point)


class Dial:
    """One connect cycle. Phase times are nanoseconds, -1 where a phase did not happen.

    Args:
        plan: where to and how.
        started_ns: when the operation began, by `perf_counter_ns`.
        stop_at_ready: end once the connection is ready, with the socket open.
        before_close: called with the file descriptor before it is closed.
        outbox: takes the dial where `step` has something to send, for a later `flush`; without it,
            `step` sends at once.
    """

    __slots__ = (
        "_authenticator",
        "_before_close",
        "_endpoint",
        "_endpoints",
        "_first_error",
        "_handler",
        "_mark_at_send",
        "_mark_ns",
        "_outbox",
        "_plan",
        "_query_error",
        "_stop_at_ready",
        "_tls",
        "_tls_wanted",
        "_unsent",
        "attempt",
        "auth_ns",
        "backend",
        "close_ns",
        "error",
        "fd",
        "parameters",
        "phase",
        "query_ns",
        "ready_ns",
        "resolve_ns",
        "sock",
        "started_ns",
        "tcp_ns",
        "tls_ns",
        "total_ns",
        "wire",
    )

    def __init__(
        self,
        plan: WirePlan,
        started_ns: int,
        *,
        stop_at_ready: bool = False,
        before_close: Callable[[int], None] | None = None,
        outbox: "list[Dial] | None" = None,
    ) -> None:
        self._plan = plan
        self._outbox = outbox
        self._before_close = before_close
        self._stop_at_ready = stop_at_ready
        self._endpoints: tuple[Endpoint, ...] = ()
        self._endpoint = 0
        self._first_error: ConnectError | None = None
        self._tls_wanted = False
        self._tls: ssl.SSLSocket | None = None
        # A plain function, not a bound method, which would make a reference cycle of every dial.
        self._handler: Callable[[Dial, int, bool], int] = Dial._connected
        self._authenticator: Authenticator | None = None
        self._query_error: ConnectError | None = None
        self._unsent = b""
        self._mark_ns = started_ns
        self._mark_at_send = False
        # Counts sockets: a new one may have the file descriptor of the one before.
        self.attempt = 0
        self.sock: socket.SocketType | None = None
        self.fd = -1
        self.wire = Connection(reports=self._stop_at_ready)
        self.phase = Phase.RESOLVE
        self.error: ConnectError | None = None
        self.parameters: dict[str, str] | None = {} if stop_at_ready else None
        self.backend: ev.BackendKeyData | None = None
        self.started_ns = started_ns
        self.total_ns = 0
        self.resolve_ns = self.tls_ns = self.query_ns = self.close_ns = _ABSENT
        self.tcp_ns = self.auth_ns = self.ready_ns = 0

    def begin(self, endpoints: tuple[Endpoint, ...], now_ns: int) -> int:
        """Start connecting to the first of `endpoints`; returns what to wait for."""
        self._endpoints = endpoints
        if self._plan.endpoints is None:
            self.resolve_ns = now_ns - self.started_ns
        self._tls_wanted = self._plan.tls_first
        return self._connect(now_ns)

    def step(self, now_ns: int, hung_up: bool = False) -> int:
        """Go on after what was waited for has come; returns what to wait for next.

        Args:
            now_ns: when it came, by `perf_counter_ns`.
            hung_up: the peer has closed its side.
        """
        try:
            # Once the peer has closed its side, what it said before counts, not what it will not read.
            if self._unsent and not hung_up:
                return self._flush()
            return self._handler(self, now_ns, hung_up)
        except (BlockingIOError, ssl.SSLWantReadError):
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError as error:
            return self._os_error(error, now_ns)
        except RemoteProtocolError as error:
            return self._fail(FailureKind.PROTOCOL, str(error), now_ns)
        except AuthenticationError as error:
            # Never another way: a server that fails to prove itself would get a second chance without TLS.
            self.error = ConnectError(FailureKind.AUTH, self.phase, str(error))
            return self._finish(now_ns)

    def flush(self) -> int:
        """Send what `step` has put off; returns what to wait for next."""
        try:
            return self._flush()
        except OSError as error:
            return self._os_error(error, perf_counter_ns())

    def abort(self, kind: FailureKind, message: str, now_ns: int) -> None:
        """Give up from outside: `error` says why, the socket is closed."""
        # A query that failed is the reason even where the server then does not let go of us.
        self.error = self._query_error or ConnectError(kind, self.phase, message)
        self._finish(now_ns)

    def _connect(self, now_ns: int) -> int:
        endpoint = self._endpoints[self._endpoint]
        self.phase = Phase.TCP
        self.attempt += 1
        self._handler = Dial._connected
        self._mark_ns = now_ns
        # Nagle's algorithm is left on: this is a strict exchange of small messages, in which nothing
        # is ever unacknowledged when the next one is sent.
        try:
            sock = self.sock = socket.SocketType(endpoint.family, STREAM)
            self.fd = sock.fileno()
            if STREAM == socket.SOCK_STREAM:
                sock.setblocking(False)
            if self._plan.sources is not None:
                self._plan.sources.bind(sock, endpoint.family)
            outcome = sock.connect_ex(endpoint.address)
            if outcome not in IN_PROGRESS:
                # Not raised: as an exception, EAGAIN would be the BlockingIOError of a send.
                return self._os_error(OSError(outcome, os.strerror(outcome)), perf_counter_ns())
            if not endpoint.is_near or self._plan.target.sslnegotiation == "direct":
                return WRITE
            return self._greet(perf_counter_ns())
        except BlockingIOError:
            return WRITE
        except OSError as error:
            return self._os_error(error, perf_counter_ns())

    def _connected(self, now_ns: int, hung_up: bool) -> int:
        outcome = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if outcome:
            raise OSError(outcome, os.strerror(outcome))
        try:
            return self._greet(now_ns)
        except BlockingIOError:
            return WRITE

    @property
    def _socket(self) -> socket.SocketType:
        if self.sock is None:
            raise OSError(errno.EBADF, "the socket is closed")
        return self.sock

    def _greet(self, now_ns: int) -> int:
        """Send the first message; raises BlockingIOError where the socket is not connected yet."""
        sock = self._socket
        target = self._plan.target
        if not self._tls_wanted or self._endpoints[self._endpoint].family == socket.AF_UNIX:
            startup = self.wire.send(self._plan.startup)
            following = Phase.AUTH
        elif target.sslnegotiation == "direct":
            self._end_tcp(now_ns, Phase.TLS)
            return self._wrap()
        else:
            startup = self.wire.send(_SSL_REQUEST)
            following = Phase.TLS
        self._handler = Dial._receive
        try:
            sent = sock.send(startup)
        except BlockingIOError:
            self.wire = Connection(reports=self._stop_at_ready)
            self._handler = Dial._connected
            raise
        self._end_tcp(now_ns, following)
        if sent < len(startup):
            self._unsent = startup[sent:]
            return WRITE
        return READ

    def _end_tcp(self, now_ns: int, following: Phase) -> None:
        self.tcp_ns += now_ns - self._mark_ns
        self._mark_ns = now_ns
        self.phase = following

    def _wrap(self) -> int:
        context = self._plan.tls
        if context is None:
            raise RemoteProtocolError("the server turned to TLS unasked")
        host = self._endpoints[self._endpoint].host
        name = host.name if self._plan.target.sslsni or context.check_hostname else None
        self.sock = self._tls = wrap(context, self._socket, name)
        self._handler = Dial._shake_hands
        return self._shake_hands(perf_counter_ns(), False)

    def _shake_hands(self, now_ns: int, hung_up: bool) -> int:
        tls = self._tls
        if tls is None:
            raise RemoteProtocolError("handshake without a TLS socket")
        tls.do_handshake()
        if self._plan.target.sslnegotiation == "direct" and tls.selected_alpn_protocol() != ALPN_PROTOCOL:
            return self._fail(FailureKind.TLS, "the server does not offer PostgreSQL over direct TLS", now_ns)
        # Not the time of arrival: computing the keys is a part of what TLS costs.
        now_ns = perf_counter_ns()
        self.tls_ns = max(self.tls_ns, 0) + now_ns - self._mark_ns
        return self._start_up(now_ns)

    def _start_up(self, now_ns: int) -> int:
        self._mark_ns = now_ns
        self.phase = Phase.AUTH
        self._handler = Dial._receive
        return self._write(self.wire.send(self._plan.startup))

    def _write(self, data: bytes) -> int:
        self._unsent = data
        if self._outbox is None:
            return self._flush()
        self._outbox.append(self)
        return READ

    def _flush(self) -> int:
        """Send what is left to send; a blocked socket leaves it for the next step."""
        data = self._unsent
        if self._mark_at_send:
            self._mark_at_send = False
            self._mark_ns = perf_counter_ns()
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return WRITE
        self._unsent = data[sent:]
        return WRITE if self._unsent else READ

    def _receive(self, now_ns: int, hung_up: bool) -> int:
        tls = self._tls
        while True:
            sock = self.sock
            if sock is None:
                return DONE
            self.wire.receive_data(sock.recv(_RECEIVE_BYTES))
            want = self._digest(now_ns)
            # Decrypted bytes wait inside the TLS object, where no poll sees them.
            if want != READ or tls is None or not tls.pending():
                return want

    def _digest(self, now_ns: int) -> int:
        wire = self.wire
        want = READ
        while True:
            event = wire.next_event()
            if event is NEED_DATA:
                return want
            kind = type(event)
            if kind is ev.ReadyForQuery:
                return self._ready(now_ns)
            if kind is ev.AuthenticationOk:
                self._authenticated(now_ns)
            elif kind is ev.BackendKeyData or kind is ev.ParameterStatus:
                self._note(event)
            else:
                want = self._unusual(event, now_ns)
                if want == DONE or self.wire is not wire:
                    return want

    def _note(self, event: ev.ServerEvent | NeedData) -> None:
        match event:
            case ev.ParameterStatus(name, value) if self.parameters is not None:
                self.parameters[name] = value
                size = sum(len(known) + len(setting) for known, setting in self.parameters.items())
                if size > _MAX_PARAMETER_CHARACTERS or len(self.parameters) > _MAX_PARAMETERS:
                    raise RemoteProtocolError("the server reports parameters without an end")
            case ev.BackendKeyData():
                self.backend = event

    def _authenticated(self, now_ns: int) -> None:
        if self._endpoints[self._endpoint].credentials.channel_binding == "require":
            self._answer(ev.AuthenticationOk())
        self.auth_ns += now_ns - self._mark_ns
        self._mark_ns = now_ns
        self.phase = Phase.READY

    def _unusual(self, event: ev.ServerEvent, now_ns: int) -> int:
        match event:
            case ev.SSLAnswer(accepted):
                return self._tls_answered(accepted, now_ns)
            case ev.ErrorResponse():
                return self._server_error(event, now_ns)
            case ev.ConnectionClosed(clean):
                if self._query_error is not None:
                    return self._conclude(self._query_error, now_ns)
                where = "" if clean else " in the middle of a message"
                return self._fail(FailureKind.CLOSED, f"the server closed the connection{where}", now_ns)
            case ev.NegotiateProtocolVersion(minor, unrecognized):
                if minor > self._plan.startup.minor or unrecognized:
                    raise RemoteProtocolError("the server negotiates what was not asked for")
                return READ
            case ev.NoticeResponse() | ev.NotificationResponse() | ev.CommandComplete():
                return READ
        reply = self._answer(event)
        return READ if reply is None else self._write(self.wire.send(reply))

    def _answer(self, request: ev.ServerEvent) -> ev.ClientEvent | None:
        if self._authenticator is None:
            certificate_hash = None
            if self._tls is not None:
                certificate_hash = _certificate_hash(self._tls.getpeercert(binary_form=True) or b"")
            credentials = self._endpoints[self._endpoint].credentials
            self._authenticator = Authenticator(credentials, certificate_hash)
        return self._authenticator.answer(request)

    def _tls_answered(self, accepted: bool, now_ns: int) -> int:
        if accepted:
            return self._wrap()
        self.tls_ns = max(self.tls_ns, 0) + now_ns - self._mark_ns
        if self._plan.target.sslmode != "prefer":
            return self._fail(FailureKind.TLS, "the server does not support TLS, but it is required", now_ns)
        return self._start_up(perf_counter_ns())

    def _server_error(self, event: ev.ErrorResponse, now_ns: int) -> int:
        if self.phase is Phase.CLOSE:
            return READ
        error = server_error(event, self.phase)
        if self.phase is Phase.QUERY:
            self._query_error = error
            return READ
        return self._fail(error.kind, error.message, now_ns, error.sqlstate)

    def _ready(self, now_ns: int) -> int:
        if self.phase is Phase.READY:
            self.ready_ns += now_ns - self._mark_ns
            if self._stop_at_ready:
                self.total_ns = now_ns - self.started_ns
                return DONE
            query = self._plan.query
            if query is not None:
                self.phase = Phase.QUERY
                self._mark_at_send = True
                return self._write(self.wire.send(query))
        elif self.phase is Phase.QUERY:
            self.query_ns = now_ns - self._mark_ns
        self.phase = Phase.CLOSE
        self._handler = Dial._closing
        self._mark_at_send = True
        return self._write(self.wire.send(_TERMINATE))

    def _closing(self, now_ns: int, hung_up: bool) -> int:
        # The server closes first: its own work for this connection is over then, and the local port
        # is free at once instead of a minute later (TIME_WAIT stays with the side that closes first).
        if not hung_up and self._socket.recv(_RECEIVE_BYTES):
            return READ
        return self._conclude(self._query_error, now_ns)

    def _conclude(self, error: ConnectError | None, now_ns: int) -> int:
        if error is None:
            self.close_ns = now_ns - self._mark_ns
        self.error = error
        return self._finish(now_ns)

    def _os_error(self, error: OSError, now_ns: int) -> int:
        if self.phase is Phase.CLOSE:
            return self._conclude(self._query_error, now_ns)
        kind, reason = socket_failure(error)
        return self._fail(kind, reason, now_ns)

    def _fail(self, kind: FailureKind, message: str, now_ns: int, sqlstate: str | None = None) -> int:
        """Try another way where libpq would; else end with an error."""
        # File descriptors that have run out are missing for any other host too.
        refused_host = kind is FailureKind.SERVER_STARTING or (
            self.phase is Phase.TCP and kind is not FailureKind.CLIENT_FDS
        )
        if refused_host and self._endpoint + 1 < len(self._endpoints):
            self._endpoint += 1
            self._first_error = None
            self._tls_wanted = self._plan.tls_first
            return self._again(now_ns)
        error = ConnectError(kind, self.phase, message, sqlstate=sqlstate)
        if self._other_tls_mode(kind):
            self._first_error = error
            return self._again(now_ns)
        first = self._first_error
        # A wrong password, or a refusal that made us ask for TLS, says more than how the other way ended.
        if first is not None and (kind is FailureKind.TLS or first.sqlstate == "28P01"):
            error = first
        self.error = error
        return self._finish(now_ns)

    def _other_tls_mode(self, kind: FailureKind) -> bool:
        """Switch TLS on (sslmode=allow) or off (prefer) once, where that may have been the reason."""
        mode = self._plan.target.sslmode
        if self._plan.tls is None:
            return False
        refused = self.phase is Phase.AUTH and kind is FailureKind.AUTH
        if mode == "allow" and not self._tls_wanted and refused:
            self._tls_wanted = self._endpoints[self._endpoint].family != socket.AF_UNIX
            return self._tls_wanted
        if mode == "prefer" and self._tls is not None and (refused or self.phase is Phase.TLS):
            self._tls_wanted = False
            return True
        return False

    def _again(self, now_ns: int) -> int:
        spent = now_ns - self._mark_ns
        if self.phase is Phase.TCP:
            self.tcp_ns += spent
        elif self.phase is Phase.TLS:
            self.tls_ns = max(self.tls_ns, 0) + spent
        else:
            self.auth_ns += spent
        self._close_socket()
        self.wire = Connection(reports=self._stop_at_ready)
        self._authenticator = None
        self._tls = None
        return self._connect(perf_counter_ns())

    def _finish(self, now_ns: int) -> int:
        self.total_ns = now_ns - self.started_ns
        self._close_socket()
        return DONE

    def _close_socket(self) -> None:
        sock, self.sock = self.sock, None
        if self._unsent:
            self._unsent = b""
            if self._outbox is not None and self in self._outbox:
                self._outbox.remove(self)
        if sock is not None:
            if self._before_close is not None:
                self._before_close(self.fd)
            sock.close()
