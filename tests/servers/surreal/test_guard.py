"""Whom the embedded SurrealDB's server answers, and what it grants to those who have not signed in."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import cbor2
import pytest
from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Origin, Subprotocol

from pool_bench.servers.surreal.guard import Bounds, Doorway
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig

_PATIENCE_S = 60.0
_WITHIN_S = 1.0


def _ask(
    server: EmbeddedSurreal, headers: dict[str, str], path: str = "/health", body: bytes | None = None
) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)
    try:
        connection.putrequest("GET" if body is None else "POST", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Type", "application/cbor")
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


@asynccontextmanager
async def _socket(server: EmbeddedSurreal, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"{server.url}/rpc", subprotocols=[Subprotocol("cbor")], **options) as raw:
        yield raw


async def _call(raw: ClientConnection, method: str, *params: object) -> dict[str, Any]:
    await raw.send(cbor2.dumps({"id": 1, "method": method, "params": params}))
    async with asyncio.timeout(_PATIENCE_S):
        answer: dict[str, Any] = cbor2.loads(await raw.recv(decode=False))
    return answer


def _basic(server: EmbeddedSurreal) -> str:
    return "Basic " + base64.b64encode(f"{server.user}:{server.password}".encode()).decode()


# -- who is answered -------------------------------------------------------------------------------------

_FOREIGN_HOSTS = (
    *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0"),
    *("10.1.2.3", "[fe80::1]", "[::]:8000", "a@127.0.0.1", "127.0.0.1/a", "127.0.0.1:8000:1", "[127.0.0.1"),
    *("0x7f000001", "2130706433", "localhost,evil.example"),
)


@pytest.mark.parametrize("host", _FOREIGN_HOSTS)
def test_a_request_by_another_name_is_refused_on_every_path(surreal: EmbeddedSurreal, host: str) -> None:
    for path in ("/health", "/version", "/status"):
        assert _ask(surreal, {"Host": host}, path).status == 403
    signed = {"Host": host, "Authorization": _basic(surreal)}
    ping = cbor2.dumps({"id": 1, "method": "ping"})
    assert _ask(surreal, signed, "/rpc", ping).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.:99", "127.9.9.9:1", "[::1]:8000"])
def test_a_request_by_a_name_of_this_machine_s_loopback_is_answered(
    surreal: EmbeddedSurreal, host: str
) -> None:
    assert _ask(surreal, {"Host": host}).status == 200


async def test_a_request_of_before_there_were_names_is_answered(surreal: EmbeddedSurreal) -> None:
    # As HAProxy's health checks send it (RFC 1945).
    reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(_PATIENCE_S):
        assert (await reader.readline()).endswith(b" 200 OK\r\n")
    writer.close()


def test_a_request_by_this_machine_s_own_name_is_answered(surreal: EmbeddedSurreal) -> None:
    assert _ask(surreal, {"Host": f"{socket.gethostname()}:8000"}).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "127.0.0.1"]
)
async def test_a_page_of_another_server_is_refused(surreal: EmbeddedSurreal, origin: str) -> None:
    for path in ("/health", "/version", "/status"):
        assert _ask(surreal, {"Origin": origin}, path).status == 403
    signed = {"Origin": origin, "Authorization": _basic(surreal)}
    ping = cbor2.dumps({"id": 1, "method": "ping"})
    assert _ask(surreal, signed, "/rpc", ping).status == 403
    with pytest.raises(InvalidStatus, match="403"):
        async with _socket(surreal, origin=Origin(origin)):
            pass


async def test_a_page_that_it_served_itself_is_answered(surreal: EmbeddedSurreal) -> None:
    own = f"http://127.0.0.1:{surreal.port}"
    assert _ask(surreal, {"Origin": own}).status == 200
    async with _socket(surreal, origin=Origin(own)) as client:
        assert "error" not in await _call(client, "ping")


def test_a_name_that_was_allowed_is_answered_and_no_other(guarded: EmbeddedSurreal) -> None:
    assert _ask(guarded, {"Host": "Bench.Example:443"}).status == 200
    assert _ask(guarded, {"Host": "other.example"}).status == 403


# -- before signing in -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[EmbeddedSurreal]:
    """A server that gives its clients one second to sign in."""
    config = SurrealConfig(
        password="surreal pencil", sign_in_within_s=_WITHIN_S, allowed_hosts=("bench.example",)
    )
    with EmbeddedSurreal(config) as server:
        yield server


async def test_who_has_not_signed_in_is_closed_in_time_and_who_has_may_stay(guarded: EmbeddedSurreal) -> None:
    credentials = {"user": guarded.user, "pass": guarded.password}
    header = {"Authorization": _basic(guarded)}
    async with _socket(guarded) as signed, _socket(guarded, additional_headers=header) as known:
        assert "error" not in await _call(signed, "signin", credentials)
        # Whoever comes after them is closed, so their time was up, too.
        async with _socket(guarded) as late:
            assert "error" in await _call(late, "signin", {**credentials, "pass": "wrong"})
            async with asyncio.timeout(_PATIENCE_S):
                with pytest.raises(ConnectionClosedError, match="not signed in within 1 s"):
                    await late.recv()
        for client in (signed, known):
            assert (await _call(client, "query", "RETURN 1"))["result"][0]["result"] == 1


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /health HT",
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/cbor\r\nContent-Length: 9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["nothing", "half a head", "no body", "a request without a password"],
)
async def test_a_connection_that_says_too_little_is_closed_in_time(
    guarded: EmbeddedSurreal, beginning: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    writer.write(beginning)
    async with asyncio.timeout(_PATIENCE_S):
        await reader.read()
    writer.close()


async def test_an_http_connection_that_has_signed_in_may_stay(guarded: EmbeddedSurreal) -> None:
    ping = cbor2.dumps({"id": 1, "method": "ping"})
    request = (
        f"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cbor\r\n"
        f"Authorization: {_basic(guarded)}\r\nContent-Length: {len(ping)}\r\n\r\n"
    ).encode() + ping
    reader, writer = await asyncio.open_connection("127.0.0.1", guarded.port)
    for _ in range(2):
        writer.write(request)
        async with asyncio.timeout(_PATIENCE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            other, other_writer = await asyncio.open_connection("127.0.0.1", guarded.port)
            await reader.read(1000)
            # Until another one's time is up.
            assert await other.read() == b""
        other_writer.close()
    writer.close()


async def test_what_a_session_keeps_before_it_has_signed_in_is_bounded(guarded: EmbeddedSurreal) -> None:
    async with _socket(guarded) as client:

        async def fill() -> None:
            for number in range(1000):
                await _call(client, "set", f"v{number}", b"x" * 60_000)

        with pytest.raises(ConnectionClosedError, match="1048576 bytes without signing in"):
            await fill()


async def test_a_message_is_small_before_signing_in_and_may_be_large_afterwards(
    surreal: EmbeddedSurreal,
) -> None:
    large = b"x" * 100_000
    async with _socket(surreal) as client:
        with pytest.raises(ConnectionClosedError, match="1009"):
            await _call(client, "ping", large)
    async with _socket(surreal) as client:
        await _call(client, "signin", {"user": surreal.user, "pass": surreal.password})
        assert "error" not in await _call(client, "ping", large)
    body = cbor2.dumps({"id": 1, "method": "ping", "params": [large]})
    assert _ask(surreal, {}, "/rpc", body).status == 413
    assert _ask(surreal, {"Authorization": _basic(surreal)}, "/rpc", body).status == 200


async def test_a_failed_sign_in_grants_nothing(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        assert "error" in await _call(client, "signin", {"user": surreal.user, "pass": "wrong"})
        with pytest.raises(ConnectionClosedError, match="1009"):
            await _call(client, "ping", b"x" * 100_000)


async def test_so_many_may_be_there_without_having_signed_in_and_the_next_is_told() -> None:
    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    server = web.Server(answer)
    doorway = Doorway(Bounds(within_s=_PATIENCE_S, clients=2), server)
    listening = await asyncio.get_running_loop().create_server(doorway.admit, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    async def visit() -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request)
        async with asyncio.timeout(_PATIENCE_S):
            return await reader.readline(), reader, writer

    first, second, third = [await visit() for _ in range(3)]
    assert [line for line, _, _ in (first, second)] == [b"HTTP/1.1 200 OK\r\n"] * 2
    assert third[0] == b"HTTP/1.1 503 Service Unavailable\r\n"
    # A place is free again when somebody goes.
    second[2].transport.abort()
    line, *_, last = await visit()
    async with asyncio.timeout(_PATIENCE_S):
        while line != b"HTTP/1.1 200 OK\r\n":
            last.close()
            line, *_, last = await visit()
    for writer in (first[2], third[2], last):
        writer.close()
    doorway.close()
    listening.close()
    await server.shutdown(1.0)
