"""What the embedded SurrealDB's server does with requests that no official client sends."""

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from uuid import uuid4

import cbor2
import psutil
import pytest
from cbor2 import CBORTag
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from pool_bench.drivers.surreal.frames import client_frame
from pool_bench.servers.surreal.server import EmbeddedSurreal
from tests.support.servers import TlsSurreal

_PATIENCE_S = 60.0


class _Socket:
    """A WebSocket on which anything can be said."""

    def __init__(self, raw: ClientConnection, form: str) -> None:
        self.raw = raw
        self._form = form

    async def call(self, method: str, *params: object, **more: object) -> Any:
        message = {"id": uuid4().hex, "method": method, "params": list(params), **more}
        answer = await self.say(cbor2.dumps(message) if self._form == "cbor" else json.dumps(message))
        assert answer.get("id", message["id"]) == message["id"]
        return answer

    async def say(self, message: bytes | str) -> Any:
        await self.raw.send(message)
        answer = await self.raw.recv()
        assert isinstance(answer, bytes if self._form == "cbor" else str)
        return cbor2.loads(answer) if isinstance(answer, bytes) else json.loads(answer)

    async def sign_in(self, server: EmbeddedSurreal) -> None:
        answer = await self.call("signin", {"user": server.user, "pass": server.password})
        assert "result" in answer
        await self.call("use", "gateway", "db")


@asynccontextmanager
async def _socket(server: EmbeddedSurreal, form: str = "cbor", **options: Any) -> AsyncIterator[_Socket]:
    async with connect(
        f"{server.url}/rpc", subprotocols=[Subprotocol(form)], max_size=None, **options
    ) as raw:
        yield _Socket(raw, form)


def _status(server: EmbeddedSurreal) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/status")
        content: dict[str, Any] = json.loads(connection.getresponse().read())
        return content
    finally:
        connection.close()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's
            await asyncio.sleep(0.01)


async def _nobody_is_left(server: EmbeddedSurreal) -> bool:
    status = await asyncio.to_thread(_status, server)
    return (status["sockets"], status["sessions"]) == (0, 0)


def _kind(answer: dict[str, Any]) -> tuple[int, str, str]:
    error = answer["error"]
    return error["code"], error["kind"], error["message"]


# -- malformed -------------------------------------------------------------------------------------------

_PARSE_ERROR = (-32700, "Validation", "Parse error")
_INVALID_REQUEST = (-32600, "Validation", "Invalid request")
_PING = cbor2.dumps({"id": 1, "method": "ping"})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"\x00",
        b"\x80",
        b"{}",
        _PING[:-1],
        _PING + b"\x00",
        b"\x9f" * 10_000,
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        cbor2.dumps([1, 2]),
        cbor2.dumps("ping"),
        b"\xa2fmethoddpingfmethodequery",
        cbor2.dumps({"id": 1, "method": "ping", "params": [CBORTag(37, b"short")]}),
    ],
)
async def test_what_is_no_cbor_map_is_a_parse_error_and_the_socket_lives(
    surreal: EmbeddedSurreal, message: bytes
) -> None:
    async with _socket(surreal) as client:
        assert _kind(await client.say(message)) == _PARSE_ERROR
        assert "error" not in await client.call("ping")


@pytest.mark.parametrize(
    "message", ["", "{", "[]", "null", '"ping"', "[" * 60_000, '{"method": NaN}', '{"id": 1e400}x', "\x00"]
)
async def test_what_is_no_json_object_is_a_parse_error_and_the_socket_lives(
    surreal: EmbeddedSurreal, message: str
) -> None:
    async with _socket(surreal, "json") as client:
        assert _kind(await client.say(message)) == _PARSE_ERROR
        assert "error" not in await client.call("ping")


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"id": 1},
        {"method": 1},
        {"method": None},
        {"id": [1], "method": "ping"},
        {"id": {"a": 1}, "method": "ping"},
        {"method": "ping", "session": 5},
        {"method": "ping", "session": "no uuid"},
        {"method": "ping", "txn": "no uuid"},
        {"method": "ping", "version": 3},
    ],
)
@pytest.mark.parametrize("form", ["cbor", "json"])
async def test_what_is_no_request_is_said_to_be_invalid(
    surreal: EmbeddedSurreal, form: str, request_: dict[str, Any]
) -> None:
    async with _socket(surreal, form) as client:
        message = cbor2.dumps(request_) if form == "cbor" else json.dumps(request_)
        assert _kind(await client.say(message)) == _INVALID_REQUEST
        assert "error" not in await client.call("ping")


async def test_an_unknown_method_is_not_found(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        assert _kind(await client.call("explode")) == (-32601, "NotFound", "Method not found")


async def test_wrong_parameters_are_refused_by_the_engine(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        for method, params in (("query", []), ("query", [1]), ("use", ["n"]), ("let", []), ("signin", [1])):
            assert (await client.call(method, *params))["error"]["code"] == -32603


async def test_a_result_that_cbor_cannot_hold_is_an_error_of_its_request(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        answer = await client.call("query", "RETURN <regex>'a'")
        assert answer["error"]["kind"] == "Serialization"
        assert "id" in answer


async def test_a_nesting_deeper_than_the_engine_allows_is_a_parse_error(surreal: EmbeddedSurreal) -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    async with _socket(surreal) as client:
        answer = await client.call("query", "RETURN $deep", {"deep": deep})
        assert _kind(answer) == _PARSE_ERROR


@pytest.mark.parametrize(("form", "message"), [("json", "[" * 1_000_000), ("cbor", b"\x81" * 1_000_000)])
async def test_no_nesting_of_who_has_signed_in_ends_the_server(
    surreal: EmbeddedSurreal, form: str, message: str | bytes
) -> None:
    async with _socket(surreal, form) as client:
        await client.sign_in(surreal)
        assert _kind(await client.say(message)) == _PARSE_ERROR
        assert "error" not in await client.call("ping")


async def test_a_frame_beyond_the_limit_closes_its_socket_alone(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as bystander:
        reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
        writer.write(_UPGRADE)
        await reader.readuntil(b"\r\n\r\n")
        # A binary frame that announces 1 GiB (RFC 6455, section 5.2).
        writer.write(b"\x82\xff" + (1 << 30).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1000)
        frame = await reader.readexactly(4)
        assert frame[0] == 0x88
        assert int.from_bytes(frame[2:4], "big") == 1009
        writer.close()
        await writer.wait_closed()
        assert "error" not in await bystander.call("ping")


async def test_a_large_frame_within_the_limit_is_answered(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        answer = await client.call("query", "RETURN string::len($text)", {"text": "x" * (8 << 20)})
        assert answer["result"][0]["result"] == 8 << 20


_UPGRADE = (
    b"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: cbor\r\n\r\n"
)


async def test_a_frame_without_a_mask_closes_the_socket(surreal: EmbeddedSurreal) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
    writer.write(_UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    # Reserved bits are set, and no extension was agreed on.
    writer.write(b"\xf2\x81\0\0\0\0x")
    async with asyncio.timeout(_PATIENCE_S):
        frame = await reader.readexactly(4)
    assert frame[0] == 0x88
    assert int.from_bytes(frame[2:4], "big") == 1002
    writer.close()
    await writer.wait_closed()


# -- sessions that are not the socket's own --------------------------------------------------------------


async def test_what_stands_behind_a_request_cannot_take_it_out_of_its_session(
    surreal: EmbeddedSurreal,
) -> None:
    request = cbor2.dumps({"id": 1, "method": "query", "params": ["INFO FOR ROOT"]})
    async with _socket(surreal) as client:
        # With one more pair, this would be a request without a session: the owner's.
        assert _kind(await client.say(request + b"\x61z\x01")) == _PARSE_ERROR
        assert "Anonymous access not allowed" in (await client.say(request))["error"]["message"]


@pytest.mark.parametrize(
    "head", [b"\xb8\x03", b"\xb9\x00\x03", b"\xba\0\0\0\x03", b"\xbb" + b"\0" * 7 + b"\x03"]
)
async def test_a_long_way_to_write_a_map_does_not_take_a_request_out_of_its_session(
    surreal: EmbeddedSurreal, head: bytes
) -> None:
    request = cbor2.dumps({"id": 1, "method": "query", "params": ["RETURN session::ns()"]})
    endless = b"\xbf" + request[1:] + b"\xff"
    async with _socket(surreal) as client:
        for message in (head + request[1:], endless):
            assert "Anonymous access not allowed" in (await client.say(message))["error"]["message"]
        await client.sign_in(surreal)
        for message in (head + request[1:], endless):
            answer = await client.say(message)
            assert answer["id"] == 1
            assert "session" not in answer
            assert answer["result"][0]["result"] == "gateway"


async def test_a_request_with_many_keys_keeps_its_session(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        for count in (19, 20, 21, 252, 253, 300):
            answer = await client.call("query", "RETURN session::ns()", **{f"k{n}": n for n in range(count)})
            assert answer["result"][0]["result"] == "gateway"


async def test_the_sessions_of_others_are_not_listed(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as one, _socket(surreal) as other:
        named = uuid4()
        assert (await one.call("attach", session=named))["session"] == named
        assert (await one.call("sessions"))["result"] == [named]
        assert (await other.call("sessions"))["result"] == []
        assert (await one.call("attach", session=str(named)))["error"]["kind"] == "AlreadyExists"
        assert "error" not in await one.call("detach", session=str(named))
        assert (await one.call("sessions"))["result"] == []


async def test_a_socket_cannot_detach_its_own_session(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        for method in ("attach", "detach"):
            assert (await client.call(method))["error"]["message"] == "Expected a session ID"
        await client.sign_in(surreal)
        assert (await client.call("query", "RETURN 1"))["result"][0]["result"] == 1


async def test_sessions_cannot_be_attached_without_end(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        answers = [await client.call("attach", session=uuid4()) for _ in range(257)]
        assert ["error" in answer for answer in answers] == [False] * 256 + [True]
    await _until(lambda: _nobody_is_left(surreal))


# -- clients that leave ----------------------------------------------------------------------------------


async def test_a_client_that_leaves_in_the_middle_of_a_query_leaves_nothing_behind(
    surreal: EmbeddedSurreal,
) -> None:
    async with _socket(surreal) as watcher:
        await watcher.sign_in(surreal)
        await watcher.call("query", "REMOVE TABLE IF EXISTS ghost; DEFINE TABLE ghost")
        for _ in range(5):
            async with _socket(surreal) as client:
                await client.sign_in(surreal)
                for query in ("SLEEP 1h", "SLEEP 3s; CREATE ghost"):
                    await client.raw.send(cbor2.dumps({"id": 1, "method": "query", "params": [query]}))
                await client.call("ping")
                # Gone without a word.
                client.raw.transport.abort()
        # Longer than the server may stand still before it sees them gone.
        await watcher.call("query", "SLEEP 3500ms")
        assert (await watcher.call("query", "SELECT * FROM ghost"))["result"][0]["result"] == []
    await _until(lambda: _nobody_is_left(surreal))


async def test_a_client_that_closes_its_half_is_let_go(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        client.raw.transport.write_eof()
        with pytest.raises(ConnectionClosedError):
            await client.raw.recv()
    await _until(lambda: _nobody_is_left(surreal))


@pytest.mark.parametrize(
    "sent", [b"", b"GET /rpc", _UPGRADE[:-2], _UPGRADE, _UPGRADE + b"\x82\xff", b"\0" * 9999]
)
async def test_a_client_that_breaks_off_anywhere_leaves_nothing_behind(
    surreal: EmbeddedSurreal, sent: bytes
) -> None:
    _reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
    writer.write(sent)
    await writer.drain()
    writer.transport.abort()
    await _until(lambda: _nobody_is_left(surreal))
    assert surreal.is_running()


async def test_clients_that_go_while_their_sessions_begin_leave_none_behind(surreal: EmbeddedSurreal) -> None:
    for _ in range(300):
        _reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
        writer.write(_UPGRADE)
        await writer.drain()
        writer.transport.abort()
    await _until(lambda: _nobody_is_left(surreal))


async def test_an_http_client_that_leaves_in_the_middle_of_a_query_leaves_nothing_behind(
    surreal: EmbeddedSurreal,
) -> None:
    body = cbor2.dumps({"id": 1, "method": "query", "params": ["SLEEP 1h"]})
    head = (
        f"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/cbor\r\n"
        f"Authorization: Basic {_basic(surreal)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    _reader, writer = await asyncio.open_connection("127.0.0.1", surreal.port)
    writer.write(head.encode() + body)
    await _until(lambda: _has_sessions(surreal))
    writer.transport.abort()
    await _until(lambda: _nobody_is_left(surreal))


async def _has_sessions(server: EmbeddedSurreal) -> bool:
    return bool((await asyncio.to_thread(_status, server))["sessions"])


async def test_messages_are_answered_side_by_side(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        for number, query in enumerate(("SLEEP 5m", "RETURN 1")):
            await client.raw.send(cbor2.dumps({"id": number, "method": "query", "params": [query]}))
        async with asyncio.timeout(_PATIENCE_S):
            answer = await client.raw.recv(decode=False)
        assert cbor2.loads(answer)["id"] == 1
        client.raw.transport.abort()
    await _until(lambda: _nobody_is_left(surreal))


async def test_thousands_of_messages_in_a_row_are_all_answered(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal) as client:
        numbers = range(2000)

        async def send() -> None:
            for number in numbers:
                await client.raw.send(cbor2.dumps({"id": number, "method": "ping"}))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            answers = [await client.raw.recv() for _ in numbers]
        seen = sorted(cbor2.loads(answer)["id"] for answer in answers if isinstance(answer, bytes))
        assert seen == list(numbers)


async def test_thousands_of_messages_that_are_none_are_all_answered_when_there_is_room(
    surreal: EmbeddedSurreal,
) -> None:
    slow = cbor2.dumps({"id": 1, "method": "query", "params": ["SLEEP 200ms"]})
    count = 5000
    async with _socket(surreal) as client:
        await client.sign_in(surreal)
        # In one piece: what is behind the slow ones has to wait for them.
        client.raw.transport.write(client_frame(slow) * 100 + client_frame(b"\xff") * count)
        async with asyncio.timeout(_PATIENCE_S):
            answers = [cbor2.loads(await client.raw.recv(decode=False)) for _ in range(100 + count)]
        assert sum("id" in answer for answer in answers) == 100
        assert sum(_kind(answer) == _PARSE_ERROR for answer in answers if "error" in answer) == count


async def test_a_client_that_does_not_read_is_asked_for_no_more_and_in_the_end_gets_all(
    surreal: EmbeddedSurreal,
) -> None:
    big = "RETURN array::repeat(string::repeat('x', 100000), 3)"
    process = psutil.Process(surreal.pid)
    async with _socket(surreal, max_queue=1) as client, _socket(surreal) as other:
        await client.sign_in(surreal)
        await client.call("query", big)
        before = process.memory_info().rss
        numbers = range(1000)
        for number in numbers:
            await client.raw.send(cbor2.dumps({"id": number, "method": "query", "params": [big]}))
        for _ in range(50):
            await other.call("ping")
            await asyncio.sleep(0.01)
        # Three hundred megabytes of answers, of which a tenth may be under way.
        assert process.memory_info().rss - before < 150 << 20
        seen = [cbor2.loads(await client.raw.recv(decode=False)) for _ in numbers]
        assert sorted(answer["id"] for answer in seen) == list(numbers)
        assert all(len(answer["result"][0]["result"]) == 3 for answer in seen)


async def test_text_that_is_not_utf_8_closes_the_socket(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal, "json") as client:
        await client.raw.send(b'{"id": 1, "method": "\xff"}', text=True)
        with pytest.raises(ConnectionClosed) as closed:
            await client.raw.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007


async def test_a_server_that_stops_says_so_to_its_sockets() -> None:
    with EmbeddedSurreal() as server:
        async with _socket(server) as client:
            await client.sign_in(server)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            with pytest.raises(ConnectionClosed) as closed:
                await client.raw.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            await stopping


# -- JSON ------------------------------------------------------------------------------------------------


async def test_json_has_surrealdbs_types_in_words(surreal: EmbeddedSurreal) -> None:
    values = {
        "NONE": None,
        "[1.5, 2dec, 1f / 0f, 'ü']": [1.5, "2", None, "ü"],
        "1h30m5ms": "1h30m5ms",
        "0s": "0ns",
        "d'2024-02-29T12:00:00.25Z'": "2024-02-29T12:00:00.25Z",
        "u'018f0000-0000-7000-8000-000000000000'": "018f0000-0000-7000-8000-000000000000",
        "person:tobie": "person:tobie",
        "person:⟨a b⟩": "person:`a b`",
        "person:7": "person:7",
        "<bytes>'ab'": [97, 98],
        "1..=3": "1..=3",
        "1>..3": "1>..3",
        "(1, 2)": {"type": "Point", "coordinates": [1.0, 2.0]},
        "{ a: { b: [true] } }": {"a": {"b": [True]}},
    }
    async with _socket(surreal, "json") as client:
        await client.sign_in(surreal)
        for expression, expected in values.items():
            answer = await client.call("query", f"RETURN {expression}")
            assert answer["result"][0]["result"] == expected


async def test_a_value_that_json_cannot_hold_is_an_error_of_its_request(surreal: EmbeddedSurreal) -> None:
    async with _socket(surreal, "json") as client:
        await client.sign_in(surreal)
        answer = await client.call("query", "RETURN time::from_secs(400000000000)")
        assert answer["error"]["kind"] == "Serialization"
        assert "error" not in await client.call("ping")


async def test_without_a_sub_protocol_it_is_json(surreal: EmbeddedSurreal) -> None:
    async with connect(f"{surreal.url}/rpc") as raw:
        client = _Socket(raw, "json")
        await client.sign_in(surreal)
        assert (await client.call("query", "RETURN $x", {"x": [1, "a"]}))["result"][0]["result"] == [1, "a"]


# -- HTTP ------------------------------------------------------------------------------------------------


def _basic(server: EmbeddedSurreal, password: str | None = None) -> str:
    return base64.b64encode(f"{server.user}:{password or server.password}".encode()).decode()


def _post(server: EmbeddedSurreal, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE_S)
    try:
        connection.request("POST", "/rpc", body, {name.replace("_", "-"): v for name, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


_QUERY = json.dumps(
    {"id": 1, "method": "query", "params": ["RETURN [session::ns(), session::db()]"]}
).encode()


def test_http_takes_user_namespace_and_database_from_headers(surreal: EmbeddedSurreal) -> None:
    where = {"Surreal_NS": "by_header", "Surreal_DB": "db"}
    status, body = _post(
        surreal, _QUERY, Content_Type="application/json", Authorization=f"Basic {_basic(surreal)}", **where
    )
    assert status == 200
    assert json.loads(body)["result"][0]["result"] == ["by_header", "db"]


@pytest.mark.parametrize("authorization", ["Basic !", "Basic YWJj", "Bearer", "Bearer a.b.c", "Basic"])
def test_http_with_wrong_credentials_is_unauthorized(surreal: EmbeddedSurreal, authorization: str) -> None:
    status, body = _post(surreal, _QUERY, Content_Type="application/json", Authorization=authorization)
    assert (status, body) == (401, b"There was a problem with authentication")


async def test_a_websocket_with_wrong_credentials_is_unauthorized(surreal: EmbeddedSurreal) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with _socket(surreal, additional_headers={"Authorization": "Bearer a.b.c"}):
            pass
    assert refusal.value.response.status_code == 401


@pytest.mark.parametrize("kind", ["text/plain", "application/surrealdb", "nonsense"])
def test_http_in_another_format_is_unsupported(surreal: EmbeddedSurreal, kind: str) -> None:
    assert _post(surreal, _QUERY, Content_Type=kind)[0] == 415
    assert _post(surreal, _QUERY)[0] == 415


def test_http_that_wants_another_format_back_is_unsupported(surreal: EmbeddedSurreal) -> None:
    assert _post(surreal, _QUERY, Content_Type="application/json", Accept="application/cbor")[0] == 415
    assert _post(surreal, _QUERY, Content_Type="application/json", Accept="*/*")[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_http_without_a_request_is_a_bad_request(surreal: EmbeddedSurreal, body: bytes) -> None:
    status, answer = _post(surreal, body, Content_Type="application/json")
    assert (status, json.loads(answer)["information"]) == (400, "Parse error")


def test_an_http_body_beyond_the_limit_is_too_large(surreal: EmbeddedSurreal) -> None:
    assert _post(surreal, b" " * ((4 << 20) + 1), Content_Type="application/json")[0] == 413


def test_http_without_an_upgrade_is_a_bad_request(surreal: EmbeddedSurreal) -> None:
    connection = HTTPConnection("127.0.0.1", surreal.port, timeout=_PATIENCE_S)
    for method, path, status in (("GET", "/rpc", 400), ("GET", "/nowhere", 404), ("DELETE", "/rpc", 405)):
        connection.request(method, path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


# -- TLS -------------------------------------------------------------------------------------------------


async def test_with_a_certificate_it_speaks_tls(tls_surreal: TlsSurreal) -> None:
    server = tls_surreal.server
    assert server.url.startswith("wss://")
    assert server.http_url.startswith("https://")
    trusting = ssl.create_default_context(cafile=tls_surreal.ca)
    async with _socket(server, ssl=trusting) as client:
        await client.sign_in(server)
        assert (await client.call("query", "RETURN 1"))["result"][0]["result"] == 1
    connection = HTTPSConnection("127.0.0.1", server.port, context=trusting)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


async def test_with_a_certificate_it_answers_nobody_in_the_clear(tls_surreal: TlsSurreal) -> None:
    with socket.create_connection(("127.0.0.1", tls_surreal.server.port), _PATIENCE_S) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200" not in client.recv(4096)
    wary = ssl.create_default_context(cafile=tls_surreal.wrong_ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        async with _socket(tls_surreal.server, ssl=wary):
            pass
