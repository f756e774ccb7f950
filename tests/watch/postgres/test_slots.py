"""The guard that keeps operators' slots free."""

import threading
from contextlib import ExitStack, closing
from dataclasses import replace

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.watch.postgres.slots import SPARE, Slots, guard_note, look_at_slots, room
from pool_bench.watch.watcher import watch_postgres
from tests.support.generators import nothing_left
from tests.support.held_sessions import await_true, clients, held, silent_server, target, unused_url
from tests.support.servers import StartPgBouncer, StartPostgres
from tests.watch.conftest import as_user

TIMEOUT_S = 20.0
FRESH = Slots(
    max_connections=100,
    superuser_reserved=3,
    reserved=0,
    in_use=0,
    may_see_all=True,
    is_superuser=True,
    pooled=False,
)


def test_a_superuser_sees_the_settings_and_all_sessions(server: EmbeddedPostgres) -> None:
    with held(server.url, idle=3, in_transaction=1), nothing_left():
        slots = look_at_slots(target(server.superuser_url), TIMEOUT_S)
    assert slots == replace(FRESH, max_connections=50, in_use=4)


def test_a_member_of_pg_monitor_sees_all_sessions(server: EmbeddedPostgres) -> None:
    with held(server.url, idle=2):
        slots = look_at_slots(target(as_user(server, "monitor")), TIMEOUT_S)
    assert slots == replace(FRESH, max_connections=50, in_use=2, is_superuser=False)


def test_a_plain_user_sees_its_own_sessions_only_and_is_given_no_number(server: EmbeddedPostgres) -> None:
    with held(server.url, idle=2), held(as_user(server, "plain"), idle=1):
        slots = look_at_slots(target(as_user(server, "plain")), TIMEOUT_S)
    assert slots == replace(FRESH, max_connections=50, in_use=1, is_superuser=False, may_see_all=False)
    assert room(slots, 500) is None
    assert guard_note(slots, 500) == (
        "max_connections 50, but this user may not see how many are in use (GRANT pg_monitor): "
        "opening all 500"
    )


def test_what_the_guard_leaves_is_there_for_the_operators(
    start_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_bench.watch.watcher._GONE_WAIT_S", 0.1)
    server = start_postgres(PostgresConfig(max_connections=20, settings={"reserved_connections": "2"}))
    with ExitStack() as stack:
        stack.enter_context(held(server.url, idle=2))
        slots = look_at_slots(target(server.url), TIMEOUT_S)
        assert slots is not None
        watcher = stack.enter_context(watch_postgres([target(server.url)]))
        watcher.start()
        allowed = room(slots, 500)
        assert allowed == 20 - 3 - 2 - SPARE - 2 - 1
        stack.enter_context(held(server.url, idle=allowed))
        stack.enter_context(held(server.url, idle=SPARE))
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            psycopg.connect(server.url)
        # A superuser may take them all; beyond them there is nothing.
        stack.enter_context(held(server.superuser_url, idle=3 + 2))
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            psycopg.connect(server.superuser_url)
        watcher.peak(wait_s=TIMEOUT_S)
        assert watcher.stop().used_peak == 19


@pytest.mark.parametrize("of", ["role", "database"])
def test_a_connection_limit_of_role_or_database_holds_the_guard_as_well(
    server: EmbeddedPostgres, of: str
) -> None:
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE small")
        what = "ROLE monitor" if of == "role" else "DATABASE small"
        connection.execute(f"ALTER {what} CONNECTION LIMIT 10")
    try:
        url = as_user(server, "monitor").replace("/postgres", "/small")
        with held(url, idle=2), held(server.url, idle=3):
            slots = look_at_slots(target(url), TIMEOUT_S)
        assert slots is not None
        limit = (10, 2)
        assert (slots.role_limit, slots.role_in_use) == (limit if of == "role" else (None, 0))
        assert (slots.database_limit, slots.database_in_use) == (limit if of == "database" else (None, 0))
        # The limit counts what is allowed, not what others need: nothing but the watcher's own is kept.
        assert (room(slots, 500), room(slots, 500, watched=False), room(slots, 6)) == (7, 8, 6)
        assert guard_note(slots, 500) == (
            f"CONNECTION LIMIT of the {of} 10: 1 for watching, 2 in use: opening 7 of 500 "
            "(--no-reserve opens all)"
        )
        with held(url, idle=room(slots, 500, watched=False) or 0), held(server.url, idle=1):
            pass
    finally:
        await_true(lambda: not clients(server))
        with psycopg.connect(server.superuser_url, autocommit=True) as connection:
            connection.execute("DROP DATABASE small")
            connection.execute("ALTER ROLE monitor CONNECTION LIMIT -1")


def test_behind_a_pooler_there_is_no_guard(server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))
    slots = look_at_slots(target(bouncer.url), TIMEOUT_S)
    assert slots is not None
    assert slots.pooled
    assert slots.max_connections == 50
    assert room(slots, 500) is None
    assert guard_note(slots, 500) is None
    bouncer.stop()


def test_a_server_that_is_not_there_gives_nothing() -> None:
    with nothing_left():
        assert look_at_slots(target(unused_url()), TIMEOUT_S) is None
    assert guard_note(None, 500) == (
        "the server's slots could not be seen: opening all 500, and none is kept free"
    )


def test_once_it_has_looked_its_backend_has_gone(server: EmbeddedPostgres) -> None:
    with closing(psycopg.connect(server.url, autocommit=True)) as witness:
        others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool-bench watcher'"
        for _ in range(20):
            assert look_at_slots(target(server.url), TIMEOUT_S) is not None
            assert witness.execute(others).fetchone() == (0,)


def test_a_silent_server_is_not_waited_for_longer_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_bench.watch.postgres.client._CONNECT_TIMEOUT_S", 4)
    with silent_server() as url, nothing_left():
        assert look_at_slots(target(url), 0.2) is None
        # The connect goes on, until its own timeout.
        assert "pool-bench-slots" in [thread.name for thread in threading.enumerate()]


def test_the_guard_says_what_it_keeps() -> None:
    assert guard_note(FRESH, 91) is None
    assert guard_note(replace(FRESH, in_use=1, reserved=4), 500) == (
        "max_connections 100: 3 reserved for superusers, 4 reserved by reserved_connections, 5 left free, "
        "1 for watching, 1 in use: opening 86 of 500 (--no-reserve opens all)"
    )
    assert guard_note(replace(FRESH, in_use=95), 10) == (
        "max_connections 100: 3 reserved for superusers, 5 left free, 1 for watching, 95 in use: "
        "opening none of 10 (--no-reserve opens all)"
    )


@given(
    st.builds(
        Slots,
        max_connections=st.integers(1, 1000),
        superuser_reserved=st.integers(0, 20),
        reserved=st.integers(0, 20),
        in_use=st.integers(0, 1000),
        may_see_all=st.just(True),
        is_superuser=st.booleans(),
        pooled=st.just(False),
    ),
    st.integers(1, 2000),
    st.integers(0, 50),
)
def test_the_room_is_all_that_may_be_taken_and_no_more(slots: Slots, asked: int, spare: int) -> None:
    allowed = room(slots, asked, spare)
    assert allowed is not None
    assert 0 <= allowed <= asked
    left = slots.max_connections - slots.in_use - allowed - slots.superuser_reserved - slots.reserved - 1
    assert allowed == 0 or left >= spare
    assert allowed == asked or left <= spare
