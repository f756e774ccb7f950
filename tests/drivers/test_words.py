"""What poolers say when they let nobody in, and other protocols: one kind through every driver."""

import asyncio

import pytest

from pool_bench.drivers.asyncpg import connect_error as asyncpg_error
from pool_bench.drivers.base import DriverName
from pool_bench.drivers.wire.driver import WireDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.drivers import make_drivers
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.pgbouncer import PgBouncerConfig
from tests.support import hostile_postgres as h
from tests.support.generators import target
from tests.support.servers import StartPgBouncer

K = FailureKind

every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])

# Out of the projects' sources: SQLSTATE, message, DETAIL, kind.
SAID = (
    # PgBouncer (src/client.c, src/objects.c, src/janitor.c)
    ("08P01", "no more connections allowed (max_client_conn)", "", K.TOO_MANY_CONNECTIONS),
    ("08P01", "client connections exceeded (max_db_client_connections)", "", K.TOO_MANY_CONNECTIONS),
    ("08P01", "client connections exceeded (max_user_client_connections)", "", K.TOO_MANY_CONNECTIONS),
    ("08P01", "query_wait_timeout", "", K.TIMEOUT),
    ("08P01", "client_idle_timeout", "", K.IDLE_TIMEOUT),
    ("08P01", "server login has been failing, try again later (server_login_retry)", "", K.BACKEND_DOWN),
    (
        "08P01",
        'server login has been failing, cached error: password authentication failed for user "app" '
        "(server_login_retry)",
        "",
        K.BACKEND_DOWN,
    ),
    (
        "08P01",
        "server login has been failing, cached error: sorry, too many clients already (server_login_retry)",
        "",
        K.TOO_MANY_CONNECTIONS,
    ),
    ("08P01", "server login failed: FATAL the database system is starting up", "", K.SERVER_STARTING),
    ("08P01", "no such database: shop", "", K.NO_DATABASE),
    ("08P01", "no such user: app", "", K.AUTH),
    ("08P01", 'database "shop" is disabled', "", K.SERVER_SHUTDOWN),
    # Odyssey (sources/frontend.c, sources/tls.c)
    ("53300", "too many connections", "", K.TOO_MANY_CONNECTIONS),
    ("08006", "failed to connect to remote server s1", "", K.BACKEND_DOWN),
    ("08P01", "SSL is required", "", K.TLS),
    # pgcat (src/client.rs)
    ("58000", "could not get connection from the pool - AllServersDown", "", K.BACKEND_DOWN),
    # PgDog (pgdog/src/net/messages/error_response.rs)
    (
        "28000",
        'password for user "app" and database "shop" is wrong, or the database does not exist',
        "",
        K.AUTH,
    ),
    ("58000", 'connection pool for user "app" and database "shop" is down', "", K.BACKEND_DOWN),
    ("57P01", "PgDog is shutting down", "", K.SERVER_SHUTDOWN),
    ("08004", "Clients must connect with TLS", "", K.TLS),
    ("57P05", "disconnecting idle client", "client_idle_timeout of 500ms expired", K.IDLE_TIMEOUT),
    # pgpool-II (src/protocol/child.c)
    ("53300", "Sorry, too many clients already", "", K.TOO_MANY_CONNECTIONS),
    (
        "XX000",
        "pgpool is not accepting any new connections",
        "all backend nodes are down, pgpool requires at least one valid node",
        K.BACKEND_DOWN,
    ),
    # Supavisor (lib/supavisor/errors)
    ("XX000", "(EMAXCONN) max client connections reached, limit: 0", "", K.TOO_MANY_CONNECTIONS),
    (
        "XX000",
        "(EMAXCONNSESSION) max clients reached in session mode - max clients are limited to pool_size: 15",
        "",
        K.TOO_MANY_CONNECTIONS,
    ),
    ("XX000", "(ECHECKOUTTIMEOUT) Pool checkout timeout. Request was dropped after 5ms", "", K.TIMEOUT),
    ("XX000", "(ENOTFOUND) tenant/user app.shop not found", "", K.AUTH),
    ("XX000", "Tenant or user not found", "", K.AUTH),
    # RDS Proxy (its user guide, "Troubleshooting for RDS Proxy")
    ("08000", "Timed-out waiting to acquire database connection", "", K.TIMEOUT),
    # PostgreSQL
    ("3D000", 'database "shop" does not exist', "", K.NO_DATABASE),
    ("28P01", 'password authentication failed for user "app"', "", K.AUTH),
    ("28000", 'no pg_hba.conf entry for host "10.0.0.1", user "app", database "shop"', "", K.AUTH),
    ("57P03", "the database system is starting up", "", K.SERVER_STARTING),
    (
        "57P03",
        "the database system is not yet accepting connections",
        "Consistent recovery state has not been yet reached.",
        K.SERVER_STARTING,
    ),
    ("53300", "remaining connection slots are reserved for roles", "", K.TOO_MANY_CONNECTIONS),
)


def _refusal(state: str, text: str, detail: str) -> bytes:
    fields = {b"S": "FATAL", b"V": "FATAL", b"C": state, b"M": text}
    if detail:
        fields |= {b"D": detail, b"H": "Repair it."}
    return h.message(b"E", b"".join(k + v.encode() + b"\0" for k, v in fields.items()) + b"\0")


async def _failure(driver: DriverName, url: str) -> ConnectError:
    spec = ConnectSpec(targets=(target(url),), driver=driver, connect_timeout_s=60.0)
    (one,) = (WireDriver(target(url)),) if driver == "wire" else make_drivers(spec)
    with pytest.raises(ConnectError) as caught:
        async with asyncio.timeout(60):
            await one.connect()
    return caught.value


@every_driver
async def test_poolers_words_have_one_kind_through_every_driver(driver: DriverName) -> None:
    scripts = [(h.read_startup, h.send(_refusal(*said[:3])), h.hang_up) for said in SAID]
    with h.HostileServer(*scripts) as server:
        for state, message, detail, kind in SAID:
            error = await _failure(driver, server.url())
            assert (error.kind, message) == (kind, message)
            assert message in error.message
            # libpq hides the SQLSTATE of a connection that was refused: none is made up.
            assert error.sqlstate == state or (driver == "psycopg" and error.sqlstate is None)
            if detail:
                assert error.message == f"{message} · DETAIL: {detail} · HINT: Repair it."


@every_driver
async def test_what_a_real_pooler_passes_on_from_its_server_keeps_its_kind(
    start_pgbouncer: StartPgBouncer, driver: DriverName
) -> None:
    said = _refusal("28P01", 'password authentication failed for user "owner"', "")
    with h.HostileServer((h.read_startup, h.send(said), h.hang_up)) as server:
        bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))
        error = await _failure(driver, bouncer.url)
    assert (error.kind, error.message) == (K.AUTH, 'password authentication failed for user "owner"')
    bouncer.stop()
    assert (await _failure(driver, bouncer.url)).kind is K.REFUSED


def test_an_operation_that_asyncpg_calls_under_way_after_its_server_left_is_a_lost_connection() -> None:
    import asyncpg

    words = "cannot switch to state 12; another operation (2) is in progress"
    for error in (asyncpg.InternalClientError(words), asyncpg.InterfaceError("connection is closed")):
        assert asyncpg_error(error, Phase.QUERY).kind is K.CLOSED
    assert asyncpg_error(asyncpg.InternalClientError("unexpected"), Phase.QUERY).kind is K.PROTOCOL


def test_the_detail_of_a_query_that_failed_is_not_shown_as_it_may_be_data() -> None:
    import asyncpg

    error = asyncpg.exceptions.UniqueViolationError("duplicate key value")
    error.message = "duplicate key value"
    error.detail = "Key (email)=(a@example.org) already exists."
    assert asyncpg_error(error, Phase.QUERY).message == "duplicate key value"


_MYSQL = b"\x4a\0\0\0\x0a8.0.36\0" + b"\x08\0\0\0" + b"x" * 62


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
@pytest.mark.parametrize(
    ("greeting", "name"),
    [
        (_MYSQL, "MySQL's protocol"),
        # A length that is also the answer "yes" to the request for TLS, and one that begins an error.
        (b"S" + _MYSQL[1:], "MySQL's protocol"),
        (b"E" + _MYSQL[1:], "MySQL's protocol"),
        (b"\x45\0\0\0\xff\x6a\x04#HY000Host 'a' is not allowed to connect".ljust(73, b"x"), "MySQL's"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"-ERR unknown command\r\n", "Redis's protocol"),
    ],
    ids=["mysql", "mysql-S", "mysql-E", "mysql-refuses", "http", "ssh", "redis"],
)
async def test_what_speaks_another_protocol_is_named(sslmode: str, greeting: bytes, name: str) -> None:
    with h.HostileServer((h.read_some, h.send(greeting), h.hang_up)) as server:
        error = await _failure("wire", server.url(f"sslmode={sslmode}"))
    assert error.kind is K.PROTOCOL
    assert f"this is {name}" in error.message
