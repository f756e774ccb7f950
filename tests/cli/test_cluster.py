"""--cluster: what it takes, and that Ctrl-C ends a cluster on this machine with all that it has started."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support import hostile_postgres as h
from tests.support.commands import Started, all_gone, load, run_here

# How often the server is asked before a run what it is.
ASKED = 2


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pool_bench.load.cluster.opening", raising=False)
    monkeypatch.setitem(sys.modules, "dask", None)
    done = run_here("--cluster", "local")
    assert (done.code, done.error_lines) == (
        2,
        ["error: --cluster needs Dask; install pool-bench[cluster]"],
    )


@pytest.mark.quiet
def test_ctrl_c_ends_workers_and_generators_and_keeps_what_they_measured(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed: pip install pool-bench[cluster]")
    with h.HostileServer((h.read_startup, h.send(h.WELCOME), h.read_message)) as server:
        result = tmp_path / "result.json"
        run = ("--no-watch", "--keep-going", "--warmup", "0s", "-d", "0", "--json", str(result), "--no-save")
        started = Started(tmp_path, "--url", server.url(), "--cluster", "local:2", "--per-process", *run)
        started.wait_for(r"^ +[0-9.]+s +measure +[1-9]", seconds=180)
        family = started.family()
        generators = [one for one in family if "pool_bench.load.process" in " ".join(one.cmdline())]
        assert len(generators) == 2
        started.signal_all(signal.SIGINT)
        done = started.finish()
        assert done.code == 0, done.stderr
        assert all_gone(family)
        (one,) = load(result)["runs"]
        assert (one["processes"], one["interrupted"], len(one["workers"])) == (2, True, 2)
        assert one["ok"] == sum(row["ok"] for row in one["generators"]) > 0
        begun = one["ok"] + one["unfinished"] + one["failed"] + one["set_aside"]
        assert begun + ASKED == server.count_accepted(begun + ASKED)
        assert load(result)["config"]["cluster"] == "local:2"
