"""What somebody else on this machine could do with a server of ours: nothing but use it."""

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support.servers import StartPgBouncer, StartPostgres

posix = pytest.mark.skipif(os.name != "posix", reason="needs Unix sockets")

# Programs, files, other roles, settings that name a program or a library, and the superuser's own functions.
_FORBIDDEN = (
    "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'",
    "CREATE TEMP TABLE lines (line text); COPY lines FROM PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/pool-bench-was-here'",
    "CREATE TEMP TABLE lines (line text); COPY lines FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_file('pg_hba.conf')",
    "SELECT pg_read_binary_file('postgresql.conf')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/pool-bench-was-here')",
    "SELECT rolpassword FROM pg_authid",
    "SELECT * FROM pg_hba_file_rules",
    "SELECT pg_reload_conf()",
    "ALTER ROLE bench SUPERUSER",
    "ALTER ROLE bench CREATEROLE",
    "ALTER ROLE bench REPLICATION",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "CREATE ROLE mine SUPERUSER",
    "CREATE ROLE mine",
    "CREATE DATABASE mine",
    "ALTER DATABASE postgres OWNER TO bench",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "GRANT pg_execute_server_program TO bench",
    "GRANT pg_read_server_files TO bench",
    "SET ROLE pg_execute_server_program",
    "ALTER SYSTEM SET archive_command = 'true'",
    "SET session_preload_libraries = 'anything'",
    "LOAD '/tmp/anything.so'",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE c AS '/tmp/anything.so', 'mine'",
    "CREATE EXTENSION file_fdw",
    "CREATE EXTENSION dblink",
    "CREATE EXTENSION adminpack",
    "UPDATE pg_authid SET rolsuper = true",
    "CREATE SUBSCRIPTION mine CONNECTION 'host=127.0.0.1' PUBLICATION mine",
    "SELECT pg_create_physical_replication_slot('mine')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
)


def _refusal(url: str, query: str) -> str:
    """The SQLSTATE with which a query is refused, "" where it is not."""
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(query.encode())
        except psycopg.Error as error:
            return error.sqlstate or "?"
    return ""


@posix
def test_the_url_that_is_printed_can_run_no_program_read_no_file_and_become_no_superuser(
    embedded: EmbeddedPostgres,
) -> None:
    with psycopg.connect(embedded.superuser_url):  # whose backend is not to be ended
        refused = {query: _refusal(embedded.url, query) for query in _FORBIDDEN}
        # insufficient_privilege; 0A000: this build has no such extension; 58P01: nor such a file.
        assert {query: state for query, state in refused.items() if state not in ("42501", "0A000")} == {}
    # The same is allowed to who should be able to: these are no typing errors.
    assert _refusal(embedded.superuser_url, _FORBIDDEN[0]) == ""
    assert _refusal(embedded.superuser_url, _FORBIDDEN[4]) == ""
    flags = "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
    with psycopg.connect(embedded.url) as connection:
        assert connection.execute(f"{flags} WHERE rolname = current_user").fetchone() == (False,) * 5
        roles = connection.execute("SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'MEMBER') ORDER BY 1")
        assert [name for (name,) in roles] == [
            *("bench", "pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables")
        ]


@pytest.mark.parametrize("user", ["postgres", "nobody", "root", "pg_monitor"])
@pytest.mark.parametrize("database", ["postgres", "template1", "postgres&replication=true"])
def test_nobody_else_is_let_in_over_tcp(embedded: EmbeddedPostgres, user: str, database: str) -> None:
    url = f"postgresql://{user}@{embedded.host}:{embedded.port}/"
    name, _, more = database.partition("&")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg.connect(f"{url}{name}?sslmode=disable&{more}")


def test_the_role_of_a_run_cannot_stream_the_servers_data(embedded: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects replication"):
        psycopg.connect(f"{embedded.url}&replication=true")
    with pytest.raises(psycopg.OperationalError, match="permission denied to start WAL sender"):
        psycopg.connect(f"{embedded.url}&replication=database")


def test_the_role_of_a_run_can_make_tables_and_see_everybody(embedded: EmbeddedPostgres) -> None:
    with psycopg.connect(embedded.url) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS a")
        assert connection.execute("SELECT a FROM mine").fetchone() == (1,)
        seen = "SELECT pg_has_role('pg_read_all_stats', 'USAGE') AND current_setting('data_directory') <> ''"
        assert connection.execute(seen).fetchone() == (True,)
        connection.rollback()


@pytest.mark.parametrize("auth", ["trust", "scram-sha-256"])
def test_with_and_without_passwords_the_superuser_comes_by_the_socket_only(
    start_postgres: StartPostgres, auth: str
) -> None:
    password = None if auth == "trust" else "correct \\'horse\\' é"
    server = start_postgres(PostgresConfig(auth=auth, password=password))  # type: ignore[arg-type]
    for url in (server.url, server.superuser_url):
        psycopg.connect(url, password=password).close()
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        psycopg.connect(server.url, user=server.superuser, password=password)
    assert "horse" not in server.log()
    server.stop()


def test_the_slots_of_superusers_are_not_taken_by_a_run(start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(max_connections=8))
    held = [psycopg.connect(server.url) for _ in range(5)]
    with pytest.raises(psycopg.OperationalError, match="reserved for roles with the SUPERUSER attribute"):
        psycopg.connect(server.url)
    psycopg.connect(server.superuser_url).close()
    for connection in held:
        connection.close()
    server.stop()


@posix
def test_only_the_servers_account_can_enter_its_directory(embedded: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(embedded.directory.stat().st_mode) == 0o700
    assert embedded.socket_dir == embedded.directory
    private = [path for path in embedded.directory.iterdir() if not stat.S_ISSOCK(path.lstat().st_mode)]
    assert [path for path in private if path.name != "install" and path.lstat().st_mode & 0o077] == []
    assert not (embedded.directory / "role.sql").exists()


@posix
def test_a_pgbouncer_without_passwords_takes_no_orders_over_tcp(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=embedded.port))
    console = bouncer.url.replace("/postgres?", "/pgbouncer?")
    with closing(psycopg.connect(console, autocommit=True)) as connection:
        assert connection.execute("SHOW VERSION").fetchone() is not None
        for order in ("SHUTDOWN", "PAUSE", "KILL", "RELOAD", "SET logfile = '/tmp/pool-bench-was-here'"):
            with pytest.raises(psycopg.Error, match="admin access needed"):
                connection.execute(order.encode())
    private = [path for path in bouncer.directory.iterdir() if not stat.S_ISSOCK(path.lstat().st_mode)]
    assert [path for path in private if path.lstat().st_mode & 0o077] == []
    bouncer.stop()


def test_a_pgbouncer_in_front_leads_no_superuser_to_the_server(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    users = {embedded.user: "", embedded.superuser: ""}
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=embedded.port, users=users))
    psycopg.connect(bouncer.url).close()
    with pytest.raises(psycopg.OperationalError, match="rejects"):
        psycopg.connect(bouncer.url, user=embedded.superuser)
    bouncer.stop()


def test_nothing_of_a_server_listens_beyond_loopback(embedded: EmbeddedPostgres) -> None:
    with socket.socket() as outside:
        # Another address of this machine's loopback network: nothing listens on all addresses.
        assert outside.connect_ex(("127.0.0.2", embedded.port)) != 0
    assert not Path("/tmp/pool-bench-was-here").exists()
