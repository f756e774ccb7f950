"""PostgreSQL's protocol as the server of known behaviour speaks it."""

import socket
import ssl
import struct
from functools import partial
from typing import Final

from pool_bench.errors import Phase
from pool_bench.servers.scripted.behaviour import Behaviour
from pool_bench.servers.scripted.loop import Control, KnownLoop, Peer, serve
from pool_bench.servers.scripted.tls import TlsEnd, make_context

_SSL_REQUEST: Final = 80877103
_GSS_REQUEST: Final = 80877104
# The first byte of a client that does not ask for TLS first (sslnegotiation=direct).
_TLS_HANDSHAKE: Final = b"\x16"


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _parameters(**values: str) -> bytes:
    return b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in values.items())


_AUTH_OK: Final = _message(b"R", struct.pack("!i", 0))
_READY: Final = _message(b"Z", b"I")
# What asyncpg and libpq want to know before they call a connection ready.
_WELCOME: Final = (
    _parameters(
        server_version="17.0",
        server_encoding="UTF8",
        client_encoding="UTF8",
        standard_conforming_strings="on",
        integer_datetimes="on",
        TimeZone="UTC",
    )
    + _message(b"K", struct.pack("!ii", 4711, 42))
    + _READY
)
_COLUMN: Final = b"?column?\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
_RESULT: Final = (
    _message(b"T", struct.pack("!h", 1) + _COLUMN)
    + _message(b"D", struct.pack("!hi", 1, 1) + b"1")
    + _message(b"C", b"SELECT 1\0")
    + _READY
)
_FULL: Final = _message(b"E", b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0")


class _Postgres(KnownLoop):
    def __init__(
        self,
        behaviour: Behaviour,
        listener: socket.socket,
        control: Control,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._context = context
        phases = (Phase.AUTH, Phase.READY, Phase.QUERY, Phase.CLOSE)
        super().__init__(behaviour, listener, control, phases=phases, refusal=_FULL)

    def _begins_tls(self, peer: Peer, data: bytes) -> bool:
        if self._context is None or peer.greeted or peer.received or data[:1] != _TLS_HANDSHAKE:
            return False
        peer.tls = TlsEnd(self._context)
        return True

    def _next(self, peer: Peer, now_ns: int) -> bool:
        """Answer the next message, if it has arrived as a whole."""
        received = peer.received
        head = 1 if peer.greeted else 0
        if len(received) < head + 4:
            return False
        end = head + int.from_bytes(received[head : head + 4], "big")
        if len(received) < max(end, head + 8 if not peer.greeted else 0):
            return False
        peer.received = received[end:]
        peer.since_ns = now_ns
        if not peer.greeted:
            self._greet(peer, int.from_bytes(received[4:8], "big"), now_ns)
        elif received[:1] == b"Q":
            self._after(self._behaviour.query, self._answer, peer, now_ns)
        elif received[:1] == b"X":
            self._after(self._behaviour.close, self._close, peer, now_ns)
        else:
            self._truth.abandoned += 1
            self._drop(peer)
        return True

    def _greet(self, peer: Peer, code: int, now_ns: int) -> None:
        if code == _SSL_REQUEST and self._context is not None and peer.tls is None:
            self._send(peer, b"S")
            peer.tls = TlsEnd(self._context)
            # What came along with the request was not said through TLS (CVE-2021-23214).
            peer.received = b""
            return
        if code in (_SSL_REQUEST, _GSS_REQUEST):
            self._send(peer, b"N")
            return
        peer.greeted = True
        if self._admits(peer):
            self._after(self._auth_delay(peer), self._authenticate, peer, now_ns)

    def _authenticate(self, peer: Peer, now_ns: int) -> None:
        self._columns[Phase.AUTH].add(now_ns - peer.since_ns)
        if self._behaviour.ready is None:
            self._columns[Phase.READY].add(0)
            self._send(peer, _AUTH_OK + _WELCOME)
            return
        peer.since_ns = now_ns
        self._send(peer, _AUTH_OK)
        self._after(self._behaviour.ready, self._make_ready, peer, now_ns)

    def _make_ready(self, peer: Peer, now_ns: int) -> None:
        self._columns[Phase.READY].add(now_ns - peer.since_ns)
        self._send(peer, _WELCOME)

    def _answer(self, peer: Peer, now_ns: int) -> None:
        self._truth.queries += 1
        self._columns[Phase.QUERY].add(now_ns - peer.since_ns)
        self._send(peer, _RESULT)

    def _close(self, peer: Peer, now_ns: int) -> None:
        self._serve_out(peer, now_ns)
        self._drop(peer)


def serve_postgres(behaviour: Behaviour, control: Control, host: str) -> None:
    """Serve it on a free port of `host`, say which, and go on until `control` is closed at the other end."""
    serve(_Postgres, behaviour, control, host)


def serve_postgres_tls(behaviour: Behaviour, control: Control, host: str) -> None:
    """The same, through TLS for those who want it; after the port it says the descriptor of its certificate.

    Raises:
        OSError: no certificate can be made.
    """
    context, certificate = make_context(host)
    serve(partial(_Postgres, context=context), behaviour, control, host, further=(certificate,))
