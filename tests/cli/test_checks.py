"""Thresholds, summaries and rounds as users of the commands meet them."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.commands import LOAD_COMMAND, load, only, run_tool

SHORT = ("--duration", "100ms", "--warmup", "0", "--concurrency", "4")


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port where every connection is accepted and closed at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                peer.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_thresholds_decide_the_exit_code_and_are_in_output_file_and_summary(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    fine = ("--threshold", "errors==0", "--threshold", "p99<60s")
    arguments = ("--url", embedded.url, *SHORT, *fine, "--summary", "s.md", "--quiet", "--no-save")
    outcome = run_tool(*arguments, cwd=tmp_path)
    assert outcome.code == 0, outcome.stdout
    assert "thresholds: all 2 held" in outcome.stdout
    assert "Thresholds: all held" in (tmp_path / "s.md").read_text()
    outcome = run_tool(*arguments, "--threshold", "throughput>1000000/s", "--json", "r.json", cwd=tmp_path)
    assert outcome.code == 1
    assert "thresholds: 1 of 3 failed" in outcome.stdout
    judged = load(tmp_path / "r.json")["thresholds"]
    assert [one["ok"] for one in judged] == [True, True, False]
    assert judged[2]["limit"] == 1_000_000
    assert judged[2]["run"] == "c4"
    assert judged[2]["value"] == pytest.approx(load(tmp_path / "r.json")["runs"][0]["throughput"])
    assert "1 of 3 failed" in (tmp_path / "s.md").read_text()


def test_json_on_stdout_stays_json_beside_thresholds(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    outcome = run_tool(
        "--url", embedded.url, *SHORT, "--threshold", "ok<0", "--json", "-", "--no-save", cwd=tmp_path
    )  # fmt: skip
    assert outcome.code == 1
    assert json.loads(outcome.stdout)["thresholds"][0]["ok"] is False
    assert "thresholds: 1 of 1 failed" in outcome.stderr


def test_a_lost_threshold_ends_the_session_early(tmp_path: Path, refusing_port: int) -> None:
    url = f"postgresql://u@127.0.0.1:{refusing_port}/db?sslmode=disable"
    sweep = ("--concurrency-min", "2", "--concurrency-max", "4", "--duration", "90s", "--warmup", "0")
    kept = ("--json", "r.json", "--no-save")
    outcome = run_tool(
        "--url", url, *sweep, "--threshold", "errors==0", "--abort-on-fail", *kept, cwd=tmp_path
    )
    assert outcome.code == 1
    assert "ending early: errors==0 is lost" in outcome.stderr
    result = load(tmp_path / "r.json")
    (run,) = result["runs"]
    assert run["duration_s"] < 30
    assert run["interrupted"]
    assert result["thresholds"][0]["value"] == run["failed"] > 0


def test_settings_in_turn_are_compared_in_one_session(tmp_path: Path, embedded: EmbeddedPostgres) -> None:
    turns = ("--rounds", "2", "--interleave", "query=SELECT 1, 2", "--interleave", f"url={embedded.url}")
    outcome = run_tool(
        "--url", embedded.url, *SHORT, *turns, "--wait-between-runs", "0", "--quiet", "-v", cwd=tmp_path
    )
    assert outcome.code == 0, outcome.stderr
    result = load(only(tmp_path / "results", "*.json"))
    shown = embedded.url.partition("@")[2].partition("?")[0]
    settings = [(run["round"], run["setting"].partition("=")[0]) for run in result["runs"]]
    assert settings == [(1, ""), (1, "query"), (1, "url"), (2, "url"), (2, "query"), (2, "")]
    assert result["config"]["rounds"] == 2
    queried = [run for run in result["runs"] if "query" in run["setting"]]
    assert all("query" in run["phases_ms"] for run in queried)
    assert "2 rounds of each setting: median (lowest to highest)" in outcome.stdout
    # Less than a second in all is too little for a verdict, and that is said.
    details, _, answer = outcome.stdout.rpartition("\n\n")
    assert details.count("not comparable") == answer.count("not comparable") == 2
    assert "run is too short: " in " ".join(outcome.stdout.split())
    assert any(shown in run["setting"] for run in result["runs"])
    assert only(tmp_path / "results", "*.png").read_bytes().startswith(b"\x89PNG")


def test_held_connections_are_judged_with_what_was_seen_of_the_server(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    conditions = ("held>=5", "dropped==0", "keepalive.p99<60s", "server_side.max_connections==100", "held<5")
    # Longer than anything stands still, so that keep-alives fall into it.
    arguments = ["--url", embedded.url, "-n", "5", "-d", "3s", "-k", "200ms", "--no-save", "--json", "h.json"]
    for condition in conditions:
        arguments += ["--threshold", condition]
    outcome = run_tool(*arguments, "--summary", "h.md", cwd=tmp_path, command=LOAD_COMMAND)
    assert outcome.code == 1, outcome.stderr
    judged = load(tmp_path / "h.json")["thresholds"]
    assert {one["text"]: one["ok"] for one in judged} == {text: text != "held<5" for text in conditions}
    assert "### Held connections" in (tmp_path / "h.md").read_text()
