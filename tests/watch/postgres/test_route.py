"""Who stands between us and a server is told by what it does, whatever it is called."""

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pool_bench.drivers.wire.driver import ask_server
from pool_bench.faults.proxy import FaultProxy
from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.stats.intermediaries import NOBODY, Between, Sight, judge
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.postgres.client import WatchClient
from pool_bench.watch.postgres.route import look_between
from pool_bench.watch.watcher import watch_postgres
from tests.support.held_sessions import await_true, clients, held, target
from tests.support.servers import StartPgBouncer, missing_server

TIMEOUT_S = 30.0
DIRECT = Sight(
    our_port=1000, seen_port=1000, given_pid=7, pid=7, session="7 now", backend_type="client backend"
)


def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be learnt from the processes of this machine."""

    def unseen(_client: WatchClient, _what: str) -> list[object]:
        raise UnseenError("elsewhere")

    monkeypatch.setattr("pool_bench.watch.postgres.route.listeners", unseen)


def ends(pgpool: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", pgpool)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def pgpool(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """A pgpool-II that keeps sessions, as it does for all databases but those of the system."""
    program = shutil.which("pgpool", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing_server("pgpool-II", "pgpool2")
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS app")
        connection.execute("CREATE DATABASE app")
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    (tmp_path / "pgpool.conf").write_text(
        f"listen_addresses='127.0.0.1'\nport={ports[0]}\npcp_port={ports[1]}\nsocket_dir='{tmp_path}'\n"
        f"pcp_socket_dir='{tmp_path}'\nbackend_hostname0='127.0.0.1'\nbackend_port0={server.port}\n"
        "backend_weight0=1\nbackend_clustering_mode='raw'\nenable_pool_hba=off\nnum_init_children=4\n"
        f"max_pool=1\npid_file_name='{tmp_path}/pid'\nlogdir='{tmp_path}'\n"
    )
    with (tmp_path / "log").open("wb") as log:
        command = [program, "-n", "-f", "pgpool.conf", "-F", "pcp.conf", "-a", "hba.conf"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        await_true(lambda: ends(ports[0]))
        yield f"postgresql://bench@127.0.0.1:{ports[0]}/app?sslmode=disable"
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


@pytest.fixture
def proxy(server: EmbeddedPostgres) -> Iterator[str]:
    """A TCP proxy in this process, which knows nothing of PostgreSQL."""
    begun, loop = threading.Event(), asyncio.new_event_loop()
    made: list[FaultProxy] = []

    async def begin() -> None:
        made.append(FaultProxy("127.0.0.1", server.port))
        made[0].start()
        begun.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(begin()), loop.run_forever()))
    thread.start()
    assert begun.wait(TIMEOUT_S)
    try:
        yield f"postgresql://bench@127.0.0.1:{made[0].port}/postgres?sslmode=disable"
    finally:
        asyncio.run_coroutine_threadsafe(made[0].close(), loop).result(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


@pytest.mark.parametrize("seen", [True, False])
def test_nobody_stands_before_a_plain_server(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    if not seen:
        other_machine(monkeypatch)
    for url in (server.url, f"postgresql://bench@/postgres?host={server.socket_dir}&port={server.port}"):
        assert look_between(target(url), TIMEOUT_S) == NOBODY


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_pgbouncer_is_a_pooler_in_every_mode_and_wherever_it_is(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    assert server.socket_dir is not None
    config = PgBouncerConfig(backend_port=server.port, settings={"pool_mode": mode})
    for way in (config, replace(config, backend_host=str(server.socket_dir))):
        bouncer = start_pgbouncer(way)
        local = f"postgresql://bench@/postgres?host={bouncer.socket_dir}&port={bouncer.port}"
        for url in (bouncer.url, local):
            assert look_between(target(url), TIMEOUT_S) == Between("pooler", "PgBouncer", shares=True)
        with monkeypatch.context() as elsewhere:
            other_machine(elsewhere)
            for url in (bouncer.url, local):
                assert look_between(target(url), TIMEOUT_S) == Between("pooler", shares=True)
        bouncer.stop()


def test_pgpool_gives_the_servers_own_process_numbers_and_is_a_pooler_all_the_same(
    pgpool: str, server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(psycopg.connect(pgpool, autocommit=True)) as connection:
        told = connection.pgconn.backend_pid
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (told,)
    found = look_between(target(pgpool), TIMEOUT_S)
    assert (found.kind, found.shares, found.name.split()[0]) == ("pooler", True, "pgpool-II")
    other_machine(monkeypatch)
    found = look_between(target(pgpool), TIMEOUT_S)
    assert (found.kind, found.shares, found.name.split()[0]) == ("pooler", True, "pgpool-II")
    # Whatever does the same under another name: its sessions go on without their connections.
    monkeypatch.setattr("pool_bench.watch.postgres.route._pgpool_version", lambda _client: None)
    assert look_between(target(pgpool), TIMEOUT_S) == Between("pooler", shares=True)


def test_a_proxy_has_a_session_for_each_connection_and_is_no_pooler(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch_postgres([target(proxy)])
    watcher.start()
    with held(proxy, idle=3):
        watcher.peak(wait_s=TIMEOUT_S)
    side = watcher.stop()
    assert side.between is not None
    assert (side.between.kind, side.between.shares, side.pooled) == ("proxy", False, False)
    assert side.used_peak == 3
    other_machine(monkeypatch)
    assert look_between(target(proxy), TIMEOUT_S) == Between("proxy")
    assert not asyncio.run(ask_server(target(proxy))).pooled


def test_a_plain_server_that_makes_up_its_numbers_is_no_pooler() -> None:
    odd = replace(DIRECT, given_pid=99)
    assert judge(odd, None, program=None, outlived=None, pgpool=None) == NOBODY
    embedded = replace(DIRECT, seen_port=5432, given_pid=42, pid=42, backend_type="standalone backend")
    assert judge(embedded, None, program="node", outlived=None, pgpool=None) == Between("nobody", alone=True)


def test_each_is_named_as_what_it_is() -> None:
    relayed = replace(DIRECT, seen_port=2000)
    again = replace(relayed, given_pid=8, pid=8, session="8 now")

    def words(program: str | None) -> str:
        return judge(relayed, again, program=program, outlived=False, pgpool=None).words

    assert words("haproxy") == "HAProxy (a proxy)"
    assert words("nginx") == "nginx (a proxy)"
    assert words("stunnel4") == "stunnel (a proxy)"
    assert words("odyssey") == "Odyssey"
    assert words(None) == "a proxy or address translation"
    assert words("postgres") == ""


def test_a_server_that_the_run_needs_whole_is_given_its_slot_back(server: EmbeddedPostgres) -> None:
    watcher = watch_postgres([target(server.url)], wanted=50)
    watcher.start()
    assert clients(server) == []
    with held(server.superuser_url, idle=50):
        watcher.peak(wait_s=TIMEOUT_S)
    side = watcher.stop()
    assert (side.in_use_before, side.in_use_after) == (0, 0)
    assert side.notes == [
        "the run wants 50 of 50 slots: the watcher gave its own connection back, and asked the server "
        "nothing during the run",
    ]
