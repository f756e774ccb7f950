"""Watching servers that work, fail, hang and come back."""

import os
import re
import time
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.watch.machine import memory
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.postgres import backends, sampler
from pool_bench.watch.postgres.backends import find_postmaster
from pool_bench.watch.postgres.client import WatchClient
from pool_bench.watch.watcher import START_WAIT_S, STOP_WAIT_S, watch_postgres
from tests.support.generators import MARGIN_S, nothing_left
from tests.support.held_sessions import await_true, clients, held, silent_server, target, unused_url
from tests.support.servers import StartPostgres
from tests.watch.conftest import as_user

WAIT_S = 30.0
KB = 1024


def test_backends_are_counted_exactly_by_state(server: EmbeddedPostgres) -> None:
    with nothing_left():
        watcher = watch_postgres([target(server.url)], local_pid=server.pid)
        with held(server.url, idle=1):
            watcher.start()
            with held(server.url, idle=6, active=3, in_transaction=2):
                watcher.peak(wait_s=WAIT_S)
            side = watcher.stop()
    assert (side.max_connections, side.superuser_reserved, side.reserved) == (50, 3, 0)
    assert side.notes == []
    assert (side.in_use_before, side.in_use_after) == (1, 1)
    assert side.used_peak == 12
    peak = max(side.seconds, key=lambda second: second.used or 0)
    assert peak.states == {"idle": 7, "active": 3, "idle in transaction": 2}
    assert side.seconds[0].states == side.seconds[-1].states == {"idle": 1}
    times = [second.t for second in side.seconds]
    assert times == sorted(times)
    assert times[0] == 0


def test_memory_is_measured_before_at_the_peak_and_after(server: EmbeddedPostgres) -> None:
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    with held(server.url, idle=20, active=2):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.notes == []
    assert set(side.memory) == {"before", "peak", "after"}
    before, peak, after = (side.memory[when] for when in ("before", "peak", "after"))
    assert (before.backends, peak.backends, after.backends) == (0, 22, 0)
    assert (peak.processes, after.processes) == (before.processes + 22, before.processes)
    assert (before.sampled, peak.sampled) == (before.processes, peak.processes)
    assert before.idle_backend_bytes is None
    assert peak.idle_backend_bytes is not None
    assert 100 * KB < peak.idle_backend_bytes < 20 * KB * KB
    assert peak.total_bytes > before.total_bytes > KB * KB
    assert side.backend_cost_bytes is not None
    assert 100 * KB < side.backend_cost_bytes < 20 * KB * KB


def test_of_many_backends_some_are_looked_at_and_the_rest_is_taken_to_be_alike(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(server.url, idle=30):
        whole = watch_postgres([target(server.url)])
        whole.start()
        all_read = whole.stop().memory["before"]
        monkeypatch.setattr(memory, "_MOST", 12)
        part = watch_postgres([target(server.url)])
        part.start()
        some_read = part.stop().memory["before"]
    assert (all_read.backends, some_read.backends) == (30, 30)
    assert some_read.processes == all_read.processes == all_read.sampled
    assert some_read.sampled == all_read.sampled - 18
    assert some_read.idle_backend_bytes == pytest.approx(all_read.idle_backend_bytes, rel=0.25)
    assert some_read.total_bytes == pytest.approx(all_read.total_bytes, rel=0.25)


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_the_postmaster_is_found_through_our_own_backend(server: EmbeddedPostgres, way: str) -> None:
    url = server.url
    if way == "unix":
        url = f"postgresql://bench@/postgres?host={server.socket_dir}&port={server.port}"
    with closing(WatchClient(target(url))) as client:
        assert find_postmaster(client) == server.pid


def test_a_server_on_this_machine_that_is_no_postgresql_process_is_found_by_its_port(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A PostgreSQL that calls its processes something else, as those do that run inside another program.
    for module in (backends, sampler):
        monkeypatch.setattr(module, "PROCESS_NAMES", ("node",))
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    with held(server.url, idle=3):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.notes == [
        f"port {server.port} is served by postgres, no PostgreSQL: CPU and memory are that process's"
    ]
    assert {when: (one.processes, one.backends) for when, one in side.memory.items()} == {
        "before": (1, 0),
        "peak": (1, 3),
        "after": (1, 0),
    }
    seen = [second.cpu for second in side.seconds if second.cpu is not None]
    assert seen
    assert all(cpu.postmaster is None for cpu in seen)


def test_a_process_that_began_at_another_time_is_not_taken_for_the_server(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_START_TOLERANCE_S", -1)
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    watcher.peak()
    side = watcher.stop()
    assert side.memory == {}
    assert side.notes == [
        "memory of the server was not measured: the server's processes are not among those of this machine"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_without_permission_memory_is_not_read(server: EmbeddedPostgres) -> None:
    assert memory.pss_bytes(server.pid)
    os.seteuid(54321)
    try:
        with pytest.raises(UnseenError, match="no permission"):
            memory.pss_bytes(server.pid)
    finally:
        os.seteuid(0)


def test_a_user_without_rights_sees_its_own_backends_and_is_told_so(server: EmbeddedPostgres) -> None:
    url = as_user(server, "plain")
    with held(server.url, idle=4):
        # Only the looks that are asked for.
        watcher = watch_postgres([target(url)], interval_s=3600)
        watcher.start()
        with held(url, idle=3, in_transaction=1):
            watcher.peak(wait_s=WAIT_S)
        side = watcher.stop()
    assert side.max_connections == 50
    assert (side.in_use_before, side.in_use_after, side.used_peak) == (None, None, None)
    assert [second.states for second in side.seconds if second.states] == [
        {"idle": 3, "idle in transaction": 1}
    ]
    assert side.memory["peak"].backends == 4
    assert side.memory["peak"].processes == side.memory["before"].processes + 4
    assert len(side.notes) == 1
    assert side.notes[0].startswith("user plain may not see the sessions of other users (GRANT pg_monitor)")


def test_connections_that_stay_after_the_run_are_counted_and_told(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_bench.watch.watcher._GONE_WAIT_S", 0.3)
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    with held(server.url, idle=2):
        side = watcher.stop()
    assert (side.in_use_before, side.in_use_after) == (0, 2)
    assert side.notes == ["2 more client connections than before the run, 0.3 s after its end"]


def test_it_looks_again_after_a_restart_and_the_gap_is_no_error(start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(settings={"autovacuum": "off"}))
    watcher = watch_postgres([target(server.url)], local_pid=server.pid, interval_s=0.02)
    watcher.start()
    with closing(psycopg.connect(server.url)):
        server.restart()
    await_true(lambda: len(clients(server)) == 1)
    with held(server.url, idle=5):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.notes == []
    assert side.used_peak == 5
    assert side.in_use_after == 0
    assert (side.memory["peak"].backends, side.memory["after"].backends) == (5, 0)


def test_a_server_that_ends_for_good_is_a_note(start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(settings={"autovacuum": "off"}))
    with nothing_left():
        watcher = watch_postgres([target(server.url)], local_pid=server.pid, interval_s=3600)
        watcher.start()
        server.stop()
        watcher.peak(wait_s=WAIT_S)
        side = watcher.stop()
    assert side.in_use_before == 0
    assert side.in_use_after is None
    assert set(side.memory) == {"before"}
    assert [second.used for second in side.seconds] == [0]
    assert len([note for note in side.notes if re.search(r"could not be watched from \d+ s on", note)]) == 1
    assert "memory of the server was not measured at the peak: it did not answer" in side.notes


def test_a_server_that_was_never_there_is_one_note() -> None:
    url = unused_url()
    with nothing_left():
        watcher = watch_postgres([target(url)])
        watcher.start()
        watcher.peak(wait_s=WAIT_S)
        side = watcher.stop()
    assert side.seconds == []
    assert side.memory == {}
    assert len(side.notes) == 1
    assert side.notes[0].startswith(f"the server at {target(url)} could not be watched: refused")


@pytest.mark.usefixtures("real_bounds")
def test_a_silent_server_holds_nobody_up_beyond_the_bounds() -> None:
    with silent_server() as url, nothing_left():
        watcher = watch_postgres([target(url)])
        begin = time.monotonic()
        watcher.start()
        assert time.monotonic() - begin < START_WAIT_S + MARGIN_S
        begin = time.monotonic()
        side = watcher.stop()
        assert time.monotonic() - begin < STOP_WAIT_S + MARGIN_S
    assert len(side.notes) == 1
    assert "timeout" in side.notes[0]


def test_a_backend_that_hangs_costs_one_look(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_bench.watch.postgres.client._PATIENCE_S", 3.0)
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    (backend,) = clients(server)
    backend.suspend()
    try:
        watcher.peak(wait_s=WAIT_S)
    finally:
        backend.resume()
    await_true(lambda: backend not in clients(server))
    with held(server.url, idle=2):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.used_peak == 2
    assert side.notes == []


def test_leaving_without_stopping_ends_it_at_once(server: EmbeddedPostgres) -> None:
    with nothing_left(), watch_postgres([target(server.url)]) as watcher:
        watcher.start()
        assert len(clients(server)) == 1
    await_true(lambda: not clients(server))
    with nothing_left(), watch_postgres([target(server.url)]):
        pass  # never started


def test_a_look_that_comes_too_late_says_nothing_of_before(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_bench.watch.watcher.START_WAIT_S", 0.0)
    watcher = watch_postgres([target(server.url)])
    watcher.start()
    with held(server.url, idle=2):
        watcher.peak(wait_s=WAIT_S)
    side = watcher.stop()
    assert side.in_use_before is None
    assert set(side.memory) == {"peak", "after"}
    assert side.max_connections == 50
    assert side.notes == ["the server did not answer before the run: how it was then is not known"]


def test_several_targets_of_one_server_are_one_and_others_are_named(server: EmbeddedPostgres) -> None:
    first = target(server.url)
    other_database = replace(first, dbname="template1", user="plain")
    by_name = target(server.url.replace("127.0.0.1", "localhost"))
    watcher = watch_postgres([first, other_database, by_name])
    watcher.start()
    assert watcher.stop().notes == []
    watcher = watch_postgres([first, target(unused_url())])
    watcher.start()
    assert watcher.stop().notes == [f"there are several servers: only the first, {first}, was watched"]
