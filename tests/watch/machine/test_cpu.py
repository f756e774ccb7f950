"""CPU of processes, those included that nobody saw alive."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.watch.machine import cpu
from pool_bench.watch.machine.cpu import CpuMeter
from tests.support.held_sessions import await_true

# Children that burn a tenth of a second each and are gone; the parent itself waits.
PARENT = """
import os, sys, time
def burn(seconds):
    while time.process_time() < seconds: pass
sys.stdin.readline()
for _ in range(5):
    pid = os.fork()
    if not pid:
        burn(0.1)
        os._exit(0)
    os.waitpid(pid, 0)
print("done", flush=True)
sys.stdin.readline()
"""
TICK_S = 0.02
WORK_S = 0.2


@contextmanager
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun, and from now on does nothing."""
    with subprocess.Popen(
        ["sh", "-c", "echo ready; read gone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        await_true(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        try:
            yield process
        finally:
            process.kill()


def test_what_children_used_that_came_and_went_between_two_looks_is_counted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        process, meter = psutil.Process(parent.pid), CpuMeter()
        begin = time.monotonic()
        assert meter.look(process, []) is None
        parent.stdin.write("go\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "done\n"
        use = meter.look(process, [process])
        wall_s = time.monotonic() - begin
        parent.stdin.close()
    assert use is not None
    assert use.server is not None
    assert use.postmaster is not None
    assert use.machine is not None
    assert use.server * wall_s >= 0.5 - TICK_S
    assert use.postmaster < use.server
    # The machine counts in ticks of its own, and what others took from it differently.
    assert use.server <= use.machine * 2 + TICK_S / wall_s
    # A pooler that was not there at the look before has no figure yet.
    assert (use.pooler, use.pooler_busiest) == (None, None)


def test_of_several_processes_of_a_pooler_the_sum_and_the_busiest_are_told() -> None:
    burn = "import time\nwhile True: pass"
    with (
        subprocess.Popen([sys.executable, "-c", burn]) as first,
        subprocess.Popen([sys.executable, "-c", burn]) as second,
    ):
        try:
            poolers, meter = [psutil.Process(each.pid) for each in (first, second)], CpuMeter()
            meter.look(None, poolers)
            enough = [process.cpu_times().user + 0.1 for process in poolers]
            await_true(
                lambda: all(
                    process.cpu_times().user > least for process, least in zip(poolers, enough, strict=True)
                )
            )
            use = meter.look(None, poolers)
        finally:
            first.kill()
            second.kill()
    assert use is not None
    assert use.server is None
    assert use.pooler is not None
    assert use.pooler_busiest is not None
    assert 0 < use.pooler_busiest < use.pooler < use.pooler_busiest * 2.001


def test_no_more_cores_are_in_use_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # Many children whose end was told late, in a look that came right after another.
    used_s = [0.0]
    monkeypatch.setattr(cpu, "_machine_s", lambda: used_s[0])
    monkeypatch.setattr(cpu, "_server_s", lambda pid: (pid, used_s[0], used_s[0]))
    monkeypatch.setattr(cpu, "_pooler_s", lambda _process: used_s[0])
    meter, ourselves = CpuMeter(), psutil.Process()
    assert meter.look(ourselves, [ourselves]) is None
    used_s[0] = 1e6
    use = meter.look(ourselves, [ourselves])
    assert use is not None
    cores = os.cpu_count()
    assert (use.machine, use.server, use.pooler, use.postmaster) == (cores, cores, cores, 1)


def test_a_restarted_server_has_no_figure_until_its_second_look() -> None:
    with waiting() as first, waiting() as second:
        meter = CpuMeter()
        meter.look(psutil.Process(first.pid), [])
        restarted = meter.look(psutil.Process(second.pid), [])
        settled = meter.look(psutil.Process(second.pid), [])
    assert restarted is not None
    assert restarted.server is None
    assert settled is not None
    assert settled.server == 0


def test_a_server_that_has_ended_has_no_figure() -> None:
    ended = subprocess.Popen(["sleep", "60"])
    process, meter = psutil.Process(ended.pid), CpuMeter()
    meter.look(process, [])
    ended.kill()
    ended.wait()
    use = meter.look(process, [])
    assert use is not None
    assert use.server is None


def test_a_name_with_brackets_and_spaces_is_no_trouble(tmp_path: Path) -> None:
    program = tmp_path / "a) S (1 2"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            assert cpu._stat_s(process.pid) == pytest.approx((0, 0), abs=1)
        finally:
            process.kill()


def test_the_backends_of_a_real_server_are_counted_when_they_have_gone(server: EmbeddedPostgres) -> None:
    meter, postmaster = CpuMeter(), psutil.Process(server.pid)
    meter.look(postmaster, [])
    begin = time.monotonic()
    with psycopg.connect(server.url, autocommit=True) as connection, ThreadPoolExecutor(1) as beside:
        backend = psutil.Process(connection.info.backend_pid)
        # Work of which no look sees the process, for as long as a busy machine needs for that much.
        work = beside.submit(connection.execute, "DO $$ BEGIN LOOP END LOOP; END $$")
        while not work.done() and backend.cpu_times().user < WORK_S + TICK_S:
            time.sleep(0.01)
        connection.cancel()
        assert isinstance(work.exception(), psycopg.errors.QueryCanceled)
    # Until the postmaster has reaped it, its time is nobody's.
    backend.wait(60)
    use = meter.look(postmaster, [])
    wall_s = time.monotonic() - begin
    assert use is not None
    assert use.server is not None
    assert use.server * wall_s >= WORK_S
