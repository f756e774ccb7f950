"""Calibration and --require-valid, as users meet them."""

import json
from pathlib import Path

import pytest

from pool_bench.faults.behaviour import Behaviour, Fixed
from pool_bench.faults.known import KnownServer
from tests.cli.tool import load, run_tool


def test_calibrate_measures_every_driver_alone_and_at_the_concurrency(tmp_path: Path) -> None:
    done = run_tool("calibrate", "-c", "3", "-d", "200ms", "--json", str(tmp_path / "floor.json"))
    assert done.code == 0
    assert "a server that answers at once" in done.stdout
    floors = load(tmp_path / "floor.json")["calibration"]["floors"]
    settings = [(floor["driver"], floor["concurrency"]) for floor in floors]
    assert settings == [(driver, level) for driver in ("wire", "asyncpg", "psycopg") for level in (1, 3)]
    for floor in floors:
        assert floor["failed"] == 0
        assert floor["ok"] > 0
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
    file = tmp_path / "run.json"
    with KnownServer(Behaviour(auth=Fixed(0.01))) as server:
        done = run_tool(
            "-u", server.url(), "-c", "2", "-d", "1s", "--calibrate", "--json", str(file), "--no-save", "-q"
        )
    assert done.code == 0
    assert " is this client (calibrated with one worker)" in done.stdout
    assert "it could do" in done.stdout
    content = load(file)
    assert len(content["calibration"]["floors"]) == 6
    (run,) = content["runs"]
    assert 0 < run["calibration"]["floor_ms"]["p50"] < run["latency_ms"]["p50"]
    assert run["throughput"] < run["calibration"]["ceiling"]


@pytest.mark.parametrize("command", ["pg_connection_bench", "pg_connection_load"])
def test_a_suspect_run_is_only_fine_where_it_may_be(command: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.cli.tool import environment

    # Too few operations for p99; connections that nobody serves.
    bench = command == "pg_connection_bench"
    behaviour = Behaviour(auth=Fixed(0.05), backlog=1 if bench else 4096)
    with KnownServer(behaviour) as server:
        given = ["-u", server.url(), "-d", "500ms", "--output-dir", str(tmp_path)]
        given += ["-c", "1", "--warmup", "0"] if bench else ["-n", "3", "--keepalive", "0"]
        codes = []
        for more in ([], ["--require-valid"]):
            done = subprocess.run(
                [sys.executable, "-m", command, *given, *more],
                capture_output=True,
                text=True,
                env=environment(),
                timeout=60,
                check=False,
            )
            codes.append(done.returncode)
            assert "verdict: " in done.stdout
            assert "done, " in done.stdout
    (first, *_) = sorted(tmp_path.glob("*.json"))
    valid = load(first)["runs"][0]["verdict"]["valid"]
    if bench:
        assert valid is False
        assert codes == [0, 1]
        assert "--require-valid: suspect: " in done.stderr
        assert "too few samples" in done.stderr
    else:
        # Whether this machine left the client alone decides; either way code and verdict agree.
        assert codes[0] == 0
        assert codes[1] == (1 if "verdict: suspect" in done.stdout else 0)
