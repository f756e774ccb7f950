"""Servers of these tests' own: the counts must be exact, so nobody else may be connected."""

import psycopg
import pytest

from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, distribution_bin_dir
from tests.fix_servers import StartPostgres, missing_server
from tests.watch.held import await_true, clients


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
            # Queries without an end must end with their clients, also where PgBouncer stands between.
            settings={"autovacuum": "off", "client_connection_check_interval": "50ms"},
        )
    )
    with psycopg.connect(started.url, autocommit=True) as connection:
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
    return server.url.replace("postgresql://postgres@", f"postgresql://{user}@")
