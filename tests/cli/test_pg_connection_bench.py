"""pg-connection-bench as its users meet it: a command with output, files and exit codes."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support import hostile_postgres as h
from tests.support.commands import (
    COMMAND,
    LOAD_COMMAND,
    NOWHERE,
    Started,
    all_gone,
    environment,
    load,
    only,
    run_tool,
)
from tests.support.servers import StartPostgres

SECRET = "s3cr3t-Pa55/w%rd:@x"
SHORT = ("--duration", "100ms", "--warmup", "0", "--concurrency", "4")
# A run until it is stopped, which leaves the machine some time to spare.
ENDLESS = ("-d", "0", "--warmup", "0", "-c", "2", "--query", "SELECT pg_sleep(0.05)")
MEASURING = r"^ +\d.* measure "


@pytest.fixture(scope="module")
def guarded(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL that asks for a password."""
    return start_postgres(PostgresConfig(auth="scram-sha-256", password=SECRET))


def silent_after(first: h.Script = h.POLITE_QUERY) -> h.HostileServer:
    """A server that answers the first look at it, and then lets everybody wait."""
    return h.HostileServer(first, (h.stall,))


def test_help_answers_without_importing_what_only_a_run_needs() -> None:
    script = (
        "import sys; sys.argv = ['pg-connection-bench', '--help']\n"
        "import pg_connection_bench\n"
        "try: pg_connection_bench.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'matplotlib', 'rich', 'asyncio', 'asyncpg', 'psycopg', 'uvloop', 'psutil'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--concurrency-min" in done.stdout
    assert done.stderr.strip() == "[]"


def test_a_run_against_postgresql_imports_nothing_of_surrealdb_s_client() -> None:
    script = (
        "import sys; sys.argv = ['pg-connection-bench', '--url', 'mysql://h']\n"
        "import pg_connection_bench\n"
        "try: pg_connection_bench.main()\n"
        "except SystemExit: pass\n"
        "theirs = {'surrealdb', 'websockets', 'aiohttp', 'cbor2'}\n"
        "print({name.partition('.')[0] for name in sys.modules} & theirs)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--url" in done.stderr
    assert done.stdout.strip() == "set()"


def test_without_a_url_a_real_postgresql_is_started_measured_and_removed(tmp_path: Path) -> None:
    outcome = run_tool(*SHORT, "-v", "--query", "SELECT 1", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert outcome.code == 0, outcome.stderr
    result = load(only(tmp_path / "results", "*.json"))
    run = result["runs"][0]
    assert result["schema"] == "pool-bench/1"
    assert result["server"]["product"] == "PostgreSQL"
    assert result["server"]["version"].startswith("18")
    assert result["config"]["target_from"] == "embedded"
    assert run["ok"] > 0
    assert run["failed"] == run["unfinished"] == 0
    assert set(run["phases_ms"]) == {"tcp", "auth", "ready", "query", "close"}
    assert sum(second["ok"] for second in run["timeline"]) == run["ok"]
    assert only(tmp_path / "results", "*.png").read_bytes().startswith(b"\x89PNG")
    bars = re.findall(r"^ *(?:\S+ - \S+|[<≥>] ?\S+) +([\d,]+) +\S+%", outcome.stdout, re.MULTILINE)
    assert sum(int(count.replace(",", "")) for count in bars) == run["ok"]
    assert [p.name for p in tmp_path.iterdir()] == ["results"], "the server's directory is left"


def test_json_on_stdout_is_nothing_but_json(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    outcome = run_tool("--url", embedded.url, *SHORT, "--json", "-", "--no-save", cwd=tmp_path)
    assert outcome.code == 0
    assert json.loads(outcome.stdout)["runs"][0]["ok"] > 0
    assert "conn/s" in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_quiet_json_on_stdout_keeps_stderr_to_what_a_person_must_know(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    outcome = run_tool("--url", embedded.url, *SHORT, "--json", "-", "--no-save", "--quiet", cwd=tmp_path)
    assert json.loads(outcome.stdout)["runs"][0]["ok"] > 0
    assert len(outcome.error_lines) == 1
    assert "PostgreSQL 18" in outcome.stderr


def test_every_second_is_one_line_of_equal_columns(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    arguments = ("--duration", "1200ms", "--warmup", "200ms", "--concurrency", "1", "--no-save")
    outcome = run_tool("--url", embedded.url, *arguments, cwd=tmp_path)
    lines = [line.split() for line in outcome.stdout.splitlines()]
    seconds = [line for line in lines if len(line) > 1 and line[1] in ("warm-up", "measure", "done")]
    header = next(line for line in lines if line[:2] == ["elapsed", "stage"])
    assert [line[1] for line in seconds] == ["warm-up", "measure", "measure", "done"]
    assert {len(line) for line in seconds} == {len(header)}


@pytest.mark.parametrize("driver", ["wire", "asyncpg", "psycopg"])
def test_a_password_appears_nowhere(tmp_path: Path, guarded: EmbeddedPostgres, driver: str) -> None:
    url = f"postgresql://bench:{quote(SECRET, safe='')}@127.0.0.1:{guarded.port}/postgres"
    # A picture is text, too, and the same whoever opened the connections.
    files = ("--plot-format", "svg") if driver == "wire" else ("--no-save", "--json", "r.json")
    for password, code in ((SECRET, 0), (SECRET + "x", 1)):
        shown = url.replace(quote(SECRET, safe=""), quote(password, safe=""))
        work = tmp_path / str(code)
        work.mkdir()
        started = Started(work, "--url", shown, "--keep-going", "--driver", driver, *ENDLESS, *files)
        started.wait_for(MEASURING)
        titles = started.titles()
        assert len(titles) >= 2, "the command and its generator"
        started.signal(signal.SIGINT)
        outcome = started.finish()
        assert outcome.code == code, outcome.stderr
        written = b"".join(p.read_bytes() for p in work.rglob("*") if p.is_file()).decode(errors="replace")
        for text in (outcome.stdout, outcome.stderr, written, str(titles)):
            assert password not in text
            assert quote(password, safe="") not in text
        result = load(only(work, "**/*.json"))
        if code:
            assert set(result["runs"][0]["errors"]) == {"auth"}
            assert result["runs"][0]["failures"][0]["sqlstate"] == "28P01"


@pytest.mark.parametrize(
    ("place", "reason", "advice"),
    [
        ("nobody@127.0.0.1:1/postgres?sslmode=disable", "refused during tcp", "nothing listens there"),
        ("nobody@name.invalid/postgres", "dns during resolve", "the name is unknown here"),
        ("nobody@{server}/postgres?sslmode=disable", "auth during auth", "pg_hba.conf"),
        ("{user}@{server}/nowhere?sslmode=disable", "no_database", "check its spelling, or create it"),
        ("{user}@{server}/postgres?sslmode=require", "tls during tls", "check sslmode"),
    ],
)
@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
def test_a_target_that_cannot_be_used_ends_the_command_with_what_to_do(
    tmp_path: Path, embedded: EmbeddedPostgres, command: str, place: str, reason: str, advice: str
) -> None:
    server = f"{embedded.host}:{embedded.port}"
    url = "postgresql://" + place.format(server=server, user=embedded.user)
    # Without an end: only the first connection can be what ends it.
    outcome = run_tool("--url", url, "--duration", "0", cwd=tmp_path, command=command)
    assert outcome.code == 1
    assert outcome.stdout == ""
    (line,) = outcome.error_lines
    assert line.startswith("error: first connection to postgresql://")
    assert reason in line
    assert advice in line
    assert line.endswith("(--keep-going measures it anyway)")
    assert list(tmp_path.iterdir()) == []


def test_a_search_for_the_maximum_ends_where_nobody_answers(tmp_path: Path) -> None:
    outcome = run_tool("--url", NOWHERE, "--find-max", "--slo", "p99<1s", cwd=tmp_path)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_one_target_of_several_that_cannot_be_used_is_told_and_counted(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    arguments = ("-u", NOWHERE, "-u", embedded.url, *SHORT, "--json", "r.json", "--no-save")
    outcome = run_tool(*arguments, cwd=tmp_path)
    assert outcome.code == 0
    assert outcome.error_lines[0].startswith("first connection to postgresql://u@127.0.0.1:1/db")
    dead, alive = load(tmp_path / "r.json")["runs"][0]["targets"]
    assert (dead["ok"], alive["failed"]) == (0, 0)
    assert alive["ok"] > 0


def test_a_target_that_refuses_is_data_and_exit_code_1(tmp_path: Path) -> None:
    outcome = run_tool("--url", NOWHERE, *SHORT, "--keep-going", cwd=tmp_path)
    assert outcome.code == 1
    run = load(only(tmp_path / "results", "*.json"))["runs"][0]
    assert run["ok"] == 0
    assert run["failed"] > 0
    assert run["errors"] == {"refused": run["failed"]}
    assert run["success_rate"] == 0
    assert "refused" in outcome.stdout
    assert only(tmp_path / "results", "*.png").stat().st_size > 0


def test_several_urls_are_reported_each_and_together(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    other = embedded.url.replace("/postgres?", "/template1?")
    outcome = run_tool("-u", embedded.url, "-u", other, *SHORT, "--json", "r.json", "--no-save", cwd=tmp_path)
    assert outcome.code == 0
    result = load(tmp_path / "r.json")
    run = result["runs"][0]
    assert len(result["targets"]) == 2
    assert sum(target["ok"] for target in run["targets"]) == run["ok"]
    first, second = (target["ok"] for target in run["targets"])
    assert abs(first - second) <= run["concurrency"]


def test_a_sweep_doubles_from_min_to_max_and_ends_in_a_table_and_a_picture(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    levels = ("--concurrency-min", "1", "--concurrency-max", "6", "--wait-between-runs", "0")
    outcome = run_tool(
        "--url", embedded.url, *levels, "-d", "200ms", "--warmup", "0", "-n", "sweep", cwd=tmp_path
    )
    assert outcome.code == 0
    path = only(tmp_path / "results", "*.json")
    assert path.name.endswith("_sweep_c1-6.json")
    assert [run["concurrency"] for run in load(path)["runs"]] == [1, 2, 4, 6]
    table = outcome.stdout[outcome.stdout.rindex("workers conn/s") :]
    assert [line.split()[0] for line in table.splitlines()[1:5]] == ["1", "2", "4", "6"]
    assert path.with_suffix(".png").exists()
    overlay = run_tool("plot", str(path), str(path), "-o", "overlay.svg", cwd=tmp_path)
    assert overlay.code == 0
    assert (tmp_path / "overlay.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (Started.signal, signal.SIGINT),
        (Started.signal_all, signal.SIGTERM),
        (Started.signal_all, signal.SIGHUP),
    ],
)
def test_the_first_signal_sums_up_saves_and_leaves_nothing_running(
    tmp_path: Path, send: Callable[[Started, signal.Signals], None], number: signal.Signals
) -> None:
    kept = ("--no-save", "--json", "r.json", "-v")
    started = Started(tmp_path, *ENDLESS, *kept, env={"TMPDIR": str(tmp_path)})
    started.wait_for(MEASURING)
    family = started.family()
    assert len(family) >= 3, "the keeper, PostgreSQL and the generator"
    send(started, number)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    result = load(tmp_path / "r.json")
    assert result["interrupted"] is True
    assert result["runs"][0]["ok"] > 0
    assert "latency histogram" in outcome.stdout
    assert all_gone(family)
    assert {p.name for p in tmp_path.iterdir()} == {"r.json", "stdout", "stderr"}


def test_the_second_signal_leaves_at_once_with_130_and_nothing_running(tmp_path: Path) -> None:
    # A server that never answers keeps operations under way, and so the grace period going.
    with silent_after() as silent:
        waiting = ("-d", "0", "--warmup", "0", "-c", "2", "--grace", "90s", "--connect-timeout", "90s")
        started = Started(tmp_path, "--url", silent.url(), *waiting, "--no-watch")
        started.wait_for(MEASURING)
        family = started.family()
        started.signal(signal.SIGINT)
        started.wait_for("again to leave at once")
        started.signal(signal.SIGINT)
        outcome = started.finish(30)
    assert outcome.code == 130
    assert all_gone(family)
    assert not (tmp_path / "results").exists()


def test_a_killed_parent_leaves_neither_generator_nor_server(tmp_path: Path) -> None:
    started = Started(tmp_path, *ENDLESS, env={"TMPDIR": str(tmp_path)})
    started.wait_for(MEASURING)
    family = started.family()
    started.signal(signal.SIGKILL)
    started.finish()
    assert all_gone(family)
    assert {p.name for p in tmp_path.iterdir()} == {"stdout", "stderr"}


def test_operations_that_outlast_the_grace_period_are_unfinished(tmp_path: Path) -> None:
    times = ("-d", "200ms", "--warmup", "0", "--grace", "200ms", "--connect-timeout", "90s")
    with silent_after() as silent:
        arguments = ("-c", "3", *times, "--no-watch", "--json", "r.json", "--no-save")
        outcome = run_tool("--url", silent.url(), *arguments, cwd=tmp_path)
    run = load(tmp_path / "r.json")["runs"][0]
    assert (run["ok"], run["failed"], run["unfinished"]) == (0, 0, 3)
    assert run["success_rate"] == 0
    assert outcome.code == 1
    assert "unfinished" in outcome.stdout


def test_what_hangs_since_the_warm_up_is_told_with_its_step_and_the_limit_that_would_end_it(
    tmp_path: Path,
) -> None:
    times = ("-d", "200ms", "--warmup", "300ms", "--grace", "100ms", "--connect-timeout", "90s")
    with silent_after() as silent:
        arguments = ("-c", "3", *times, "--no-watch", "--json", "r.json", "--no-save")
        outcome = run_tool("--url", silent.url(), *arguments, cwd=tmp_path)
    run = load(tmp_path / "r.json")["runs"][0]
    assert outcome.code == 1
    assert (run["ok"], run["failed"], run["unfinished"]) == (0, 0, 0)
    assert run["warmup"] == {"ok": 0, "failed": 0, "unfinished": 3}
    limit = {"limit": "--connect-timeout=1m30s", "limit_s": 90.0}
    assert run["hanging"] == [{"begun": "warmup", "phase": "auth", "count": 3, **limit}]
    said = " ".join(outcome.stdout.split())
    assert (
        "3 operations begun in the warm-up had not ended when the run did, hanging in auth (3). "
        "--connect-timeout=1m30s would have ended them." in said
    )
    assert "3 hung since the warm-up no operation succeeded: 3 never ended" in said


def test_database_url_comes_before_pg_variables_and_the_option_before_both(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    pg = {"PGHOST": "127.0.0.1", "PGPORT": str(embedded.port), "PGSSLMODE": "disable"}
    pg |= {"PGUSER": embedded.user, "PGDATABASE": embedded.dbname}
    arguments = (*SHORT, "--json", "r.json", "--no-save", "--quiet")

    def origin(*options: str, env: dict[str, str]) -> tuple[str, int]:
        outcome = run_tool(*options, *arguments, env=env, cwd=tmp_path)
        return str(load(tmp_path / "r.json")["config"]["target_from"]), outcome.code

    assert origin(env=pg) == ("PG* variables", 0)
    assert origin("--keep-going", env={**pg, "DATABASE_URL": NOWHERE}) == ("DATABASE_URL", 1)
    assert origin("--url", embedded.url, env={**pg, "DATABASE_URL": NOWHERE}) == ("--url", 0)


def test_variables_without_a_host_neither_name_a_target_nor_spoil_the_embedded_one(tmp_path: Path) -> None:
    env = {"PGUSER": "nobody", "PGPASSWORD": SECRET, "PGSSLMODE": "require", "PGOPTIONS": "-c bogus=1"}
    drivers = ("--interleave", "driver=asyncpg", "--interleave", "driver=psycopg")
    pauses = ("--wait-between-runs", "0", "--quiet")
    outcome = run_tool(*SHORT, *drivers, *pauses, "--json", "r.json", "--no-save", env=env, cwd=tmp_path)
    assert outcome.code == 0, outcome.stdout
    result = load(tmp_path / "r.json")
    assert result["config"]["target_from"] == "embedded"
    assert [run["driver"] for run in result["runs"]] == ["wire", "asyncpg", "psycopg"]
    assert all(run["ok"] and not run["failed"] for run in result["runs"])


def test_a_reader_that_goes_away_ends_the_run_which_is_saved_all_the_same(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    arguments = ["--url", embedded.url, *ENDLESS, "--no-save", "--json", str(tmp_path / "r.json")]
    tool = subprocess.Popen(
        [sys.executable, "-m", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert tool.stdout is not None
    assert tool.stderr is not None
    tool.stdout.readline()
    tool.stdout.close()
    complaint = tool.stderr.read()
    tool.stderr.close()
    assert tool.wait(60) == 0
    assert "Traceback" not in complaint
    result = load(tmp_path / "r.json")
    assert result["interrupted"] is True
    assert result["runs"][0]["ok"] > 0


def test_a_result_that_has_lost_its_place_is_kept_elsewhere_and_said_so(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    place = tmp_path / "results"
    place.mkdir()
    kept = tmp_path / "kept"
    kept.mkdir()
    started = Started(
        tmp_path, "--url", embedded.url, *ENDLESS, "--output-dir", str(place), env={"TMPDIR": str(kept)}
    )
    started.wait_for(MEASURING)
    place.rmdir()
    place.write_text("a file stands in its place")
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 1
    rescued = only(kept, "*.json")
    assert f"the result is in {rescued} instead" in outcome.stderr
    assert load(rescued)["runs"][0]["ok"] > 0


def test_a_stop_while_the_first_answer_is_awaited_is_obeyed_and_nothing_is_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/db?sslmode=disable"
        started = Started(tmp_path, "--url", url)
        silent.settimeout(60)
        with silent.accept()[0]:  # the first look at the server, which it never answers
            started.signal(signal.SIGINT)
            outcome = started.finish(60)
    assert outcome.code == 1
    # As it says where it has waited in vain.
    assert "no answer" not in outcome.stderr
    assert "stopped before anything was measured" in outcome.stderr
    assert not (tmp_path / "results").exists()
