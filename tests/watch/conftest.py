"""Servers of these tests' own: the counts must be exact, so nobody else may be connected."""

import psycopg
import pytest

from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, distribution_bin_dir
from tests.support.held_sessions import await_true, clients
from tests.support.patience import PATIENT
from tests.support.servers import StartPostgres, missing_server


@pytest.fixture
def real_bounds() -> None:
    """For tests of how long the watching waits: it waits as long as it does for users."""


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches waits for long, except where a test asks for `real_bounds`."""
    if "real_bounds" not in request.fixturenames:
        for name, seconds in PATIENT.items():
            monkeypatch.setattr(name, seconds)


@pytest.fixture(scope="module", params=["embedded", "distribution"])
def shared_server(request: pytest.FixtureRequest, start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL without autovacuum, which comes and goes as it likes; with users of fewer rights."""
    bin_dir = None
    if request.param == "distribution":
        bin_dir = distribution_bin_dir()
        if bin_dir is None:
            missing_server("PostgreSQL of the distribution", "postgresql")
    started = start_postgres(
        PostgresConfig(
            max_connections=50,
            bin_dir=bin_dir,
            access=("host all plain,monitor 127.0.0.1/32 trust",),
            # Queries without an end must end with their clients, also where PgBouncer stands between.
            settings={"autovacuum": "off", "client_connection_check_interval": "50ms"},
        )
    )
    with psycopg.connect(started.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("CREATE ROLE monitor LOGIN IN ROLE pg_monitor")
    return started


@pytest.fixture
def server(shared_server: EmbeddedPostgres) -> EmbeddedPostgres:
    """A PostgreSQL to which nobody is connected."""
    await_true(lambda: not clients(shared_server))
    return shared_server


def as_user(server: EmbeddedPostgres, user: str) -> str:
    """The server's URL for another user."""
    return server.url.replace(f"//{server.user}@", f"//{user}@")
