"""SurrealDB's protocol as the server of known behaviour speaks it: CBOR in WebSockets and in HTTP requests.

As much of them as its clients use: a message is one frame (RFC 6455, section 5.2), a body has a
Content-Length (RFC 9112, section 6.2). Over HTTP nobody says goodbye, so a client that ends its connection
after an answer was served.
"""

import base64
import hashlib
import socket
import struct
from typing import Any, Final

import cbor2

from pool_bench.errors import Phase
from pool_bench.servers.scripted.behaviour import Behaviour, Delay
from pool_bench.servers.scripted.loop import Control, KnownLoop, Peer, serve

_END_OF_HEAD: Final = b"\r\n\r\n"
# RFC 6455, section 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_MOST_BYTES: Final = 1 << 20
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_PHASES: Final = {
    "signin": Phase.SIGNIN,
    "authenticate": Phase.SIGNIN,
    "use": Phase.USE,
}
_RESULTS: Final[dict[str, object]] = {
    "signin": "known",
    "query": [{"status": "OK", "time": "1ns", "result": 1}],
    "version": "surrealdb-0.0.0",
}


class _Surreal(KnownLoop):
    def __init__(self, behaviour: Behaviour, listener: socket.socket, control: Control) -> None:
        phases = (Phase.UPGRADE, Phase.SIGNIN, Phase.USE, Phase.QUERY, Phase.CLOSE)
        super().__init__(behaviour, listener, control, phases=phases, refusal=_FULL)

    def _next(self, peer: Peer, now_ns: int) -> bool:
        """Answer the next message, if it has arrived as a whole."""
        if len(peer.received) > _MOST_BYTES:
            self._break_off(peer)
            return False
        return self._next_frame(peer, now_ns) if peer.greeted else self._next_request(peer, now_ns)

    def _left(self, peer: Peer, now_ns: int) -> None:
        """Note that a client has ended its connection, which over HTTP is its only goodbye."""
        if peer.answered and not peer.greeted:
            # Nothing it measures lies between its last answer and when its going is seen here.
            self._serve_out(peer, peer.since_ns)
        else:
            super()._left(peer, now_ns)

    def _break_off(self, peer: Peer) -> None:
        """End a connection whose client speaks something else."""
        self._truth.abandoned += 1
        self._drop(peer)

    # HTTP

    def _next_request(self, peer: Peer, now_ns: int) -> bool:
        head, end, rest = peer.received.partition(_END_OF_HEAD)
        if not end:
            return False
        headers = _headers(head)
        try:
            length = int(headers.get(b"content-length", b"0"))
        except ValueError:
            self._break_off(peer)
            return False
        if len(rest) < length:
            return False
        peer.received = rest[length:]
        peer.since_ns = now_ns
        if not peer.answered and not self._admits(peer):
            return False
        if b"sec-websocket-key" in headers:
            peer.greeted = peer.answered = True
            self._send(peer, _switch(headers[b"sec-websocket-key"]))
            self._columns[Phase.UPGRADE].add(0)
        elif head.startswith(b"POST "):
            self._ask(peer, rest[:length], now_ns)
        else:
            self._break_off(peer)
        return True

    # WebSocket

    def _next_frame(self, peer: Peer, now_ns: int) -> bool:
        frame = _read_frame(peer.received)
        if frame is None:
            return False
        opcode, payload, end = frame
        peer.received = peer.received[end:]
        if opcode == _BINARY:
            peer.since_ns = now_ns
            self._ask(peer, payload, now_ns)
        elif opcode == _CLOSE:
            peer.since_ns = now_ns
            goodbye = _frame(_CLOSE, payload)
            self._after(
                self._behaviour.close, lambda peer, at_ns: self._close(peer, goodbye, at_ns), peer, now_ns
            )
        elif opcode == _PING:
            self._send(peer, _frame(_PONG, payload))
        elif opcode != _PONG:
            self._break_off(peer)
        return True

    def _close(self, peer: Peer, goodbye: bytes, now_ns: int) -> None:
        self._send(peer, goodbye)
        self._serve_out(peer, now_ns)
        self._drop(peer)

    # Requests

    def _ask(self, peer: Peer, message: bytes, now_ns: int) -> None:
        try:
            request: Any = cbor2.loads(message)
            number, method = request["id"], request["method"]
        except (cbor2.CBORDecodeError, ValueError, TypeError, KeyError):
            self._break_off(peer)
            return
        content = cbor2.dumps({"id": number, "result": _RESULTS.get(method)})
        phase = _PHASES.get(method, Phase.QUERY)
        self._after(
            self._delay(phase, peer),
            lambda peer, at_ns: self._answer(peer, phase, content, at_ns),
            peer,
            now_ns,
        )

    def _delay(self, phase: Phase, peer: Peer) -> Delay | None:
        if phase is Phase.SIGNIN:
            return self._auth_delay(peer)
        return self._behaviour.ready if phase is Phase.USE else self._behaviour.query

    def _answer(self, peer: Peer, phase: Phase, content: bytes, now_ns: int) -> None:
        self._columns[phase].add(now_ns - peer.since_ns)
        if phase is Phase.QUERY:
            self._truth.queries += 1
        peer.answered = True
        peer.since_ns = now_ns
        self._send(peer, _frame(_BINARY, content) if peer.greeted else _response(content))


def _headers(head: bytes) -> dict[bytes, bytes]:
    """Headers by their names in small letters."""
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _switch(key: bytes) -> bytes:
    """The answer that turns HTTP into a WebSocket (RFC 6455, section 4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: cbor\r\n\r\n"
    )


def _response(content: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\nContent-Length: %d\r\n\r\n%s" % (
        len(content),
        content,
    )


def _read_frame(data: bytes) -> tuple[int, bytes, int] | None:
    """A client's first frame, as opcode, payload and where it ends; None while a part of it is missing."""
    if len(data) < 2:
        return None
    opcode, length, at = data[0] & 0x0F, data[1] & 0x7F, 2
    if length >= 126:
        size = 2 if length == 126 else 8
        if len(data) < at + size:
            return None
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    end = at + 4 + length
    if len(data) < end:
        return None
    mask, masked = data[at : at + 4], data[at + 4 : end]
    key = (mask * (length // 4 + 1))[:length]
    payload = int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")
    return opcode, payload.to_bytes(length, "big"), end


def _frame(opcode: int, payload: bytes) -> bytes:
    """A server's frame, which is not masked."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload


def serve_surreal(behaviour: Behaviour, control: Control, host: str) -> None:
    """Serve it on a free port of `host`, say which, and go on until `control` is closed at the other end."""
    serve(_Surreal, behaviour, control, host)
