"""PostgreSQL's counters of sessions, exactly, over restarts and crashes."""

import os
import socket
from contextlib import closing

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import tuple_row

from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.watch.postgres.client import WatchClient
from pool_bench.watch.postgres.counters import CounterDelta, count_sessions
from pool_bench.watch.watcher import watch_postgres
from tests.support.generators import nothing_left
from tests.support.held_sessions import Connection, await_true, clients, held, target
from tests.support.servers import StartPostgres
from tests.watch.conftest import as_user

WAIT_S = 30.0


def cut_off(connection: Connection) -> None:
    """End a connection without a word to its server."""
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1))
def test_counters_that_only_grow_have_come_as_far_as_they_grew(steps: list[int]) -> None:
    since, total = CounterDelta(), 500
    since.update({"sessions": total})
    for step in steps:
        total += step
        come = since.update({"sessions": total})
    assert come == {"sessions": sum(steps)}
    assert not since.was_reset


def test_after_a_reset_counting_goes_on_from_zero() -> None:
    since = CounterDelta()
    assert since.update({"sessions": 100, "killed": 4}) == {"sessions": 0, "killed": 0}
    assert since.update({"sessions": 130, "killed": 4}) == {"sessions": 30, "killed": 0}
    assert since.update({"sessions": 7, "killed": 1}) == {"sessions": 37, "killed": 1}
    assert since.was_reset


def test_sessions_and_their_ends_are_counted_exactly(server: EmbeddedPostgres) -> None:
    with nothing_left():
        watcher = watch_postgres([target(server.url)])
        watcher.start()
        with psycopg.connect(server.url, autocommit=True) as operator:
            for _ in range(5):
                psycopg.connect(server.url).close()
            for _ in range(2):
                with closing(psycopg.connect(server.url)) as lost:
                    cut_off(lost)
            with closing(psycopg.connect(server.url)) as killed:
                operator.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
        side = watcher.stop()
    assert side.notes == []
    assert side.sessions == {"sessions": 9, "abandoned": 2, "fatal": 0, "killed": 1}


@pytest.mark.parametrize("user", ["plain", "monitor"])
def test_a_user_without_rights_sees_the_counters_too(server: EmbeddedPostgres, user: str) -> None:
    watcher = watch_postgres([target(as_user(server, user))])
    watcher.start()
    with held(server.url, idle=3):
        watcher.during(wait_s=WAIT_S)
    # What this user may not see of others is not waited for.
    await_true(lambda: len(clients(server)) == 1)
    side = watcher.stop()
    assert side.sessions == {"sessions": 3, "abandoned": 0, "fatal": 0, "killed": 0}
    # What ended is counted when it has.
    assert [second.sessions["sessions"] for second in side.seconds][-1] == 3


def test_an_orderly_restart_loses_no_count_and_a_crash_is_told(start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(settings={"autovacuum": "off"}))
    for _ in range(20):
        psycopg.connect(server.url).close()
    await_true(lambda: not clients(server))
    watcher = watch_postgres([target(server.url)], local_pid=server.pid, interval_s=0.05)
    watcher.start()
    psycopg.connect(server.url).close()
    server.restart()
    psycopg.connect(server.url).close()
    side = watcher.stop()
    assert side.sessions["sessions"] == 2
    assert not [note for note in side.notes if "reset" in note]

    watcher = watch_postgres([target(server.url)], local_pid=server.pid, interval_s=0.05)
    watcher.start()
    server.restart("immediate")
    psycopg.connect(server.url).close()
    watcher.during(wait_s=WAIT_S)
    side = watcher.stop()
    assert (
        "the counters were reset during the run: what they had counted just before is missing" in side.notes
    )
    assert side.seconds[-1].cpu is not None


def test_a_server_that_has_no_such_counters_gives_none(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA older")
        connection.execute("CREATE VIEW older.pg_stat_database AS SELECT 1 AS numbackends")
        try:
            with closing(WatchClient(target(server.superuser_url))) as client:
                client.ask("SELECT set_config('search_path', 'older, pg_catalog', false)", tuple_row)
                assert count_sessions(client) == {}
        finally:
            connection.execute("DROP SCHEMA older CASCADE")
