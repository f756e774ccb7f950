"""The official SurrealDB client behind the driver protocol, over what it uses itself and over what we do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import cbor2
import pytest
from surrealdb.errors import ConnectionUnavailableError, SurrealError

from pool_bench.drivers.base import WatchedConnection
from pool_bench.drivers.surreal.client import SurrealClientConnection, SurrealClientDriver, check_holdable
from pool_bench.drivers.surreal.client_session import TrackingWebSocket
from pool_bench.drivers.surreal.client_transport import FastWebSocket
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.servers.scripted.server import ScriptedSurreal
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import SurrealTarget, surreal_target
from tests.drivers.surreal import test_hostile as ws
from tests.support import hostile_postgres as h
from tests.support.servers import StartSurreal

# "direct" is a WebSocket of ours in the place of the client's own.
every_carrier = pytest.mark.parametrize("carrier", ["ws", "direct", "http"])
every_socket = pytest.mark.parametrize("carrier", ["ws", "direct"])
_WHERE = "RETURN [session::ns(), session::db()]"


def _target(server: EmbeddedSurreal, carrier: str = "ws", **options: Any) -> SurrealTarget:
    given = {"user": server.user, "password": server.password, "namespace": "client", "database": "db"}
    return surreal_target(f"{_scheme(carrier)}://127.0.0.1:{server.port}", environ={}, **(given | options))


def _scheme(carrier: str) -> str:
    return "ws" if carrier == "direct" else carrier


def _driver(target: SurrealTarget, carrier: str) -> SurrealClientDriver:
    return SurrealClientDriver(target, direct=carrier == "direct")


@asynccontextmanager
async def _connection(
    server: EmbeddedSurreal, carrier: str = "ws", **options: Any
) -> AsyncIterator[SurrealClientConnection]:
    connection = await _driver(_target(server, carrier, **options), carrier).connect()
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that the client asks the server for, in order."""
    seen: list[str] = []
    send, ask = TrackingWebSocket._send, FastWebSocket._ask

    async def spy(client: TrackingWebSocket, message: Any, process: str, bypass: bool = False) -> Any:
        seen.append(message.method.value)
        return await send(client, message, process, bypass)

    async def direct_spy(client: FastWebSocket, number: Hashable, message: bytes) -> dict[str, Any]:
        seen.append(cbor2.loads(message)["method"])
        return await ask(client, number, message)

    monkeypatch.setattr(TrackingWebSocket, "_send", spy)
    monkeypatch.setattr(FastWebSocket, "_ask", direct_spy)
    return seen


@every_carrier
async def test_queries_run_with_parameters_where_the_target_says(
    surreal: EmbeddedSurreal, carrier: str
) -> None:
    async with _connection(surreal, carrier) as connection:
        await connection.ping()
        assert await connection.query(_WHERE) == ["client", "db"]
        assert await connection.query("RETURN $a + $b; RETURN 'second'", {"a": 40, "b": 2}) == 42
        await connection.execute("RETURN $a", {"a": 1})


@every_carrier
async def test_without_a_user_it_stays_anonymous(surreal: EmbeddedSurreal, carrier: str) -> None:
    async with _connection(surreal, carrier, user=None, password=None) as connection:
        await connection.ping()
        with pytest.raises(ConnectError) as failure:
            await connection.execute("RETURN 1")
        assert failure.value.kind is FailureKind.AUTH


def test_what_the_client_cannot_do_is_a_usage_error(surreal: EmbeddedSurreal) -> None:
    for options in ({"verify": False}, {"ca_file": "x.pem"}, {"database": None}):
        with pytest.raises(UsageError, match="official client"):
            SurrealClientDriver(_target(surreal, "wss", **options))


# -- reset -----------------------------------------------------------------------------------------------


@every_socket
async def test_a_reset_of_what_was_not_changed_asks_the_server_nothing(
    surreal: EmbeddedSurreal, carrier: str, methods: list[str]
) -> None:
    async with _connection(surreal, carrier) as connection:
        await connection.execute("CREATE fuse SET user = 1")
        methods.clear()
        await connection.reset()
        assert methods == []


@every_carrier
async def test_a_reset_restores_namespace_database_and_variables(
    surreal: EmbeddedSurreal, carrier: str
) -> None:
    async with _connection(surreal, carrier) as connection:
        await connection.raw.use("elsewhere", "too")
        await connection.raw.let("x", 1)
        await connection.raw.let("y", 2)
        assert await connection.query("RETURN [$x, $y]") == [1, 2]
        await connection.reset()
        assert await connection.query(_WHERE) == ["client", "db"]
        assert await connection.query("RETURN [$x, $y]") == [None, None]


@every_socket
async def test_a_reset_signs_in_again_only_where_the_sign_in_was_changed(
    surreal: EmbeddedSurreal, carrier: str, methods: list[str]
) -> None:
    async with _connection(surreal, carrier) as connection:
        methods.clear()
        await connection.execute("USE NS elsewhere DB too")
        await connection.raw.let("x", 1)
        await connection.reset()
        assert methods == ["query", "let", "unset", "use"]
        methods.clear()
        await connection.raw.invalidate()
        await connection.reset()
        assert methods == ["invalidate", "invalidate", "signin", "use"]
        assert await connection.query(_WHERE) == ["client", "db"]
        methods.clear()
        await connection.reset()
        assert methods == []


@every_carrier
@pytest.mark.parametrize(
    "change",
    [
        lambda raw, _: raw.invalidate(),
        lambda raw, tokens: raw.authenticate(tokens.access),
        lambda raw, _: raw.signin(
            {"namespace": "client", "database": "db", "username": "viewer", "password": "v"}
        ),
    ],
    ids=["invalidate", "authenticate", "signin"],
)
async def test_a_reset_undoes_any_change_of_the_sign_in(
    surreal: EmbeddedSurreal, carrier: str, change: Callable[..., Any]
) -> None:
    define = "DEFINE USER OVERWRITE viewer ON DATABASE PASSWORD 'v' ROLES VIEWER"
    async with _connection(surreal, carrier) as connection:
        await connection.execute(define)
        viewer: dict[str, Any] = {
            "namespace": "client",
            "database": "db",
            "username": "viewer",
            "password": "v",
        }
        async with _connection(surreal, carrier) as other:
            tokens = await other.raw.signin(viewer)
        await change(connection.raw, tokens)
        with pytest.raises(ConnectError) as failure:
            await connection.execute("INFO FOR ROOT")
        assert failure.value.kind is FailureKind.AUTH
        await connection.reset()
        await connection.execute("INFO FOR ROOT")
        assert await connection.query(_WHERE) == ["client", "db"]


@every_socket
async def test_a_reset_detaches_sessions_that_were_left(
    surreal: EmbeddedSurreal, carrier: str, methods: list[str]
) -> None:
    async with _connection(surreal, carrier) as connection:
        assert isinstance(connection.raw, TrackingWebSocket)
        ended, left = await connection.raw.new_session(), await connection.raw.new_session()
        await left.signin({"username": surreal.user, "password": surreal.password})
        await left.use("elsewhere", "too")
        await ended.close_session()
        methods.clear()
        await connection.reset()
        assert methods == ["detach"]
        with pytest.raises(SurrealError, match="Session not found"):
            await left.query("RETURN 1")


@every_socket
async def test_a_reset_ends_live_queries_and_transactions_that_were_left(carrier: str) -> None:
    # The embedded engine has neither, so the server is one that agrees to everything.
    live, transaction = uuid4(), uuid4()
    seen: list[tuple[str, Any]] = []

    def agree(peer: h.Peer) -> None:
        while True:
            size = peer.read(2)[1] & 0x7F
            size = int.from_bytes(peer.read(2), "big") if size == 126 else size
            mask, data = peer.read(4), peer.read(size)
            message = cbor2.loads(bytes(byte ^ mask[n % 4] for n, byte in enumerate(data)))
            method = message["method"]
            seen.append((method, message.get("params")))
            result = {"live": live, "begin": transaction, "signin": "a.b.c"}.get(method)
            peer.sock.sendall(ws.frame(cbor2.dumps({"id": message["id"], "result": result})))

    with h.HostileServer((ws.upgrade, agree)) as server:
        target = surreal_target(f"ws://127.0.0.1:{server.port}", environ={})
        connection = await _driver(target, carrier).connect()
        assert isinstance(connection.raw, TrackingWebSocket)
        assert await connection.raw.live("person") == live
        assert await connection.raw.begin() == transaction
        seen.clear()
        await connection.reset()
        assert [method for method, _ in seen] == ["kill", "cancel"]
        assert [str(params[0]) for _, params in seen] == [str(live), str(transaction)]
        await connection.raw.live("person")
        await connection.raw.kill(live)
        await connection.raw.begin()
        await connection.raw.commit(transaction)
        seen.clear()
        await connection.reset()
        assert seen == []
        connection.terminate()


# -- the end ---------------------------------------------------------------------------------------------


@every_carrier
@pytest.mark.parametrize("end", ["close", "terminate"])
async def test_the_client_of_a_closed_connection_does_not_open_another(
    surreal: EmbeddedSurreal, carrier: str, end: str
) -> None:
    connection = await _driver(_target(surreal, carrier), carrier).connect()
    if end == "close":
        await connection.close()
    else:
        connection.terminate()
    # Left to itself, the client would, and without a sign-in.
    with pytest.raises(ConnectionUnavailableError):
        await connection.raw.query("RETURN 1")


@every_socket
async def test_a_query_that_is_cut_off_is_an_error_and_not_run_again(
    start_surreal: StartSurreal, carrier: str
) -> None:
    server = start_surreal(SurrealConfig())
    connection = await _driver(_target(server, carrier), carrier).connect()
    await connection.execute("CREATE before")
    running = asyncio.create_task(connection.execute("SLEEP 1h; CREATE twice"))
    await connection.ping()
    await asyncio.to_thread(server.restart)
    with pytest.raises(ConnectError) as failure:
        await running
    assert failure.value.kind in (FailureKind.CLOSED, FailureKind.SERVER_SHUTDOWN)
    assert connection.is_closed()
    with pytest.raises(ConnectError):
        await connection.execute("RETURN 1")
    connection.terminate()
    async with _connection(server) as other:
        assert await other.query("RETURN (INFO FOR DB).tables") == {}
    await asyncio.to_thread(server.stop)


@every_socket
@pytest.mark.parametrize(
    ("script", "kind", "phase"),
    [
        ((h.read_some, h.reset), FailureKind.RESET, Phase.CONNECT),
        ((ws._head, h.hang_up), FailureKind.CLOSED, Phase.CONNECT),
        ((ws._head, h.send(b"220 smtp ready\r\n\r\n"), h.hang_up), FailureKind.PROTOCOL, Phase.CONNECT),
        ((ws._head, h.send(ws.http(b"", "404 Not Found")), h.stall), FailureKind.PROTOCOL, Phase.CONNECT),
        ((ws._head, h.send(ws.http(b"", "401 No")), h.stall), FailureKind.AUTH, Phase.CONNECT),
        ((ws.upgrade, ws.read_frame, h.hang_up), FailureKind.CLOSED, Phase.SIGNIN),
        (
            (ws.upgrade, ws.read_frame, h.send(ws.close(1013)), h.hang_up),
            FailureKind.TOO_MANY_CONNECTIONS,
            Phase.SIGNIN,
        ),
        (ws._said(ws.frame(b"\xff")), FailureKind.PROTOCOL, Phase.SIGNIN),
        (ws._said(ws.frame(cbor2.dumps([1]))), FailureKind.PROTOCOL, Phase.SIGNIN),
    ],
)
async def test_what_a_server_gets_wrong_is_a_connect_error(
    script: h.Script, kind: FailureKind, phase: Phase, carrier: str
) -> None:
    # The client itself tells neither a reset nor a broken message from an end.
    unseen = {FailureKind.RESET, FailureKind.PROTOCOL} if phase is Phase.SIGNIN else {FailureKind.RESET}
    if carrier == "ws" and kind in unseen:
        kind = FailureKind.CLOSED
    with h.HostileServer(script) as server:
        target = surreal_target(f"ws://u:secret@127.0.0.1:{server.port}", environ={})
        with pytest.raises(ConnectError) as failure:
            await _driver(target, carrier).connect()
    assert (failure.value.kind, failure.value.phase) == (kind, phase)
    assert "secret" not in str(failure.value)


async def test_a_server_that_dies_without_a_goodbye_is_told_of_too() -> None:
    told: asyncio.Queue[ConnectError] = asyncio.Queue()
    with ScriptedSurreal() as server:
        connection: WatchedConnection = await SurrealClientDriver(server.target()).connect()
        connection.watch(told.put_nowait)
        await connection.ping()
        assert told.empty()
    async with asyncio.timeout(60):
        error = await told.get()
    assert (error.kind, error.phase) in {
        (FailureKind.CLOSED, Phase.HOLD),
        (FailureKind.RESET, Phase.HOLD),
    }
    connection.terminate()


def test_over_http_there_is_nothing_to_hold() -> None:
    target = surreal_target("http://127.0.0.1:1", user="u", password="p", environ={})
    with pytest.raises(UsageError, match="opens a connection for each request"):
        check_holdable(target)
