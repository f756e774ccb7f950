"""SurrealDB servers that misbehave at every step of a connect, and after it."""

import asyncio
import base64
import hashlib
import ssl
import struct
import tracemalloc

import cbor2
import pytest
import trustme

from pool_bench.drivers.base import Driver
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.surreal import surreal_target
from tests.support import hostile_postgres as h

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LIMIT_S = 60.0


def _head(peer: h.Peer) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += peer.read(1)
    return data


def upgrade(peer: h.Peer, more: bytes = b"") -> None:
    """Agree to a WebSocket (RFC 6455, section 4.2.2), and say more in the same breath."""
    key = next(
        line[19:] for line in _head(peer).split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    peer.sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: cbor\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n" + more
    )


def read_frame(peer: h.Peer) -> None:
    """Read one frame of a client and forget it."""
    size = peer.read(2)[1] & 0x7F
    if size >= 126:
        size = int.from_bytes(peer.read(2 if size == 126 else 8), "big")
    peer.read(4 + size)


def read_post(peer: h.Peer) -> None:
    """Read one HTTP request and forget it."""
    head = _head(peer).lower()
    peer.read(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))


def frame(payload: bytes, opcode: int = 2, *, fin: bool = True) -> bytes:
    """One frame of a server."""
    first = opcode | (0x80 if fin else 0)
    if len(payload) < 126:
        return bytes((first, len(payload))) + payload
    if len(payload) < 1 << 16:
        return bytes((first, 126)) + struct.pack("!H", len(payload)) + payload
    return bytes((first, 127)) + struct.pack("!Q", len(payload)) + payload


def answer(result: object = None, **more: object) -> bytes:
    """An answer to any request."""
    return cbor2.dumps({"id": 1, "result": result, **more})


def refusal(code: int = -32000, kind: str = "Internal", message: str = "no", details: object = None) -> bytes:
    """An error as an answer to any request."""
    error = {"code": code, "kind": kind, "message": message, "details": details}
    return cbor2.dumps({"id": 1, "error": error})


def http(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    """An HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def close(code: int, reason: str = "") -> bytes:
    """A goodbye."""
    return frame(struct.pack("!H", code) + reason.encode(), 8)


def _said(data: bytes) -> h.Script:
    """Agree to a WebSocket, say something in answer to the sign-in, then nothing more."""
    return (upgrade, read_frame, h.send(data), h.stall)


def _posted(data: bytes) -> h.Script:
    """Say something in answer to the sign-in over HTTP, then nothing more."""
    return (read_post, h.send(data), h.stall)


def _fragment(number: int) -> bytes:
    """A part of a message without an end."""
    return frame(b"x" * 60_000, 0 if number else 2, fin=False)


def _header(number: int) -> bytes:
    """A line of a head without an end."""
    return b"X-%d: y\r\n" % number if number else b"HTTP/1.1 200 OK\r\n"


_TOKEN = frame(answer("a.b.c"))
WELCOME: h.Script = (upgrade, read_frame, h.send(_TOKEN), read_frame, h.send(frame(answer({}))))
HTTP_WELCOME: h.Script = (read_post, h.send(http(answer("a.b.c"))), read_post, h.send(http(answer({}))))


def _driver(server: h.HostileServer, scheme: str = "ws", timeout_s: float | None = _LIMIT_S) -> SurrealDriver:
    target = surreal_target(
        f"{scheme}://u:secret@127.0.0.1:{server.port}", namespace="n", database="d", environ={}
    )
    return SurrealDriver(target, connect_timeout_s=timeout_s)


async def _failure(driver: Driver) -> tuple[FailureKind, Phase, str]:
    with pytest.raises(ConnectError) as failure:
        await driver.connect()
    error = failure.value
    assert "secret" not in str(error)
    assert error.message.isprintable()
    return error.kind, error.phase, error.message


CLOSED, RESET, PROTOCOL, AUTH = (
    FailureKind.CLOSED,
    FailureKind.RESET,
    FailureKind.PROTOCOL,
    FailureKind.AUTH,
)


@pytest.mark.parametrize(
    ("script", "kind", "phase"),
    [
        # No WebSocket.
        ((_head, h.hang_up), CLOSED, Phase.UPGRADE),
        ((h.read_some, h.reset), RESET, Phase.UPGRADE),
        ((_head, h.send(b"220 smtp ready\r\n\r\n"), h.stall), PROTOCOL, Phase.UPGRADE),
        ((_head, h.send(http(b"", "404 Not Found")), h.stall), PROTOCOL, Phase.UPGRADE),
        ((_head, h.send(http(b"", "200 OK")), h.stall), PROTOCOL, Phase.UPGRADE),
        ((_head, h.send(http(b"", "401 Unauthorized")), h.stall), AUTH, Phase.UPGRADE),
        (
            (_head, h.send(http(b"", "503 Service Unavailable")), h.stall),
            FailureKind.TOO_MANY_CONNECTIONS,
            Phase.UPGRADE,
        ),
        ((_head, h.send(b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n"), h.stall), PROTOCOL, Phase.UPGRADE),
        (
            (_head, h.flood(_header)),
            PROTOCOL,
            Phase.UPGRADE,
        ),
        ((_head, h.flood(lambda _: b"x" * 100)), PROTOCOL, Phase.UPGRADE),
        # No sign-in.
        ((upgrade, read_frame, h.hang_up), CLOSED, Phase.SIGNIN),
        ((upgrade, read_frame, h.reset), RESET, Phase.SIGNIN),
        (_said(close(1000)), CLOSED, Phase.SIGNIN),
        (
            _said(close(1001, "bye")),
            FailureKind.SERVER_SHUTDOWN,
            Phase.SIGNIN,
        ),
        (
            _said(close(1013)),
            FailureKind.TOO_MANY_CONNECTIONS,
            Phase.SIGNIN,
        ),
        (_said(frame(b"\xff")), PROTOCOL, Phase.SIGNIN),
        (_said(frame(b"\x9f" * 5000)), PROTOCOL, Phase.SIGNIN),
        (_said(frame(cbor2.dumps([1]))), PROTOCOL, Phase.SIGNIN),
        (
            _said(frame(cbor2.dumps({"id": 7, "result": 1}))),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        (_said(frame(cbor2.dumps({"id": 1}))), PROTOCOL, Phase.SIGNIN),
        (
            _said(frame(cbor2.dumps({"error": "boo\x1b[2J"}))),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        (_said(b"\xff\xff"), PROTOCOL, Phase.SIGNIN),
        (
            _said(b"\x82\x7f" + struct.pack("!Q", 1 << 40)),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        (
            (upgrade, read_frame, h.flood(_fragment)),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        (_said(frame(refusal(-32002, "NotAllowed", "no\nway", {"kind": "Auth"}))), AUTH, Phase.SIGNIN),
        # No place.
        ((*WELCOME[:4], h.hang_up), CLOSED, Phase.USE),
        (
            (*WELCOME[:4], h.send(frame(refusal(message="x" * 100_000))), h.stall),
            FailureKind.OTHER,
            Phase.USE,
        ),
        (
            (*WELCOME[:4], h.send(frame(refusal(message="The server is gracefully shutting down"))), h.stall),
            FailureKind.SERVER_SHUTDOWN,
            Phase.USE,
        ),
    ],
)
async def test_what_a_websocket_server_gets_wrong_is_a_failure_of_its_step(
    script: h.Script, kind: FailureKind, phase: Phase
) -> None:
    with h.HostileServer(script) as server:
        assert (await _failure(_driver(server)))[:2] == (kind, phase)


@pytest.mark.parametrize(
    ("script", "kind", "phase"),
    [
        ((read_post, h.hang_up), CLOSED, Phase.SIGNIN),
        ((read_post, h.reset), RESET, Phase.SIGNIN),
        (_posted(b"220 smtp ready\r\n\r\n"), PROTOCOL, Phase.SIGNIN),
        (_posted(b"\x00\xff" * 100 + b"\r\n"), PROTOCOL, Phase.SIGNIN),
        (_posted(http(b"who?\x1b", "401 Unauthorized")), AUTH, Phase.SIGNIN),
        (
            _posted(http(b"", "429 Too Many")),
            FailureKind.TOO_MANY_CONNECTIONS,
            Phase.SIGNIN,
        ),
        (_posted(http(b"<html>")), PROTOCOL, Phase.SIGNIN),
        (
            (read_post, h.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), h.hang_up),
            CLOSED,
            Phase.SIGNIN,
        ),
        (_posted(http(answer("t"), more="Connection: close\r\n")), CLOSED, Phase.USE),
        (
            (read_post, h.flood(_header)),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        (
            (
                read_post,
                h.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                h.flood(lambda _: b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"),
            ),
            PROTOCOL,
            Phase.SIGNIN,
        ),
        ((*HTTP_WELCOME[:3], h.send(http(refusal(-32002, "NotAllowed"))), h.stall), AUTH, Phase.USE),
    ],
)
async def test_what_an_http_server_gets_wrong_is_a_failure_of_its_step(
    script: h.Script, kind: FailureKind, phase: Phase
) -> None:
    with h.HostileServer(script) as server:
        assert (await _failure(_driver(server, "http")))[:2] == (kind, phase)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("text/html; charset=utf-8", b"<html><h1>Nothing here</h1></html>", ": a web page"),
        ("text/plain", b"the backend\nis away", ": the backend is away"),
        ("text/plain", b"", ""),
    ],
)
async def test_what_a_proxy_says_over_http_is_told_unless_it_is_a_web_page(
    kind: str, body: bytes, said: str
) -> None:
    script = _posted(http(body, "501 Not Implemented", more=f"Content-Type: {kind}\r\n"))
    with h.HostileServer(script) as server:
        assert await _failure(_driver(server, "http")) == (
            FailureKind.PROTOCOL,
            Phase.SIGNIN,
            f"the server answers HTTP 501{said}",
        )


@pytest.mark.parametrize(
    ("scheme", "script", "phase"),
    [
        ("ws", (h.stall,), Phase.UPGRADE),
        ("ws", (_head, h.send(b"HTTP/1.1 101"), h.stall), Phase.UPGRADE),
        ("ws", (upgrade, h.stall), Phase.SIGNIN),
        ("ws", _said(frame(answer("t"))[:-1]), Phase.SIGNIN),
        ("ws", (*WELCOME[:4], h.stall), Phase.USE),
        ("wss", (h.stall,), Phase.TLS),
        ("http", (h.stall,), Phase.SIGNIN),
        ("http", _posted(b"HTTP/1.1 200 OK\r\n"), Phase.SIGNIN),
        ("http", (*HTTP_WELCOME[:3], h.stall), Phase.USE),
    ],
)
async def test_a_server_that_falls_silent_is_a_timeout_of_its_step(
    scheme: str, script: h.Script, phase: Phase
) -> None:
    # A deadline that passes before the server has come to where it falls silent is one of an earlier step.
    for timeout_s, said in ((0.2, "200ms"), (2.0, "2s"), (20.0, "20s")):
        with h.HostileServer(script) as server:
            kind, found, message = await _failure(_driver(server, scheme, timeout_s=timeout_s))
        assert kind is FailureKind.TIMEOUT
        assert message == f"no end after {said}"
        if found is phase:
            break
    assert found is phase


@pytest.mark.parametrize(
    ("script", "kinds"),
    [
        ((h.read_some, h.hang_up), (CLOSED, RESET)),
        ((h.read_some, h.reset), (RESET,)),
        ((h.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), h.stall), (FailureKind.TLS,)),
    ],
)
async def test_a_server_that_breaks_off_tls_is_a_failure_of_that_step(
    script: h.Script, kinds: tuple[FailureKind, ...]
) -> None:
    with h.HostileServer(script) as server:
        kind, phase, _ = await _failure(_driver(server, "wss"))
        assert phase is Phase.TLS
        assert kind in kinds


async def test_tls_that_ends_without_a_goodbye_is_a_closed_connection() -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    script = (h.start_tls(server_context), upgrade, read_frame, h.hang_up)
    with authority.cert_pem.tempfile() as ca, h.HostileServer(script) as server:
        target = surreal_target(f"wss://u:secret@127.0.0.1:{server.port}", ca_file=ca, environ={})
        kind, phase, _ = await _failure(SurrealDriver(target))
        assert (kind, phase) == (CLOSED, Phase.SIGNIN)


async def test_an_http_answer_to_no_request_ends_the_connection() -> None:
    async with asyncio.timeout(_LIMIT_S):
        with h.HostileServer((*HTTP_WELCOME, h.send(http(answer())), h.stall)) as server:
            connection = await _driver(server, "http").connect()
            while not connection.is_closed():  # noqa: ASYNC110 - the server is another thread's
                await asyncio.sleep(0.001)
            with pytest.raises(ConnectError) as failure:
                await connection.ping()
    assert failure.value.kind is PROTOCOL


async def test_messages_that_answer_nothing_are_passed_over() -> None:
    notification = cbor2.dumps({"result": {"action": "CREATE", "id": "x"}})
    # In pieces, and with pings in between.
    pieces = frame(notification[:3], fin=False) + frame(b"hi", 9) + frame(notification[3:], 0)
    script = (
        *WELCOME,
        h.send(pieces),
        read_frame,
        h.send_byte_by_byte(pieces + frame(answer([]))),
        h.stall,
    )
    with h.HostileServer(script) as server:
        connection = await _driver(server).connect()
        await connection.execute("RETURN 1")
        connection.terminate()


@pytest.mark.parametrize("result", [None, 5, "text", [5], {"a": 1}])
async def test_an_answer_that_is_none_to_a_query_is_a_failure_of_the_protocol(result: object) -> None:
    with h.HostileServer((*WELCOME, read_frame, h.send(frame(answer(result))), h.stall)) as server:
        connection = await _driver(server).connect()
        with pytest.raises(ConnectError) as failure:
            await connection.execute("RETURN 1")
        assert (failure.value.kind, failure.value.phase) == (PROTOCOL, Phase.QUERY)
        connection.terminate()


async def test_a_goodbye_is_said_once_and_waited_for() -> None:
    seen: list[bytes] = []

    def read_goodbye(peer: h.Peer) -> None:
        seen.append(peer.read(2))
        peer.read(4 + (seen[-1][1] & 0x7F))
        peer.sock.sendall(close(1000))

    with h.HostileServer((*WELCOME, read_goodbye, h.hang_up)) as server:
        connection = await _driver(server).connect()
        await connection.close()
        await connection.close()
        assert connection.is_closed()
        assert connection.phases_ns[Phase.CLOSE] > 0
    assert [goodbye[0] for goodbye in seen] == [0x88]


async def test_a_flood_nobody_asked_for_fills_no_memory() -> None:
    payload = frame(cbor2.dumps({"result": "x" * 50_000}))
    count = 0

    def flood(peer: h.Peer) -> None:
        nonlocal count
        for _ in range(2000):
            peer.sock.sendall(payload)
            count += 1

    with h.HostileServer((*WELCOME, flood, h.hang_up)) as server:
        connection = await _driver(server).connect()
        tracemalloc.start()
        try:
            async with asyncio.timeout(_LIMIT_S):
                while not connection.is_closed():  # noqa: ASYNC110 - the flood comes from another thread
                    await asyncio.sleep(0.001)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == 2000
    assert peak < 10 << 20
