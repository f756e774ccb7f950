"""surreal-bench as its users meet it: a command with output, files and exit codes."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pool_bench.cli.argv import redacted_argv
from pool_bench.cli.commands.monitor_surreal import SurrealLookout
from pool_bench.cli.places.surreal import SurrealSite
from pool_bench.report.live.pool_monitor import ServerLook
from pool_bench.servers.host import free_port
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import surreal_target
from tests.support.commands import Outcome, Started, all_gone, load, only, run_tool
from tests.support.servers import StartSurreal, TlsSurreal

COMMAND = "surreal_bench"
SHORT = ("--duration", "100ms", "--warmup", "0", "--grace", "60s", "--concurrency", "4")
SECRET = "s3cr3t-Pa55/w%rd"


def run_it(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Outcome:
    """Run surreal-bench to its end, with nothing of this environment that names a server."""
    assert not [name for name in os.environ if name.startswith("SURREAL_")]
    return run_tool(*arguments, cwd=cwd, env=env, command=COMMAND)


def reach(server: EmbeddedSurreal) -> dict[str, str]:
    """The environment that names a server, and a user of it."""
    return {"SURREAL_URL": server.url, "SURREAL_USER": server.user, "SURREAL_PASS": server.password}


def test_help_answers_without_importing_what_only_a_run_needs() -> None:
    names = ("connect", "load", "pool", "stress", "size", "monitor", "check", "all", "serve", "calibrate")
    commands = [[], *([name] for name in names)]
    script = (
        "import sys, surreal_bench\n"
        "heavy = {'numpy', 'matplotlib', 'rich', 'asyncio', 'asyncpg', 'aiohttp', 'surrealdb', 'psutil',"
        " 'websockets', 'surrealdb_embedded'}\n"
        f"for command in {commands!r}:\n"
        "    sys.argv = ['surreal-bench', *command, '--help']\n"
        "    try: surreal_bench.main()\n"
        "    except SystemExit: pass\n"
        "    print(command, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage: surreal-bench") == len(commands)
    assert done.stderr.splitlines() == [f"{command} []" for command in commands]


@pytest.mark.parametrize("command", [("connect", *SHORT), ("load", "-d", "1s"), ("pool", "-d", "1s")])
@pytest.mark.parametrize(
    "trouble", ["password", "namespace", "database", "user", "down", "no SurrealDB", "tls"]
)
def test_what_cannot_be_used_is_one_line_and_exit_code_1(
    tmp_path: Path, surreal: EmbeddedSurreal, command: tuple[str, ...], trouble: str
) -> None:
    env = reach(surreal) | {"SURREAL_NAMESPACE": "cli", "SURREAL_DATABASE": "cli"}
    make_place(surreal, "cli")
    with port_that_hangs_up() as rude, unanswered_port() as nobody:
        match trouble:
            case "password":
                env["SURREAL_PASS"] = SECRET
                named = "auth during signin"
            case "namespace":
                env["SURREAL_NAMESPACE"] = "mistyped"
                named = "no namespace 'mistyped'"
            case "database":
                env["SURREAL_DATABASE"] = "mistyped"
                named = "no database 'mistyped'"
            case "user":
                env["SURREAL_USER"] = "nobody"
                named = "auth during signin"
            case "down":
                env["SURREAL_URL"] = f"ws://127.0.0.1:{nobody}"
                named = "refused during tcp"
            case "no SurrealDB":
                env["SURREAL_URL"] = f"ws://127.0.0.1:{rude}"
                named = "during upgrade"
            case _:
                env["SURREAL_URL"] = surreal.url.replace("ws:", "wss:")
                named = "during tls"
        outcome = run_it(*command, "--no-save", cwd=tmp_path, env=env)
    assert outcome.code == 1, outcome.stderr
    assert len(outcome.error_lines) == 1, outcome.stderr
    assert named in outcome.stderr
    assert outcome.stdout == ""
    assert SECRET not in outcome.stderr
    assert surreal.password not in outcome.stderr


def test_a_mistyped_namespace_is_not_made(tmp_path: Path, surreal: EmbeddedSurreal) -> None:
    for _ in range(2):
        outcome = run_it(
            "check", "--namespace", "mistyped", "--database", "d", cwd=tmp_path, env=reach(surreal)
        )
        assert outcome.code == 1
        assert "no namespace 'mistyped'" in outcome.stdout


@contextlib.contextmanager
def port_that_hangs_up() -> Iterator[int]:
    """A port at which everybody is let in and left alone."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


@contextlib.contextmanager
def unanswered_port() -> Iterator[int]:
    """A port on which nothing listens, and nobody else can meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def check_usable(*arguments: str, env: dict[str, str]) -> Outcome:
    """`check` of a server that can be used; asked again where it was too slow for the few seconds it has."""
    for _ in range(5):
        outcome = run_it("check", *arguments, env=env)
        if "timeout during" not in outcome.stdout:
            break
    return outcome


def make_place(server: EmbeddedSurreal, name: str) -> None:
    """Make a namespace and a database of that name."""
    import asyncio

    from pool_bench.drivers.surreal.driver import SurrealDriver
    from pool_bench.targets.surreal import surreal_target

    async def select() -> None:
        target = surreal_target(
            server.url, user=server.user, password=server.password, namespace=name, database=name, environ={}
        )
        connection = await SurrealDriver(target).connect()
        await connection.close()

    asyncio.run(select())


def test_without_a_url_a_real_engine_is_started_measured_and_removed(tmp_path: Path) -> None:
    outcome = run_it(*SHORT, "--query", "RETURN 1", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert outcome.code == 0, outcome.stderr
    assert outcome.error_lines[0] == "starting an embedded SurrealDB engine ..."
    assert outcome.error_lines[1].startswith("embedded SurrealDB engine 3.")
    result = load(only(tmp_path / "results", "*.json"))
    (run,) = result["runs"]
    assert result["tool"] == "surreal-bench"
    assert result["server"]["product"] == "embedded SurrealDB engine"
    assert result["server"]["embedded"] == "yes"
    assert result["config"]["auth"] == "signin"
    assert run["ok"] > 0
    assert run["failed"] == run["unfinished"] == 0
    assert set(run["phases_ms"]) == {"tcp", "upgrade", "signin", "use", "query", "close"}
    # A password is hashed for each, which takes that long on the fastest machine.
    assert run["phases_ms"]["signin"]["min"] > 1
    assert sum(second["ok"] for second in run["timeline"]) == run["ok"]
    assert only(tmp_path / "results", "*.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["results"], "the server's directory is left"


@pytest.mark.parametrize(
    ("auth", "scheme", "phases"),
    [
        ("token", "ws", {"tcp", "upgrade", "signin", "use", "close"}),
        ("none", "ws", {"tcp", "upgrade", "use", "close"}),
        ("signin", "http", {"tcp", "signin", "use", "close"}),
        ("token", "http", {"tcp", "signin", "use", "close"}),
    ],
)
def test_phases_are_those_of_the_way_in(
    surreal: EmbeddedSurreal, auth: str, scheme: str, phases: set[str]
) -> None:
    make_place(surreal, "cli")
    env = reach(surreal) | {"SURREAL_URL": f"{scheme}://127.0.0.1:{surreal.port}"}
    place = ("--namespace", "cli", "--database", "cli")
    outcome = run_it(*SHORT, "--auth", auth, *place, "--json", "-", "--no-save", "-q", env=env)
    assert outcome.code == 0, outcome.stderr
    (run,) = json.loads(outcome.stdout)["runs"]
    assert set(run["phases_ms"]) == phases
    assert run["failed"] == 0


def test_tls_is_a_phase_and_needs_an_authority(tls_surreal: TlsSurreal) -> None:
    env = reach(tls_surreal.server)
    outcome = run_it(*SHORT, "--ca-file", str(tls_surreal.ca), "--json", "-", "--no-save", "-q", env=env)
    assert outcome.code == 0, outcome.stderr
    assert "tls" in json.loads(outcome.stdout)["runs"][0]["phases_ms"]
    for wrong in ((), ("--ca-file", str(tls_surreal.wrong_ca))):
        outcome = run_it(*SHORT, *wrong, "--no-save", env=env)
        assert outcome.code == 1
        assert "tls during tls" in outcome.stderr
    assert check_usable("--no-verify", env=env).code == 0


def test_the_official_client_can_be_measured_too(surreal: EmbeddedSurreal) -> None:
    make_place(surreal, "cli")
    place = ("--namespace", "cli", "--database", "cli")
    outcome = run_it(
        *SHORT, *place, "--driver", "surrealdb", "--json", "-", "--no-save", "-q", env=reach(surreal)
    )
    assert outcome.code == 0, outcome.stderr
    (run,) = json.loads(outcome.stdout)["runs"]
    assert set(run["phases_ms"]) == {"connect", "close"}


@pytest.mark.parametrize(
    ("url", "phases"),
    [
        ("ws://127.0.0.1:{}", {"tcp", "upgrade", "signin", "use", "query", "close"}),
        ("http://127.0.0.1:{}", {"tcp", "signin", "use", "query", "close"}),
    ],
)
def test_a_rate_offers_exactly_what_is_due_and_phases_are_shares_of_service_time(
    tmp_path: Path, surreal: EmbeddedSurreal, url: str, phases: set[str]
) -> None:
    make_place(surreal, "cli")
    outcome = run_it(
        *("connect", "--auth", "token", "--rate", "50/s", "--query", "RETURN 1", "--grace", "60s", "-v"),
        *("--namespace", "cli", "--database", "cli", "-d", "500ms", "--warmup", "0.2s", "--output-dir", "."),
        cwd=tmp_path,
        env=reach(surreal) | {"SURREAL_URL": url.format(surreal.port)},
    )
    assert outcome.code == 0, outcome.stderr
    path = only(tmp_path, "*_r50.json")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    result = load(path)
    assert (result["config"]["shape"], result["config"]["max_in_flight"]) == ("r50", 1000)
    assert "concurrency" not in result["config"]
    (run,) = result["runs"]
    assert (run["rate"], run["offered"]) == (50, 25)
    assert run["offered"] == sum(run[outcome] for outcome in ("ok", "failed", "unfinished", "dropped"))
    assert run["ok"] == 25
    assert set(run["phases_ms"]) == phases
    # Everyone went through every phase, one after another.
    assert sum(phase["mean"] for phase in run["phases_ms"].values()) <= run["service_ms"]["mean"]
    assert run["service_ms"]["mean"] <= run["latency_ms"]["mean"]
    assert "of 50/s due" in outcome.stdout
    table = outcome.stdout.split("phases, ms")[1].split("\n\n")[0]
    shares = dict(re.findall(r"^(\w+) +25 .* ([\d.]+)%", table, flags=re.MULTILINE))
    assert shares.keys() == phases
    for phase, share in shares.items():
        means = run["phases_ms"][phase]["mean"], run["service_ms"]["mean"]
        assert float(share) == pytest.approx(100 * means[0] / means[1], abs=0.06)


def test_what_is_due_and_has_no_room_is_dropped_and_told(tmp_path: Path, surreal: EmbeddedSurreal) -> None:
    # One at a time, each of which the server hashes a password for: nothing keeps up with that.
    outcome = run_it(
        *("--rate", "1000/s", "--max-in-flight", "1", "-d", "500ms", "--grace", "60s"),
        *("--warmup", "0", "-q", "--no-save", "--json", "r.json", "--require-valid"),
        cwd=tmp_path,
        env=reach(surreal),
    )
    assert outcome.code == 1, outcome.stderr
    (run,) = load(tmp_path / "r.json")["runs"]
    assert run["ok"] > 0
    assert run["dropped"] > run["offered"] / 2
    assert run["offered"] == run["ok"] + run["failed"] + run["unfinished"] + run["dropped"] == 500
    assert "rate_not_achieved" in [reason["code"] for reason in run["verdict"]["reasons"]]
    # Waiting for room is response time, and no service time; the first has not waited.
    assert run["latency_ms"]["p50"] > run["service_ms"]["p50"] or run["ok"] <= 2


def test_the_official_client_is_measured_at_a_rate_too(tmp_path: Path, surreal: EmbeddedSurreal) -> None:
    command = ("--driver", "surrealdb", "--rate", "10/s", "-d", "500ms", "--warmup", "0", "--grace", "60s")
    outcome = run_it(*command, "-q", "--no-save", "--json", "r.json", cwd=tmp_path, env=reach(surreal))
    assert outcome.code == 0, outcome.stderr
    (run,) = load(tmp_path / "r.json")["runs"]
    assert run["offered"] == run["ok"] == 5
    assert set(run["phases_ms"]) == {"connect", "close"}


def test_the_maximum_is_searched_for(tmp_path: Path, surreal: EmbeddedSurreal) -> None:
    outcome = run_it(
        *("--auth", "token", "--find-max", "--slo", "p50<60s", "--rate", "50/s", "--max-rate", "50/s"),
        *("-d", "1s", "--warmup", "0", "--wait-between-runs", "0s", "--grace", "60s", "-q"),
        *("--output-dir", "."),
        cwd=tmp_path,
        env=reach(surreal),
    )
    assert outcome.code == 0, outcome.stderr
    found = load(only(tmp_path, "*_max.json"))["find_max"]
    assert (found["rate"], found["confirmed"], found["limit"]) == (50, True, "max_rate")
    assert "no limit was found" in " ".join(outcome.stdout.split())


@pytest.mark.parametrize(
    ("command", "met", "missed"),
    [
        (
            ("--auth", "none", "--rate", "20/s", "-d", "300ms", "--warmup", "0"),
            "phases.tcp.p99<60s",
            "errors.refused>0",
        ),
        (
            ("--auth", "none", "-c", "1", "-d", "100ms", "--warmup", "0"),
            "errors==0",
            "throughput<0.001",
        ),
        (("load", "--auth", "none", "-n", "3", "-d", "100ms"), "held==3", "held>3"),
    ],
)
def test_a_threshold_that_fails_is_exit_code_1_and_in_table_file_and_summary(
    tmp_path: Path, surreal: EmbeddedSurreal, command: tuple[str, ...], met: str, missed: str
) -> None:
    common = ("--no-save", "-q", "--json", "r.json", "--summary", "s.md", "--threshold", met)
    for more, code in ((), 0), (("--threshold", missed), 1):
        outcome = run_it(*command, *common, *more, cwd=tmp_path, env=reach(surreal))
        assert outcome.code == code, outcome.stderr
        judged = load(tmp_path / "r.json")["thresholds"]
        assert [(one["text"], one["ok"]) for one in judged] == [(met, True), (missed, False)][: code + 1]
        assert "surreal-bench" in (tmp_path / "s.md").read_text()
    assert re.search(rf"1 of 2 failed\n .* {re.escape(missed)} ", outcome.stdout)
    assert "1 of 2 failed" in (tmp_path / "s.md").read_text()


def test_connections_are_held_kept_alive_and_closed(tmp_path: Path, surreal: EmbeddedSurreal) -> None:
    arguments = ("load", "-n", "20", "-d", "600ms", "-k", "200ms", "--auth", "token")
    outcome = run_it(*arguments, cwd=tmp_path, env=reach(surreal))
    assert outcome.code == 0, outcome.stderr
    (run,) = load(only(tmp_path / "results", "*.json"))["runs"]
    assert run["ok"] == 20
    hold = run["hold"]
    assert (hold["opened"], hold["dropped"], hold["closed"]) == (20, 0, 20)
    assert {"tcp", "upgrade", "signin"} <= set(run["phases_ms"])
    assert "asked 20, held 20 at peak: none was lost" in outcome.stdout
    assert "server_side" in run


def test_without_watching_nobody_looks_while_connections_are_held(
    tmp_path: Path, surreal: EmbeddedSurreal
) -> None:
    arguments = ("load", "-n", "5", "-d", "100ms", "--auth", "token", "--no-watch")
    outcome = run_it(*arguments, cwd=tmp_path, env=reach(surreal))
    assert outcome.code == 0, outcome.stderr
    result = load(only(tmp_path / "results", "*.json"))
    assert result["config"]["watch"] is False
    (run,) = result["runs"]
    assert run["hold"]["opened"] == 5
    assert "server_side" not in run
    assert "server:" not in outcome.stdout


@pytest.mark.parametrize("driver", ["surreal", "surrealdb"])
def test_a_restart_of_the_server_is_noticed_at_once_and_connections_come_back(
    tmp_path: Path, start_surreal: StartSurreal, driver: str
) -> None:
    server = start_surreal(SurrealConfig(password="load pencil"))
    started = Started(
        tmp_path,
        *("load", "-n", "10", "-d", "0", "-k", "0", "--reconnect", "--no-save", "--json", "result.json"),
        *("--driver", driver),
        env=reach(server),
        command=COMMAND,
    )
    started.wait_for(r"hold +10 ")
    server.restart()
    started.wait_for(r"^ +\S+ +hold +10 +10 +0 +0 +10")
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0, outcome.stderr
    (run,) = load(tmp_path / "result.json")["runs"]
    hold = run["hold"]
    # Nothing was asked (--keepalive 0): the drops were told by the sockets.
    assert hold["dropped"] == hold["reopened"] == hold["closed"] == 10


def test_pools_are_measured_side_by_side(tmp_path: Path) -> None:
    outcome = run_it(
        *("pool", "-c", "20", "--size", "4", "-d", "100ms", "--warmup", "0", "--timeout", "60s"),
        *("--scenario", "query,burst,stress", "--stress", "50", "--pool", "reference,shared", "-v"),
        cwd=tmp_path,
    )
    assert outcome.code == 0, outcome.stderr
    runs = load(only(tmp_path / "results", "*.json"))["runs"]
    assert [(run["scenario"], run["pool"]) for run in runs] == [
        (scenario, pool) for scenario in ("query", "burst", "stress") for pool in ("reference", "shared")
    ]
    assert all(run["ok"] > 0 and run["failed"] == 0 for run in runs)
    assert runs[-1]["concurrency"] == 50
    assert "one connection, which all clients use" in outcome.stdout
    assert all(run["server_side"]["one_process"] for run in runs)
    assert "server, the rounds together" in outcome.stdout


def test_settings_are_compared_in_turn_and_where_nothing_can_be_said_nobody_wins(tmp_path: Path) -> None:
    outcome = run_it(
        *("size", "-c", "4", "--sizes", "1-2,4", "-d", "100ms", "--warmup", "0", "--timeout", "60s"),
        *("--rounds", "2", "--json", "r.json", "--plot", "r.png"),
        cwd=tmp_path,
    )
    assert outcome.code == 0, outcome.stderr
    result = load(tmp_path / "r.json")
    assert [(run["min_size"], run["size"]) for run in result["runs"]] == [(1, 2), (4, 4), (4, 4), (1, 2)]
    opened = [run["checkout"]["opened"] for run in result["runs"]]
    assert opened[1:3] == [4, 4]
    assert {opened[0], opened[3]} <= {1, 2}
    assert not result["contest"]["won"]
    assert "No winner: 2 rounds are too few" in outcome.stdout
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


ALL = ("all", "--clients", "20", "--size", "2", "--connections", "2", "-q")
JOBS = ("connectivity", "stress", "monitor", "throughput", "load")


def outcomes(stdout: str) -> dict[str, str]:
    """What became of each step of `all`."""
    rows = re.findall(rf"^({'|'.join(JOBS)}) +(pass|FAIL|interrupted|not run)\b", stdout, re.MULTILINE)
    return dict(rows)


def test_all_jobs_are_done_in_turn_on_one_server_and_each_is_passed(
    tmp_path: Path, surreal: EmbeddedSurreal
) -> None:
    make_place(surreal, "cli")
    place = ("--namespace", "cli", "--database", "cli", "-d", "200ms")
    outcome = run_it(*ALL, *place, cwd=tmp_path, env=reach(surreal))
    # Waits are a matter of this machine; that each is done and told is not.
    found = outcomes(outcome.stdout)
    assert tuple(found) == JOBS, outcome.stderr
    assert set(found.values()) <= {"pass", "FAIL"}
    assert found["load"] == "pass"
    # It has a few seconds, of which a machine may stand still for some.
    assert found["connectivity"] == "pass" or "timeout during" in outcome.stdout
    passed = sum(word == "pass" for word in found.values())
    assert f"{passed} of 5 passed" in outcome.stdout
    assert outcome.code == (0 if passed == 5 else 1), outcome.stderr
    stress = load(only(tmp_path / "results", "*_all-stress_*.json"))
    judged = {threshold["field"]: threshold["ok"] for threshold in stress["thresholds"]}
    assert {"phases_ms.checkout.p95", "phases_ms.checkout.p99"} < set(judged)
    assert judged["checkout.leaked"]
    assert judged["checkout.dead_met"]
    assert surreal.password not in outcome.stdout + outcome.stderr


def test_where_no_connection_can_be_made_every_job_fails_with_one_line(tmp_path: Path) -> None:
    with unanswered_port() as port:
        url = f"ws://127.0.0.1:{port}"
        outcome = run_it(*ALL, "--url", url, "--user", "u", cwd=tmp_path, env={"SURREAL_PASS": SECRET})
    assert outcome.code == 1
    assert outcomes(outcome.stdout) == dict.fromkeys(JOBS, "FAIL")
    assert len([line for line in outcome.error_lines if line.startswith("error: ")]) == len(JOBS) - 1
    assert SECRET not in outcome.stdout + outcome.stderr


def test_ctrl_c_ends_the_job_under_way_and_all_that_follow(tmp_path: Path) -> None:
    started = Started(tmp_path, *ALL, "-d", "5m", command=COMMAND, env={"TMPDIR": str(tmp_path)})
    started.wait_for("== stress ==")
    family = started.family()
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 1, outcome.stderr
    found = outcomes(outcome.stdout)
    assert [found[name] for name in JOBS[1:]] == ["interrupted", *["not run"] * 3]
    assert all_gone(family)


def test_a_target_that_many_clients_do_not_hold_is_exit_code_1(
    tmp_path: Path, surreal: EmbeddedSurreal
) -> None:
    make_place(surreal, "cli")
    outcome = run_it(
        *("stress", "5,10", "--size", "1", "-d", "100ms", "--warmup", "0", "--timeout", "60s", "--no-save"),
        *("--namespace", "cli", "--database", "cli", "--threshold", "phases.checkout.p99<0.001ms"),
        *("--json", "r.json"),
        cwd=tmp_path,
        env=reach(surreal),
    )
    assert outcome.code == 1, outcome.stderr
    result = load(tmp_path / "r.json")
    assert [run["clients"] for run in result["runs"]] == [5, 10]
    assert {each["field"] for each in result["thresholds"] if not each["ok"]} == {"phases_ms.checkout.p99"}


def test_without_a_pool_every_query_signs_in(tmp_path: Path) -> None:
    timing = ("-d", "300ms", "--warmup", "0", "--timeout", "60s")
    arguments = ("pool", "-c", "2", "--scenario", "query", "--pool", "naive", "--json", "r.json")
    outcome = run_it(*arguments, *timing, "--no-save", cwd=tmp_path)
    assert outcome.code == 0, outcome.stderr
    (run,) = load(tmp_path / "r.json")["runs"]
    assert run["ok"] > 0
    assert run["checkout"]["opened"] >= run["ok"]


def test_purreal_says_how_to_get_it_where_it_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("surrealdb")
    try:
        import purreal  # noqa: F401
    except ImportError:
        outcome = run_it("pool", "--pool", "purreal", cwd=tmp_path)
        assert outcome.code == 2
        assert "install purreal" in outcome.stderr
    else:
        arguments = ("-c", "20", "-d", "300ms", "--warmup", "0", "--scenario", "query", "--pool", "purreal")
        assert run_it("pool", *arguments, "--no-save", cwd=tmp_path).code == 0


def test_check_says_in_words_what_there_is(surreal: EmbeddedSurreal) -> None:
    make_place(surreal, "cli")
    place = ("--namespace", "cli", "--database", "cli")
    outcome = check_usable(*place, env=reach(surreal))
    assert outcome.code == 0
    assert re.search(r"^embedded SurrealDB engine 3\.", outcome.stdout, re.MULTILINE)
    assert re.search(r"^  signin +sign in +ok, [\d.]+ ms$", outcome.stdout, re.MULTILINE)
    assert re.search(r"^fine: \d+ connections", outcome.stdout, re.MULTILINE)
    assert surreal.password not in outcome.stdout


def test_check_gives_up_in_a_few_seconds_where_nobody_answers_however_many_those_are() -> None:
    with contextlib.ExitStack() as servers:
        silent = [servers.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        # Its queue is full: nobody accepts more, and the kernel drops what comes.
        full = servers.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = servers.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        ports = [server.getsockname()[1] for server in (*silent, full)]
        schemes = (*("ws", "http", "wss", "https") * 2, "ws")
        urls = [
            word
            for scheme, port in zip(schemes, ports, strict=True)
            for word in ("--url", f"{scheme}://127.0.0.1:{port}")
        ]
        begin = time.monotonic()
        outcome = run_it("check", *urls, "--user", "u", "--pass", SECRET)
        # One after the other they would take longer than that.
        assert time.monotonic() - begin < 25
    assert outcome.code == 1
    heads = re.findall(r"^\w+://u@127\.0\.0\.1:(\d+)/rpc, auth signin$", outcome.stdout, re.MULTILINE)
    assert [int(head) for head in heads] == ports
    steps = re.findall(r"^  (\w+) .* failed: timeout$", outcome.stdout, re.MULTILINE)
    assert steps == [*("upgrade", "signin", "tls", "tls") * 2, "tcp"]
    assert (
        outcome.stdout.count("what to do: no answer: a firewall may drop the packets, or the server hangs")
        == 9
    )
    assert SECRET not in outcome.stdout + outcome.stderr


def test_serve_on_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run_it("serve", "--bind", f"127.0.0.1:{port}", env={"SURREAL_PASS": SECRET})
    assert outcome.code == 1
    assert outcome.error_lines == [f"error: cannot listen on 127.0.0.1 port {port}: address already in use"]


def test_serve_serves_until_it_is_told_to_stop_and_leaves_nothing(tmp_path: Path) -> None:
    # Outside of the range of ports that anybody is given by chance.
    port = free_port()
    started = Started(
        tmp_path,
        *("serve", "--bind", f"127.0.0.1:{port}", "--user", "chief"),
        env={"SURREAL_PASS": SECRET, "TMPDIR": str(tmp_path)},
        command=COMMAND,
    )
    line = started.wait_for(r"^embedded SurrealDB engine 3\.\S+, at (ws://\S+), user chief, namespace bench")
    family = started.family()
    place = ("--namespace", "bench", "--database", "bench")
    env = {"SURREAL_URL": line[1], "SURREAL_USER": "chief", "SURREAL_PASS": SECRET}
    assert check_usable(*place, env=env).code == 0
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert outcome.code == 0
    assert all_gone(family)
    assert SECRET not in outcome.stdout + outcome.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"stdout", "stderr"}


def test_serve_makes_a_password_where_none_is_given_and_shows_it_once(tmp_path: Path) -> None:
    made = set()
    for name in ("one", "two"):
        port = free_port()
        directory = tmp_path / name
        directory.mkdir()
        started = Started(directory, "serve", "--bind", f"127.0.0.1:{port}", command=COMMAND)
        line = started.wait_for(r"^password of root, made for this server and shown only here: (\S{16,})$")
        started.wait_for(r"^embedded SurrealDB engine")
        family = started.family()
        env = {"SURREAL_URL": f"ws://127.0.0.1:{port}", "SURREAL_USER": "root"}
        place = ("--namespace", "bench", "--database", "bench")
        assert check_usable(*place, env={**env, "SURREAL_PASS": line[1]}).code == 0
        assert check_usable(*place, env={**env, "SURREAL_PASS": "root"}).code == 1
        started.signal(signal.SIGINT)
        outcome = started.finish()
        assert outcome.code == 0
        assert all_gone(family)
        assert (outcome.stdout + outcome.stderr).count(line[1]) == 1
        made.add(line[1])
    assert len(made) == 2


def test_a_password_on_the_command_line_is_hidden_from_other_users_and_from_the_result(
    tmp_path: Path, surreal: EmbeddedSurreal
) -> None:
    url = f"ws://127.0.0.1:{surreal.port}"
    secret = ("--user", surreal.user, "--pass", surreal.password)
    run = ("-d", "0", "-c", "1", "--warmup", "0", "--no-save", "--json", "r.json")
    started = Started(tmp_path, "connect", "--url", url, *secret, *run, command=COMMAND)
    started.wait_for("measure")
    words = " ".join(psutil.Process(started.process.pid).cmdline())
    started.signal(signal.SIGINT)
    outcome = started.finish()
    assert "--pass ***" in words
    assert surreal.password not in words
    assert outcome.code == 0, outcome.stderr
    assert surreal.password not in (tmp_path / "r.json").read_text()
    assert surreal.password not in outcome.stdout + outcome.stderr


def test_what_follows_pass_is_not_shown() -> None:
    words = ("t", "--pass", SECRET, "--pass=x", "--user", "u", "--pass", "--pass", "ws://u:p@h")
    assert redacted_argv(words) == (
        *("t", "--pass", "***", "--pass=***", "--user", "u", "--pass", "***", "ws://u:***@h"),
    )


def test_a_second_interrupt_leaves_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    # Whoever waited for what is under way would wait for much longer.
    slow = ("-d", "0", "-c", "2", "--warmup", "0", "--query", "SLEEP 5m", "--grace", "5m")
    started = Started(tmp_path, "connect", *slow, env={"TMPDIR": str(tmp_path)}, command=COMMAND)
    started.wait_for("measure")
    family = started.family()
    started.signal(signal.SIGINT)
    started.wait_for("stopping")
    started.signal(signal.SIGINT)
    assert started.finish().code == 130
    assert all_gone(family)
    assert {path.name for path in tmp_path.iterdir()} == {"stdout", "stderr"}


@pytest.mark.parametrize("command", [COMMAND, "pool_bench.__main__"])
def test_monitor_shows_a_pool_and_what_can_be_seen_of_its_server(
    tmp_path: Path, surreal: EmbeddedSurreal, command: str
) -> None:
    make_place(surreal, "cli")
    env = reach(surreal) | {"SURREAL_NAMESPACE": "cli", "SURREAL_DATABASE": "cli"}
    arguments = ("monitor", "-u", env["SURREAL_URL"], "-c", "1", "--interval", "200ms", "-d", "400ms")
    outcome = run_tool(*arguments, cwd=tmp_path, env=env, command=command)
    assert outcome.code == 0, outcome.stderr
    head, *rows = outcome.stdout.splitlines()
    seen = dict(zip(head.split(), rows[-1].split(), strict=True))
    assert (seen["pool"], seen["state"], seen["size"]) == ("demo", "running", "1/10")
    assert float(seen["ping_ms"]) > 0
    # The pool's own, and the one that asks; others of these tests may be there.
    assert int(seen["conns"]) >= 2
    assert float(seen["srv_MB"]) > 1
    assert not list(tmp_path.iterdir())


def test_monitor_says_what_it_cannot_see_of_a_server() -> None:
    with unanswered_port() as nobody:
        target = surreal_target(f"ws://127.0.0.1:{nobody}", user="u", password=SECRET, environ={})
        site = SurrealSite(targets=(target,), origin="--url", auth="signin")

        async def look() -> tuple[SurrealLookout, ServerLook]:
            server = SurrealLookout(site)
            return server, await server.look()

        server, seen = asyncio.run(look())
    assert seen == ServerLook(ping_ms=None, connections=None, cores=None, memory_mb=None)
    assert "refused" in server.trouble
    assert SECRET not in server.trouble
