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
from contextlib import suppress
from functools import lru_cache
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.network.failures import server_error
from pool_bench.drivers.network.local_ports import IN_PROGRESS
from pool_bench.drivers.network.poller import CONNECT, HUNG_UP, READ, WRITE
from pool_bench.drivers.network.tls import ALPN_PROTOCOL, server_end_point, wrap
from pool_bench.drivers.wire.farewell import DONE, Ending
from pool_bench.drivers.wire.plan import STREAM, Endpoint, WirePlan
from pool_bench.drivers.wire.retries import Failing
from pool_bench.drivers.wire.routes import ABSENT, SessionCheck
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import (
    NEED_DATA,
    AuthenticationError,
    Authenticator,
    Connection,
    RemoteProtocolError,
    State,
    is_known_welcome,
)
from pool_bench.pgwire import events as ev

_RECEIVE_BYTES: Final = 8192
_SSL_REQUEST: Final = ev.SSLRequest()
_TERMINATE: Final = ev.Terminate()
# Where nobody tells that a connect has failed, the socket has to be asked.
_ASKS: Final = not HUNG_UP

# Members by names of their own: to look one up in its enumeration takes Python 3.11 a fifth of a microsecond.
_RESOLVE: Final = Phase.RESOLVE
_TCP: Final = Phase.TCP
_TLS: Final = Phase.TLS
_AUTH: Final = Phase.AUTH
_READY: Final = Phase.READY
_QUERY: Final = Phase.QUERY
_CLOSE: Final = Phase.CLOSE
_NEW: Final = State.NEW
_TLS_ASKED: Final = State.TLS_ASKED
_STARTING: Final = State.STARTING
_IDLE: Final = State.READY

_certificate_hash = lru_cache(maxsize=64)(server_end_point)


class Dial(Failing):
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
        "_handler",
        "_mark_at_send",
        "_outbox",
        "_reports",
        "_stop_at_ready",
        "attempt",
        "query_ns",
    )

    _handler: "Callable[[Dial, int, int], int]"
    # Counts sockets: a new one may have the file descriptor of the one before.
    attempt: int

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
        self._stop_at_ready = self._reports = stop_at_ready
        self._endpoints = ()
        self._unsent = b""
        self._wire_state = _NEW
        self.phase = _RESOLVE
        # A plain function, not a bound method, which would make a reference cycle of every dial.
        self._handler = Dial._connected
        # In chains, which take half of the time.
        self.started_ns = self.since_ns = self._mark_ns = started_ns
        self._tls_wanted = self._mark_at_send = self.closed_by_us = self._ends_next = self.edge = False
        self._endpoint = self.attempt = self.total_ns = self._ended_ns = 0
        self.tcp_ns = self.auth_ns = self.ready_ns = 0
        self.resolve_ns = self.earlier_ns = self.tls_ns = self.query_ns = self.close_ns = self.fd = ABSENT
        self.sock = self.error = self.passed = self.backend = self.parameters = None
        self._session = self._wire = self._tls = None
        self._authenticator = self._first_error = self._query_error = None
        attrs = plan.target.target_session_attrs
        if attrs != "any":
            self._session = SessionCheck(attrs)
            self._reports = True
        if self._reports:
            self.parameters = {}

    @property
    def wire(self) -> Connection:
        """The connection's protocol, made once it is needed: to know an answer by heart takes none."""
        wire = self._wire
        if wire is None:
            wire = self._wire = Connection(reports=self._reports)
            wire.state = self._wire_state
        return wire

    def begin(self, endpoints: tuple[Endpoint, ...], now_ns: int) -> int:
        """Start connecting to the first of `endpoints`; returns what to wait for."""
        self._endpoints = endpoints
        if self._plan.endpoints is None:
            self.resolve_ns = now_ns - self.started_ns
        self._tls_wanted = self._plan.tls_first
        return self._connect(now_ns)

    def step(self, now_ns: int, events: int = 0) -> int:
        """Go on after what was waited for has come; returns what to wait for next.

        Args:
            now_ns: when it came, by `perf_counter_ns`.
            events: what came, as far as that is known: READ, WRITE, HUNG_UP.
        """
        try:
            # Once the peer has closed its side, what it said before counts, not what it will not read.
            if self._unsent and not events & HUNG_UP:
                return self._flush()
            want = self._handler(self, now_ns, events)
            # An end that was told is not told again, and TLS may leave something unread.
            if self.edge and want == READ and (events & HUNG_UP or self._tls is not None):
                return self._unread()
            return want
        except BlockingIOError:
            return READ
        except ssl.SSLWantReadError:
            return self._unread()
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

    def _connect(self, now_ns: int) -> int:
        endpoint = self._endpoints[self._endpoint]
        plan = self._plan
        ports = plan.ports
        if now_ns >= ports.look_ns:
            ports.look(now_ns)
            now_ns = perf_counter_ns()
        self.phase = _TCP
        self.attempt += 1
        self._handler = Dial._connected
        self._mark_ns = now_ns
        self.edge = False
        # Without TLS, Nagle's algorithm is left on: this is a strict exchange of small messages, in which
        # nothing is ever unacknowledged when the next one is sent. With TLS it is not: `wrap` sees to that.
        try:
            sock = self.sock = socket.SocketType(endpoint.family, STREAM)
            self.fd = sock.fileno()
            if STREAM == socket.SOCK_STREAM:
                sock.setblocking(False)
            source = "" if plan.sources is None else plan.sources.bind(sock, endpoint.family)
            if ports.crowded:
                outcome = ports.connect_ex(sock, endpoint.family, endpoint.address, source)
            else:
                outcome = sock.connect_ex(endpoint.address)
            if outcome not in IN_PROGRESS:
                # Not raised: as an exception, EAGAIN would be the BlockingIOError of a send.
                return self._os_error(OSError(outcome, os.strerror(outcome)), perf_counter_ns())
            if not endpoint.is_near:
                self.edge = True
                return CONNECT
            if plan.target.sslnegotiation == "direct":
                return WRITE
            return self._send_first(sock, perf_counter_ns())
        except BlockingIOError:
            return WRITE
        except OSError as error:
            return self._os_error(error, perf_counter_ns())

    def _connected(self, now_ns: int, events: int) -> int:
        if events & HUNG_UP or _ASKS or self._plan.target.sslnegotiation == "direct":
            outcome = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                raise OSError(outcome, os.strerror(outcome))
        try:
            want = self._send_first(self._socket, now_ns)
            # A server that speaks unasked has done so before we listen.
            return self._unread() if want == READ and events & READ else want
        except BlockingIOError:
            return WRITE

    @property
    def _socket(self) -> socket.SocketType:
        if self.sock is None:
            raise OSError(errno.EBADF, "the socket is closed")
        return self.sock

    def _send_first(self, sock: socket.SocketType, now_ns: int) -> int:
        """Send the first message; raises BlockingIOError where the socket is not connected yet."""
        plan = self._plan
        if not self._tls_wanted or self._endpoints[self._endpoint].family == socket.AF_UNIX:
            startup = plan.startup.encoded
            sent = sock.send(startup)
            self._wire_state = _STARTING
            self._handler = Dial._welcomed
            self.phase = _AUTH
        elif plan.target.sslnegotiation == "direct":
            self.tcp_ns += now_ns - self._mark_ns
            self._mark_ns = now_ns
            self.phase = _TLS
            return self._wrap()
        else:
            startup = _SSL_REQUEST.encoded
            sent = sock.send(startup)
            self._wire_state = _TLS_ASKED
            self._handler = Dial._offered
            self.phase = _TLS
        self.tcp_ns += now_ns - self._mark_ns
        self._mark_ns = now_ns
        if sent < len(startup):
            self._unsent = startup[sent:]
            return WRITE
        return READ

    def _wrap(self) -> int:
        context = self._plan.tls
        if context is None:
            raise RemoteProtocolError("the server turned to TLS unasked")
        host = self._endpoints[self._endpoint].host
        name = host.name if self._plan.target.sslsni or context.check_hostname else None
        self.sock = self._tls = wrap(context, self._socket, name)
        self._handler = Dial._do_handshake
        return self._do_handshake(perf_counter_ns(), 0)

    def _do_handshake(self, now_ns: int, events: int) -> int:
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
        self.phase = _AUTH
        self._handler = Dial._welcomed
        self._wire, self._wire_state = None, _STARTING
        return self._write(self._plan.startup.encoded)

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
        if self._unsent:
            return WRITE
        if self._ends_next:
            self._ends_next = False
            self._half_close()
        return READ

    def _offered(self, now_ns: int, events: int) -> int:
        """The answer to whether the server speaks TLS: mostly one byte."""
        self._handler = Dial._receive
        data = self._socket.recv(_RECEIVE_BYTES)
        return self._tls_answered(False, now_ns) if data == b"N" else self._take(data, now_ns)

    def _welcomed(self, now_ns: int, events: int) -> int:
        """The first answer to the start-up message: mostly, but for the key, what others were answered."""
        self._handler = Dial._receive
        sock = self.sock
        if sock is None or self._tls is not None or self._plan.target.channel_binding == "require":
            return self._receive(now_ns, events)
        data = sock.recv(_RECEIVE_BYTES)
        if is_known_welcome(data) and not self._reports:
            self._wire, self._wire_state = None, _IDLE
            self.auth_ns += now_ns - self._mark_ns
            self._mark_ns = now_ns
            self.phase = _READY
            return self._ready(now_ns)
        return self._take(data, now_ns)

    def _take(self, data: bytes, now_ns: int) -> int:
        self.wire.receive_data(data)
        want = self._digest(now_ns)
        return self._unread() if want == READ and len(data) == _RECEIVE_BYTES else want

    def _receive(self, now_ns: int, events: int) -> int:
        tls = self._tls
        while True:
            sock = self.sock
            if sock is None:
                return DONE
            want = self._take(sock.recv(_RECEIVE_BYTES), now_ns)
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
                self._on_parameter(event)
            else:
                want = self._on_other_event(event, now_ns)
                if want == DONE or self._wire is not wire:
                    return want

    def _authenticated(self, now_ns: int) -> None:
        if self._endpoints[self._endpoint].credentials.channel_binding == "require":
            self._answer(ev.AuthenticationOk())
        self.auth_ns += now_ns - self._mark_ns
        self._mark_ns = now_ns
        self.phase = _READY

    def _on_other_event(self, event: ev.ServerEvent, now_ns: int) -> int:
        match event:
            case ev.SSLAnswer(accepted):
                return self._tls_answered(accepted, now_ns)
            case ev.ErrorResponse():
                return self._server_error(event, now_ns)
            case ev.ConnectionClosed(clean):
                if self._query_error is not None:
                    return self._closed(now_ns)
                where = "" if clean else " in the middle of a message"
                return self._fail(FailureKind.CLOSED, f"the server closed the connection{where}", now_ns)
            case ev.NegotiateProtocolVersion(minor, unrecognized):
                if minor > self._plan.startup.minor or unrecognized:
                    raise RemoteProtocolError("the server negotiates what was not asked for")
                return READ
            case ev.CommandComplete(rows=rows) if self._session is not None and self._session.asked:
                self._session.answered(rows)
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
        if self.phase is _CLOSE:
            return READ
        error = server_error(event, self.phase)
        if self.phase is _QUERY:
            self._query_error = error
            return READ
        return self._fail(error.kind, error.message, now_ns, error.sqlstate)

    def _ready(self, now_ns: int) -> int:
        if self.phase is _READY:
            if self._session is not None and self._is_choosy and (want := self._look(now_ns)) is not None:
                return want
            self.ready_ns += now_ns - self._mark_ns
            if self._stop_at_ready:
                self.total_ns = now_ns - self.started_ns
                return DONE
            query = self._plan.query
            if query is not None:
                self.phase = _QUERY
                self._mark_at_send = True
                return self._write(self.wire.send(query))
        elif self.phase is _QUERY:
            self.query_ns = now_ns - self._mark_ns
        self.phase = _CLOSE
        self._handler = Dial._closing
        self._mark_at_send = True
        self._ends_next = self._plan.farewell.half_close
        return self._write(_TERMINATE.encoded)

    def _look(self, now_ns: int) -> int | None:
        """See whether this server is of the wanted sort; None where it is, else what to wait for."""
        check = self._session
        if check is None:
            return None
        question = check.question(self.parameters or {})
        if question is not None:
            return self._write(self.wire.send(question))
        complaint = check.complaint()
        if complaint is None:
            return None
        with suppress(OSError):
            self._socket.send(self.wire.send(_TERMINATE))
        return self._fail(FailureKind.SESSION_ATTRS, complaint, now_ns)

    def _close_socket(self) -> None:
        if self._unsent:
            self._unsent = b""
            if self._outbox is not None and self in self._outbox:
                self._outbox.remove(self)
        # Not by super(), which takes longer than all of this.
        Ending._close_socket(self)
