"""surreal-bench has what the PostgreSQL tools have: watching, rounds, calibration, drivers, addresses."""

import json
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import click
import pytest

import pg_connection_bench
import pg_connection_load
import surreal_bench
from pool_bench.cli.options.surreal import SurrealOptions
from pool_bench.cli.places.surreal import SurrealPlace
from pool_bench.cli.watching import is_wanted
from pool_bench.results.read import load_result
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed
from pool_bench.servers.scripted.server import ScriptedSurreal
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import SurrealTarget, surreal_target
from tests.cli.test_surreal_bench import COMMAND, SECRET, make_place, reach, run_it
from tests.support.commands import Outcome, Started, load
from tests.support.servers import StartSurreal

# What means nothing for a SurrealDB: it has neither SCRAM nor slots, and there is no PgBouncer before it.
POSTGRES_ONLY = {"scram_cache", "admin_url", "reserve"}


@pytest.fixture(scope="module")
def server(start_surreal: StartSurreal) -> EmbeddedSurreal:
    """A SurrealDB of these tests' own: its connections must be exact."""
    server = start_surreal(SurrealConfig(password="parity pencil"))
    make_place(server, "cli")
    return server


def measured(tmp_path: Path, *arguments: str, env: dict[str, str]) -> tuple[Outcome, list[dict[str, Any]]]:
    """What the command said, and its runs."""
    path = tmp_path / "result.json"
    outcome = run_it(*arguments, "--quiet", "--no-save", "--json", str(path), env=env)
    assert outcome.code == 0, outcome.stderr
    # What was written is what can be read.
    load_result(path)
    runs: list[dict[str, Any]] = load(path)["runs"]
    return outcome, runs


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {param.name or "": param for param in command.params if isinstance(param, click.Option)}


@pytest.mark.parametrize(
    ("postgres", "surreal"),
    [(pg_connection_bench.cli, surreal_bench.connect), (pg_connection_load.cli, surreal_bench.load)],
    ids=["connect", "load"],
)
def test_every_option_of_the_postgresql_tools_is_there_alike(
    postgres: click.Command, surreal: click.Command
) -> None:
    ours, theirs = options_of(surreal), options_of(postgres)
    assert theirs.keys() - ours.keys() - {"version"} == POSTGRES_ONLY & theirs.keys()
    for name in theirs.keys() & ours.keys() - {"urls", "driver", "keepalive_query", "query"}:
        assert (ours[name].opts, ours[name].default) == (theirs[name].opts, theirs[name].default), name


def test_commands_of_the_postgresql_tools_are_there() -> None:
    assert {"plot", "calibrate"} <= surreal_bench.cli.commands.keys()


def assert_none_left(side: dict[str, Any]) -> None:
    """Nobody was there before or after but this tool itself, which a slow server may not have seen go."""
    assert side["in_use_after"] <= side["in_use_before"] <= 1


# -- watching --------------------------------------------------------------------------------------------


def test_the_server_is_watched_in_each_run_and_the_limit_is_named(
    server: EmbeddedSurreal, tmp_path: Path
) -> None:
    levels = ("--concurrency-min", "1", "--concurrency-max", "2", "--wait-between-runs", "0")
    outcome, runs = measured(
        tmp_path,
        *(*levels, "--auth", "token", "-d", "1500ms", "--warmup", "0", "--grace", "60s", "-v"),
        env=reach(server),
    )
    seen = []
    assert [run["concurrency"] for run in runs] == [1, 2]
    for run in runs:
        side = run["server_side"]
        assert side["one_process"]
        assert side["notes"] == []
        assert_none_left(side)
        assert side["memory"].keys() == {"before", "during", "after"}
        # A connection that is closing may still be counted when the next one of its worker is open.
        assert max(sum(look["states"].values()) for look in side["timeline"]) <= 2 * run["concurrency"]
        seen += [look["cpu"] for look in side["timeline"] if look["cpu"]]
        assert f"  {side['limit']['words']}"[:60] in outcome.stdout
    assert all(cpu["postmaster"] is None for cpu in seen)
    # In one run alone the server may have stood still.
    assert max(cpu["server"] for cpu in seen) > 0
    assert max(cpu["server_thread"] for cpu in seen) > 0
    assert "(busiest thread " in outcome.stdout


def place_of(*targets: SurrealTarget) -> SurrealPlace:
    return SurrealPlace(targets=targets, origin="--url", options=SurrealOptions())


def test_the_embedded_engine_is_watched_as_well_and_others_only_if_wanted(tmp_path: Path) -> None:
    _, (run,) = measured(tmp_path, "--auth", "none", "-c", "2", "-d", "300ms", "--warmup", "0", env={})
    side = run["server_side"]
    assert side["notes"] == []
    assert_none_left(side)
    assert all(one["processes"] == 1 for one in side["memory"].values())
    here = tuple(surreal_target(f"{url}:8000", environ={}) for url in ("ws://localhost", "http://[::1]"))
    elsewhere = surreal_target("wss://db.example", environ={})
    assert is_wanted(None, None, place_of(*here))
    assert not is_wanted(None, None, place_of(*here, elsewhere))
    assert is_wanted(True, None, place_of(elsewhere))
    assert not is_wanted(False, None, place_of(*here))


def test_without_watching_nobody_looks(server: EmbeddedSurreal, tmp_path: Path) -> None:
    short = ("--auth", "none", "-c", "2", "-d", "300ms", "--warmup", "0", "--grace", "60s")
    outcome, (run,) = measured(tmp_path, *short, "--no-watch", env=reach(server))
    assert "server_side" not in run
    assert "server" not in outcome.stdout.splitlines()
    assert load(tmp_path / "result.json")["config"]["watch"] is False


def test_what_stands_before_the_server_is_a_note(tmp_path: Path) -> None:
    # A server that listens here and is no process that we know.
    with ScriptedSurreal(Behaviour(auth=Fixed(0.002))) as known:
        env = {"SURREAL_URL": known.target().url, "SURREAL_USER": "known", "SURREAL_PASS": "known"}
        _, (run,) = measured(tmp_path, "-c", "2", "-d", "300ms", "--warmup", "0", env=env)
    (note,) = run["server_side"]["notes"]
    assert re.fullmatch(r"the server was not watched: what listens on port \d+ .* no SurrealDB", note)
    assert run["server_side"]["limit"]["what"] in {"unknown", "client", "machine"}


# -- rounds ----------------------------------------------------------------------------------------------


def test_settings_are_measured_in_turn_and_compared(server: EmbeddedSurreal, tmp_path: Path) -> None:
    url = server.url.replace("ws:", "http:")
    place = ("--namespace", "cli", "--database", "cli")
    outcome, runs = measured(
        tmp_path,
        *("-c", "2", "-d", "200ms", "--warmup", "0", "--grace", "60s", *place),
        *("--wait-between-runs", "0", "--rounds", "2"),
        *("--interleave", "auth=token,concurrency=3", "--interleave", "driver=surrealdb"),
        *("--interleave", f"url={url},query=RETURN [1, 2]"),
        env=reach(server),
    )
    shown = f"http://{server.user}@127.0.0.1:{server.port}/rpc"
    settings = ["", "auth=token,concurrency=3", "driver=surrealdb", f"url={shown},query=RETURN [1, 2]"]
    assert [run["setting"] for run in runs] == [*settings, *reversed(settings)]
    assert [run["round"] for run in runs] == [1] * 4 + [2] * 4
    by_setting = {run["setting"]: run for run in runs}
    assert [by_setting[name]["driver"] for name in settings] == [
        "surreal",
        "surreal",
        "surrealdb",
        "surreal",
    ]
    assert [by_setting[name]["concurrency"] for name in settings] == [2, 3, 2, 2]
    assert "upgrade" not in by_setting[settings[3]]["phases_ms"]
    assert "query" in by_setting[settings[3]]["phases_ms"]
    # Only the server of the base is watched.
    assert ["server_side" in by_setting[name] for name in settings] == [True, True, True, False]
    (head,) = [line for line in outcome.stdout.splitlines() if line.startswith("medians ")]
    assert head.split()[1:3] == ["rounds", "conn/s"]
    assert server.password not in outcome.stdout + outcome.stderr


# -- calibration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["ws", "http"])
def test_calibrate_measures_both_drivers_alone_and_at_the_concurrency(protocol: str, tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    for _ in range(5):
        outcome = run_it(
            *("calibrate", "-c", "3", "-d", "200ms", "--protocol", protocol, "--json", str(path)),
            *("--query", "RETURN 1"),
        )
        assert outcome.code == 0, outcome.stderr
        content = load(path)
        floors = content["calibration"]["floors"]
        # Whoever stands still in the warm-up may do so until it is all over.
        if all(floor["ok"] for floor in floors):
            break
    assert [(floor["driver"], floor["concurrency"]) for floor in floors] == [
        (driver, level) for driver in ("surreal", "surrealdb") for level in (1, 3)
    ]
    for floor in floors:
        assert floor["failed"] == 0
        assert floor["ok"] > 0
        assert 0 < floor["latency_ms"]["p50"] <= floor["latency_ms"]["p99"]
        assert floor["cpu_us_per_op"] > 0
    carrier = {"ws": "a WebSocket", "http": "HTTP"}[protocol]
    assert content["calibration"]["operation"].startswith(f"connect, query, close over {carrier} ")
    assert content["config"]["protocol"] == protocol


@pytest.mark.parametrize("auth", ["token", "none"])
def test_only_the_driver_that_can_sign_in_like_that_is_calibrated(auth: str) -> None:
    outcome = run_it("calibrate", "-c", "1", "-d", "100ms", "--auth", auth, "--json", "-")
    assert outcome.code == 0, outcome.stderr
    content = json.loads(outcome.stdout)
    assert [floor["driver"] for floor in content["calibration"]["floors"]] == ["surreal"]
    assert f"auth {auth}" in content["calibration"]["operation"]
    assert "a server that answers at once" in outcome.stderr


def test_a_calibrated_run_says_how_much_of_it_is_the_client(server: EmbeddedSurreal, tmp_path: Path) -> None:
    short = ("-c", "1", "-d", "300ms", "--warmup", "0", "--calibrate")
    outcome, (run,) = measured(tmp_path, *short, env=reach(server))
    assert " is this client (calibrated with one worker)" in outcome.stdout
    floors = load(tmp_path / "result.json")["calibration"]["floors"]
    assert [(floor["driver"], floor["concurrency"]) for floor in floors] == [("surreal", 1), ("surrealdb", 1)]
    own = run["calibration"]
    assert own["floor_ms"]["p50"] == pytest.approx(floors[0]["latency_ms"]["p50"])
    assert own["ceiling"] == pytest.approx(floors[0]["throughput"])


# -- holding ---------------------------------------------------------------------------------------------


def test_connections_of_the_official_client_are_held_as_ours_are(
    server: EmbeddedSurreal, tmp_path: Path
) -> None:
    place = ("--namespace", "cli", "--database", "cli")
    # Longer than anybody stands still: all are asked, and looked at, while they are there.
    held = ("load", "-n", "20", "-d", "4s", "-k", "1s", *place)
    for driver, phases in (("surrealdb", {"connect"}), ("surreal", {"tcp", "upgrade", "signin", "use"})):
        outcome, (run,) = measured(tmp_path, *held, "--driver", driver, env=reach(server))
        hold = run["hold"]
        assert (run["driver"], run["ok"], run["failed"]) == (driver, 20, 0)
        assert (hold["opened"], hold["dropped"], hold["closed"], hold["forced"]) == (20, 0, 20, 0)
        assert sum(second["keepalives"] for second in hold["timeline"]) >= 20
        assert hold["query_failures"] == []
        assert set(run["phases_ms"]) == phases
        side = run["server_side"]
        assert_none_left(side)
        assert {when: one["backends"] for when, one in side["memory"].items()} == {
            "before": side["in_use_before"],
            "peak": 20 + side["in_use_before"],
            "after": side["in_use_after"],
        }
        assert "asked 20, held 20 at peak: none was lost" in outcome.stdout
        assert "backend" not in outcome.stdout


def test_connections_come_from_the_addresses_that_were_named(tmp_path: Path) -> None:
    sources = ("--source-ip", "127.0.0.2", "--source-ip", "127.0.0.3")
    with ScriptedSurreal() as known:
        env = {"SURREAL_URL": known.target().url, "SURREAL_USER": "known", "SURREAL_PASS": "known"}
        started = Started(
            tmp_path,
            *("load", "-n", "6", "-d", "0", "-q", *sources, "--no-save", "--json", "r.json"),
            env=env,
            command=COMMAND,
        )
        seen = await_peers(started, known.port, 6)
        started.signal(signal.SIGINT)
        assert started.finish().code == 0
    assert seen == {"127.0.0.2": 3, "127.0.0.3": 3}
    assert load(tmp_path / "r.json")["config"]["source_ips"] == ["127.0.0.2", "127.0.0.3"]


def await_peers(started: Started, port: int, count: int) -> dict[str, int]:
    """From which addresses a local port has its connections, once there are so many."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        text = Path("/proc/net/tcp").read_text()
        rows = re.findall(
            rf"^ *\d+: [0-9A-F]{{8}}:{port:04X} ([0-9A-F]{{8}}):[0-9A-F]{{4}} 01 ", text, re.MULTILINE
        )
        found = [socket.inet_ntoa(bytes.fromhex(row)[::-1]) for row in rows]
        if len(found) == count:
            return {address: found.count(address) for address in sorted(set(found))}
        assert started.process.poll() is None, started.stderr()
        time.sleep(0.05)
    raise AssertionError(f"there never were {count} connections: {started.stdout()}{started.stderr()}")


# -- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolve", ["each", "once"])
def test_a_name_is_looked_up_for_each_connection_or_once(
    server: EmbeddedSurreal, tmp_path: Path, resolve: str
) -> None:
    env = reach(server) | {"SURREAL_URL": f"ws://localhost:{server.port}"}
    short = ("--auth", "token", "-c", "2", "-d", "200ms", "--warmup", "0", "--resolve", resolve)
    _, (run,) = measured(tmp_path, *short, env=env)
    assert run["failed"] == 0
    assert run["ok"] > 0
    assert ("resolve" in run["phases_ms"]) is (resolve == "each")
    assert load(tmp_path / "result.json")["config"]["resolve"] == resolve


def test_a_name_that_has_no_address_is_a_failure_of_each_connection_however_it_is_looked_up(
    tmp_path: Path,
) -> None:
    env = {"SURREAL_URL": "ws://nowhere.invalid:1", "SURREAL_USER": "u", "SURREAL_PASS": SECRET}
    outcome = run_it("-c", "1", "-d", "500ms", "--resolve", "once", cwd=tmp_path, env=env)
    assert outcome.code == 1
    assert len(outcome.error_lines) == 1
    assert "dns during resolve" in outcome.stderr
