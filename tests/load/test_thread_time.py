"""A client that was suspended, blocked or had no core is told apart by the kernel's account."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pool_bench.analysis.verdict import judge
from pool_bench.load.spec import ConnectSpec
from pool_bench.load.thread_time import cpu_quota, cpu_seconds, cpu_stat_files, throttled_seconds
from pool_bench.servers.scripted.behaviour import Behaviour, Fixed
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.client_time import ClientState
from pool_bench.stats.runs import RunResult
from tests.support.generators import run, target
from tests.truth.test_generator import result_of

pytestmark = pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="needs Linux")


# Waits until a process is stopped, lets it stand for a while, and has it go on; gives up after a minute.
_WAKER = """
import os, sys, time
pid = int(sys.argv[1])
for _ in range(6000):
    with open(f"/proc/{pid}/stat") as stat:
        if stat.read().rpartition(")")[2].split()[0] == "T":
            time.sleep(1.5)
            break
    time.sleep(0.01)
os.kill(pid, 18)
"""


def measured(during: object, *, duration_s: float = 1.5) -> RunResult:
    with ScriptedPostgres(Behaviour(auth=Fixed(0.01))) as server:
        spec = ConnectSpec(
            targets=(target(server.url()),), concurrency=4, warmup_s=0.0, duration_s=duration_s, tick_s=0.25
        )
        return result_of(run(spec, during=during), spec)  # type: ignore[arg-type]


def test_time_for_which_the_client_was_stopped_is_not_measured() -> None:
    async def stop_ourselves(stop: asyncio.Event) -> None:
        await asyncio.sleep(0.4)
        os.kill(os.getpid(), signal.SIGSTOP)

    with subprocess.Popen([sys.executable, "-c", _WAKER, str(os.getpid())]):
        result = measured(stop_ourselves)
    assert result.client.time.suspensions >= 1
    assert result.client.time.suspended_s > 1.0
    assert 0 < result.total.aside <= 4
    # None of those that were under way is among the successes.
    assert result.total.latency.max_ns < result.client.time.suspended_s * 1e9
    assert "client_suspended" in [reason.code for reason in judge(result).reasons]
    # The seconds of the timeline are those that were measured.
    assert sum(interval.seconds for interval in result.total.intervals) == pytest.approx(
        result.client.wall_s, abs=1.0
    )


def test_a_loop_that_ran_without_a_pause_blocked_itself() -> None:
    async def burn(stop: asyncio.Event) -> None:
        while not stop.is_set():
            until = time.thread_time() + 0.05
            while time.thread_time() < until:
                continue
            await asyncio.sleep(0.15)

    result = measured(burn)
    times = result.client.time
    assert times.seen_s > 0
    # That of one round at least: others may leave us no second one.
    assert times.late_running_s > 0.04
    if times.late_running_s > times.late_waiting_s:
        assert result.client_state in (ClientState.BLOCKED, ClientState.SATURATED)


def test_a_client_that_shares_its_core_with_a_burner_waits_for_it() -> None:
    before = os.sched_getaffinity(0)
    core = {min(before)}
    # Of its own session, and so of its own share, as other people's processes are.
    burner = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {core})\nwhile True: pass"],
        start_new_session=True,
    )
    try:
        os.sched_setaffinity(0, core)

        async def nothing(stop: asyncio.Event) -> None:
            await stop.wait()

        times = measured(nothing).client.time
    finally:
        os.sched_setaffinity(0, before)
        burner.kill()
        burner.wait()
    assert times.waited_s > 0
    assert times.cores == 1


def test_what_the_kernel_writes_is_read_in_both_versions(tmp_path: Path) -> None:
    assert throttled_seconds(b"nr_periods 9\nnr_throttled 4\nthrottled_usec 2500000\n") == 2.5
    assert throttled_seconds(b"nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n") == 2.5
    assert throttled_seconds(b"usage_usec 12\n") == 0.0
    stat = b"cpu  9 9 9 9\ncpu0 100 0 100 999 5 0 0 50 0 0\ncpu1 300 0 0 9 9 0 0 0 0 0\nintr 1 2 3\n"
    assert cpu_seconds(stat, frozenset({0}), 100) == (2.0, 0.5)
    assert cpu_seconds(stat, frozenset({0, 1}), 100) == (5.0, 0.25)
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (group / "cpu.max").write_text("max 100000\n")
    (group / "cpu.stat").write_text("throttled_usec 1\n")
    assert cpu_quota("0::/a/b\n", tmp_path) == 1.5
    assert cpu_stat_files("0::/a/b\n", tmp_path) == [group / "cpu.stat"]
    old = tmp_path / "cpu"
    old.mkdir()
    (old / "cpu.cfs_quota_us").write_text("50000\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota("3:cpu,cpuacct:/\n", tmp_path) == 0.5
