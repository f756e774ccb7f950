"""The lean SurrealDB driver against a real engine, over all four schemes."""

import asyncio
import contextlib
import socket
from typing import Any

import psutil
import pytest

from pool_bench.drivers.base import Driver
from pool_bench.drivers.network.addresses import literal_endpoint
from pool_bench.drivers.network.connecting import connect
from pool_bench.drivers.network.failures import StreamError
from pool_bench.drivers.network.stream import Stream
from pool_bench.drivers.surreal.driver import SurrealDriver, ask_surreal
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import AUTH_MODES, AuthMode, SurrealTarget, surreal_target
from tests.support.servers import StartSurreal, TlsSurreal

SCHEMES = ("ws", "wss", "http", "https")


def _target(server: EmbeddedSurreal, scheme: str = "ws", **options: Any) -> SurrealTarget:
    given = {"user": server.user, "password": server.password, "namespace": "driver", "database": "db"}
    return surreal_target(f"{scheme}://127.0.0.1:{server.port}", environ={}, **(given | options))


@pytest.fixture
def any_target(
    request: pytest.FixtureRequest, surreal: EmbeddedSurreal, tls_surreal: TlsSurreal
) -> SurrealTarget:
    scheme: str = request.param
    if scheme in ("wss", "https"):
        return _target(tls_surreal.server, scheme, ca_file=str(tls_surreal.ca))
    return _target(surreal, scheme)


all_schemes = pytest.mark.parametrize("any_target", SCHEMES, indirect=True)


def _driver(target: SurrealTarget, auth: AuthMode = "signin") -> SurrealDriver:
    return SurrealDriver(target, auth=auth)


async def _fails(driver: Driver) -> ConnectError:
    with pytest.raises(ConnectError) as failure:
        await driver.connect()
    return failure.value


@all_schemes
@pytest.mark.parametrize("auth", AUTH_MODES)
async def test_every_step_of_a_cycle_is_timed_in_whole_nanoseconds(
    any_target: SurrealTarget, auth: AuthMode
) -> None:
    driver = _driver(any_target, auth)
    connection = await driver.connect()
    await connection.ping()
    await connection.close()
    assert tuple(connection.phases_ns) == driver.phases
    assert all(type(spent) is int and spent > 0 for spent in connection.phases_ns.values())
    expected = {Phase.TCP, Phase.USE, Phase.QUERY, Phase.CLOSE}
    expected |= {Phase.TLS} if any_target.is_secure else set()
    expected |= {Phase.UPGRADE} if any_target.is_websocket else set()
    expected |= {Phase.SIGNIN} if auth != "none" else set()
    assert set(driver.phases) == expected


async def test_a_name_is_resolved_and_a_place_not_asked_for_is_not_selected(surreal: EmbeddedSurreal) -> None:
    target = surreal_target(
        f"ws://localhost:{surreal.port}", user=surreal.user, password=surreal.password, environ={}
    )
    driver = _driver(target)
    connection = await driver.connect()
    assert Phase.RESOLVE in connection.phases_ns
    assert Phase.USE not in connection.phases_ns
    await connection.close()


@all_schemes
@pytest.mark.parametrize("auth", ["signin", "token"])
async def test_queries_run_where_the_target_says(any_target: SurrealTarget, auth: AuthMode) -> None:
    connection = await _driver(any_target, auth).connect()
    wanted = "IF [session::ns(), session::db(), $x] != ['driver', 'db', 42] { THROW 'elsewhere' }"
    await connection.execute(wanted, {"x": 42})
    await connection.close()


@all_schemes
async def test_a_parameter_that_cannot_be_sent_costs_no_connection(any_target: SurrealTarget) -> None:
    connection = await _driver(any_target).connect()
    with pytest.raises(TypeError, match="cannot be sent"):
        await connection.execute("RETURN $x", {"x": object()})
    await connection.ping()
    await connection.close()


@all_schemes
async def test_anonymous_connections_may_connect_and_not_query(any_target: SurrealTarget) -> None:
    connection = await _driver(any_target, "none").connect()
    await connection.ping()
    with pytest.raises(ConnectError) as failure:
        await connection.execute("RETURN 1")
    assert failure.value.kind is FailureKind.AUTH
    await connection.close()


async def test_with_a_token_the_password_is_sent_once(
    surreal: EmbeddedSurreal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    write = Stream.write

    def spy(stream: Stream, data: bytes) -> None:
        sent.append(data)
        write(stream, data)

    monkeypatch.setattr(Stream, "write", spy)
    driver = _driver(_target(surreal, "http"), "token")
    await asyncio.gather(driver.prepare(), driver.prepare())
    for _ in range(3):
        connection = await driver.connect()
        await connection.execute("RETURN 1")
        await connection.close()
    assert sum(surreal.password.encode() in data for data in sent) == 1


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_token_that_is_about_to_expire_is_renewed(surreal: EmbeddedSurreal, scheme: str) -> None:
    driver = _driver(_target(surreal, scheme), "token")
    await driver.prepare()
    first = driver._token
    await driver.prepare()
    assert driver._token == first
    # Expired, and refused wherever it is still sent.
    driver._token, driver._token_until_s = "a.b.c", 0.0
    connection = await driver.connect()
    await connection.execute("RETURN 1")
    assert driver._token not in ("a.b.c", first)
    await connection.close()


@all_schemes
async def test_a_reset_selects_the_first_place_again(any_target: SurrealTarget) -> None:
    connection = await _driver(any_target).connect()
    await connection.execute("USE NS elsewhere DB elsewhere")
    await connection.reset()
    await connection.execute("IF session::ns() != 'driver' { THROW 'elsewhere' }")
    await connection.close()


@all_schemes
async def test_a_big_result_comes_through(any_target: SurrealTarget) -> None:
    connection = await _driver(any_target).connect()
    await connection.execute("RETURN [$x, $x, $x]", {"x": "y" * 3_000_000})
    await connection.execute("IF string::len($x) != 3000000 { THROW 'cut' }", {"x": "y" * 3_000_000})
    await connection.close()


# -- TLS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_certificate_of_another_authority_is_a_failure_of_tls(
    tls_surreal: TlsSurreal, scheme: str
) -> None:
    for ca_file in (str(tls_surreal.wrong_ca), None):
        error = await _fails(_driver(_target(tls_surreal.server, scheme, ca_file=ca_file)))
        assert (error.kind, error.phase) == (FailureKind.TLS, Phase.TLS)
        assert "certificate verify failed" in error.message or "verification failed" in error.message


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_certificate_need_not_be_checked(tls_surreal: TlsSurreal, scheme: str) -> None:
    connection = await _driver(_target(tls_surreal.server, scheme, verify=False)).connect()
    await connection.execute("RETURN 1")
    await connection.close()


@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_tls_to_a_server_without_it_is_a_failure_of_that_step(
    surreal: EmbeddedSurreal, scheme: str
) -> None:
    error = await _fails(_driver(_target(surreal, scheme)))
    assert error.phase is Phase.TLS
    assert error.kind in (FailureKind.TLS, FailureKind.CLOSED)


def test_a_ca_file_that_is_none_is_a_usage_error(surreal: EmbeddedSurreal, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="No such file"):
        _driver(_target(surreal, "wss", ca_file=str(tmp_path / "missing.pem")))
    (tmp_path / "not.pem").write_text("not PEM")
    with pytest.raises(UsageError, match="no certificate"):
        _driver(_target(surreal, "wss", ca_file=str(tmp_path / "not.pem")))


# -- what a server may do to connections that are held ---------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_the_end_of_the_server_is_noticed_without_a_request(
    start_surreal: StartSurreal, scheme: str
) -> None:
    server = start_surreal(SurrealConfig())
    connection = await _driver(_target(server, scheme)).connect()
    await asyncio.to_thread(server.stop)
    async with asyncio.timeout(60):
        while not connection.is_closed():  # noqa: ASYNC110 - another process's end
            await asyncio.sleep(0.005)
    with pytest.raises(ConnectError) as failure:
        await connection.ping()
    expected = FailureKind.SERVER_SHUTDOWN if scheme == "ws" else FailureKind.CLOSED
    assert failure.value.kind is expected


def test_signing_in_without_a_user_is_a_usage_error() -> None:
    target = surreal_target("ws://127.0.0.1:8000", environ={})
    with pytest.raises(UsageError, match="--user and --pass"):
        SurrealDriver(target)
    SurrealDriver(target, auth="none")


async def test_it_is_known_that_the_server_is_embedded(surreal: EmbeddedSurreal) -> None:
    info = await ask_surreal(_target(surreal))
    assert f"{info.product} {info.version}" == surreal.version
    assert not info.pooled


async def test_hundreds_of_connections_are_open_at_once(surreal: EmbeddedSurreal) -> None:
    driver = _driver(_target(surreal), "token")
    await driver.prepare()
    connections = await asyncio.gather(*(driver.connect() for _ in range(300)))
    await asyncio.gather(*(connection.ping() for connection in connections))
    await asyncio.gather(*(connection.close() for connection in connections))
    assert all(connection.is_closed() for connection in connections)


@all_schemes
def test_it_works_on_uvloop_as_well(any_target: SurrealTarget) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def cycle() -> None:
        connection = await _driver(any_target).connect()
        await connection.execute("RETURN $x", {"x": "y" * 300_000})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute("SLEEP 1h")
        assert connection.is_closed()
        connection = await _driver(any_target).connect()
        await connection.close()
        assert tuple(connection.phases_ns) == (*_driver(any_target).phases[:-2], Phase.CLOSE)

    uvloop.run(cycle())


@all_schemes
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
def test_a_connect_that_is_cancelled_anywhere_leaves_no_socket(
    any_target: SurrealTarget, loop_name: str
) -> None:
    factory = asyncio.new_event_loop
    if loop_name == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    async def cancel_everywhere() -> None:
        driver = _driver(any_target, "none")
        await (await driver.connect()).close()
        await asyncio.sleep(0)
        ourselves = psutil.Process()
        before = ourselves.num_fds()
        for turns in range(60):
            task = asyncio.create_task(driver.connect())
            for _ in range(turns):
                await asyncio.sleep(0 if turns % 2 else 0.0002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await task).terminate()
        async with asyncio.timeout(60):
            while ourselves.num_fds() > before:  # noqa: ASYNC110 - transports close in turns of their own
                await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(cancel_everywhere())


async def test_a_stream_sends_small_messages_at_once(surreal: EmbeddedSurreal) -> None:
    class Deaf:
        def received(self, data: bytes, arrived_ns: int) -> None:
            pass

        def lost(self, error: StreamError) -> None:
            pass

    endpoint = literal_endpoint("127.0.0.1", surreal.port)
    assert endpoint is not None
    sock = await connect([endpoint])
    stream = Stream(Deaf())
    await stream.open(sock)
    # asyncio switches Nagle's algorithm off, but only on a socket whose protocol was named.
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    stream.abort()
