"""pool-bench as its users meet it: commands with output, files and exit codes."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.faults import PASS, Conditions, FaultProxy, Mode, ThreadedProxy
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.pool.metrics import PoolCollector
from pool_bench.servers.host import free_port
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool
from pool_bench.targets.postgres import parse_target
from tests.support.commands import Outcome, Started, all_gone, load, only, run_tool
from tests.support.servers import StartPostgres

COMMAND = "pool_bench.__main__"
SECRET = "s3cr3t-Pa55"
# No warm-up: what begins first is measured, however slow the machine.
SHORT = ("--duration", "100ms", "--warmup", "0", "--clients", "8", "--size", "3")


def tool(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Outcome:
    """Run pool-bench to its end."""
    return run_tool(*arguments, cwd=cwd, env=env, command=COMMAND)


@contextlib.contextmanager
def unanswered_port() -> Iterator[int]:
    """A port on which nothing listens, and nobody else can meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_help_answers_without_importing_what_only_a_run_needs() -> None:
    commands: tuple[list[str], ...] = ([], ["run"], ["size"], ["check"], ["monitor"], ["plot"])
    script = (
        "import sys, pool_bench.__main__\n"
        "heavy = {'numpy', 'scipy', 'matplotlib', 'rich', 'asyncio', 'asyncpg', 'psycopg', 'psycopg_pool',\n"
        "         'sqlalchemy', 'uvloop', 'psutil', 'prometheus_client'}\n"
        f"for command in {commands!r}:\n"
        "    sys.argv = ['pool-bench', *command, '--help']\n"
        "    try: pool_bench.__main__.main()\n"
        "    except SystemExit: pass\n"
        "    print(command, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage: pool-bench") == len(commands)
    assert done.stderr.splitlines() == [f"{command} []" for command in commands]


def test_operations_come_at_a_rate_and_every_one_that_was_due_is_accounted_for(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    arguments = (
        *("run", "--url", embedded.url, "--pool", "reference,asyncpg", "--scenario", "query,sustained"),
        *("--rate", "100/s", "--max-in-flight", "9", "--rounds", "1", "--size", "3"),
        *("--duration", "500ms", "--warmup", "100ms", "--timeout", "60s", "--grace", "60s"),
        *("--threshold", "failed==0", "--threshold", "phases.checkout.p99<90s", "--summary", "ci.md"),
        *("--threshold", "checkout.opened==3", "-v"),
    )
    outcome = tool(*arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    path = only(tmp_path / "results", "*.json")
    assert path.stem.endswith("_r100")
    result = load(path)
    assert (result["config"]["rate"], result["config"]["max_in_flight"]) == (100, 9)
    assert len(result["runs"]) == 4
    for run in result["runs"]:
        assert run["rate"] == 100
        assert run["offered"] == 50
        assert run["offered"] == run["ok"] + run["failed"] + run["unfinished"] + run["dropped"]
        assert run["latency_ms"]["max"] >= run["service_ms"]["max"]
        assert sum(second["offered"] for second in run["timeline"]) == 50
    assert len(result["thresholds"]) == 12
    assert all(one["ok"] for one in result["thresholds"])
    assert "sustained 100/s" in outcome.stdout
    assert "100/s due, 9 in flight at most" in outcome.stdout
    assert "Lowest p99 of response times" in outcome.stdout
    assert "Most operations" not in outcome.stdout
    assert "operations/s" in (tmp_path / "ci.md").read_text()
    assert only(tmp_path / "results", "*.png").read_bytes().startswith(b"\x89PNG")


def test_a_threshold_that_fails_and_a_run_that_is_suspect_make_the_exit_code_1(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    base = ("run", "--url", embedded.url, "--pool", "reference", "--scenario", "query", "--rounds", "1")
    slow = ("--rate", "20/s", "--duration", "500ms", "--warmup", "0", "--size", "3", "--no-save")
    failed = tool(*base, *slow, "--threshold", "ok>1000", cwd=tmp_path)
    assert failed.code == 1, failed.stderr
    assert "thresholds: 1 of 1 failed" in failed.stdout
    # Ten operations are too few for a p99.
    suspect = tool(*base, *slow, "--require-valid", cwd=tmp_path)
    assert suspect.code == 1, suspect.stderr
    assert "too few samples" in suspect.stderr


def test_pools_are_measured_side_by_side_round_by_round_in_changing_order(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    pools = ("reference", "asyncpg", "psycopg", "sqlalchemy")
    arguments = ("run", "--url", embedded.url, "--scenario", "burst", "--rounds", "2", *SHORT)
    patience = ("--timeout", "60s", "--grace", "60s")
    outcome = tool(*arguments, *patience, "--no-save", "--json", "r.json", "-v", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    result = load(tmp_path / "r.json")
    assert (result["schema"], result["tool"]) == ("pool-bench/1", "pool-bench")
    runs = result["runs"]
    assert [(run["scenario"], run["round"]) for run in runs] == [
        ("burst", round_) for round_ in (1, 2) for _ in pools
    ]
    orders = [tuple(run["pool"] for run in runs[start : start + 4]) for start in (0, 4)]
    assert orders[0] == pools
    assert orders[1] != pools
    assert sorted(orders[1]) == sorted(pools)
    for run in runs:
        assert run["ok"] > 0
        assert run["failed"] == run["unfinished"] == 0
        assert (run["clients"], run["size"], run["concurrency"]) == (8, 3, 8)
        assert run["checkout"]["opened"] == 3
        assert sum(second["ok"] for second in run["timeline"]) == run["ok"]
        assert run["phases_ms"]["checkout"]["p99"] is not None
    for words in (*pools, "burst", "round trip", "how to read", "overtaken"):
        assert words in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) <= 130
    drawn = tool("plot", "r.json", "-o", "again.svg", cwd=tmp_path)
    assert drawn.code == 0, drawn.stderr
    assert (tmp_path / "again.svg").read_text().count("<svg") == 1


def test_without_a_pool_there_are_as_many_clients_as_connections(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    arguments = ("run", "-u", embedded.url, "-s", "naive", "-p", "reference", "--rounds", "1", *SHORT)
    outcome = tool(*arguments, "--json", "-", "--no-save", "--quiet", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    path = tmp_path / "r.json"
    path.write_text(outcome.stdout)
    naive, pooled = load(path)["runs"]
    assert (naive["pool"], pooled["pool"]) == ("naive", "reference")
    assert naive["clients"] == pooled["clients"] == 3
    # One to find out whether the target is there.
    assert naive["checkout"]["opened"] >= naive["ok"] + 1
    assert pooled["checkout"]["opened"] == 3


def test_stress_has_its_own_numbers_of_clients(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    arguments = ("run", "-u", embedded.url, "-s", "stress", "-p", "reference", "--rounds", "1", *SHORT)
    outcome = tool(*arguments, "--json", "r.json", "--no-save", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    runs = load(tmp_path / "r.json")["runs"]
    assert [run["clients"] for run in runs] == [1_000, 10_000]
    assert [run["size"] for run in runs] == [3, 3]
    assert all(run["ok"] > 0 for run in runs)
    assert "stress 10,000" in outcome.stdout
    left = [[run["checkout"][name] for name in ("dead_met", "leaked", "left_open")] for run in runs]
    assert left == [[0, 0, 0]] * 2
    assert "stress 1,000, reference: " in outcome.stdout


def test_the_embedded_server_is_restarted_in_the_middle_and_everybody_comes_back(tmp_path: Path) -> None:
    arguments = ("run", "-s", "reconnect", "-p", "reference", "--rounds", "1", "-c", "8", "--size", "3")
    # Longer than who restarts it may stand still before, and in no hurry.
    timing = ("--duration", "5s", "--warmup", "0", "--hold", "50ms", "--outage", "300ms")
    patience = ("--grace", "60s", "--timeout", "60s")
    outcome = tool(*arguments, *timing, *patience, "-v", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert outcome.code == 0, outcome.stderr
    assert "Traceback" not in outcome.stderr
    (run,) = load(only(tmp_path / "results", "*.json"))["runs"]
    recovery = run["checkout"]["recovery"]
    assert recovery["recovered"] == recovery["clients"] == 8
    assert recovery["up_s"] - recovery["down_s"] >= 0.3
    assert recovery["stopping_s"] < recovery["down_s"] < recovery["first_s"] <= recovery["all_s"]
    assert "server away" in outcome.stdout
    # Who watches loses the server, and finds it again.
    assert run["server_side"]["in_use_after"] == 0
    assert "8/8" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["results"], "the server's directory is left"


def test_a_restart_that_came_too_late_is_told(tmp_path: Path) -> None:
    late = {"pool_bench.cli.commands.pools._RESTART_AT": 2.0}
    arguments = ("run", "-s", "reconnect", "-p", "reference", "--rounds", "1", "-c", "2", "--size", "1")
    timing = ("--duration", "300ms", "--warmup", "0", "--no-save", "-q")
    outcome = run_tool(*arguments, *timing, command=COMMAND, cwd=tmp_path, constants=late)
    assert outcome.code == 0, outcome.stderr
    assert "before its server was restarted" in outcome.stderr


def test_the_first_ctrl_c_ends_the_run_sums_up_and_saves(tmp_path: Path) -> None:
    arguments = ("run", "-p", "reference,asyncpg", "-s", "query", "--clients", "2", "--size", "1")
    timing = ("--duration", "5m", "--warmup", "0", "--hold", "10ms")
    started = Started(tmp_path, *arguments, *timing, command=COMMAND)
    started.wait_for(r" measure +\d")
    family = started.family()
    assert family
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    assert "stopping" in outcome.stderr
    result = load(only(tmp_path / "results", "*.json"))
    assert result["interrupted"] is True
    assert [run["pool"] for run in result["runs"]] == ["reference"]
    assert result["runs"][0]["ok"] > 0
    assert "op/s" in outcome.stdout
    assert all_gone(family)


def test_the_second_ctrl_c_leaves_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    # Whoever waited for what is under way would wait for much longer.
    arguments = ("run", "-p", "reference", "--query", "SELECT pg_sleep(300)", "--grace", "5m")
    started = Started(
        tmp_path, *arguments, "-s", "query", "--clients", "2", command=COMMAND, env={"TMPDIR": str(tmp_path)}
    )
    started.wait_for(r" measure +\d|^run|elapsed")
    family = started.family()
    started.signal(signal.SIGINT)
    started.wait_for("stopping")
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 130
    assert all_gone(family)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stderr", "stdout"]


def test_a_target_that_is_not_there_is_one_error_and_exit_code_1(tmp_path: Path) -> None:
    with unanswered_port() as port:
        url = f"postgresql://u:{SECRET}@127.0.0.1:{port}/db"
        for arguments in (("run",), ("size", "--sizes", "1..16")):
            outcome = tool(*arguments, "--url", url, cwd=tmp_path)
            assert outcome.code == 1, outcome.stderr
            assert "refused" in outcome.error_lines[0]
            assert outcome.error_lines[-1].startswith("error: ")
            assert SECRET not in outcome.stderr + outcome.stdout
    assert list(tmp_path.iterdir()) == []


def test_more_connections_than_the_server_has_are_an_error_in_one_line(
    tmp_path: Path, start_postgres: StartPostgres
) -> None:
    server = start_postgres(PostgresConfig(max_connections=8))
    arguments = ("run", "-u", server.url, "-p", "asyncpg", "-s", "query", "--size", "30", "--clients", "30")
    outcome = tool(*arguments, "--rounds", "1", "--duration", "1s", cwd=tmp_path)
    assert outcome.code == 1
    assert "did not open its 30 connections" in outcome.error_lines[-1]
    assert "remaining connection slots are reserved" in outcome.error_lines[-1]


def test_sizes_are_swept_up_and_down_and_a_law_is_told(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    where = ("size", "-u", embedded.url, "--no-watch")
    arguments = (*where, "--sizes", "1..16", "--clients", "32", "--hold", "20ms")
    timing = ("--duration", "200ms", "--warmup", "0", "--rounds", "2", "--json", "r.json", "--plot", "r.png")
    for _ in range(3):
        outcome = tool(*arguments, *timing, cwd=tmp_path)
        assert outcome.code == 0, outcome.stderr
        result = load(tmp_path / "r.json")
        assert [run["size"] for run in result["runs"]] == [1, 2, 4, 8, 16, 16, 8, 4, 2, 1]
        sizing = result["sizing"]
        # What stands still while small pools are measured leaves figures that follow no law.
        if sizing["law"] is not None:
            break
    assert sizing["statement"]
    assert sizing["law"]["rate"] > 0
    assert result["config"]["watch"] is False
    assert not any("server_side" in run for run in result["runs"])
    low, high = sizing["knee_interval"]
    assert 1 <= low <= high <= 16
    assert re.search(r"Recommended: \d+|No recommendation: ", outcome.stdout)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_thresholds_are_held_against_every_run_of_a_sweep(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    sizes = ("--sizes", "1,2,3,4,5", "--clients", "5", "--rounds", "1")
    arguments = ("size", "-u", embedded.url, "--no-watch", *sizes)
    checks = ("--threshold", "ok>0", "--threshold", "throughput>10000000/s", "--json", "r.json", "--no-save")
    outcome = tool(*arguments, "--duration", "100ms", "--warmup", "0", *checks, cwd=tmp_path)
    assert outcome.code == 1, outcome.stderr
    judged = load(tmp_path / "r.json")["thresholds"]
    assert [threshold["ok"] for threshold in judged] == [True, False] * 5
    assert "thresholds: 5 of 10 failed" in outcome.stdout


def test_check_says_step_by_step_that_all_is_well(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    for _ in range(5):
        outcome = tool("check", "--url", embedded.url, cwd=tmp_path)
        # It has a few seconds, of which a machine may stand still for some.
        if "no answer" not in outcome.stdout and "PostgreSQL" in outcome.stdout:
            break
    assert outcome.code == 0, outcome.stdout
    assert re.search(r"^  auth +log in +ok, [\d.]+ ms$", outcome.stdout, re.MULTILINE)
    assert re.search(r"^fine: \d+ connections", outcome.stdout, re.MULTILINE)
    assert "PostgreSQL 18" in outcome.stdout
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that accepts and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


def test_check_says_what_is_wrong_and_what_to_do(tmp_path: Path, start_postgres: StartPostgres) -> None:
    server = start_postgres(PostgresConfig(auth="scram-sha-256", password="right"))
    wrong = f"postgresql://postgres:{SECRET}@127.0.0.1:{server.port}/postgres?sslmode=disable"
    with silent_port() as silent, unanswered_port() as nobody:
        for url, step, advice in (
            (f"postgresql://u@127.0.0.1:{nobody}/db", "tcp", "listen_addresses"),
            ("postgresql://u@no-such-host.invalid/db", "resolve", "spelling"),
            (wrong, "auth", "pg_hba.conf"),
            (f"postgresql://u@127.0.0.1:{silent}/db", "", "no answer"),
        ):
            begin = time.monotonic()
            outcome = tool("check", "--url", url, cwd=tmp_path)
            assert outcome.code == 1, outcome.stdout
            assert re.search(rf"^  {step}.* failed: ", outcome.stdout, re.MULTILINE), outcome.stdout
            assert advice in outcome.stdout
            assert "not reached" in outcome.stdout
            assert SECRET not in outcome.stdout + outcome.stderr
            # Five seconds of its own; connections themselves wait for thirty.
            assert time.monotonic() - begin < 25


def test_check_looks_at_all_targets_at_once_and_one_that_fails_is_exit_code_1(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    with contextlib.ExitStack() as ports:
        silent = [ports.enter_context(silent_port()) for _ in range(8)]
        urls = [word for port in silent for word in ("-u", f"postgresql://u@127.0.0.1:{port}/db")]
        for _ in range(3):
            begin = time.monotonic()
            outcome = tool("check", "-u", embedded.url, *urls, cwd=tmp_path)
            # One after the other they would take three seconds each.
            assert time.monotonic() - begin < 20
            if re.search("^fine: ", outcome.stdout, re.MULTILINE):
                break
    assert outcome.code == 1
    assert len(re.findall(r"^fine: ", outcome.stdout, re.MULTILINE)) == 1
    assert len(re.findall(r"^failed: ", outcome.stdout, re.MULTILINE)) == 8
    heads = re.findall(r"^postgresql://\S+:(\d+)/", outcome.stdout, re.MULTILINE)
    assert [int(head) for head in heads] == [embedded.port, *silent]


def test_monitor_without_metrics_shows_a_pool_of_its_own(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    arguments = ("monitor", "-u", embedded.url, "--size", "4", "--interval", "300ms", "--duration", "1s")
    outcome = tool(*arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    head, *rows = outcome.stdout.splitlines()
    assert head.split()[:4] == ["pool", "state", "health", "size"]
    assert len(rows) >= 3
    assert all(len(row.split()) == len(head.split()) for row in rows)
    assert rows[-1].split()[:2] == ["demo", "running"]
    assert "demonstration" in outcome.stderr


class Application:
    """A pool with a metrics endpoint, in a thread with an event loop of its own."""

    def __init__(self, server: EmbeddedPostgres | EmbeddedSurreal, port: int = 0) -> None:
        self._server = server
        self._ready = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.port = port

    async def _run(self) -> None:
        pool = self._make_pool()
        async with pool, pool.acquire():
            registry = CollectorRegistry()
            registry.register(PoolCollector([pool]))
            httpd, thread = start_http_server(self.port, addr="127.0.0.1", registry=registry)
            assert isinstance(httpd, WSGIServer)
            self.port = httpd.server_port
            self._ready.set()
            await asyncio.to_thread(self._done.wait, 60)
            httpd.shutdown()
            httpd.server_close()
            thread.join()

    def _make_pool(self) -> ConnectionPool[AsyncpgConnection] | SurrealDBConnectionPool:
        if isinstance(self._server, EmbeddedPostgres):
            target = parse_target(self._server.url, env={}, default_user="postgres")
            return ConnectionPool(AsyncpgDriver(target), PoolConfig(min_size=2, max_size=5), name="orders")
        credentials = {"username": self._server.user, "password": self._server.password}
        return SurrealDBConnectionPool(
            self._server.url, credentials, min_connections=2, max_connections=5, name="orders"
        )

    def __enter__(self) -> "Application":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.parametrize("kind", ["embedded", "surreal"])
def test_monitor_reads_an_applications_metrics(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    with Application(request.getfixturevalue(kind)) as application:
        url = f"http://127.0.0.1:{application.port}/metrics"
        outcome = tool("monitor", "--metrics", url, "-d", "400ms", "--interval", "200ms", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    head, *rows = outcome.stdout.splitlines()
    figures = dict(zip(head.split(), rows[-1].split(), strict=True))
    assert (figures["pool"], figures["state"], figures["size"], figures["in_use"]) == (
        "orders",
        "running",
        "2/5",
        "1",
    )
    assert figures["breaker"] == "off"


def test_monitor_says_what_is_wrong_with_a_target_that_goes_away_and_goes_on(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    with ThreadedProxy(FaultProxy(embedded.host, embedded.port)) as proxy:
        arguments = ("monitor", "-u", proxy.url(user=embedded.user), "--size", "3", "--interval", "200ms")
        started = Started(tmp_path, *arguments, command=COMMAND)
        try:
            started.wait_for(r"^ +demo +running")
            proxy.call(lambda p: p.set(Conditions(mode=Mode.REFUSE)))
            proxy.call(lambda p: p.cut())
            started.wait_for(r"^error: a connect failed: .*refused")
            started.wait_for(r"^ +demo +running +(degraded|critical) +0/3 ")
            proxy.call(lambda p: p.set(PASS))
            started.wait_for(r" 0/3 [^$]*^ +demo +running +\w+ +[1-3]/3 ")
        finally:
            started.signal(signal.SIGINT)
            outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    # Once, not at every look.
    assert 1 <= outcome.stderr.count("error: a connect failed") <= 3
    assert outcome.stderr.splitlines()[-1].startswith("stopping")


def test_monitor_goes_on_when_an_application_goes_away_and_comes_back(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    # A port that nobody is given by chance while the application is away.
    with Application(embedded, free_port()) as application:
        url = f"http://127.0.0.1:{application.port}/metrics"
        started = Started(tmp_path, "monitor", "--metrics", url, "--interval", "200ms", command=COMMAND)
        started.wait_for(r"^ +orders +running")
    try:
        started.wait_for(rf"^error: cannot read {re.escape(url)}: connection refused$")
        seen = started.stdout().count("orders")
        with Application(embedded, application.port):
            deadline = time.monotonic() + 40
            while started.stdout().count("orders") == seen:
                assert time.monotonic() < deadline, started.stderr()
                time.sleep(0.05)
    finally:
        started.signal(signal.SIGINT)
        outcome = started.finish()
    assert outcome.code == 0, outcome.stderr


def test_metrics_that_cannot_be_read_or_hold_no_pool_are_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with unanswered_port() as nobody:
        outcome = tool("monitor", "--metrics", f"http://u:{SECRET}@127.0.0.1:{nobody}/m", cwd=tmp_path)
    assert (outcome.code, len(outcome.error_lines)) == (1, 1), outcome.stderr
    assert SECRET not in outcome.stderr
    registry = CollectorRegistry()
    httpd, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        outcome = tool("monitor", "--metrics", f"http://127.0.0.1:{httpd.server_port}/", cwd=tmp_path)
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
    assert outcome.code == 1
    assert "hold no pool" in outcome.stderr
