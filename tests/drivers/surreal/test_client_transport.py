"""The official client over our own WebSocket: many requests at a time, and what happens to them all."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import cbor2
import pytest
from surrealdb.data.types.record_id import RecordID
from surrealdb.errors import ConnectionUnavailableError, SurrealError
from surrealdb.types import Value

from pool_bench.drivers.network.failures import StreamError
from pool_bench.drivers.network.stream import Stream
from pool_bench.drivers.surreal import client_transport as surreal_direct
from pool_bench.drivers.surreal import websocket_channel as surreal_websocket
from pool_bench.drivers.surreal.client import SurrealClientConnection, SurrealClientDriver
from pool_bench.drivers.surreal.client_transport import FastWebSocket
from pool_bench.errors import ConnectError, FailureKind
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.targets.surreal import surreal_target
from tests.drivers.surreal import test_hostile as ws
from tests.support import hostile_postgres as h
from tests.support.servers import TlsSurreal

Request = dict[str, Any]


def read_request(peer: h.Peer) -> tuple[int, Request | bytes]:
    """One frame of a client: its kind, and the message in it."""
    first, size = peer.read(2)
    size &= 0x7F
    if size >= 126:
        size = int.from_bytes(peer.read(2 if size == 126 else 8), "big")
    mask, data = peer.read(4), peer.read(size)
    plain = bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))
    kind = first & 0x0F
    return kind, cbor2.loads(plain) if kind == 2 else plain


def requests(peer: h.Peer, count: int) -> list[Request]:
    """So many requests."""
    found = [read_request(peer)[1] for _ in range(count)]
    return [request for request in found if isinstance(request, dict)]


def answer(request: Request, result: object) -> bytes:
    """The answer to a query, in a frame."""
    statement = {"status": "OK", "result": result, "time": "1µs"}
    return ws.frame(cbor2.dumps({"id": request["id"], "result": [statement]}))


def echo(request: Request) -> bytes:
    """The query's own text in answer to it."""
    return answer(request, request["params"][0])


@asynccontextmanager
async def client_of(*script: Callable[[h.Peer], None]) -> AsyncIterator[FastWebSocket]:
    """A client of a server that does as the script says once it has agreed to a WebSocket."""
    with h.HostileServer((ws.upgrade, *script)) as server:
        client = FastWebSocket(surreal_target(f"ws://127.0.0.1:{server.port}", environ={}), None)
        await client.connect()
        try:
            yield client
        finally:
            client.abort()


@asynccontextmanager
async def client_at(server: EmbeddedSurreal) -> AsyncIterator[FastWebSocket]:
    """A client of a real engine, signed in."""
    target = surreal_target(
        server.url, user=server.user, password=server.password, namespace="direct", database="db", environ={}
    )
    connection = await SurrealClientDriver(target, direct=True).connect()
    assert isinstance(connection.raw, FastWebSocket)
    try:
        yield connection.raw
    finally:
        await connection.close()


async def test_many_requests_are_under_way_at_once_and_each_gets_its_own_answer(
    surreal: EmbeddedSurreal,
) -> None:
    async with client_at(surreal) as client:
        answers = await asyncio.gather(
            *(client.query("SLEEP 1ms; RETURN 1" if n % 7 == 0 else f"RETURN {n}") for n in range(500))
        )
    assert [found for n, found in enumerate(answers) if n % 7] == [n for n in range(500) if n % 7]


async def test_values_are_the_clients_own_whichever_codec_they_go_through(surreal: EmbeddedSurreal) -> None:
    async with client_at(surreal) as client:
        values: list[dict[str, Value]] = [
            {"kind": "plain", "more": [1, {"a": 1.5}]},
            {"kind": "rich", "more": RecordID("a", 1), "gone": None},
        ]
        for params in values:
            made = await client.create(RecordID("thing", str(uuid4())), params)
            assert isinstance(made, dict)
            assert isinstance(made["id"], RecordID)
            assert {name: made.get(name) for name in params} == params
            assert await client.select(made["id"]) == [made]


async def test_a_result_of_several_megabytes_arrives_whole(surreal: EmbeddedSurreal) -> None:
    async with client_at(surreal) as client:
        texts = await client.query("RETURN array::repeat(string::repeat('x', 1000000), 3)")
        assert texts == ["x" * 1_000_000] * 3
        assert await client.query("RETURN array::len($texts)", {"texts": texts}) == 3


async def test_answers_may_come_in_any_order() -> None:
    def backwards(peer: h.Peer) -> None:
        peer.sock.sendall(b"".join(map(echo, reversed(requests(peer, 20)))))

    async with client_of(backwards, h.stall) as client:
        answers = await asyncio.gather(*(client.query(f"q{n}") for n in range(20)))
    assert answers == [f"q{n}" for n in range(20)]


async def test_an_answer_in_several_frames_is_put_together() -> None:
    def in_parts(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        message = cbor2.dumps({"id": request["id"], "result": [{"status": "OK", "result": "x" * 300}]})
        peer.sock.sendall(ws.frame(message[:7], fin=False))
        peer.sock.sendall(ws.frame(b"there?", 9))
        peer.sock.sendall(ws.frame(message[7:100], 0, fin=False) + ws.frame(message[100:], 0))
        assert read_request(peer) == (10, b"there?")

    async with client_of(in_parts, h.stall) as client:
        assert await client.query("q") == "x" * 300


async def test_a_request_that_is_given_up_disturbs_no_other() -> None:
    given_up = asyncio.Event()
    loop = asyncio.get_running_loop()

    def late(peer: h.Peer) -> None:
        found = requests(peer, 2)
        asyncio.run_coroutine_threadsafe(given_up.wait(), loop).result()
        peer.sock.sendall(b"".join(map(echo, found)))
        peer.sock.sendall(b"".join(map(echo, requests(peer, 1))))

    async with client_of(late, h.stall) as client:
        first, second = (
            asyncio.create_task(client.query("first")),
            asyncio.create_task(client.query("second")),
        )
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        given_up.set()
        assert await second == "second"
        assert first.cancelled()
        assert client.changes.given_up
        assert await client.query("third") == "third"


async def test_a_lost_connection_is_an_error_of_all_that_was_under_way() -> None:
    def hang_up(peer: h.Peer) -> None:
        requests(peer, 10)

    async with client_of(hang_up, h.hang_up) as client:
        ends = await asyncio.gather(*(client.query(f"q{n}") for n in range(10)), return_exceptions=True)
        assert [type(end) for end in ends] == [ConnectionUnavailableError] * 10
        assert len({id(end) for end in ends}) == 10
        assert client.is_lost
        with pytest.raises(ConnectionUnavailableError):
            await client.query("another")
        with pytest.raises(ConnectionUnavailableError):
            await client.connect()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        cbor2.dumps([1]),
        cbor2.dumps({"id": [1], "result": 1}),
        cbor2.dumps({"error": {"code": -32700, "message": "Parse error"}}),
        cbor2.dumps({"error": "no"}),
    ],
)
async def test_a_message_that_is_none_ends_the_connection_and_says_why(message: bytes) -> None:
    def babble(peer: h.Peer) -> None:
        requests(peer, 1)
        peer.sock.sendall(ws.frame(message))

    async with client_of(babble, h.stall) as client:
        with pytest.raises(ConnectionUnavailableError) as failure:
            await client.query("q")
        cause = failure.value.__cause__
        assert isinstance(cause, StreamError)
        assert cause.kind is FailureKind.PROTOCOL
        assert client.is_lost


async def test_an_answer_to_nothing_is_passed_over() -> None:
    def chatty(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        for message in (
            {"id": 4711, "result": 1},
            {"id": "other", "result": 1},
            {"result": {"id": uuid4()}},
            {},
        ):
            peer.sock.sendall(ws.frame(cbor2.dumps(message)))
        peer.sock.sendall(echo(request) + echo(request))

    async with client_of(chatty, h.stall) as client:
        assert await client.query("q") == "q"


async def test_closing_it_twice_at_a_time_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surreal_websocket, "_CLOSE_WAIT_S", 60.0)
    async with client_of(h.stall) as client:
        async with asyncio.timeout(30):
            await asyncio.gather(client.close(), client.close())
        assert client.is_lost


async def test_a_goodbye_along_with_the_welcome_is_an_error_of_the_connect() -> None:
    def both(peer: h.Peer) -> None:
        ws.upgrade(peer, ws.close(1013, "full"))

    with h.HostileServer((both, h.stall)) as server:
        client = FastWebSocket(surreal_target(f"ws://127.0.0.1:{server.port}", environ={}), None)
        with pytest.raises(ConnectionUnavailableError, match="full"):
            await client.connect()


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 503 Busy\r\n\r\nbusy",
        b"HTTP/1.1 503 Busy\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\n\x82",
    ],
)
async def test_a_refusal_is_told_by_its_status_however_it_ends(refusal: bytes) -> None:
    def refuse(peer: h.Peer) -> None:
        ws._head(peer)
        peer.sock.sendall(refusal)

    end = h.stall if b"Length" in refusal else h.hang_up
    with h.HostileServer((refuse, end)) as server:
        client = FastWebSocket(surreal_target(f"ws://127.0.0.1:{server.port}", environ={}), None)
        with pytest.raises(ConnectionUnavailableError, match="503"):
            async with asyncio.timeout(60):
                await client.connect()


async def test_a_value_that_the_client_cannot_read_is_told_as_that(surreal: EmbeddedSurreal) -> None:
    async with client_at(surreal) as client:
        with pytest.raises(ConnectionUnavailableError, match="cannot read"):
            await client.query("RETURN 0s")


async def test_a_server_that_asks_for_signs_of_life_and_reads_none_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pester(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        # Not so small that the kernel would throw away acknowledgements along with what it has no room for.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        pings = ws.frame(b"x" * 125, 9) * 1000
        for _ in range(200):
            peer.sock.sendall(pings)
        peer.sock.sendall(echo(request))

    peak = 0

    def write(stream: Stream, data: bytes) -> None:
        nonlocal peak
        hand_on(stream, data)
        peak = max(peak, stream.unsent_bytes)

    hand_on = Stream.write
    async with client_of(pester, h.stall) as client:
        monkeypatch.setattr(Stream, "write", write)
        assert await client.query("q") == "q"
    # Of twenty-six million, of which the kernel takes some.
    assert 1 << 19 < peak < 2 << 20


async def test_notifications_reach_whoever_listens_to_their_live_query() -> None:
    live = uuid4()

    def notify(peer: h.Peer) -> None:
        for number in range(2):
            said = {"id": live, "action": "CREATE", "result": {"number": number}}
            peer.sock.sendall(ws.frame(cbor2.dumps({"result": said})))

    listening = asyncio.Event()
    loop = asyncio.get_running_loop()

    def start(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        peer.sock.sendall(ws.frame(cbor2.dumps({"id": request["id"], "result": live})))
        asyncio.run_coroutine_threadsafe(listening.wait(), loop).result()

    async with client_of(start, notify, h.stall) as client:
        assert await client.live("person") == live
        notifications = await client.subscribe_live(live)
        listening.set()
        assert [(await anext(notifications))["number"] for _ in range(2)] == [0, 1]
        assert client.changes.live == {live}


@pytest.mark.parametrize("params", [None, {"more": RecordID("a", 1)}])
async def test_a_live_query_that_a_statement_began_is_ended_by_the_reset(params: Any) -> None:
    live = uuid4()
    killed: list[Any] = []

    def serve(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        peer.sock.sendall(answer(request, live))
        (request,) = requests(peer, 1)
        killed.append((request["method"], request["params"]))
        peer.sock.sendall(ws.frame(cbor2.dumps({"id": request["id"], "result": None})))

    async with client_of(serve, h.stall) as client:
        assert await client.query("live SELECT * FROM person", params) == live
        await client.subscribe_live(live)
        target = surreal_target("ws://127.0.0.1", environ={})
        await SurrealClientConnection(client, target, None).reset()
        assert killed == [("kill", [live])]
        assert client.live_queues == {}
        assert not client.is_changed


async def test_a_refused_request_is_the_clients_own_error(surreal: EmbeddedSurreal) -> None:
    async with client_at(surreal) as client:
        with pytest.raises(SurrealError, match="on purpose"):
            await client.query("THROW 'on purpose'")
        with pytest.raises(SurrealError):
            await client.signin({"username": surreal.user, "password": "wrong"})
        with pytest.raises(SurrealError):
            await client.kill("no UUID")
        with pytest.raises(SurrealError, match="string"):
            await client.query(5)  # type: ignore[arg-type]
        assert await client.query("RETURN 1") == 1


async def test_a_silent_server_is_asked_for_a_sign_of_life_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(surreal_direct, "_PING_EVERY_S", 0.05)
    seen: list[int] = []

    def silent(peer: h.Peer) -> None:
        seen.extend(read_request(peer)[0] for _ in range(2))

    async with client_of(silent, h.stall) as client:
        with pytest.raises(ConnectionUnavailableError, match="silent"):
            await client.query("q")
        assert client.is_lost
        async with asyncio.timeout(30):
            while len(seen) < 2:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.001)
        assert seen == [2, 9]


async def test_a_slow_server_that_answers_pings_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(peer: h.Peer) -> None:
        (request,) = requests(peer, 1)
        for _ in range(5):
            kind, payload = read_request(peer)
            assert kind == 9
            assert isinstance(payload, bytes)
            peer.sock.sendall(ws.frame(payload, 10))
        peer.sock.sendall(echo(request))

    # On a machine that stands still, the slow server may be silent for too long, too.
    for every_s in (0.02, 0.5, 5.0):
        monkeypatch.setattr(surreal_direct, "_PING_EVERY_S", every_s)
        async with client_of(slow, h.stall) as client:
            try:
                assert await client.query("q") == "q"
                break
            except ConnectionUnavailableError:
                assert every_s < 5


async def test_a_closed_client_leaves_no_timer_behind(surreal: EmbeddedSurreal) -> None:
    for end in ("close", "abort"):
        async with client_at(surreal) as client:
            channel = client._channel
            assert channel is not None
            assert channel._timer is not None
            assert not channel._timer.cancelled()
            if end == "close":
                await client.close()
            else:
                client.abort()
            assert channel._timer.cancelled()
            assert channel._pending == {}


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_certificate_is_checked_by_the_authority_that_the_target_names(
    tls_surreal: TlsSurreal, trusted: bool
) -> None:
    server = tls_surreal.server
    target = surreal_target(
        f"wss://localhost:{server.port}",
        user=server.user,
        password=server.password,
        namespace="direct",
        database="db",
        ca_file=str(tls_surreal.ca if trusted else tls_surreal.wrong_ca),
        environ={},
    )
    driver = SurrealClientDriver(target, direct=True)
    if trusted:
        connection = await driver.connect()
        assert await connection.query("RETURN 1") == 1
        await connection.close()
    else:
        with pytest.raises(ConnectError) as failure:
            await driver.connect()
        assert failure.value.kind is FailureKind.TLS
