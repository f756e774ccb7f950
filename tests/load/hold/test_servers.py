"""Connections held on real servers that end them: every one is counted once, by its kind, and at once."""

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from pool_bench.drivers.base import DriverName
from pool_bench.errors import FailureKind, Phase
from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig, StopMode
from tests.support.generators import ENGINES, LoopName, PollerName
from tests.support.holding import (
    Held,
    ask,
    await_backends,
    await_no_backends,
    backends,
    held_url,
    hold,
    hold_spec,
    kill_backend,
    terminate,
)
from tests.support.servers import StartPgBouncer, StartPostgres, TlsPostgres

K, P = FailureKind, Phase

every_driver = pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
every_engine = pytest.mark.parametrize(("loop", "poller"), ENGINES)


@pytest.fixture(scope="module")
def shared_server(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL that tests may restart."""
    access = "local all all trust\nhost all all 127.0.0.0/8 trust\n"
    server = start_postgres(PostgresConfig(max_connections=40, files={"pg_hba.conf": access}))
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
    return server


@pytest.fixture
def server(shared_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The same, on which nothing is held before or after the test."""
    yield shared_server
    await_no_backends(shared_server)


@every_engine
def test_what_is_opened_is_held_and_closed(
    server: EmbeddedPostgres, loop: LoopName, poller: PollerName
) -> None:
    async def during(held: Held) -> None:
        await held.until_held(7)
        assert len(backends(server)) == 7

    held = hold(hold_spec(held_url(server), connections=(7,)), during, loop=loop, poller=poller)
    assert held.counts == (7, 0, 0, 7)
    assert held.stats.forced == 0
    assert held.stats.held_peak == 7
    assert not held.stats.emptied


@pytest.mark.parametrize(
    ("driver", "loop"),
    [
        ("wire", "uvloop"),
        ("asyncpg", "uvloop"),
        ("psycopg", "uvloop"),
        ("asyncpg", "asyncio"),
        ("psycopg", "asyncio"),
    ],
)
def test_exactly_the_terminated_ones_are_dropped_and_at_once(
    server: EmbeddedPostgres, driver: DriverName, loop: LoopName
) -> None:
    async def during(held: Held) -> None:
        await held.until_held(9)
        victims = backends(server)[2:6]
        terminate(server, victims)
        # No keep-alive is due within an hour: only the connections themselves can tell.
        await held.until(lambda held: held.stats.dropped == 4)
        await held.until_held(5)
        assert not set(await_backends(server, 5)) & set(victims)

    spec = hold_spec(held_url(server), connections=(9,), driver=driver, keepalive_s=3600.0)
    held = hold(spec, during, loop=loop)
    assert held.counts == (9, 0, 4, 5)
    assert held.drops == {(K.SERVER_SHUTDOWN, P.HOLD, "57P01"): 4}
    assert held.stats.keepalive.count == 0


@every_driver
def test_the_terminated_ones_are_replaced_where_that_is_wanted(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def during(held: Held) -> None:
        await held.until_held(6)
        victims = backends(server)[:3]
        terminate(server, victims)
        await held.until(lambda held: held.stats.reopened == 3)
        assert not set(await_backends(server, 6)) & set(victims)

    held = hold(hold_spec(held_url(server), connections=(6,), driver=driver, reconnect=True), during)
    assert held.counts == (6, 3, 3, 6)
    assert held.stats.reconnects.failed == 0


@every_driver
def test_a_restart_drops_all_and_ends_the_run_where_nothing_is_replaced(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def restart(held: Held) -> None:
        await held.until_held(6)
        await asyncio.to_thread(server.restart)
        await held.until(lambda held: held.snapshots[-1].final)

    held = hold(hold_spec(held_url(server), connections=(6,), driver=driver, duration_s=600.0), restart)
    assert held.counts == (6, 0, 6, 0)
    assert held.drops == {(K.SERVER_SHUTDOWN, P.HOLD, "57P01"): 6}
    assert held.stats.emptied
    assert held.stats.hold_s < 60


@every_driver
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_after_a_restart_all_are_replaced(
    server: EmbeddedPostgres, driver: DriverName, mode: StopMode
) -> None:
    async def restart(held: Held) -> None:
        loop = asyncio.get_running_loop()

        def until_each_has_tried_in_vain() -> None:
            tried = held.until(lambda held: held.stats.reconnects.failed >= 6)
            asyncio.run_coroutine_threadsafe(tried, loop).result()

        await held.until_held(6)
        await asyncio.to_thread(server.restart, mode, stopped=until_each_has_tried_in_vain)
        await held.until(lambda held: held.stats.reopened == 6 and held.stats.held == 6)
        await_backends(server, 6)

    spec = hold_spec(held_url(server), connections=(6,), driver=driver, reconnect=True, keepalive_s=0.2)
    held = hold(spec, restart)
    assert held.counts == (6, 6, 6, 6)
    # One that was just being asked is told so in the answer's place; where the server ends at once, some of
    # those that have a query under way are told nothing at all (docs/failures.md).
    told = {(K.SERVER_SHUTDOWN, "57P01")}
    silent = {(K.CLOSED, ""), (K.RESET, "")} if mode == "immediate" else set()
    assert told <= {(kind, state) for kind, _, state in held.drops} <= told | silent
    expected = {K.REFUSED, K.SERVER_STARTING, K.SERVER_SHUTDOWN, K.RESET, K.CLOSED}
    assert set(held.stats.reconnects.errors) <= expected
    assert not held.stats.emptied


@every_driver
def test_a_crashed_backend_takes_the_others_with_it_and_each_says_why(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def crash(held: Held) -> None:
        await held.until_held(5)
        kill_backend(backends(server)[1])
        await held.until(lambda held: held.stats.reopened == 5 and held.stats.held == 5)

    held = hold(hold_spec(held_url(server), driver=driver, reconnect=True), crash)
    assert held.counts == (5, 5, 5, 5)
    assert held.drops == {(K.CLOSED, P.HOLD, ""): 1, (K.SERVER_SHUTDOWN, P.HOLD, "57P02"): 4}


@every_driver
def test_idle_sessions_end_at_the_servers_timeout_and_have_lived_that_long(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def expire(held: Held) -> None:
        await held.until(lambda held: held.snapshots[-1].final)

    url = f"{held_url(server)}&options=-c%20idle_session_timeout%3D2500ms"
    held = hold(hold_spec(url, connections=(8,), driver=driver), expire)
    assert held.counts == (8, 0, 8, 0)
    assert held.drops == {(K.IDLE_TIMEOUT, P.HOLD, "57P05"): 8}
    assert held.stats.emptied
    # A client that is held up notices the beginning late, and each end does so with the end.
    late_s = max(snapshot.client.lag.max_ns for snapshot in held.snapshots) / 1e9
    assert all(2.3 - late_s <= age_s < 2.5 + 30 for age_s, _ in held.stats.dropped_ages().items_s())
    assert [point.share for point in held.stats.survival()][-1] == 0


def test_keep_alives_hold_off_the_servers_timeout(server: EmbeddedPostgres) -> None:
    url = f"{held_url(server)}&options=-c%20idle_session_timeout%3D3s"
    held = hold(hold_spec(url, keepalive_s=0.2, duration_s=3.5))
    assert held.counts == (5, 0, 0, 5)


def test_a_session_left_in_a_transaction_ends_by_that_timeout(server: EmbeddedPostgres) -> None:
    async def expire(held: Held) -> None:
        await held.until(lambda held: held.snapshots[-1].final)

    url = f"{held_url(server)}&options=-c%20idle_in_transaction_session_timeout%3D100ms"
    spec = hold_spec(url, connections=(4,), keepalive_s=0.6, keepalive_query="BEGIN")
    held = hold(spec, expire)
    assert held.counts == (4, 0, 4, 0)
    assert held.drops == {(K.IDLE_TIMEOUT, P.HOLD, "25P03"): 4}
    assert held.stats.keepalive.count == 4


@every_driver
def test_where_slots_run_out_the_rest_is_counted_and_what_was_got_is_held(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def during(held: Held) -> None:
        await held.until_held(37)

    held = hold(hold_spec(held_url(server, "plain"), connections=(120,), driver=driver), during)
    assert held.counts == (37, 0, 0, 37)
    # Up to which step a server that is full lets one go depends on how full it is.
    assert {(kind, state) for kind, _, state in held.failures} == {(K.TOO_MANY_CONNECTIONS, "53300")}
    assert held.opening.failed == 120 - 37


@every_driver
def test_the_share_of_connections_that_never_rest_is_exact(
    server: EmbeddedPostgres, driver: DriverName
) -> None:
    async def during(held: Held) -> None:
        await held.until_held(10)
        await held.until(lambda held: held.stats.active.count > 30)
        rows = ask(
            server,
            "SELECT count(*) FILTER (WHERE query = 'SELECT 42'), count(*) FROM pg_stat_activity "
            "WHERE application_name = 'held'",
        )
        assert rows == [(3, 10)]

    spec = hold_spec(
        held_url(server), connections=(10,), driver=driver, active=0.3, keepalive_query="SELECT 42"
    )
    held = hold(spec, during)
    assert held.counts == (10, 0, 0, 10)
    assert held.stats.keepalive.count == 0


@every_driver
@pytest.mark.parametrize(
    ("query", "state", "kind"),
    [
        ("SELECT 1/0", "22012", K.OTHER),
        ("SELEKT", "42601", K.OTHER),
        ("SET statement_timeout = '20ms'; SELECT pg_sleep(5)", "57014", K.TIMEOUT),
    ],
)
def test_a_query_that_fails_is_counted_and_its_connection_stays(
    server: EmbeddedPostgres, driver: DriverName, query: str, state: str, kind: FailureKind
) -> None:
    async def during(held: Held) -> None:
        await held.until(lambda held: held.stats.query_failures.failed >= 8)

    spec = hold_spec(
        held_url(server),
        connections=(4,),
        driver=driver,
        keepalive_s=0.2,
        keepalive_query=query,
        active=0.25,
    )
    held = hold(spec, during)
    assert held.counts == (4, 0, 0, 4)
    assert set(held.query_failures) == {(kind, P.QUERY, state)}
    assert held.stats.keepalive.count == held.stats.active.count == 0


@every_driver
@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; SELECT 2; SELECT 3 WHERE false",
        "SELECT repeat('x', 3000000)",
        "SELECT g FROM generate_series(1, 10000) g",
        "DO $$ BEGIN FOR i IN 1..500 LOOP RAISE NOTICE 'look %', i; END LOOP; END $$",
        "SET application_name = 'held'; LISTEN news; NOTIFY news, 'again'",
    ],
)
def test_answers_of_any_size_and_kind_are_answers(
    server: EmbeddedPostgres, driver: DriverName, query: str
) -> None:
    async def during(held: Held) -> None:
        await held.until(lambda held: held.stats.keepalive.count >= 3 and held.stats.active.count >= 3)

    spec = hold_spec(
        held_url(server), connections=(3,), driver=driver, keepalive_s=0.1, keepalive_query=query, active=0.3
    )
    held = hold(spec, during)
    assert held.counts == (3, 0, 0, 3)
    assert held.query_failures == {}


@every_driver
def test_tls_connections_are_held_asked_and_dropped_like_others(
    tls_postgres: TlsPostgres, driver: DriverName
) -> None:
    server = tls_postgres.server

    async def during(held: Held) -> None:
        await held.until_held(6)
        rows = ask(
            server,
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
            "WHERE ssl AND application_name = 'held'",
        )
        assert rows == [(6,)]
        await held.until(lambda held: held.stats.keepalive.count >= 8 and held.stats.active.count >= 8)
        victims = backends(server)[:2]
        terminate(server, victims)
        await held.until(lambda held: held.stats.dropped == 2)

    url = (
        f"postgresql://scram_user:scram%20pencil@localhost:{server.port}/postgres?hostaddr=127.0.0.1"
        f"&sslmode=verify-full&sslrootcert={tls_postgres.ca}&application_name=held"
    )
    spec = hold_spec(
        url,
        connections=(6,),
        driver=driver,
        keepalive_s=0.2,
        active=0.2,
        # Records are larger than what is read at once, so that bytes wait inside the TLS object.
        keepalive_query="SELECT repeat('x', 100000)",
    )
    held = hold(spec, during)
    assert held.counts == (6, 0, 2, 4)
    assert {(kind, state) for kind, _, state in held.drops} == {(K.SERVER_SHUTDOWN, "57P01")}
    await_no_backends(server)


@every_driver
def test_unix_sockets_are_held_like_others(server: EmbeddedPostgres, driver: DriverName) -> None:
    async def during(held: Held) -> None:
        await held.until_held(5)
        await held.until(lambda held: held.stats.keepalive.count >= 5)
        rows = ask(
            server,
            "SELECT count(*) FROM pg_stat_activity WHERE client_addr IS NULL AND application_name = 'held'",
        )
        assert rows == [(5,)]
        terminate(server, backends(server)[:1])
        await held.until(lambda held: held.stats.dropped == 1)

    assert server.socket_dir is not None
    url = f"postgresql://postgres@/postgres?host={server.socket_dir}&port={server.port}&application_name=held"
    held = hold(hold_spec(url, driver=driver, keepalive_s=0.3), during)
    assert held.counts == (5, 0, 1, 4)
    assert {(kind, state) for kind, _, state in held.drops} == {(K.SERVER_SHUTDOWN, "57P01")}


@every_driver
def test_a_pooler_that_ends_drops_its_clients_and_one_that_comes_back_is_found_again(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, driver: DriverName
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))

    async def restart(held: Held) -> None:
        await held.until_held(12)
        await asyncio.to_thread(bouncer.restart)
        await held.until(lambda held: held.stats.reopened == 12 and held.stats.held == 12)

    spec = hold_spec(bouncer.url, connections=(12,), driver=driver, reconnect=True)
    held = hold(spec, restart)
    assert held.counts == (12, 12, 12, 12)
    assert {kind for kind, _, _ in held.drops} <= {K.CLOSED, K.RESET, K.SERVER_SHUTDOWN}
    bouncer.stop()


@every_driver
def test_a_pooler_that_is_killed_drops_its_clients_and_the_run_ends(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, driver: DriverName
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))

    async def kill(held: Held) -> None:
        await held.until_held(8)
        kill_backend(bouncer.pid)
        await held.until(lambda held: held.snapshots[-1].final)

    held = hold(hold_spec(bouncer.url, connections=(8,), driver=driver), kill)
    assert held.counts == (8, 0, 8, 0)
    assert {kind for kind, _, _ in held.drops} <= {K.CLOSED, K.RESET}
    assert held.stats.emptied
    bouncer.stop()


def test_connections_come_from_the_given_addresses_in_turn(server: EmbeddedPostgres) -> None:
    async def during(held: Held) -> None:
        await held.until_held(9)
        rows = ask(
            server,
            "SELECT host(client_addr), count(*) FROM pg_stat_activity "
            "WHERE application_name = 'held' GROUP BY 1 ORDER BY 1",
        )
        assert rows == [("127.0.0.2", 5), ("127.0.0.3", 4)]

    spec = hold_spec(held_url(server), connections=(9,), source_ips=("127.0.0.2", "127.0.0.3"))
    assert hold(spec, during).counts == (9, 0, 0, 9)


def test_several_targets_share_the_connections(server: EmbeddedPostgres) -> None:
    urls = [held_url(server), held_url(server).replace("/postgres?", "/template1?")]

    async def during(held: Held) -> None:
        await held.until_held(7)
        with psycopg.connect(server.url) as connection:
            rows = connection.execute(
                "SELECT datname, count(*) FROM pg_stat_activity WHERE application_name = 'held' "
                "GROUP BY 1 ORDER BY 1"
            ).fetchall()
        assert rows == [("postgres", 4), ("template1", 3)]

    held = hold(hold_spec(*urls, connections=(4, 3)), during)
    assert [stats.ok for stats in held.targets] == [4, 3]
