"""The server of known behaviour that speaks SurrealDB's protocol: any client of SurrealDB can use it."""

import asyncio
import socket
from typing import Any

import cbor2
import pytest

from pool_bench.drivers.base import Driver
from pool_bench.drivers.surreal.client import SurrealClientDriver
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed, Truth
from pool_bench.servers.scripted.server import ScriptedSurreal
from pool_bench.targets.surreal import SurrealTarget

WAIT_S = 60.0
UPGRADE = (
    b"GET /rpc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: cbor\r\n\r\n"
)

ways = pytest.mark.parametrize(
    ("driver", "scheme"),
    [(driver, scheme) for driver in (SurrealDriver, SurrealClientDriver) for scheme in ("ws", "http")],
)


async def truth_of(server: ScriptedSurreal) -> Truth:
    """What it did; transports of ours that are still to close can do so meanwhile."""
    return await asyncio.to_thread(server.truth)


async def cycle(driver: Driver, queries: int = 1) -> None:
    """One connection from its beginning to its end."""
    connection = await driver.connect()
    for _ in range(queries):
        await connection.execute("RETURN 1")
    await connection.close()


@ways
async def test_the_truth_is_complete(driver: type[SurrealDriver], scheme: Any) -> None:
    with ScriptedSurreal() as server:
        for _ in range(3):
            await cycle(driver(server.target(scheme)), queries=2)
        truth = await truth_of(server)
    assert truth.queries == 6
    assert (truth.resets, truth.refused, truth.abandoned) == (0, 0, 0)
    counts = {phase: histogram.count for phase, histogram in truth.phases.items()}
    assert (counts[Phase.SIGNIN], counts[Phase.USE], counts[Phase.QUERY]) == (3, 3, 6)
    assert counts[Phase.CLOSE] == truth.served == truth.accepted == truth.total.count
    assert counts.get(Phase.UPGRADE, 0) == (3 if scheme == "ws" else 0)
    # The official client opens a connection for each request over HTTP: four in a cycle.
    each = 1 if scheme == "ws" or driver is SurrealDriver else 4
    assert truth.accepted == 3 * each


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize(
    ("step", "phase"), [("auth", Phase.SIGNIN), ("ready", Phase.USE), ("query", Phase.QUERY)]
)
async def test_a_delay_is_of_the_step_it_was_for(scheme: Any, step: str, phase: Phase) -> None:
    with ScriptedSurreal(Behaviour(**{step: Fixed(0.02)})) as server:  # type: ignore[arg-type]
        # A machine that stands still for a while makes any step long, but not each time.
        for _ in range(3):
            await cycle(SurrealDriver(server.target(scheme)))
        truth = await truth_of(server)
    long = {name for name, histogram in truth.phases.items() if histogram.min_ns >= 20e6}
    assert long == {phase}
    assert truth.total.min_ns >= 20e6


async def test_the_goodbye_can_be_delayed() -> None:
    with ScriptedSurreal(Behaviour(close=Fixed(0.02))) as server:
        connection = await SurrealDriver(server.target()).connect()
        await connection.close()
        truth = await truth_of(server)
    assert connection.phases_ns[Phase.CLOSE] >= truth.phases[Phase.CLOSE].max_ns >= 20e6


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_what_has_no_room_is_refused_and_what_is_to_be_reset_is(scheme: Any) -> None:
    with ScriptedSurreal(Behaviour(max_connections=1)) as server:
        first = await SurrealDriver(server.target(scheme)).connect()
        with pytest.raises(ConnectError) as failure:
            await SurrealDriver(server.target(scheme)).connect()
        await first.close()
        truth = await truth_of(server)
    assert failure.value.kind is FailureKind.TOO_MANY_CONNECTIONS
    assert (truth.refused, truth.served, truth.open_peak) == (1, 1, 1)
    with ScriptedSurreal(Behaviour(reset_share=1.0)) as server:
        with pytest.raises(ConnectError) as failure:
            await SurrealDriver(server.target(scheme)).connect()
        assert (await truth_of(server)).resets == 1
    assert failure.value.kind is FailureKind.RESET


async def test_without_a_user_nobody_signs_in() -> None:
    with ScriptedSurreal() as server:
        await cycle(SurrealDriver(server.target(anonymous=True), auth="none"))
        assert Phase.SIGNIN not in (await truth_of(server)).phases


def dial(target: SurrealTarget) -> socket.socket:
    return socket.create_connection((target.host, target.port), timeout=WAIT_S)


def request(number: int) -> bytes:
    """A masked frame with a request in it."""
    payload = cbor2.dumps({"id": number, "method": "query", "params": ["RETURN " + "1" * 200, {}]})
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return b"\x82" + bytes((0x80 | 126,)) + len(payload).to_bytes(2, "big") + mask + masked


def read_answer(sock: socket.socket) -> dict[str, Any]:
    kind, length = sock.recv(1), sock.recv(1)
    assert kind == b"\x82"
    answer: dict[str, Any] = cbor2.loads(sock.recv(length[0], socket.MSG_WAITALL))
    return answer


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_messages_may_arrive_in_pieces_and_all_at_once(size: int) -> None:
    with ScriptedSurreal() as server, dial(server.target()) as sock:
        sent = UPGRADE + request(1) + request(2)
        for start in range(0, len(sent), size):
            sock.sendall(sent[start : start + size])
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        # The example of RFC 6455, section 1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert [read_answer(sock)["id"] for _ in range(2)] == [1, 2]
        # A ping is answered; a frame of no known sort ends the connection.
        sock.sendall(b"\x89\x80\0\0\0\0")
        assert sock.recv(2) == b"\x8a\0"
        sock.sendall(b"\x83\x80\0\0\0\0")
        assert sock.recv(1) == b""
        assert server.truth().abandoned == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"x" * (2 << 20),
    ],
    ids=["no request", "no length", "no CBOR", "no end"],
)
def test_whoever_speaks_something_else_is_left(nonsense: bytes) -> None:
    with ScriptedSurreal() as server, dial(server.target()) as sock:
        try:
            sock.sendall(nonsense)
            assert sock.recv(1) == b""
        except OSError:
            pass  # it was ended before everything was said
        assert server.truth().abandoned == 1
