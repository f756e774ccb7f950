"""PgBouncer, watched through its console."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.watch.machine.listeners import listeners
from pool_bench.watch.postgres.client import WatchClient
from pool_bench.watch.postgres.pgbouncer import console_target, show_pools
from pool_bench.watch.watcher import watch_postgres
from tests.support.generators import nothing_left
from tests.support.held_sessions import await_true, held, target, unused_url
from tests.support.servers import StartPgBouncer

WAIT_S = 30.0


@pytest.fixture
def bouncer(server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> Iterator[PgBouncer]:
    """A PgBouncer with two server connections in front of `server`."""
    started = start_pgbouncer(PgBouncerConfig(backend_port=server.port, default_pool_size=2))
    yield started
    started.stop()


def figures(console: WatchClient) -> tuple[int, int, int]:
    """Clients that have a server connection or need none, clients that wait for one, servers at work."""
    pools = show_pools(console)
    return pools["cl_active"], pools["cl_waiting"], pools["sv_active"]


def test_pools_and_lists_are_counted_exactly(bouncer: PgBouncer) -> None:
    with nothing_left():
        # Only the looks that are asked for.
        watcher = watch_postgres([], admin=target(bouncer.url), interval_s=3600)
        watcher.start()
        # Who asks while both server connections are taken has to wait.
        with (
            held(bouncer.url, idle=5, in_transaction=1, active=2, begun=False),
            closing(WatchClient(console_target(target(bouncer.url)))) as console,
        ):
            await_true(lambda: figures(console) == (7, 1, 2))
            console.close(wait_s=WAIT_S)
            watcher.peak(wait_s=WAIT_S)
        side = watcher.stop()
    assert side.notes == []
    first, peak, last = side.seconds[0], side.seconds[-2], side.seconds[-1]
    assert (first.lists["used_clients"], last.lists["used_clients"]) == (0, 0)
    assert peak.lists["used_clients"] == 8
    assert peak.lists["used_servers"] == 2
    assert (peak.pools["cl_active"], peak.pools["cl_waiting"]) == (7, 1)
    assert (peak.pools["sv_active"], peak.pools["sv_idle"]) == (2, 0)
    assert peak.used is None
    assert (side.max_connections, side.in_use_before, side.memory) == (None, None, {})


def test_the_memory_of_its_process_is_measured(bouncer: PgBouncer) -> None:
    watcher = watch_postgres([], admin=target(bouncer.url))
    watcher.start()
    with held(bouncer.url, idle=60):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    before, peak, after = (side.pooler_memory[when] for when in ("before", "peak", "after"))
    assert (before.clients, peak.clients, after.clients) == (0, 60, 0)
    assert {before.processes, peak.processes, after.processes} == {1}
    # Which of them is more depends on how many other PgBouncers share its pages, too.
    assert min(before.total_bytes, peak.total_bytes) > 100 * 1024
    assert side.pooler_client_bytes is None, "sixty are too few to say what one costs"


def test_its_process_is_found_over_tcp_and_over_a_unix_socket(bouncer: PgBouncer) -> None:
    local = f"postgresql://bench@/?host={bouncer.socket_dir}&port={bouncer.port}"
    # It listens on the Unix socket last; once it answers, it does.
    for url in (bouncer.url, local):
        with closing(WatchClient(console_target(target(url)))) as console:
            show_pools(console)
            assert [one.pid for one in listeners(console.local_fd, "PgBouncer")] == [bouncer.pid]


def test_the_server_behind_it_is_seen_without_keeping_a_connection(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    narrow = start_pgbouncer(PgBouncerConfig(backend_port=server.port, default_pool_size=1))
    watcher = watch_postgres([target(narrow.url)], admin=target(narrow.url), local_pid=server.pid)
    watcher.start()
    with psycopg.connect(narrow.url, autocommit=True) as only:
        # In session mode this waited for as long as the watcher kept the one server connection.
        assert only.execute("SELECT 1").fetchone() == (1,)
    with held(server.url, idle=3):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.notes == ["through PgBouncer: backends and slots are those of the server behind it"]
    assert side.max_connections == 50
    assert side.used_peak == 3
    assert side.memory["peak"].backends == 3
    assert side.seconds[-1].lists["used_clients"] == 0
    narrow.stop()


def test_a_wrong_password_for_the_console_is_one_note_without_it(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    config = PgBouncerConfig(backend_port=server.port, users={server.user: "right"}, auth_type="md5")
    bouncer = start_pgbouncer(config)
    admin = target(bouncer.url.replace(f"{server.user}@", f"{server.user}:hunter2@", 1))
    watcher = watch_postgres([target(server.url)], admin=admin, interval_s=0.02)
    watcher.start()
    with held(server.url, idle=2):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert len(side.notes) == 1
    assert "PgBouncer's console at" in side.notes[0]
    assert "auth" in side.notes[0]
    assert "hunter2" not in repr(side)
    assert side.used_peak == 2
    # It was not tried again and again.
    assert bouncer.log().count("pooler error: password authentication failed") == 1
    bouncer.stop()


def test_a_user_who_may_not_use_the_console_is_one_note(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    config = PgBouncerConfig(
        backend_port=server.port, users={server.user: "", "guest": ""}, settings={"admin_users": server.user}
    )
    bouncer = start_pgbouncer(config)
    admin = target(bouncer.url.replace(f"{server.user}@", "guest@", 1))
    watcher = watch_postgres([], admin=admin)
    watcher.start()
    side = watcher.stop()
    assert len(side.notes) == 1
    assert "not allowed" in side.notes[0]
    assert side.seconds == []
    bouncer.stop()


def test_a_console_that_is_not_there_is_one_note_and_the_server_is_watched(server: EmbeddedPostgres) -> None:
    watcher = watch_postgres([target(server.url)], admin=target(unused_url()))
    watcher.start()
    side = watcher.stop()
    assert len(side.notes) == 1
    assert "could not be watched: refused" in side.notes[0]
    assert side.in_use_before == side.in_use_after == 0


def test_it_looks_again_after_a_restart_of_pgbouncer(bouncer: PgBouncer) -> None:
    watcher = watch_postgres([], admin=target(bouncer.url), interval_s=0.05)
    watcher.start()
    pid = bouncer.pid
    bouncer.restart()
    assert bouncer.pid != pid
    # The first look may find the old connection dead; the next one opens another.
    watcher.peak(wait_s=WAIT_S)
    with held(bouncer.url, idle=4):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert max(second.lists["used_clients"] for second in side.seconds) == 4
    assert not any("could not be watched" in note for note in side.notes)
