"""What a hostile server can do to a connect cycle and to a kept connection: make it fail, no more."""

import asyncio
import socket
import ssl
import time
import tracemalloc
from dataclasses import dataclass

import pytest
import trustme

from pool_bench.drivers.wire import farewell
from pool_bench.drivers.wire.driver import WireConnection, WireDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.arrivals import constant
from pool_bench.load.spec import ConnectSpec, OpenLoop
from tests.support import hostile_postgres as h
from tests.support.generators import MARGIN_S, PollerName, client_sockets, nothing_left, run, target

K, P = FailureKind, Phase
_TIMEOUT_S = 0.2
# Of an operation that waits for no timeout, on however slow a machine; within pytest's own.
_PATIENCE_S = 30.0
_DURATION_S = 0.05
_DISABLE = "sslmode=disable"
_REQUIRE = "sslmode=require"
_AUTHORITY = trustme.CA()


def server_context(*, alpn: list[str] | None = None) -> ssl.SSLContext:
    """A server's TLS context for `localhost` and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


@dataclass(frozen=True)
class Case:
    """A script, and how every operation against it must fail."""

    name: str
    script: h.Script
    kind: FailureKind
    phase: Phase
    options: str = _DISABLE
    sqlstate: str = ""
    query: str | None = None
    # Of a kept connection, which remembers what the server reports.
    kept_kind: FailureKind | None = None
    # It fails at once, and is then closed by a server that does not.
    ends_late: bool = False


def _before_auth(*steps: h.Step) -> h.Script:
    return (h.read_startup, *steps)


def _after_auth(*steps: h.Step) -> h.Script:
    return (h.read_startup, h.send(h.OK), *steps)


def _in_query(*steps: h.Step) -> h.Script:
    return (h.read_startup, h.send(h.WELCOME), h.read_message, *steps)


def _in_close(*steps: h.Step) -> h.Script:
    return (h.read_startup, h.send(h.WELCOME), h.read_message, *steps)


def _tls(*steps: h.Step) -> h.Script:
    return (h.read_startup, h.send(b"S"), h.start_tls(server_context()), h.read_startup, *steps)


def _read_hello(peer: h.Peer) -> None:
    header = peer.read(5)
    peer.read(int.from_bytes(header[3:], "big"))


_TWO_GB = b"\x7f\xff\xff\xff"
_PASSWORD = "sslmode=disable&password=pencil"

FAILURES = [
    # tls
    Case("never answers SSLRequest", (h.stall,), K.TIMEOUT, P.TLS, _REQUIRE),
    Case("hangs up on SSLRequest", _before_auth(h.hang_up), K.CLOSED, P.TLS, _REQUIRE),
    Case("resets on SSLRequest", _before_auth(h.reset), K.RESET, P.TLS, _REQUIRE),
    Case("refuses TLS", _before_auth(h.send(b"N"), h.stall), K.TLS, P.TLS, _REQUIRE),
    Case("answers SSLRequest with X", _before_auth(h.send(b"X"), h.stall), K.PROTOCOL, P.TLS, _REQUIRE),
    Case(
        "answers SSLRequest with an error",
        _before_auth(h.send(h.error("53300", "sorry, too many clients already")), h.hang_up),
        K.TOO_MANY_CONNECTIONS,
        P.TLS,
        _REQUIRE,
        "53300",
    ),
    Case(
        "accepts TLS with plaintext behind",
        _before_auth(h.send(b"S" + h.WELCOME), h.stall),
        K.PROTOCOL,
        P.TLS,
        _REQUIRE,
    ),
    Case(
        "accepts TLS and then sends garbage",
        _before_auth(h.send(b"S"), h.read_some, h.send(b"garbage " * 100), h.stall),
        K.TLS,
        P.TLS,
        _REQUIRE,
    ),
    Case("accepts TLS and stalls", _before_auth(h.send(b"S"), h.stall), K.TIMEOUT, P.TLS, _REQUIRE),
    Case("accepts TLS and resets at once", _before_auth(h.send(b"S"), h.reset), K.RESET, P.TLS, _REQUIRE),
    Case(
        "accepts TLS and hangs up in the handshake",
        _before_auth(h.send(b"S"), _read_hello, h.hang_up),
        K.CLOSED,
        P.TLS,
        _REQUIRE,
    ),
    Case("hangs up behind TLS", _tls(h.hang_up), K.CLOSED, P.AUTH, _REQUIRE),
    Case("stalls behind TLS", _tls(h.stall), K.TIMEOUT, P.AUTH, _REQUIRE),
    Case("floods behind TLS", _tls(h.send(h.OK), h.flood(lambda n: h.NOTICE)), K.TIMEOUT, P.READY, _REQUIRE),
    Case(
        "hangs up in the query behind TLS",
        _tls(h.send(h.WELCOME), h.read_message, h.hang_up),
        K.CLOSED,
        P.QUERY,
        _REQUIRE,
        query="SELECT 1",
    ),
    # auth
    Case("never answers", (h.stall,), K.TIMEOUT, P.AUTH),
    Case("hangs up", _before_auth(h.hang_up), K.CLOSED, P.AUTH),
    Case("resets", _before_auth(h.reset), K.RESET, P.AUTH),
    Case(
        "speaks HTTP", _before_auth(h.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), h.stall), K.PROTOCOL, P.AUTH
    ),
    Case("sends zeros", _before_auth(h.send(bytes(1000)), h.stall), K.PROTOCOL, P.AUTH),
    Case("sends half a message and hangs up", _before_auth(h.send(h.OK[:6]), h.hang_up), K.CLOSED, P.AUTH),
    Case("sends half a message and stalls", _before_auth(h.send(h.OK[:6]), h.stall), K.TIMEOUT, P.AUTH),
    Case("sends a length of 2 GB", _before_auth(h.send(b"R" + _TWO_GB), h.stall), K.PROTOCOL, P.AUTH),
    Case("sends a negative length", _before_auth(h.send(b"R\xff\xff\xff\xff"), h.stall), K.PROTOCOL, P.AUTH),
    Case("wants authentication 99", _before_auth(h.send(h.auth(99)), h.stall), K.PROTOCOL, P.AUTH),
    Case("wants GSSAPI", _before_auth(h.send(h.auth(7)), h.stall), K.AUTH, P.AUTH),
    Case("wants a password that we have not", _before_auth(h.send(h.auth(3)), h.stall), K.AUTH, P.AUTH),
    Case(
        "refuses the password",
        _before_auth(h.send(h.auth(3)), h.read_message, h.send(h.error("28P01", "no")), h.hang_up),
        K.AUTH,
        P.AUTH,
        _PASSWORD,
        "28P01",
    ),
    Case(
        "hangs up on the password",
        _before_auth(h.send(h.auth(3)), h.read_message, h.hang_up),
        K.CLOSED,
        P.AUTH,
        _PASSWORD,
    ),
    Case("is ready before it says ok", _before_auth(h.send(h.READY), h.stall), K.PROTOCOL, P.AUTH),
    Case(
        "says ok before the proof",
        _before_auth(h.scram("pencil", lie="no proof")),
        K.PROTOCOL,
        P.AUTH,
        _PASSWORD,
    ),
    Case(
        "signs wrongly",
        _before_auth(h.scram("pencil", lie="signature"), h.send(h.WELCOME), h.stall),
        K.AUTH,
        P.AUTH,
        _PASSWORD,
    ),
    Case(
        "answers with a strange nonce",
        _before_auth(h.scram("pencil", lie="nonce"), h.stall),
        K.AUTH,
        P.AUTH,
        _PASSWORD,
    ),
    Case("knows another password", _before_auth(h.scram("pen"), h.stall), K.AUTH, P.AUTH, _PASSWORD, "28P01"),
    Case(
        "offers channel binding without TLS",
        _before_auth(h.scram("pencil", mechanisms=b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), h.stall),
        K.AUTH,
        P.AUTH,
        _PASSWORD,
    ),
    Case(
        "has no free slot",
        _before_auth(h.send(h.error("53300", "sorry")), h.hang_up),
        K.TOO_MANY_CONNECTIONS,
        P.AUTH,
        sqlstate="53300",
    ),
    Case(
        "is in start-up",
        _before_auth(h.send(h.error("57P03", "starting up")), h.hang_up),
        K.SERVER_STARTING,
        P.AUTH,
        sqlstate="57P03",
    ),
    Case(
        "answers in protocol 2",
        _before_auth(h.send(b"Eunsupported frontend protocol\0"), h.hang_up),
        K.OTHER,
        P.AUTH,
    ),
    Case(
        "sends a false SQLSTATE",
        _before_auth(h.send(h.error("x" * 9000, "\x1b[2J" * 1000)), h.hang_up),
        K.OTHER,
        P.AUTH,
    ),
    Case("floods with notices", _before_auth(h.flood(lambda n: h.NOTICE)), K.TIMEOUT, P.AUTH),
    # ready
    Case("hangs up after ok", _after_auth(h.hang_up), K.CLOSED, P.READY),
    Case("resets after ok", _after_auth(h.reset), K.RESET, P.READY),
    Case("stalls after ok", _after_auth(h.stall), K.TIMEOUT, P.READY),
    Case("sends garbage after ok", _after_auth(h.send(b"\xff" * 100), h.stall), K.PROTOCOL, P.READY),
    Case("sends 2 GB after ok", _after_auth(h.send(b"S" + _TWO_GB), h.stall), K.PROTOCOL, P.READY),
    Case(
        "ends after ok",
        _after_auth(h.send(h.error("3D000", "no such database")), h.hang_up),
        K.NO_DATABASE,
        P.READY,
        sqlstate="3D000",
    ),
    Case(
        "floods with parameters",
        _after_auth(h.flood(lambda n: h.parameter(f"name{n}", "x" * 1000))),
        K.TIMEOUT,
        P.READY,
        kept_kind=K.PROTOCOL,
    ),
    Case(
        "floods with one parameter",
        _after_auth(h.flood(lambda n: h.parameter("name", str(n)))),
        K.TIMEOUT,
        P.READY,
    ),
    Case("floods with notices after ok", _after_auth(h.flood(lambda n: h.NOTICE)), K.TIMEOUT, P.READY),
    # query
    Case("hangs up in the query", _in_query(h.hang_up), K.CLOSED, P.QUERY, query="SELECT 1"),
    Case("resets in the query", _in_query(h.reset), K.RESET, P.QUERY, query="SELECT 1"),
    Case("stalls in the query", _in_query(h.stall), K.TIMEOUT, P.QUERY, query="SELECT 1"),
    Case(
        "sends half a result and hangs up",
        _in_query(h.send(h.RESULT[:-3]), h.hang_up),
        K.CLOSED,
        P.QUERY,
        query="SELECT 1",
    ),
    Case(
        "sends garbage in the query",
        _in_query(h.send(b"garbage!"), h.stall),
        K.PROTOCOL,
        P.QUERY,
        query="SELECT 1",
    ),
    Case(
        "wants COPY data",
        _in_query(h.send(h.message(b"G", b"\0\0\0")), h.stall),
        K.PROTOCOL,
        P.QUERY,
        query="COPY t FROM STDIN",
    ),
    Case(
        "shuts down in the query",
        _in_query(h.send(h.error("57P01", "terminating connection")), h.hang_up),
        K.SERVER_SHUTDOWN,
        P.QUERY,
        sqlstate="57P01",
        query="SELECT 1",
    ),
    Case(
        "refuses the query",
        _in_query(h.send(h.error("42601", "syntax error", "ERROR") + h.READY), h.stall),
        K.OTHER,
        P.QUERY,
        query="SELEC",
        sqlstate="42601",
        ends_late=True,
    ),
    Case(
        "sends a row of 2 GB",
        _in_query(h.send(b"D" + _TWO_GB), h.stall),
        K.TIMEOUT,
        P.QUERY,
        query="SELECT 1",
    ),
    Case(
        "floods with rows",
        _in_query(h.flood(lambda n: h.message(b"D", bytes(100)))),
        K.TIMEOUT,
        P.QUERY,
        query="SELECT 1",
    ),
    Case(
        "floods with completions",
        _in_query(h.flood(lambda n: h.message(b"C", b"SELECT 1\0"))),
        K.TIMEOUT,
        P.QUERY,
        query="SELECT 1",
        kept_kind=K.PROTOCOL,
    ),
]


SUCCESSES = {
    "sends everything at once": h.POLITE,
    "sends byte by byte": (
        h.read_startup,
        h.send_byte_by_byte(h.auth(3)),
        h.read_message,
        h.send_byte_by_byte(h.OK + h.NOTICE + h.parameter("a", "b") + h.KEY + h.READY),
        h.read_message,
    ),
    "asks for SCRAM": (h.read_startup, h.scram("pencil"), h.send(h.WELCOME), h.read_message),
    "hangs up before Terminate": (h.read_startup, h.send(h.WELCOME), h.hang_up),
    "resets before Terminate": (h.read_startup, h.send(h.WELCOME), h.reset),
    "says an error before it closes": (
        h.read_startup,
        h.send(h.WELCOME),
        h.read_message,
        h.send(h.error("57P01", "terminating connection")),
    ),
    "is behind TLS": _tls(h.send(h.WELCOME), h.read_message),
}


def _spec(server: h.HostileServer, options: str = _DISABLE, **changes: object) -> ConnectSpec:
    given: dict[str, object] = {
        "targets": (target(server.url(options)),),
        "concurrency": 2,
        "warmup_s": 0.0,
        "duration_s": _DURATION_S,
        "grace_s": _PATIENCE_S,
        "connect_timeout_s": _PATIENCE_S,
    }
    return ConnectSpec(**(given | changes))  # type: ignore[arg-type]  # checked by ConnectSpec


@pytest.mark.parametrize("poller", ["epoll", "far"])
@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name.replace(" ", "_"))
def test_a_cycle_against_a_hostile_server_fails_with_its_kind_and_phase(
    case: Case, poller: PollerName
) -> None:
    # A deadline that passes before the server has come to where it falls silent is one of an earlier step.
    waits = case.kind is K.TIMEOUT or case.ends_late
    for timeout_s in (_TIMEOUT_S, 2.0, 20.0) if waits else (_PATIENCE_S,):
        with nothing_left(), h.HostileServer(case.script) as server:
            spec = _spec(server, case.options, query=case.query, connect_timeout_s=timeout_s)
            outcome = run(spec, poller=poller)
            total = outcome.total
            assert total.ok == total.unfinished == 0
            assert total.failed == server.count_accepted(total.failed) > 0
            assert outcome.elapsed_s < _DURATION_S + timeout_s + MARGIN_S
            for failure in total.failures.values():
                assert failure.sample.isprintable()
                assert 0 < len(failure.sample) <= 500
        as_expected = outcome.failures == {(case.kind, case.phase, case.sqlstate)}
        if as_expected or K.TIMEOUT not in {kind for kind, _, _ in outcome.failures}:
            break
    assert as_expected, outcome.failures


def test_a_reset_behind_tls_is_counted_as_a_lost_connection() -> None:
    with nothing_left(), h.HostileServer(_tls(h.reset)) as server:
        outcome = run(_spec(server, _REQUIRE))
        # OpenSSL's two ways to read have been told apart since Python 3.12 only.
        assert outcome.failures <= {(K.CLOSED, P.AUTH, ""), (K.RESET, P.AUTH, "")}
        assert outcome.total.failed == server.count_accepted(outcome.total.failed) > 0


@pytest.mark.parametrize("name", SUCCESSES)
def test_a_cycle_against_a_strange_but_honest_server_succeeds(name: str) -> None:
    options = _REQUIRE if "TLS" in name else _PASSWORD
    with nothing_left(), h.HostileServer(SUCCESSES[name]) as server:
        outcome = run(_spec(server, options))
        assert outcome.failures == set()
        assert outcome.total.ok == server.count_accepted(outcome.total.ok) > 0


def test_a_cycle_to_a_port_where_nobody_listens_is_refused() -> None:
    with h.HostileServer(h.POLITE) as server:
        spec = _spec(server)
    assert run(spec).failures == {(K.REFUSED, P.TCP, "")}


def test_a_unix_socket_with_a_full_accept_queue_refuses(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(f"{directory}/.s.PGSQL.5432")
        listener.listen(0)
        first.connect(f"{directory}/.s.PGSQL.5432")
        url = f"postgresql://u@/d?host={directory}&port=5432"
        spec = ConnectSpec(
            targets=(target(url),), concurrency=1, warmup_s=0, duration_s=0.02, connect_timeout_s=_PATIENCE_S
        )
        assert run(spec).failures == {(K.REFUSED, P.TCP, "")}


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case.name.replace(" ", "_"))
async def test_a_kept_connection_to_a_hostile_server_fails_with_its_kind_and_phase(case: Case) -> None:
    with nothing_left(), h.HostileServer(case.script) as server:
        kind = case.kept_kind or case.kind
        if kind is K.TIMEOUT:
            begin = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await _use(server, case)
            assert time.monotonic() - begin < _TIMEOUT_S + MARGIN_S
        else:
            with pytest.raises(ConnectError) as caught:
                async with asyncio.timeout(_PATIENCE_S):
                    await _use(server, case)
            error = caught.value
            assert (error.kind, error.phase, error.sqlstate or "") == (kind, case.phase, case.sqlstate)
        assert client_sockets([server.port]) == []


async def _use(server: h.HostileServer, case: Case) -> None:
    connection = await WireDriver(target(server.url(case.options))).connect()
    try:
        assert case.query is not None
        await connection.execute(case.query)
    finally:
        connection.terminate()


# What a server may do when it is told that the connection ends, and whether it closes once our side has.
ENDINGS = {
    "closes only when our side ends": (_in_close(h.stall), True),
    "never closes": (_in_close(h.never_close), False),
    "floods": (_in_close(h.flood(lambda n: h.NOTICE)), False),
    "closes only when our side ends, behind TLS": (_tls(h.send(h.WELCOME), h.read_message, h.stall), True),
}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("rate", [None, 20.0])
def test_a_server_that_does_not_close_costs_no_connect_and_no_latency(
    name: str, rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewell, "_HALF_CLOSE_NS", 100_000_000)
    monkeypatch.setattr(farewell, "_CLOSE_WAIT_NS", 10**9)
    script, closes = ENDINGS[name]
    options = _REQUIRE if "TLS" in name else _PASSWORD
    loop = None if rate is None else OpenLoop(profile=constant(rate))
    with nothing_left(), h.HostileServer(script) as server:
        outcome = run(_spec(server, options, duration_s=2.5, connect_timeout_s=5.0, open_loop=loop))
        total = outcome.total
        assert outcome.failures == set()
        assert total.ok == server.count_accepted(total.ok) > 2
        closed = total.phases[P.CLOSE].count if P.CLOSE in total.phases else 0
        assert total.closed_by_us + closed == total.ok
        assert total.closed_by_us > 0
        # Once it is known what the server waits for it gets that, and its time to close is seen.
        assert (closed > 0) == closes
        assert total.latency.min_ns < 10**8


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_kept_connection_to_a_server_that_does_not_close_is_closed(name: str) -> None:
    script, closes = ENDINGS[name]
    options = _REQUIRE if "TLS" in name else _PASSWORD
    with nothing_left(), h.HostileServer(script) as server:
        connection = await WireDriver(target(server.url(options))).connect()
        if closes:
            await connection.close()
        else:
            with pytest.raises(TimeoutError):
                # Its own patience is five seconds; ours ends it sooner.
                async with asyncio.timeout(_TIMEOUT_S):
                    await connection.close()
        assert connection.is_closed()


async def test_a_cancelled_query_closes_its_connection() -> None:
    with nothing_left(), h.HostileServer((h.read_startup, h.send(h.WELCOME), h.stall)) as server:
        connection = await WireDriver(target(server.url())).connect()
        task = asyncio.create_task(connection.ping())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connection.is_closed()
        with pytest.raises(ConnectError, match="closed during query"):
            await connection.ping()
        await connection.close()


async def test_a_kept_connection_survives_a_refused_query_and_closes_politely() -> None:
    script = (
        h.read_startup,
        h.send(h.WELCOME),
        h.read_message,
        h.send(h.error("42601", "syntax error", "ERROR") + h.READY),
        h.read_message,
        h.send(h.RESULT + h.READY),
        h.read_message,
    )
    with nothing_left(), h.HostileServer(script) as server:
        connection = await WireDriver(target(server.url())).connect()
        with pytest.raises(ConnectError) as caught:
            await connection.execute("SELEC")
        assert (caught.value.kind, caught.value.sqlstate) == (K.OTHER, "42601")
        assert not connection.is_closed()
        (completion,) = await connection.tags("SELECT 1")
        assert (completion.tag, completion.rows) == ("SELECT 1", 1)
        assert set(connection.phases_ns) == {P.TCP, P.AUTH, P.READY}
        assert connection.parameters == {"server_version": "17.0"}
        assert connection.backend_pid == 4711
        await connection.close()
        assert connection.is_closed()


async def _flooded(server: h.HostileServer) -> WireConnection | None:
    try:
        async with asyncio.timeout(1.0):
            return await WireDriver(target(server.url())).connect()
    except (ConnectError, TimeoutError):
        return None


@pytest.mark.parametrize(
    "script",
    [
        _after_auth(h.flood(lambda n: h.parameter(f"name{n}", "x" * 1000))),
        _after_auth(h.flood(lambda n: h.parameter(f"name{n % 100}", "x" * 20_000))),
        _after_auth(h.flood(lambda n: h.NOTICE)),
        _after_auth(h.send(b"S\x00\x0f\xff\xff"), h.flood(lambda n: bytes(1000))),
    ],
    ids=["names", "values", "notices", "one_message"],
)
async def test_a_flood_does_not_fill_the_memory(script: h.Script) -> None:
    with nothing_left(), h.HostileServer(script) as server:
        tracemalloc.start()
        try:
            assert await _flooded(server) is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The server's own batches of 500 messages are a part of it.
    assert peak < 40_000_000


async def test_rows_without_an_end_do_not_fill_the_memory_and_do_not_hold_up_others() -> None:
    sent = 0

    def row(number: int) -> bytes:
        nonlocal sent
        sent = number
        return h.message(b"D", bytes(10_000))

    with nothing_left(), h.HostileServer(_in_query(h.flood(row))) as server:
        connection = await WireDriver(target(server.url())).connect()
        turns = 0
        tracemalloc.start()
        try:
            reading = asyncio.create_task(connection.execute("SELECT 1"))
            # 100 MB; a reader that held up the loop would be ended by pytest's own timeout.
            while sent < 10_000:
                turns += 1
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert turns > 10
        assert peak < 60_000_000
        assert connection.is_closed()


def test_sslmode_prefer_goes_on_without_tls_where_the_handshake_fails() -> None:
    garbled = (h.read_startup, h.send(b"S"), h.read_some, h.hang_up)
    for options in ("sslmode=prefer", "sslmode=prefer&user=u"):
        with nothing_left(), h.HostileServer(garbled, h.POLITE, garbled, h.POLITE) as server:
            outcome = run(_spec(server, options, concurrency=1))
            assert outcome.total.ok > 0


def test_a_server_that_fails_to_prove_itself_gets_no_second_chance_without_tls() -> None:
    script = _tls(h.scram("pencil", lie="signature"), h.send(h.WELCOME), h.stall)
    with nothing_left(), h.HostileServer(script, (h.read_startup, h.send(h.auth(3)), h.stall)) as server:
        outcome = run(
            _spec(server, "sslmode=prefer&password=pencil", concurrency=1, duration_s=0.01),
            stop_when=lambda snapshot: True,
        )
        assert (K.AUTH, P.AUTH, "") in outcome.failures


def test_a_wrong_password_is_reported_as_such_however_sslmode_then_turns() -> None:
    refuse: h.Script = (h.read_startup, h.send(h.error("28P01", "wrong password")), h.hang_up)
    scripts = {
        "sslmode=allow": (refuse, (h.read_startup, h.send(b"N"), h.stall)),
        "sslmode=prefer": (
            _tls(h.send(h.error("28P01", "wrong password"))),
            (h.read_startup, h.send(h.error("28000", "no pg_hba.conf entry")), h.hang_up),
        ),
    }
    for options, (first, second) in scripts.items():
        with nothing_left(), h.HostileServer(*[first, second] * 500) as server:
            outcome = run(_spec(server, options, concurrency=1))
            assert outcome.failures == {(K.AUTH, P.AUTH, "28P01")}
            assert server.count_accepted(2 * outcome.total.failed) == 2 * outcome.total.failed


def test_the_next_host_is_asked_for_tls_again_after_one_that_fell_back() -> None:
    starting: h.Script = (h.read_startup, h.send(h.error("57P03", "starting up")), h.hang_up)
    no_tls_then_starting = (h.read_startup, h.send(b"S"), h.read_some, h.hang_up)
    asked: list[bytes] = []

    def note(peer: h.Peer) -> None:
        asked.append(peer.startup)

    with (
        nothing_left(),
        h.HostileServer(no_tls_then_starting, starting) as first,
        h.HostileServer((h.read_startup, note, h.send(b"N"), *h.POLITE)) as second,
    ):
        url = f"postgresql://u@127.0.0.1:{first.port},127.0.0.1:{second.port}/d?sslmode=prefer"
        spec = ConnectSpec(targets=(target(url),), concurrency=1, warmup_s=0, duration_s=0.05)
        outcome = run(spec)
        assert outcome.total.ok > 0
        assert outcome.failures == set()
        assert asked[0] == h.SSL_REQUEST
