"""The PgBouncer of one run."""

from contextlib import closing
from typing import Any

import psutil
import psycopg
import pytest

from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.leftovers import assert_nothing_left
from tests.support.servers import StartPgBouncer, missing_server


def _query(url: str, query: str = "SELECT 1", **parameters: Any) -> Any:
    with psycopg.connect(url, **parameters) as connection:
        row = connection.execute(query).fetchone()
        return None if row is None else row[0]


def test_it_passes_queries_to_its_server(pgbouncer: PgBouncer, embedded: EmbeddedPostgres) -> None:
    assert _query(pgbouncer.url, "SHOW port") == str(embedded.port)
    assert pgbouncer.port != embedded.port


def test_it_listens_on_a_unix_socket_as_well(pgbouncer: PgBouncer) -> None:
    if pgbouncer.socket_dir is None:
        pytest.skip("no Unix socket here")
    assert _query(pgbouncer.url, host=str(pgbouncer.socket_dir)) == 1


def test_it_says_what_it_is(pgbouncer: PgBouncer) -> None:
    with psycopg.connect(pgbouncer.url, dbname="pgbouncer", autocommit=True) as console:
        # The console knows the simple protocol only.
        result = console.pgconn.exec_(b"SHOW VERSION")
    value = result.get_value(0, 0)
    assert value is not None
    assert value.decode().endswith(pgbouncer.version)
    assert psutil.Process(pgbouncer.pid).name() == "pgbouncer"


def test_options_of_start_up_are_ignored(pgbouncer: PgBouncer) -> None:
    assert _query(pgbouncer.url, options="-c extra_float_digits=2") == 1


def test_clients_beyond_the_limit_are_refused(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=embedded.port, max_client_conn=2))
    with (
        psycopg.connect(bouncer.url),
        psycopg.connect(bouncer.url),
        pytest.raises(psycopg.OperationalError, match="no more connections allowed"),
    ):
        psycopg.connect(bouncer.url)


def test_more_clients_than_server_connections_share_them(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    config = PgBouncerConfig(
        backend_port=embedded.port, default_pool_size=1, settings={"pool_mode": "transaction"}
    )
    bouncer = start_pgbouncer(config)
    query = "SELECT pg_backend_pid()"
    with (
        psycopg.connect(bouncer.url, autocommit=True) as one,
        psycopg.connect(bouncer.url, autocommit=True) as two,
    ):
        assert one.execute(query).fetchone() == two.execute(query).fetchone()


@pytest.mark.parametrize("auth", ["plain", "md5", "scram-sha-256"])
def test_clients_must_authenticate_in_the_way_asked_for(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, auth: Any
) -> None:
    users = {embedded.user: 'pen "cil'}
    config = PgBouncerConfig(backend_port=embedded.port, users=users, auth_type=auth)
    assert "cil" not in repr(config)
    bouncer = start_pgbouncer(config)
    required = {"plain": "password"}.get(auth, auth)
    assert _query(f"{bouncer.url}&require_auth={required}", password='pen "cil') == 1
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        _query(bouncer.url, password="wrong")
    bouncer.stop()


def test_stopping_does_not_wait_for_clients_and_leaves_nothing(
    embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=embedded.port))
    directory, pids = bouncer.directory, [bouncer.pid, bouncer.kept.pid]
    with closing(psycopg.connect(bouncer.url, autocommit=True)) as client:
        client.execute("SELECT 1")
        bouncer.stop()
        assert_nothing_left(directory, pids)


@pytest.mark.usefixtures("start_pgbouncer")
def test_a_bad_setting_is_a_start_error_with_its_words() -> None:
    bouncer = PgBouncer(PgBouncerConfig(backend_port=1, settings={"pool_mode": "swimming"}))
    with pytest.raises(ServerStartError, match=r"PgBouncer did not start.*\n(.*\n)*.*swimming"):
        bouncer.start()


def test_a_missing_program_is_a_start_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_options: None)
    with pytest.raises(ServerStartError, match="apt-get install pgbouncer"):
        PgBouncer(PgBouncerConfig(backend_port=1)).start()


def test_a_test_without_its_server_is_skipped_or_fails_where_servers_are_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("POOL_BENCH_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install pgbouncer"):
        missing_server("PgBouncer", "pgbouncer")
    monkeypatch.setenv("POOL_BENCH_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install pgbouncer"):
        missing_server("PgBouncer", "pgbouncer")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"settings": {"listen_addr": "*"}}, "listen_addr is set by PgBouncer's own start"),
        ({"settings": {"pool_mode": "session\nuser = root"}}, "does not fit on one line"),
        ({"users": {"postgres": "two\nlines"}}, "must be single lines"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_options_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PgBouncerConfig(backend_port=1, **wrong)
