"""Commands with several generator processes: one result, and none of them outlives its command."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support import hostile_postgres as h
from tests.support.commands import Started, all_gone, load, run_tool

POLITE: h.Script = (h.read_startup, h.send(h.WELCOME), h.read_message)
# How often the server is asked before a run what it is.
ASKED = 2
TWO = ("--processes", "2", "--per-process", "--no-watch", "--keep-going", "--warmup", "0s")


def _generators(started: Started) -> list[psutil.Process]:
    return [one for one in started.family() if "pool_bench.load.process" in " ".join(one.cmdline())]


def _is_measuring(started: Started) -> list[psutil.Process]:
    started.wait_for(r"^ +[0-9.]+s +measure +[1-9]")
    generators = _generators(started)
    assert len(generators) == 2
    return generators


def test_ctrl_c_ends_all_processes_and_keeps_what_they_measured(tmp_path: Path) -> None:
    with h.HostileServer(POLITE) as server:
        result = tmp_path / "result.json"
        started = Started(
            tmp_path, "--url", server.url(), *TWO, "-d", "0", "--json", str(result), "--no-save"
        )
        generators = _is_measuring(started)
        started.signal_all(signal.SIGINT)
        done = started.finish()
        assert done.code == 0, done.stderr
        assert all_gone(generators)
        (run,) = load(result)["runs"]
        assert (run["processes"], run["interrupted"]) == (2, True)
        assert run["ok"] == sum(row["ok"] for row in run["generators"]) > 0
        begun = run["ok"] + run["unfinished"] + run["failed"] + run["set_aside"]
        assert begun + ASKED == server.count_accepted(begun + ASKED)
        assert load(result)["config"]["processes"] == 2
        assert "process op/s" in done.stdout


def test_processes_end_with_a_command_that_is_killed(tmp_path: Path) -> None:
    with h.HostileServer(POLITE) as server:
        started = Started(tmp_path, "--url", server.url(), *TWO, "-d", "0", "--no-save")
        generators = _is_measuring(started)
        os.kill(started.process.pid, signal.SIGKILL)
        assert started.finish().code == -signal.SIGKILL
        assert all_gone(generators)


def test_one_that_is_killed_makes_the_run_suspect_and_not_the_others_fail(tmp_path: Path) -> None:
    with h.HostileServer(POLITE) as server:
        result = tmp_path / "result.json"
        saved = ("--json", str(result), "--no-save", "--require-valid")
        started = Started(tmp_path, "--url", server.url(), *TWO, "-d", "0", *saved)
        first, second = _is_measuring(started)
        first.kill()
        started.wait_for("generator process [12] of 2 is lost: ")
        started.signal(signal.SIGINT)
        done = started.finish()
        assert done.code == 1, done.stderr
        assert all_gone([first, second])
        (run,) = load(result)["runs"]
        assert "generator_lost" in [reason["code"] for reason in run["verdict"]["reasons"]]
        assert [bool(row.get("lost")) for row in run["generators"]].count(True) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinities")
def test_pinned_processes_stay_on_their_cores_and_connect_from_their_own_addresses(tmp_path: Path) -> None:
    with h.HostileServer(POLITE) as server:
        sources = ("--source-ip", "127.0.0.2", "--source-ip", "127.0.0.3")
        started = Started(tmp_path, "--url", server.url(), *TWO, "-d", "0", "--no-save", "--pin", *sources)
        generators = _is_measuring(started)
        cores = [os.sched_getaffinity(one.pid) for one in generators]
        started.signal(signal.SIGINT)
        assert started.finish().code == 0
        ours = sorted(os.sched_getaffinity(0), reverse=True)
        assert cores == [{ours[0]}, {ours[1 % len(ours)]}] or cores == [{ours[1 % len(ours)]}, {ours[0]}]


def test_a_held_run_of_several_processes_holds_all_and_closes_all(tmp_path: Path) -> None:
    with h.HostileServer(POLITE) as server:
        result = tmp_path / "result.json"
        done = run_tool(
            *("--url", server.url(), "-n", "9", "-d", "300ms", "--processes", "3", "--no-watch", "--no-save"),
            *("--json", str(result)),
            cwd=tmp_path,
            command="pg_connection_load",
        )
        assert done.code == 0, done.stderr
        (run,) = load(result)["runs"]
        hold = run["hold"]
        assert (run["processes"], run["ok"], hold["closed"], hold["dropped"]) == (3, 9, 9, 0)
        assert server.accepted == 9 + ASKED + 1  # and once more, for its slots
