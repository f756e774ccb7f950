"""What holds of every driver, whatever it speaks and whoever has written what is under it."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.drivers.base import Connection, Driver, DriverName, WatchedConnection
from pool_bench.drivers.psycopg import PsycopgDriver
from pool_bench.drivers.surreal.client import SurrealClientDriver
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.drivers.wire.driver import WireDriver
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.servers.postgres import PostgresConfig
from pool_bench.servers.surreal.server import SurrealConfig
from pool_bench.targets.postgres import PostgresTarget, parse_target
from pool_bench.targets.surreal import SurrealTarget, surreal_target
from tests.support import hostile_postgres as h
from tests.support.generators import client_sockets

LIMIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a test says to a server of one kind.

    Attributes:
        query: one that succeeds.
        failing: queries that fail, each in a way of its own.
        endless: one that does not end.
    """

    query: str
    failing: tuple[str, ...]
    endless: str


POSTGRES = Dialect(query="SELECT 1", failing=("SELECT 1 / 0", "SELEC"), endless="SELECT pg_sleep(3600)")
SURREAL = Dialect(
    query="RETURN 1", failing=("RETURN 1; THROW 'on purpose'; RETURN 2", "RETURN ("), endless="SLEEP 1h"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One driver as it is put to the test.

    Attributes:
        name: what the driver calls itself.
        scheme: of the URL that leads to its server.
        make: makes it for a target that a URL names.
        dialect: what its server understands.
        sign_in, refused, resolve: the step at which a password, a port and a name are refused.
        keeps_cancelled: a query that is given up is cancelled at the server, and its connection lives on.
    """

    name: DriverName
    scheme: str
    make: Callable[[str], Driver]
    dialect: Dialect
    sign_in: Phase = Phase.CONNECT
    refused: Phase = Phase.CONNECT
    resolve: Phase = Phase.CONNECT
    keeps_cancelled: bool = False


def postgres(url: str) -> PostgresTarget:
    """The target of a PostgreSQL URL and nothing else."""
    return parse_target(f"{url}/postgres?sslmode=disable", env={}, default_user="nobody")


def surreal_place(url: str) -> SurrealTarget:
    """The target of a SurrealDB URL, in a place of this suite's own."""
    return surreal_target(url, namespace="contract", database="db", environ={})


def unverified(url: str) -> SurrealTarget:
    """The same, without a look at the server's certificate."""
    return replace(surreal_place(url), verify=False)


def _surreal(scheme: str, auth: str) -> Case:
    def make(url: str) -> Driver:
        return SurrealDriver(unverified(url), auth="token" if auth == "token" else "signin")

    return Case(
        name="surreal",
        scheme=scheme,
        make=make,
        dialect=SURREAL,
        sign_in=Phase.SIGNIN,
        refused=Phase.TCP,
        resolve=Phase.RESOLVE,
    )


def _client(scheme: str, *, direct: bool = False) -> Case:
    # Over HTTP the client opens a connection for each request, of which the first one signs in.
    connects = Phase.CONNECT if scheme == "ws" else Phase.SIGNIN
    return Case(
        name="surrealdb",
        scheme=scheme,
        make=lambda url: SurrealClientDriver(surreal_place(url), direct=direct),
        dialect=SURREAL,
        sign_in=Phase.SIGNIN,
        refused=connects,
        resolve=connects,
    )


CASES = {
    "wire": Case(
        name="wire",
        scheme="postgresql",
        make=lambda url: WireDriver(postgres(url)),
        dialect=POSTGRES,
        sign_in=Phase.AUTH,
        refused=Phase.TCP,
        resolve=Phase.RESOLVE,
    ),
    "asyncpg": Case(
        name="asyncpg",
        scheme="postgresql",
        make=lambda url: AsyncpgDriver(postgres(url)),
        dialect=POSTGRES,
        keeps_cancelled=True,
    ),
    "psycopg": Case(
        name="psycopg",
        scheme="postgresql",
        make=lambda url: PsycopgDriver(postgres(url)),
        dialect=POSTGRES,
    ),
    **{
        f"surreal-{scheme}-{auth}": _surreal(scheme, auth)
        for scheme in ("ws", "wss", "http", "https")
        for auth in ("signin", "token")
    },
    "surrealdb-ws": _client("ws"),
    "surrealdb-direct": _client("ws", direct=True),
    "surrealdb-http": _client("http"),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def url_of(case: Case, request: pytest.FixtureRequest, *, password: str | None = None) -> str:
    """The URL of a server for `case`, with its own password or the one given."""
    if case.scheme == "postgresql":
        if password is None:
            server = request.getfixturevalue("embedded")
            return f"postgresql://{server.user}@{server.host}:{server.port}"
        tls = request.getfixturevalue("tls_postgres")
        return f"postgresql://scram_user:{password}@127.0.0.1:{tls.port}"
    if case.scheme in ("wss", "https"):
        server = request.getfixturevalue("tls_surreal").server
    else:
        server = request.getfixturevalue("surreal")
    secret = (server.password if password is None else password).replace(" ", "%20")
    return f"{case.scheme}://{server.user}:{secret}@127.0.0.1:{server.port}"


async def connected(case: Case, request: pytest.FixtureRequest) -> Connection:
    """A connection to a server for `case`."""
    async with asyncio.timeout(LIMIT_S):
        return await case.make(url_of(case, request)).connect()


async def fails(driver: Driver) -> ConnectError:
    """How a connect by `driver` fails."""
    with pytest.raises(ConnectError) as failure:
        async with asyncio.timeout(LIMIT_S):
            await driver.connect()
    # Closed transports end in a later turn of the loop.
    for _ in range(10):
        await asyncio.sleep(0.001)
    return failure.value


@every_case
async def test_a_connection_serves_until_it_is_closed(case: Case, request: pytest.FixtureRequest) -> None:
    assert case.make(url_of(case, request)).name == case.name
    connection = await connected(case, request)
    await connection.ping()
    await connection.execute(case.dialect.query)
    await connection.reset()
    await connection.execute(case.dialect.query)
    assert not connection.is_closed()
    await connection.close()
    assert connection.is_closed()


@every_case
@pytest.mark.parametrize("end", ["close", "terminate"])
async def test_after_close_or_terminate_a_connection_is_closed_for_good(
    case: Case, end: str, request: pytest.FixtureRequest
) -> None:
    connection = await connected(case, request)
    if end == "close":
        await connection.close()
    else:
        connection.terminate()
    assert connection.is_closed()
    for call in (connection.ping, connection.reset):
        with pytest.raises(ConnectError) as failure:
            await call()
        assert failure.value.kind is FailureKind.CLOSED
    await connection.close()
    connection.terminate()
    assert connection.is_closed()
    await asyncio.sleep(0.01)


@every_case
async def test_a_failed_query_is_an_error_and_the_connection_lives(
    case: Case, request: pytest.FixtureRequest
) -> None:
    connection = await connected(case, request)
    for query in case.dialect.failing:
        with pytest.raises(ConnectError) as failure:
            await connection.execute(query)
        assert (failure.value.kind, failure.value.phase) == (FailureKind.OTHER, Phase.QUERY)
        assert failure.value.message
        assert "\n" not in failure.value.message
    await connection.execute(case.dialect.query)
    await connection.close()


@every_case
async def test_a_query_that_is_given_up_leaves_a_connection_that_serves_or_is_closed(
    case: Case, request: pytest.FixtureRequest
) -> None:
    connection = await connected(case, request)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.execute(case.dialect.endless)
    assert connection.is_closed() == (not case.keeps_cancelled)
    if case.keeps_cancelled:
        await connection.execute(case.dialect.query)
    await connection.close()


@every_case
async def test_a_wrong_password_is_a_failure_of_auth_and_is_not_shown(
    case: Case, request: pytest.FixtureRequest
) -> None:
    error = await fails(case.make(url_of(case, request, password="wrong-pencil")))
    assert (error.kind, error.phase) == (FailureKind.AUTH, case.sign_in)
    assert "wrong-pencil" not in f"{error} {error!r}"


@every_case
async def test_a_server_that_is_not_there_refuses(case: Case) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        error = await fails(case.make(f"{case.scheme}://u:secret@127.0.0.1:{nobody.getsockname()[1]}"))
    assert (error.kind, error.phase) == (FailureKind.REFUSED, case.refused)


@every_case
async def test_a_name_that_nobody_has_is_a_failure_of_dns(case: Case) -> None:
    error = await fails(case.make(f"{case.scheme}://u:secret@nowhere.invalid:8000"))
    assert (error.kind, error.phase) == (FailureKind.DNS, case.resolve)
    if case.resolve is Phase.RESOLVE:
        assert "nowhere.invalid" in error.message


@every_case
async def test_a_cancelled_connect_leaves_no_socket(case: Case) -> None:
    with h.HostileServer((h.stall,)) as server:
        task = asyncio.create_task(case.make(f"{case.scheme}://u:secret@127.0.0.1:{server.port}").connect())
        while not client_sockets([server.port]):  # noqa: ASYNC110 - the kernel's handshake
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(LIMIT_S):
            while client_sockets([server.port]):  # noqa: ASYNC110 - some close in a later turn of the loop
                await asyncio.sleep(0.001)


WATCHED = ("asyncpg", "psycopg", "surreal-ws-signin", "surreal-http-signin", "surrealdb-ws")


@pytest.mark.parametrize("case", [CASES[name] for name in WATCHED], ids=WATCHED)
async def test_a_watched_connection_tells_at_once_and_once_that_its_server_has_ended_it(
    case: Case, request: pytest.FixtureRequest
) -> None:
    restart, url = _restartable(case, request)
    driver = case.make(url)
    watched, closed_by_us, cut_by_us = [_watchable(await driver.connect()) for _ in range(3)]
    ends: asyncio.Queue[ConnectError] = asyncio.Queue()
    for connection in (watched, closed_by_us, cut_by_us):
        connection.watch(ends.put_nowait)
    await closed_by_us.close()
    cut_by_us.terminate()
    await asyncio.to_thread(restart)
    async with asyncio.timeout(LIMIT_S):
        error = await ends.get()
    assert error.phase is Phase.HOLD
    assert error.kind in (FailureKind.SERVER_SHUTDOWN, FailureKind.CLOSED)
    with pytest.raises(ConnectError):
        await watched.ping()
    assert watched.is_closed()
    late: asyncio.Queue[ConnectError] = asyncio.Queue()
    watched.watch(late.put_nowait)
    async with asyncio.timeout(LIMIT_S):
        await late.get()
    assert ends.empty()
    watched.terminate()


def _restartable(case: Case, request: pytest.FixtureRequest) -> tuple[Callable[[], None], str]:
    """A server's restart, and the URL that leads to it."""
    if case.scheme == "postgresql":
        postgres = request.getfixturevalue("start_postgres")(PostgresConfig())
        return postgres.restart, f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}"
    server = request.getfixturevalue("start_surreal")(SurrealConfig(password="watch-pencil"))
    return server.restart, f"{case.scheme}://{server.user}:{server.password}@127.0.0.1:{server.port}"


def _watchable(connection: Connection) -> WatchedConnection:
    watch: object = getattr(connection, "watch", None)
    assert callable(watch), "connections of this driver can be watched"
    return connection  # type: ignore[return-value]
