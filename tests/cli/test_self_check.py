"""Calibration and --require-valid, as users meet them."""

import json
from pathlib import Path

import pytest

from pool_bench.servers.scripted.behaviour import Behaviour, Fixed
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.servers.scripted.tls import can_make_certificates
from tests.support.commands import COMMAND, LOAD_COMMAND, load, run_tool

_CALIBRATION_S = "pool_bench.cli.commands.connect._CALIBRATION_S"


def test_calibrate_measures_every_driver_alone_and_at_the_concurrency(tmp_path: Path) -> None:
    done = run_tool("calibrate", "-c", "3", "-d", "100ms", "--json", str(tmp_path / "floor.json"))
    assert done.code == 0
    assert "a server that answers at once" in done.stdout
    floors = load(tmp_path / "floor.json")["calibration"]["floors"]
    settings = [(floor["driver"], floor["concurrency"]) for floor in floors]
    assert settings == [(driver, level) for driver in ("wire", "asyncpg", "psycopg") for level in (1, 3)]
    assert all(floor["failed"] == 0 for floor in floors)
    measured = [floor for floor in floors if floor["ok"]]
    assert len(measured) >= 5, "one of them may have been short enough to be slept through"
    for floor in measured:
        assert 0 < floor["latency_ms"]["p50"] <= floor["latency_ms"]["p99"]
        assert floor["throughput"] > 0
        assert floor["cpu_us_per_op"] > 0
    for driver in ("wire", "asyncpg", "psycopg"):
        assert f"\n{driver}" in done.stdout


def test_calibrate_writes_json_to_stdout_and_the_table_for_people_to_stderr() -> None:
    done = run_tool("calibrate", "-c", "1", "-d", "100ms", "--query", "SELECT 1", "--json", "-")
    assert done.code == 0
    content = json.loads(done.stdout)
    assert content["schema"] == "pool-bench/1"
    assert [floor["concurrency"] for floor in content["calibration"]["floors"]] == [1, 1, 1]
    assert "connect, query, close" in content["calibration"]["operation"]
    assert "a server that answers at once" in done.stderr


def test_a_calibrated_run_says_how_much_of_it_is_the_client(tmp_path: Path) -> None:
    # So slow that no client takes as long, be it ten times slower than usual.
    with ScriptedPostgres(Behaviour(auth=Fixed(0.1))) as server:
        arguments = (
            "-c",
            "2",
            "-d",
            "500ms",
            "--warmup",
            "0",
            "--calibrate",
            "--json",
            "run.json",
            "--no-save",
            "-q",
        )
        for _attempt in range(3):
            done = run_tool("-u", server.url(), *arguments, cwd=tmp_path, constants={_CALIBRATION_S: 0.2})
            assert done.code == 0
            floors = load(tmp_path / "run.json")["calibration"]["floors"]
            if all(floor["ok"] for floor in floors):  # none so short that it was slept through
                break
    assert " is this client (calibrated with one worker)" in done.stdout
    assert "it could do" in done.stdout
    content = load(tmp_path / "run.json")
    assert len(content["calibration"]["floors"]) == 6
    (run,) = content["runs"]
    assert 0 < run["calibration"]["floor_ms"]["p50"] < run["latency_ms"]["p50"]
    assert run["throughput"] < run["calibration"]["ceiling"]


tls = pytest.mark.skipif(not can_make_certificates(), reason="needs the program openssl, on Linux")


@tls
def test_calibrate_can_go_through_tls(tmp_path: Path) -> None:
    done = run_tool("calibrate", "--tls", "-c", "2", "-d", "100ms", "--json", str(tmp_path / "floor.json"))
    assert done.code == 0, done.stderr
    content = load(tmp_path / "floor.json")
    assert "trust, TLS; " in done.stdout
    assert content["calibration"]["operation"] == "connect, close over TCP on this machine, trust, TLS"
    assert content["config"]["sslmode"] == "require"
    assert all(floor["failed"] == 0 for floor in content["calibration"]["floors"])
    assert sum(floor["ok"] for floor in content["calibration"]["floors"]) > 0


@tls
@pytest.mark.parametrize(
    ("options", "way"),
    [
        ("sslmode=verify-full&sslrootcert=CERTIFICATE", "trust, TLS"),
        # What the first connection found decides.
        ("sslmode=prefer", "trust, TLS"),
        ("sslmode=disable", "trust, no TLS"),
    ],
)
def test_runs_are_calibrated_with_tls_where_they_have_it(options: str, way: str, tmp_path: Path) -> None:
    with ScriptedPostgres(tls=True) as server:
        url = server.url(options.replace("CERTIFICATE", server.certificate))
        short = ("-c", "1", "-d", "200ms", "--warmup", "0", "--no-save", "-q")
        given = ("-u", url, *short, "--calibrate", "--json", "run.json")
        done = run_tool(*given, cwd=tmp_path, constants={_CALIBRATION_S: 0.1})
    assert done.code == 0, done.stderr
    content = load(tmp_path / "run.json")
    assert content["calibration"]["operation"].endswith(way)
    assert all(floor["failed"] == 0 for floor in content["calibration"]["floors"])
    assert content["server"].get("tls") == (None if "no TLS" in way else "TLSv1.3")


def test_without_openssl_a_calibration_says_that_it_has_no_tls(tmp_path: Path) -> None:
    done = run_tool("calibrate", "--tls", "-c", "1", "-d", "100ms", env={"PATH": str(tmp_path)})
    assert done.code == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "trust, no TLS, as there is no openssl here to make a certificate with" in words


@pytest.mark.parametrize("command", [COMMAND, LOAD_COMMAND])
def test_a_suspect_run_is_only_fine_where_it_may_be(command: str, tmp_path: Path) -> None:
    # Too few operations for p99; connections that nobody serves.
    bench = command == COMMAND
    behaviour = Behaviour(auth=Fixed(0.05), backlog=1 if bench else 4096)
    with ScriptedPostgres(behaviour) as server:
        given = ["-u", server.url(), "-d", "100ms", "--no-save", "--json", "r.json"]
        given += ["-c", "1", "--warmup", "0"] if bench else ["-n", "3", "--keepalive", "0"]
        codes = []
        for more in ([], ["--require-valid"]):
            done = run_tool(*given, *more, "-v", cwd=tmp_path, command=command)
            codes.append(done.code)
            assert "verdict: " in done.stdout
            assert "done, " in done.stdout
    valid = load(tmp_path / "r.json")["runs"][0]["verdict"]["valid"]
    if bench:
        assert valid is False
        assert codes == [0, 1]
        assert "--require-valid: suspect: " in done.stderr
        assert "too few samples" in done.stderr
    else:
        # Whether this machine left the client alone decides; either way code and verdict agree.
        assert codes[0] == 0
        assert codes[1] == (1 if "verdict: suspect" in done.stdout else 0)
