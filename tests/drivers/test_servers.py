"""The drivers against real servers: every way to authenticate, TLS in every mode, and what servers refuse."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import trustme

from pool_bench.drivers.base import Connection, Driver, DriverName
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.driver import WireConnection, WireDriver, ask_server, wait_for
from pool_bench.drivers.wire.plan import make_plan
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.drivers import make_drivers
from pool_bench.load.spec import ConnectSpec
from pool_bench.pgwire import events as ev
from pool_bench.pgwire import scram
from pool_bench.pgwire.connection import NEED_DATA
from pool_bench.pgwire.connection import Connection as Protocol
from pool_bench.servers.pgbouncer import PgBouncer
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support import hostile_postgres as h
from tests.support.generators import loop_closes_all_but, nothing_left, open_fds, run, target
from tests.support.servers import StartPostgres, TlsPostgres

K, P = FailureKind, Phase
DRIVERS: tuple[DriverName, ...] = ("wire", "asyncpg", "psycopg")
every_driver = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(autouse=True)
def nothing_is_left(
    request: pytest.FixtureRequest, embedded: EmbeddedPostgres, tls_postgres: TlsPostgres
) -> Iterator[None]:
    """No test of this file leaves a socket; the servers are started before it looks.

    Tests that start servers of their own, which outlive them, leave it to `run` to look.
    """
    if "start_postgres" in request.fixturenames and "pgbouncer" not in request.fixturenames:
        yield
        return
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
async def transports_end(request: pytest.FixtureRequest, nothing_is_left: None) -> AsyncIterator[None]:
    """Each test's loop goes on until it has ended what was closed, as it does in a run."""
    fds = set(open_fds().items())
    yield
    if "start_postgres" not in request.fixturenames:
        await loop_closes_all_but(fds)


def _driver(name: DriverName, url: str) -> Driver:
    (driver,) = make_drivers_of(name, url)
    return driver


def make_drivers_of(name: DriverName, url: str) -> tuple[Driver, ...]:
    """The drivers that the generator would use; it uses none for `wire`."""
    if name == "wire":
        return (WireDriver(target(url)),)
    return make_drivers(ConnectSpec(targets=(target(url),), driver=name))


async def _connect(name: DriverName, url: str) -> Connection:
    async with asyncio.timeout(60):
        return await _driver(name, url).connect()


async def _works(name: DriverName, url: str) -> None:
    connection = await _connect(name, url)
    await connection.ping()
    await connection.execute("SELECT 1; SELECT 2" if name != "psycopg" else "SELECT 1")
    await connection.reset()
    assert not connection.is_closed()
    await connection.close()
    await connection.close()
    assert connection.is_closed()


async def _fails(name: DriverName, url: str) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await _connect(name, url)
    return caught.value


async def _wire(url: str) -> WireConnection:
    return await WireDriver(target(url)).connect()


async def _answer(connection: WireConnection, condition: str) -> bool:
    (completion,) = await connection.tags(f"SELECT 1 WHERE {condition}")
    return completion.rows == 1


def _url(
    server: TlsPostgres, user: str, options: str, *, host: str = "127.0.0.1", password: str | None = None
) -> str:
    secret = password if password is not None else server.users[user].password
    credentials = user if secret is None else f"{user}:{quote(secret)}"
    return f"postgresql://{credentials}@{host}:{server.port}/postgres?{options}"


def _embedded_url(
    server: EmbeddedPostgres, options: str = "sslmode=disable", user: str = EmbeddedPostgres.user
) -> str:
    return f"postgresql://{user}@{server.host}:{server.port}/postgres?{options}"


# Authentication


@every_driver
@pytest.mark.parametrize("user", ["postgres", "scram_user", "md5_user", "password_user"])
@pytest.mark.parametrize("mode", ["disable", "require"])
async def test_every_method_lets_the_right_password_in(
    tls_postgres: TlsPostgres, driver: DriverName, user: str, mode: str
) -> None:
    await _works(driver, _url(tls_postgres, user, f"sslmode={mode}"))


@every_driver
@pytest.mark.parametrize("user", ["scram_user", "md5_user", "password_user"])
@pytest.mark.parametrize("mode", ["disable", "prefer", "allow"])
async def test_a_wrong_password_is_named_with_its_sqlstate(
    tls_postgres: TlsPostgres, driver: DriverName, user: str, mode: str
) -> None:
    error = await _fails(driver, _url(tls_postgres, user, f"sslmode={mode}", password="wrong"))
    assert (error.kind, error.sqlstate) == (K.AUTH, "28P01")
    assert error.phase is (P.AUTH if driver == "wire" else P.CONNECT)
    assert "password authentication failed" in error.message
    assert "wrong" not in str(error)


@every_driver
async def test_a_client_certificate_lets_its_user_in(tls_postgres: TlsPostgres, driver: DriverName) -> None:
    files = f"sslcert={tls_postgres.client_cert}&sslkey={tls_postgres.client_key}"
    await _works(driver, _url(tls_postgres, "cert_user", f"sslmode=require&{files}", password=""))
    error = await _fails(driver, _url(tls_postgres, "cert_user", "sslmode=require", password=""))
    assert error.kind is K.AUTH


async def test_scram_is_bound_to_the_channel_where_that_is_wanted(
    tls_postgres: TlsPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[bytes] = []
    first = scram.ScramClient.first

    def noting(self: scram.ScramClient) -> bytes:
        message = first(self)
        headers.append(message.partition(b"n=")[0])
        return message

    monkeypatch.setattr(scram.ScramClient, "first", noting)
    for options in (
        "sslmode=require&channel_binding=require",
        "sslmode=require",
        "sslmode=require&channel_binding=disable",
        "sslmode=disable",
    ):
        await _works("wire", _url(tls_postgres, "scram_user", options))
    assert headers == [b"p=tls-server-end-point,,", b"p=tls-server-end-point,,", b"n,,", b"n,,"]


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
@pytest.mark.parametrize("user", ["postgres", "md5_user", "password_user"])
async def test_a_required_channel_binding_refuses_methods_without_it(
    tls_postgres: TlsPostgres, driver: DriverName, user: str
) -> None:
    await _works(driver, _url(tls_postgres, "scram_user", "sslmode=require&channel_binding=require"))
    error = await _fails(driver, _url(tls_postgres, user, "sslmode=require&channel_binding=require"))
    assert "channel binding" in error.message
    if driver == "wire":
        assert (error.kind, error.phase) == (K.AUTH, P.AUTH)


@every_driver
async def test_an_unknown_database_and_an_unknown_role_are_refused(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    base = f"@{embedded.host}:{embedded.port}"
    error = await _fails(driver, f"postgresql://{embedded.user}{base}/nowhere?sslmode=disable")
    assert (error.kind, error.sqlstate) == (K.NO_DATABASE, "3D000")
    assert error.message == 'database "nowhere" does not exist'
    error = await _fails(driver, f"postgresql://nobody_here{base}/postgres?sslmode=disable")
    assert (error.kind, error.sqlstate) == (K.AUTH, "28000")


# TLS


@every_driver
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
async def test_every_sslmode_reaches_a_server_with_tls(
    tls_postgres: TlsPostgres, driver: DriverName, mode: str
) -> None:
    options = f"sslmode={mode}" + (f"&sslrootcert={tls_postgres.ca}" if mode.startswith("verify") else "")
    await _works(
        driver,
        _url(tls_postgres, "scram_user", options, host="localhost" if mode == "verify-full" else "127.0.0.1"),
    )
    if driver == "wire":
        connection = await _wire(_url(tls_postgres, "scram_user", options))
        try:
            encrypted = await _answer(
                connection, "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
            )
            assert encrypted == (mode not in ("disable", "allow"))
            assert (P.TLS in connection.phases_ns) == encrypted
        finally:
            await connection.close()


@every_driver
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_a_wrong_authority_is_refused(
    tls_postgres: TlsPostgres, driver: DriverName, mode: str
) -> None:
    error = await _fails(
        driver, _url(tls_postgres, "scram_user", f"sslmode={mode}&sslrootcert={tls_postgres.wrong_ca}")
    )
    assert error.kind is K.TLS
    assert error.phase is (P.TLS if driver == "wire" else P.CONNECT)
    assert "certificate" in error.message


# asyncpg connects to the very name it checks: it has no hostaddr.
@pytest.mark.parametrize("driver", ["wire", "psycopg"])
async def test_a_certificate_for_another_name_is_refused_by_verify_full_only(
    tls_postgres: TlsPostgres, driver: DriverName
) -> None:
    url = f"hostaddr=127.0.0.1&sslrootcert={tls_postgres.ca}"
    await _works(driver, _url(tls_postgres, "scram_user", f"sslmode=verify-ca&{url}", host="db.example.org"))
    error = await _fails(
        driver, _url(tls_postgres, "scram_user", f"sslmode=verify-full&{url}", host="db.example.org")
    )
    assert error.kind is K.TLS


@every_driver
async def test_a_server_without_tls_is_refused_where_tls_is_required(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    for mode in ("disable", "allow", "prefer"):
        await _works(driver, _embedded_url(embedded, f"sslmode={mode}"))
    error = await _fails(driver, _embedded_url(embedded, "sslmode=require"))
    assert error.kind is K.TLS
    assert error.phase is (P.TLS if driver == "wire" else P.CONNECT)


@every_driver
@pytest.mark.parametrize(
    ("user", "mode"),
    [("tls_only", "allow"), ("tls_only", "prefer"), ("tls_never", "prefer"), ("tls_never", "allow")],
)
async def test_allow_and_prefer_turn_to_the_other_way_where_the_server_refuses_one(
    tls_postgres: TlsPostgres, driver: DriverName, user: str, mode: str
) -> None:
    await _works(driver, _url(tls_postgres, user, f"sslmode={mode}"))


@every_driver
@pytest.mark.parametrize(("user", "mode"), [("tls_only", "disable"), ("tls_never", "require")])
async def test_strict_modes_do_not_turn(
    tls_postgres: TlsPostgres, driver: DriverName, user: str, mode: str
) -> None:
    error = await _fails(driver, _url(tls_postgres, user, f"sslmode={mode}"))
    assert (error.kind, error.sqlstate) == (K.AUTH, "28000")


class _TlsFront:
    """Terminates TLS that is begun directly, and pipes what is inside to a server."""

    def __init__(self, server: EmbeddedPostgres, alpn: list[str]) -> None:
        self.authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        if alpn:
            context.set_alpn_protocols(alpn)
        self._address = (server.host, server.port)
        self.server = h.HostileServer((h.start_tls(context), self._pipe))

    def _pipe(self, peer: h.Peer) -> None:
        with socket.create_connection(self._address) as inside:
            back = threading.Thread(target=self._copy, args=(inside, peer.sock))
            back.start()
            self._copy(peer.sock, inside)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def _front(server: EmbeddedPostgres, *alpn: str) -> Iterator[_TlsFront]:
    front = _TlsFront(server, list(alpn))
    with front.server:
        yield front


@every_driver
async def test_tls_may_begin_directly(embedded: EmbeddedPostgres, driver: DriverName, tmp_path: Path) -> None:
    with _front(embedded, "postgresql") as front:
        ca = tmp_path / "ca.pem"
        front.authority.cert_pem.write_to_path(ca)
        options = f"sslnegotiation=direct&sslmode=verify-full&sslrootcert={ca}"
        await _works(
            driver,
            front.server.url(options, user=embedded.user, host="localhost").replace("/d?", "/postgres?"),
        )


@pytest.mark.parametrize("driver", ["wire", "psycopg"])
async def test_direct_tls_without_the_protocols_name_is_refused(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    for names in ((), ("http/1.1",)):
        with _front(embedded, *names) as front:
            error = await _fails(
                driver, front.server.url("sslnegotiation=direct&sslmode=require", user=embedded.user)
            )
            assert error.kind is K.TLS


def test_cycles_pass_through_tls_and_channel_binding(tls_postgres: TlsPostgres) -> None:
    url = _url(tls_postgres, "scram_user", "sslmode=require&channel_binding=require")
    spec = ConnectSpec(targets=(target(url),), concurrency=4, warmup_s=0, duration_s=0.1, query="SELECT 1")
    outcome = run(spec)
    assert outcome.failures == set()
    assert outcome.total.ok > 0
    assert set(outcome.total.phases) == {P.TCP, P.TLS, P.AUTH, P.READY, P.QUERY, P.CLOSE}


# Where to


@every_driver
async def test_a_unix_socket_is_a_way_too(embedded: EmbeddedPostgres, driver: DriverName) -> None:
    for mode in ("disable", "prefer"):
        directory = quote(str(embedded.socket_dir), safe="")
        await _works(driver, f"postgresql://bench@{directory}:{embedded.port}/postgres?sslmode={mode}")


@every_driver
async def test_the_next_host_is_tried_where_one_refuses(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    with h.HostileServer((h.stall,)) as gone:
        dead = gone.port
    hosts = f"127.0.0.1:{dead},{embedded.host}:{embedded.port}"
    await _works(driver, f"postgresql://bench@{hosts}/postgres?sslmode=disable")


@every_driver
async def test_the_next_host_is_tried_where_one_is_in_start_up(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    starting: h.Script = (h.read_startup, h.send(h.error("57P03", "the database system is starting up")))
    with h.HostileServer(starting) as first:
        hosts = f"127.0.0.1:{first.port},{embedded.host}:{embedded.port}"
        await _works(driver, f"postgresql://bench@{hosts}/postgres?sslmode=disable")
        assert first.accepted == 1


async def test_an_error_that_is_the_users_own_is_not_tried_elsewhere(embedded: EmbeddedPostgres) -> None:
    refusing: h.Script = (h.read_startup, h.send(h.error("28P01", "no")), h.hang_up)
    with h.HostileServer(refusing) as first:
        hosts = f"127.0.0.1:{first.port},{embedded.host}:{embedded.port}"
        error = await _fails("wire", f"postgresql://bench@{hosts}/postgres?sslmode=disable")
        assert error.sqlstate == "28P01"


@every_driver
async def test_localhost_is_looked_up(embedded: EmbeddedPostgres, driver: DriverName) -> None:
    url = f"postgresql://bench@localhost:{embedded.port}/postgres?sslmode=disable"
    await _works(driver, url)
    if driver == "wire":
        connection = await _wire(url)
        assert set(connection.phases_ns) == {P.RESOLVE, P.TCP, P.AUTH, P.READY}
        await connection.close()


# What is said


@every_driver
async def test_options_and_application_name_reach_the_server(
    embedded: EmbeddedPostgres, driver: DriverName
) -> None:
    options = "sslmode=disable&application_name=a%20bench&options=-c%20work_mem%3D7MB"
    connection = await _connect(driver, _embedded_url(embedded, options))
    condition = "current_setting('application_name') = 'a bench' AND current_setting('work_mem') = '7MB'"
    await connection.execute(f"SELECT 1 / (CASE WHEN {condition} THEN 1 ELSE 0 END)")
    with psycopg.connect(embedded.url) as watcher:
        (count,) = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a bench'"
        ).fetchone() or (0,)
        assert count == 1
    await connection.close()


async def test_the_error_of_a_query_keeps_its_sqlstate_and_message(embedded: EmbeddedPostgres) -> None:
    for driver in DRIVERS:
        connection = await _connect(driver, _embedded_url(embedded))
        with pytest.raises(ConnectError) as caught:
            await connection.execute("SELECT 1 / 0")
        error = caught.value
        assert (error.kind, error.phase, error.sqlstate) == (K.OTHER, P.QUERY, "22012")
        assert error.message == "division by zero"
        await connection.ping()
        await connection.close()


def test_a_failed_query_is_counted_and_its_connection_closed_politely(
    start_postgres: StartPostgres,
) -> None:
    server = start_postgres(PostgresConfig(settings={"log_disconnections": "on"}))
    spec = ConnectSpec(
        targets=(target(server.url),), concurrency=1, warmup_s=0, duration_s=0.1, query="SELECT nothing"
    )
    outcome = run(spec)
    assert outcome.failures == {(K.OTHER, P.QUERY, "42703")}
    log = server.log()
    assert "unexpected EOF" not in log
    assert "could not receive data" not in log


async def test_the_protocol_version_is_negotiated(embedded: EmbeddedPostgres) -> None:
    await _works("wire", _embedded_url(embedded, "sslmode=disable&max_protocol_version=3.2"))
    connection = await _wire(_embedded_url(embedded, "sslmode=disable&max_protocol_version=3.2"))
    dial = connection._dial
    assert dial.backend is not None
    # Protocol 3.2 made the cancel key longer.
    assert len(dial.backend.key) == 32
    await connection.close()

    protocol = Protocol()
    reader, writer = await asyncio.open_connection(embedded.host, embedded.port)
    startup = ev.Startup({"user": embedded.user, "database": "postgres", "_pq_.strange": "1"}, minor=9)
    writer.write(protocol.send(startup))
    events: list[ev.ServerEvent] = []
    while not any(isinstance(event, ev.ReadyForQuery) for event in events):
        event = protocol.next_event()
        if event is NEED_DATA:
            protocol.receive_data(await reader.read(4096))
        else:
            assert not isinstance(event, (ev.ErrorResponse, ev.ConnectionClosed))
            events.append(event)
    assert ev.NegotiateProtocolVersion(2, ("_pq_.strange",)) in events
    writer.write(protocol.send(ev.Terminate()))
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_an_old_server_talks_a_newer_client_down(tls_postgres: TlsPostgres) -> None:
    await _works("wire", _url(tls_postgres, "postgres", "sslmode=disable&max_protocol_version=latest"))


def test_big_queries_and_big_results_pass_through(embedded: EmbeddedPostgres) -> None:
    sql = f"SELECT length('{'x' * 1_000_000}'), repeat('y', 10000000)"
    url = target(_embedded_url(embedded))
    outcome = run(
        ConnectSpec(targets=(url,), concurrency=2, warmup_s=0, duration_s=0.05, grace_s=60, query=sql)
    )
    assert outcome.failures == set()
    assert outcome.total.ok > 0
    assert outcome.total.unfinished == 0


async def test_big_queries_and_big_results_pass_through_a_kept_connection(
    embedded: EmbeddedPostgres, tls_postgres: TlsPostgres
) -> None:
    sql = f"SELECT length('{'x' * 1_000_000}'), repeat('y', 10000000)"
    for url in (_embedded_url(embedded), _url(tls_postgres, "postgres", "sslmode=require")):
        connection = await _wire(url)
        (completion,) = await connection.tags(sql)
        assert completion.rows == 1
        assert completion.row_bytes > 10_000_000
        await connection.close()


async def test_a_connection_that_the_server_ended_says_so(embedded: EmbeddedPostgres) -> None:
    connection = await _wire(_embedded_url(embedded))
    with psycopg.connect(embedded.superuser_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.backend_pid])
    with pytest.raises(ConnectError) as caught:
        await connection.ping()
    assert caught.value.kind in (K.SERVER_SHUTDOWN, K.RESET)
    assert connection.is_closed()


async def test_a_server_says_what_it_is(
    embedded: EmbeddedPostgres, tls_postgres: TlsPostgres, pgbouncer: PgBouncer
) -> None:
    direct = await ask_server(target(_embedded_url(embedded)))
    assert (direct.product, direct.version.split(".")[0], direct.pooled) == ("PostgreSQL", "18", False)
    pooled = await ask_server(target(pgbouncer.url))
    assert (pooled.product, pooled.pooled) == ("PostgreSQL", True)


# Under load


@every_driver
def test_connections_beyond_the_servers_limit_are_counted_and_others_succeed(
    start_postgres: StartPostgres, driver: DriverName
) -> None:
    server = start_postgres(PostgresConfig(max_connections=5, settings={"reserved_connections": "0"}))
    url = server.url
    spec = ConnectSpec(
        targets=(target(url),),
        driver=driver,
        concurrency=12,
        warmup_s=0,
        duration_s=0.2,
        # For as long as it takes the others to come, on a slow machine, too.
        query="SELECT pg_sleep(0.5)",
        connect_timeout_s=30,
        grace_s=30,
    )
    outcome = run(spec)
    assert {kind for kind, _, _ in outcome.failures} == {K.TOO_MANY_CONNECTIONS}
    assert {state for _, _, state in outcome.failures} == {"53300"}
    assert outcome.total.ok > 0
    assert outcome.total.unfinished == 0


@every_driver
def test_a_restart_in_the_middle_is_survived(start_postgres: StartPostgres, driver: DriverName) -> None:
    server = start_postgres(PostgresConfig())
    spec = ConnectSpec(
        targets=(target(server.url),),
        driver=driver,
        concurrency=8,
        warmup_s=0,
        duration_s=60.0,
        query="SELECT 1",
        tick_s=0.1,
        connect_timeout_s=30,
        grace_s=30,
    )
    ok_after_restart = 0
    restarted = threading.Event()

    async def restart(stop: asyncio.Event) -> None:
        await asyncio.to_thread(server.restart)
        restarted.set()

    def found_again(snapshot: object) -> bool:
        nonlocal ok_after_restart
        if restarted.is_set():
            ok_after_restart += snapshot.targets[0].ok  # type: ignore[attr-defined]
        return ok_after_restart > 20

    outcome = run(spec, during=restart, stop_when=found_again)
    assert ok_after_restart > 20
    assert outcome.total.failed > 0
    kinds = {kind for kind, _, _ in outcome.failures}
    assert kinds <= {K.REFUSED, K.SERVER_SHUTDOWN, K.SERVER_STARTING, K.CLOSED, K.RESET}
    assert outcome.elapsed_s < 60


def test_a_dial_can_be_driven_by_hand(embedded: EmbeddedPostgres) -> None:
    async def main() -> Dial:
        plan = make_plan(target(_embedded_url(embedded)), query="SELECT 1")
        assert plan.endpoints is not None
        dial = Dial(plan, 0)
        want = dial.begin(plan.endpoints, 0)
        while want:
            await wait_for(dial.fd, want)
            want = dial.step(0)
        return dial

    dial = asyncio.run(main())
    assert dial.error is None
    assert dial.sock is None
