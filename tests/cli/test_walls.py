"""Which wall connections have met, on real servers: said while they stop growing, at the end, in the file."""

import os
import re
import resource
import shlex
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from pool_bench.servers import pgbouncer
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support.commands import COMMAND, LOAD_COMMAND, Outcome, Started, load, run_tool
from tests.support.servers import StartPgBouncer, StartPostgres

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of its limits")

# A snapshot may be late where a process stands still.
STANDSTILL_S = 2.0
LIMITED = 7


@pytest.fixture(scope="module")
def server(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL of fifty slots, with a role and a database that have limits of their own."""
    access = ("host all limited,plain 127.0.0.1/32 trust",)
    server = start_postgres(PostgresConfig(max_connections=50, access=access))
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute(
            f"CREATE ROLE limited LOGIN CONNECTION LIMIT {LIMITED} IN ROLE pg_monitor".encode()
        )
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute(f"CREATE DATABASE small CONNECTION LIMIT {LIMITED}".encode())
    return server


@pytest.fixture(scope="module")
def bouncer(server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> PgBouncer:
    """A PgBouncer with room for many clients."""
    return start_pgbouncer(PgBouncerConfig(backend_port=server.port, max_client_conn=5000))


def url_of(server: EmbeddedPostgres, user: str, database: str = "postgres") -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/{database}?sslmode=disable"


@contextmanager
def few_slots(server: EmbeddedPostgres, free: int) -> Iterator[None]:
    """All of the server's slots but so many are taken meanwhile."""
    held: list[psycopg.Connection] = []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                held.append(psycopg.connect(url_of(server, "plain")))
        for connection in held[:free]:
            connection.close()
        yield
    finally:
        for connection in held:
            connection.close()


def holding(tmp_path: Path, url: str, *arguments: str) -> dict[str, Any]:
    """The wall of a finished run that held connections."""
    outcome = run_tool(
        *("--url", url, "-d", "100ms", "--json", "r.json", "--no-save", *arguments),
        cwd=tmp_path,
        command=LOAD_COMMAND,
    )
    assert outcome.code == 0, outcome.stderr
    return wall_of(tmp_path, outcome)


def wall_of(tmp_path: Path, outcome: Outcome) -> dict[str, Any]:
    """The wall in the file, which was said in time while the run went on, and in its last lines."""
    run = load(tmp_path / "r.json")["runs"][0]
    wall: dict[str, Any] = run["wall"]
    lines = outcome.stdout.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("wall"))
    assert any(re.match(r" +[\d.]+s ", line) for line in lines[first:]), "it was said only when all was over"
    last = " ".join(line.strip() for line in lines[-8:])
    assert f": {wall['words']}"[:60] in last
    return wall


def assert_in_time(tmp_path: Path, outcome: Outcome) -> None:
    """It was named within five seconds after the last connection."""
    lines = outcome.stdout.splitlines()
    said = next(index for index, line in enumerate(lines) if line.startswith("wall"))
    # The line after it is that of the same second.
    (named_s,) = re.findall(r"^ +([\d.]+)s ", lines[said + 1])
    timeline = load(tmp_path / "r.json")["runs"][0]["hold"]["timeline"]
    grown = [one["t"] for one in timeline if one["opened"] and one["t"] < float(named_s)]
    assert float(named_s) - max(grown, default=0.0) <= 5 + STANDSTILL_S


@pytest.mark.parametrize("watch", ["--watch", "--no-watch"])
def test_max_connections(tmp_path: Path, server: EmbeddedPostgres, watch: str) -> None:
    wall = holding(tmp_path, url_of(server, "plain"), "-n", "100", "--no-reserve", watch)
    assert wall["kind"] == "max_connections"
    assert wall["limit"] in ((50, None) if watch == "--watch" else (None,))
    assert 40 <= wall["held"] <= 47


@pytest.mark.parametrize(
    ("user", "database", "kind"),
    [("limited", "postgres", "role_limit"), ("plain", "small", "database_limit")],
)
def test_connection_limits(
    tmp_path: Path, server: EmbeddedPostgres, user: str, database: str, kind: str
) -> None:
    wall = holding(tmp_path, url_of(server, user, database), "-n", "20", "--no-reserve")
    assert wall["kind"] == kind
    # A server that stands still says nothing of its limits beforehand.
    assert wall["limit"] in (LIMITED, None)
    # The watcher may have one of them.
    assert LIMITED - 1 <= wall["held"] <= LIMITED


def test_max_client_conn(tmp_path: Path, server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> None:
    narrow = start_pgbouncer(PgBouncerConfig(backend_port=server.port, max_client_conn=30))
    wall = holding(tmp_path, narrow.url, "-n", "100", "--pgbouncer-admin", narrow.url)
    assert (wall["kind"], wall["limit"]) == ("max_client_conn", 30)
    assert 28 <= wall["held"] <= wall["used"] <= 31


@contextmanager
def few_descriptors(monkeypatch: pytest.MonkeyPatch, count: int) -> Iterator[None]:
    """PgBouncers that are started meanwhile may have so many descriptors."""
    program = pgbouncer.find_pgbouncer()
    with tempfile.TemporaryDirectory() as directory:
        # As root it is started by another user.
        Path(directory).chmod(0o755)
        script = Path(directory) / "pgbouncer"
        script.write_text(f'#!/bin/sh\nulimit -n {count}\nexec {shlex.quote(program)} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(pgbouncer, "find_pgbouncer", lambda: str(script))
        yield


def test_descriptors_of_a_pooler(
    tmp_path: Path, server: EmbeddedPostgres, bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PgBouncerConfig(backend_port=server.port, max_client_conn=500)
    with few_descriptors(monkeypatch, 64), PgBouncer(config) as narrow:
        arguments = ("--url", narrow.url, "-n", "300", "-d", "100ms", "--give-up", "7s")
        outcome = run_tool(*arguments, "--json", "r.json", "--no-save", cwd=tmp_path, command=LOAD_COMMAND)
    assert outcome.code == 0, outcome.stderr
    wall = wall_of(tmp_path, outcome)
    assert (wall["kind"], wall["limit"]) == ("server_descriptors", 64)
    assert 62 <= wall["used"] <= 64
    assert "descriptors of pgbouncer (process" in wall["words"]
    assert_in_time(tmp_path, outcome)


def test_an_accept_queue_of_a_pooler_that_has_stopped(tmp_path: Path, bouncer: PgBouncer) -> None:
    arguments = (
        "-n",
        "1000",
        "-d",
        "100ms",
        "--rate",
        "100/s",
        "--open-concurrency",
        "900",
        "--give-up",
        "7s",
    )
    files = ("--json", "r.json", "--no-save")
    started = Started(tmp_path, "--url", bouncer.url, *arguments, *files, command=LOAD_COMMAND)
    started.wait_for(r"^ +[1-9]\S*s  open ")
    os.kill(bouncer.pid, signal.SIGSTOP)
    try:
        outcome = started.finish()
    finally:
        os.kill(bouncer.pid, signal.SIGCONT)
    assert outcome.code == 0, outcome.stderr
    wall = wall_of(tmp_path, outcome)
    assert wall["kind"] == "accept_queue"
    assert wall["limit"] == 128
    assert "pgbouncer (process" in wall["words"]
    assert "is stopped" in wall["words"]
    assert_in_time(tmp_path, outcome)


@pytest.mark.parametrize("command", [LOAD_COMMAND, COMMAND])
def test_a_socket_that_is_listened_on_and_never_accepted_from(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=3) as listener:
        url = f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d?sslmode=disable"
        patience = ("--keep-going", "--no-watch", "--connect-timeout", "2s", "--json", "r.json", "--no-save")
        given = ("-n", "50", "--no-reserve", "--give-up", "7s") if command == LOAD_COMMAND else ("-d", "7s")
        outcome = run_tool("--url", url, *patience, *given, cwd=tmp_path, command=command)
    assert outcome.code == 1, outcome.stderr
    wall = wall_of(tmp_path, outcome)
    assert (wall["kind"], wall["limit"], wall["held"]) == ("accept_queue", 3, 0)
    assert "4 wait in it" in wall["words"]


def test_descriptors_of_this_process(tmp_path: Path, bouncer: PgBouncer) -> None:
    # Held for long enough to be looked at by a command that stood still for a while.
    arguments = ("-n", "300", "-d", "2s", "--rate", "50/s", "--json", "r.json", "--no-save")
    started = Started(tmp_path, "--url", bouncer.url, *arguments, command=LOAD_COMMAND)
    started.wait_for(r"^ +[1-9]\S*s  open ")
    (generator,) = (
        child
        for child in psutil.Process(started.process.pid).children()
        if "pool_bench.load.process" in " ".join(child.cmdline())
    )
    limit = generator.num_fds() + 5
    resource.prlimit(generator.pid, resource.RLIMIT_NOFILE, (limit, limit))
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    wall = wall_of(tmp_path, outcome)
    assert (wall["kind"], wall["limit"]) == ("client_descriptors", limit)
    assert_in_time(tmp_path, outcome)


def test_query_wait_timeout(
    tmp_path: Path, server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    settings = {"pool_mode": "session", "query_wait_timeout": "2"}
    config = PgBouncerConfig(backend_port=server.port, default_pool_size=2, settings=settings)
    narrow = start_pgbouncer(config)
    started = Started(
        tmp_path,
        *(
            "--url",
            narrow.url,
            "-n",
            "8",
            "-d",
            "0",
            "-k",
            "500ms",
            "--pgbouncer-admin",
            narrow.url,
            "--json",
            "r.json",
            "--no-save",
        ),
        command=LOAD_COMMAND,
    )
    started.wait_for("^wall ")
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    wall = load(tmp_path / "r.json")["runs"][0]["wall"]
    assert (wall["kind"], wall["limit"]) == ("pool", 2)
    assert "query_wait_timeout of 2 s" in wall["words"]


def test_cycles_that_find_no_slot(tmp_path: Path, server: EmbeddedPostgres) -> None:
    arguments = ("-c", "90", "-d", "500ms", "--warmup", "0", "--json", "r.json", "--no-save")
    # A quick server has few of ninety at a time: most slots are another's.
    with few_slots(server, 3):
        outcome = run_tool("--url", url_of(server, "plain"), *arguments, cwd=tmp_path, command=COMMAND)
    assert outcome.code == 0, outcome.stderr
    wall = wall_of(tmp_path, outcome)
    assert wall["kind"] == "max_connections"
    # A server that stands still says nothing of its limits.
    assert wall["limit"] in (50, None)


def test_what_has_grown_to_its_end_has_met_no_wall(tmp_path: Path, bouncer: PgBouncer) -> None:
    outcome = run_tool(
        *("--url", bouncer.url, "-n", "200", "-d", "100ms", "--json", "r.json", "--no-save"),
        cwd=tmp_path,
        command=LOAD_COMMAND,
    )
    assert outcome.code == 0, outcome.stderr
    assert "wall" not in load(tmp_path / "r.json")["runs"][0]
    assert "wall" not in outcome.stdout


def test_walls_that_can_be_seen_are_said_before_the_start(
    tmp_path: Path, server: EmbeddedPostgres, bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PgBouncerConfig(backend_port=server.port, max_client_conn=150)
    with few_descriptors(monkeypatch, 200), PgBouncer(config) as narrow:
        given = ("-n", "300", "-d", "100ms", "-b", "300", "--open-concurrency", "200", "--give-up", "5s")
        short = ("-d", "100ms", "--warmup", "0", "--no-save")
        shared = ("--url", narrow.url, "--no-save", "--pgbouncer-admin", narrow.url)
        held = run_tool(*shared, *given, cwd=tmp_path, command=LOAD_COMMAND)
        cycles = run_tool("--url", narrow.url, "-c", "140", *short, cwd=tmp_path)
        few = run_tool("--url", narrow.url, "-c", "20", *short, cwd=tmp_path)
    said = [line for line in held.error_lines if line.startswith("ahead: ")]
    assert "has room for 128, but 200 connects may begin at once (--open-concurrency)" in said[0]
    assert re.search(r"pgbouncer \(process \d+\) may have 200 descriptors, .*: 300 connections", said[1])
    assert "max_client_conn is 150: 300 connections do not fit" in said[2]
    assert len(said) == 3
    (line,) = (line for line in cycles.error_lines if line.startswith("ahead: "))
    assert "140 connects may begin at once (--concurrency)" in line
    assert "ahead: " not in few.stderr
