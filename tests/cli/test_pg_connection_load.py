"""pg-connection-load as its users meet it: a command with output, files and exit codes."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from pool_bench.servers.pgbouncer import PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support import commands as tool
from tests.support import hostile_postgres as h
from tests.support.commands import LOAD_COMMAND, all_gone, environment, load, only
from tests.support.held_sessions import await_true
from tests.support.holding import ask, await_no_backends, backends, held_url
from tests.support.servers import StartPgBouncer, StartPostgres

SECRET = "s3cr3t-Pa55/w%rd:@x"
HOLDING = r"^ +\d.* hold "

run_tool = partial(tool.run_tool, command=LOAD_COMMAND)
Started = partial(tool.Started, command=LOAD_COMMAND)


@pytest.fixture(scope="module")
def shared_server(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL with 100 slots and a user of few rights."""
    server = start_postgres(
        PostgresConfig(max_connections=100, access=("host all plain 127.0.0.1/32 trust",))
    )
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
    return server


@pytest.fixture
def server(shared_server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The same, on which nothing is held before or after the test."""
    yield shared_server
    await_no_backends(shared_server)


def test_help_answers_without_importing_what_only_a_run_needs() -> None:
    script = (
        "import sys; sys.argv = ['pg-connection-load', '--help']\n"
        "import pg_connection_load\n"
        "try: pg_connection_load.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'matplotlib', 'rich', 'asyncio', 'asyncpg', 'psycopg', 'uvloop', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--open-concurrency" in done.stdout
    assert done.stderr.strip() == "[]"


def test_an_address_of_the_wrong_family_for_the_embedded_server_is_bad_input_too(tmp_path: Path) -> None:
    outcome = run_tool("--source-ip", "::1", "-d", "100ms", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert outcome.code == 2
    assert outcome.error_lines[-1].startswith("error: --source-ip")
    assert list(tmp_path.iterdir()) == []


def test_without_a_url_a_real_postgresql_is_started_held_and_removed(tmp_path: Path) -> None:
    arguments = ("-n", "30", "-d", "1s", "-k", "500ms", "--active", "10%")
    outcome = run_tool(*arguments, cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert outcome.code == 0, outcome.stderr
    result = load(only(tmp_path / "results", "*.json"))
    run = result["runs"][0]
    hold = run["hold"]
    assert result["tool"] == "pg-connection-load"
    assert (run["ok"], run["failed"], run["unfinished"]) == (30, 0, 0)
    assert (hold["opened"], hold["dropped"], hold["closed"]) == (30, 0, 30)
    assert run["server_side"]["max_connections"] == 100
    assert only(tmp_path / "results", "*.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "the server's directory is left"


def test_where_slots_run_out_it_holds_what_it_got_and_says_so(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    arguments = ("-n", "500", "-d", "100ms", "--no-reserve", "--json", "r.json", "--no-save")
    # The watcher's own connection takes a slot, too: it is there before.
    outcome = run_tool("--url", held_url(server, "plain"), *arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    run = load(tmp_path / "r.json")["runs"][0]
    got = run["ok"]
    assert 90 <= got <= 97
    assert f"asked 500, holding {got}: too_many_connections (53300) {500 - got}" in outcome.stdout
    assert run["errors"] == {"too_many_connections": 500 - got}
    assert (run["hold"]["closed"], run["hold"]["dropped"]) == (got, 0)


def test_the_reserved_slots_and_five_more_stay_free_and_it_says_so(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    started = Started(
        tmp_path, "--url", held_url(server), "-n", "500", "-d", "0", "--json", "r.json", "--no-save"
    )
    started.wait_for(HOLDING)
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    # 100 less 3 reserved, 5 spare and the watcher; the one that asks is the 93rd, once those have gone that
    # looked before.
    await_true(lambda: ask(server, count) == [(93,)])
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0
    run = load(tmp_path / "r.json")["runs"][0]
    assert (run["ok"], run["failed"]) == (91, 0)
    assert (run["hold"]["asked"], run["hold"]["connections"]) == (500, 91)
    assert re.search("opening 91 of 500.*--no-reserve", outcome.stderr)


def test_without_watching_there_is_no_connection_but_those_that_were_asked_for(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    arguments = ("-n", "20", "-d", "0", "--no-watch", "--json", "r.json", "--no-save")
    started = Started(tmp_path, "--url", held_url(server), *arguments)
    started.wait_for(HOLDING)
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    # The 21st asks. The looks before the start are soon gone; a watcher's would stay.
    await_true(lambda: ask(server, count) == [(21,)])
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    result = load(tmp_path / "r.json")
    assert result["config"]["watch"] is False
    (run,) = result["runs"]
    assert run["ok"] == 20
    assert "server_side" not in run
    assert "server:" not in outcome.stdout


def test_a_password_appears_nowhere(tmp_path: Path, start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(auth="scram-sha-256", password=SECRET))
    url = f"postgresql://bench:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/postgres"
    files = ("--no-save", "--json", "r.json")
    for password, driver, code in ((SECRET, "asyncpg", 0), (SECRET + "x", "psycopg", 1)):
        shown = url.replace(quote(SECRET, safe=""), quote(password, safe=""))
        work = tmp_path / str(code)
        work.mkdir()
        arguments = ("--keep-going", "--driver", driver, "-n", "3", "-d", "0", "--pgbouncer-admin", shown)
        started = Started(work, "--url", shown, *arguments, *files)
        # With a wrong password there is soon nothing left to do.
        started.wait_for("elapsed" if code else HOLDING)
        titles = started.titles()
        if not code:
            assert len(titles) >= 2, "the command and its generator"
            started.signal(signal.SIGINT)
        outcome = started.finish()
        assert outcome.code == code, outcome.stderr
        written = b"".join(p.read_bytes() for p in work.rglob("*") if p.is_file()).decode(errors="replace")
        for text in (outcome.stdout, outcome.stderr, written, str(titles)):
            assert password not in text
            assert quote(password, safe="") not in text
        if code:
            assert load(work / "r.json")["runs"][0]["errors"] == {"auth": 3}
    server.stop()


def test_json_on_stdout_is_nothing_but_json(tmp_path: Path, server: EmbeddedPostgres) -> None:
    arguments = ("-n", "5", "-d", "100ms", "--json", "-", "--no-save")
    outcome = run_tool("--url", held_url(server), *arguments, cwd=tmp_path)
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["runs"][0]["hold"]["opened"] == 5
    assert "asked 5, held 5" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_first_signal_closes_sums_up_saves_and_leaves_nothing_running(tmp_path: Path) -> None:
    kept = ("--no-save", "--json", "r.json")
    started = Started(tmp_path, "-n", "20", "--duration", "0", *kept, env={"TMPDIR": str(tmp_path)})
    started.wait_for(HOLDING)
    family = started.family()
    assert len(family) >= 3, "the keeper, PostgreSQL and the generator"
    started.signal(signal.SIGTERM)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    result = load(tmp_path / "r.json")
    assert result["interrupted"] is True
    assert (result["runs"][0]["hold"]["closed"], result["runs"][0]["hold"]["forced"]) == (20, 0)
    assert all_gone(family)
    assert {p.name for p in tmp_path.iterdir()} == {"r.json", "stdout", "stderr"}


def test_a_signal_while_opening_closes_what_is_open(tmp_path: Path, server: EmbeddedPostgres) -> None:
    # Forty seconds of opening, of which one is waited for.
    arguments = ("-n", "80", "--rate", "2/s", "-d", "0", "--json", "r.json", "--no-save")
    started = Started(tmp_path, "--url", held_url(server), *arguments)
    started.wait_for(r"^ +[1-9].* open ")
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    run = load(tmp_path / "r.json")["runs"][0]
    assert 1 <= run["ok"] < 80
    assert run["hold"]["closed"] == run["ok"]
    assert f"{80 - run['ok']} not tried" in outcome.stdout


def test_of_two_signals_while_closing_the_second_leaves_at_once(tmp_path: Path) -> None:
    def answer_and_stay(peer: h.Peer) -> None:
        while True:
            if peer.read_message()[0] == b"Q":
                peer.sock.sendall(h.RESULT + h.READY)

    stay = (h.read_startup, h.send(h.WELCOME), answer_and_stay)
    with h.HostileServer(h.POLITE_QUERY, stay) as stubborn:
        arguments = ("-n", "3", "-d", "100ms", "--no-reserve", "-k", "0", "--no-save")
        twice = Started(tmp_path, "--url", stubborn.url(), *arguments)
        twice.wait_for(r"^ +\d.* close ")
        family = twice.family()
        twice.signal(signal.SIGINT)
        twice.wait_for("again to leave at once")
        twice.signal(signal.SIGINT)
        assert twice.finish(60).code == 130  # by itself, after five seconds, it would end with 0
        assert all_gone(family)


def test_a_killed_parent_leaves_neither_generator_nor_backends(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    started = Started(tmp_path, "--url", held_url(server), "-n", "15", "-d", "0", "--no-save")
    started.wait_for(HOLDING)
    family = started.family()
    assert len(backends(server)) >= 15
    started.signal(signal.SIGKILL)
    started.finish()
    assert all_gone(family)
    await_no_backends(server)


def test_a_reader_that_goes_away_ends_the_run_which_is_saved_all_the_same(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    arguments = [
        "--url",
        held_url(server),
        "-n",
        "5",
        "-d",
        "0",
        "--no-save",
        "--json",
        str(tmp_path / "r.json"),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", LOAD_COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert running.stdout is not None
    assert running.stderr is not None
    while "holding 5" not in running.stdout.readline():
        assert running.poll() is None
    running.stdout.close()
    complaint = running.stderr.read()
    running.stderr.close()
    assert running.wait(60) == 0
    assert "Traceback" not in complaint
    hold = load(tmp_path / "r.json")["runs"][0]["hold"]
    assert (hold["opened"], hold["dropped"], hold["closed"]) == (5, 0, 5)


def test_where_nothing_listens_the_exit_code_is_1(tmp_path: Path) -> None:
    outcome = run_tool(
        "--url", tool.NOWHERE, "--keep-going", "-n", "7", "--json", "r.json", "--no-save", cwd=tmp_path
    )
    assert outcome.code == 1
    run = load(tmp_path / "r.json")["runs"][0]
    assert run["errors"] == {"refused": 7}
    assert run["hold"]["emptied"] is True


def test_poolers_console_is_asked_where_it_is_named(
    tmp_path: Path, server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))
    console = bouncer.url.replace("/postgres?", "/pgbouncer?")
    # Longer than anything stands still, so that a look falls into it.
    arguments = ("-n", "25", "-d", "3s", "--pgbouncer-admin", console, "--json", "r.json", "--no-save")
    outcome = run_tool("--url", bouncer.url, *arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    run = load(tmp_path / "r.json")["runs"][0]
    assert run["ok"] == run["hold"]["closed"] == 25
    clients = [
        second["lists"]["used_clients"] for second in run["server_side"]["timeline"] if second["lists"]
    ]
    assert max(clients) >= 25
    bouncer.stop()


@pytest.mark.parametrize(("welcomed", "code"), [(12, 0), (0, 1)])
def test_where_none_opens_any_more_it_gives_up_and_holds_what_it_got(
    tmp_path: Path, welcomed: int, code: int
) -> None:
    welcome = (h.read_startup, h.send(h.WELCOME), h.read_message)
    silent = (h.read_startup, h.stall)
    # Who looks before the run is let in, too.
    with h.HostileServer(*[welcome] * (1 + welcomed), silent) as server:
        arguments = ("--give-up", "3s", "-n", "1000", "-d", "100ms", "-k", "0", "--no-watch", "--no-reserve")
        outcome = run_tool("--url", server.url(), *arguments, "--json", "r.json", "--no-save", cwd=tmp_path)
    assert outcome.code == code, outcome.stderr
    run = load(tmp_path / "r.json")["runs"][0]
    got = run["ok"]
    assert bool(got) == bool(welcomed)
    assert f"asked 1,000, holding {got}: gave up, none opened in 3" in outcome.stdout
    # A batch is 20 connections.
    assert (run["failed"], run["unfinished"]) == (0, 20 - got)
    assert run["hold"]["gave_up_s"] >= 3


def test_local_ports_that_run_out_are_counted_and_the_remedy_is_said(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    inside = [unshare or "unshare", "--net"]
    if unshare is None or subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces: unshare --net is not permitted")
    script = (
        'ip link set lo up && echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$@"'
    )
    shared = ("-n", "30", "-d", "100ms", "--no-save", "--json")
    for name, sources in (("one", ()), ("four", [f"--source-ip=127.0.0.{n}" for n in (2, 3, 4, 5)])):
        done = subprocess.run(
            [*inside, "sh", "-c", script, sys.executable, "-c", _INSIDE, *shared, f"{name}.json", *sources],
            capture_output=True,
            text=True,
            env=environment(),
            cwd=tmp_path,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        run = load(tmp_path / f"{name}.json")["runs"][0]
        if sources:
            assert (run["ok"], run["failed"]) == (30, 0)
        else:
            assert run["errors"] == {"client_ports": 30 - run["ok"]}
            assert 5 <= run["ok"] <= 10
            assert (run["wall"]["kind"], run["wall"]["limit"]) == ("local_ports", 10)
            assert "--source-ip" in done.stderr
            assert "--source-ip" in done.stdout + done.stderr


# A server of its own, for a network namespace has a loopback of its own.
_INSIDE = """
import sys
import pg_connection_load
from tests.support import hostile_postgres as h
polite = (h.read_startup, h.send(h.WELCOME), h.read_message)
with h.HostileServer(polite) as server:
    sys.argv = ["pg-connection-load", "--url", server.url(), "--no-reserve", "-k", "0", *sys.argv[1:]]
    pg_connection_load.main()
"""
