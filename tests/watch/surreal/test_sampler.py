"""Watching a SurrealDB by what the kernel tells of it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import SurrealTarget, surreal_target
from pool_bench.watch.machine import memory
from pool_bench.watch.machine.cpu import ThreadMeter
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.machine.sockets import count_connections
from pool_bench.watch.surreal.process import find_surreal
from pool_bench.watch.surreal.sampler import SurrealSampler
from pool_bench.watch.watcher import watch_surreal
from tests.support.generators import nothing_left
from tests.support.held_sessions import await_true
from tests.support.servers import StartSurreal

WAIT_S = 30.0
TICK_S = 0.02


def target(port: int, host: str = "127.0.0.1") -> SurrealTarget:
    return surreal_target(f"ws://{host}:{port}", environ={})


@pytest.fixture(scope="module")
def server(start_surreal: StartSurreal) -> EmbeddedSurreal:
    """A SurrealDB of these tests' own: its connections must be exact."""
    return start_surreal(SurrealConfig(password="watched pencil"))


@contextmanager
def dialled(port: int, count: int) -> Iterator[None]:
    """So many connections to a local port, which have gone at the end."""
    before = sum(count_connections(port).values())
    with ExitStack() as sockets:
        for _ in range(count):
            sockets.enter_context(socket.create_connection(("127.0.0.1", port)))
        await_true(lambda: count_connections(port).get("open", 0) == before + count)
        yield
    await_true(lambda: sum(count_connections(port).values()) == before)


def test_connections_are_counted_exactly_before_at_the_peak_and_after(server: EmbeddedSurreal) -> None:
    with nothing_left():
        watcher = watch_surreal([target(server.port)], local_pid=server.pid)
        with dialled(server.port, 2):
            watcher.start()
            with dialled(server.port, 7):
                watcher.peak(wait_s=WAIT_S)
            side = watcher.stop()
    assert side.one_process
    assert side.notes == []
    assert (side.in_use_before, side.in_use_after) == (2, 2)
    assert max(sum(look.states.values()) for look in side.seconds) == 9
    assert {when: one.backends for when, one in side.memory.items()} == {"before": 2, "peak": 9, "after": 2}
    assert all(one.processes == 1 and one.total_bytes > 1 << 20 for one in side.memory.values())


def test_its_cpu_is_that_of_its_process_and_of_one_of_its_threads(server: EmbeddedSurreal) -> None:
    process = psutil.Process(server.pid)
    sampler = SurrealSampler([target(server.port)])
    # What was used between the looks, and in what time, lies between what is seen within and around them.
    outer_s, outer_began = sum(process.cpu_times()[:2]), time.monotonic()
    sampler.sample(0.0, "before")
    inner_s, inner_began = sum(process.cpu_times()[:2]), time.monotonic()
    with dialled(server.port, 200):
        pass
    inner_s, inner_wall_s = sum(process.cpu_times()[:2]) - inner_s, time.monotonic() - inner_began
    sampler.sample(1.0)
    outer_s, outer_wall_s = sum(process.cpu_times()[:2]) - outer_s, time.monotonic() - outer_began
    sampler.finish()
    cpu = sampler.side.seconds[-1].cpu
    assert cpu is not None
    assert cpu.server is not None
    most = (outer_s + 2 * TICK_S) / inner_wall_s
    assert (inner_s - 2 * TICK_S) / outer_wall_s <= cpu.server <= most
    assert cpu.server_thread is not None
    assert 0 <= cpu.server_thread <= most
    # It forks nothing.
    assert cpu.postmaster is None


def test_the_process_is_found_by_its_port(server: EmbeddedSurreal) -> None:
    for host in ("127.0.0.1", "localhost"):
        found = find_surreal(target(server.port, host))
        assert found is not None
        assert found.pid == server.pid


def test_after_a_restart_it_is_found_again(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig(password="watched pencil"))
    sampler = SurrealSampler([target(server.port)], local_pid=server.pid)
    sampler.sample(0.0, "before")
    first = server.pid
    server.restart()
    assert server.pid != first
    sampler.sample(1.0, "during")
    sampler.sample(2.0, "after")
    # What the new process had used before it was first looked at is nobody's second.
    used = [None if look.cpu is None else look.cpu.server for look in sampler.side.seconds]
    assert used[:2] == [None, None]
    assert used[2] is not None
    assert set(sampler.side.memory) == {"before", "during", "after"}
    server.stop()
    sampler.sample(3.0)
    sampler.sample(4.0)
    sampler.finish()
    assert sampler.side.notes == [f"no process listened on port {server.port} of this machine from 3 s on"]


def test_whatever_else_listens_there_is_not_taken_for_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        name = psutil.Process().name()
        with pytest.raises(UnseenError) as unseen:
            find_surreal(target(port))
        assert str(unseen.value) == f"what listens on port {port} of this machine is {name}, no SurrealDB"
        sampler = SurrealSampler([target(port)])
        with dialled_only(port):
            sampler.sample(0.0, "before")
            sampler.sample(1.0)
    sampler.finish()
    side = sampler.side
    assert len(side.notes) == 1
    assert "no SurrealDB" in side.notes[0]
    assert side.memory == {}
    assert side.seconds[-1].cpu is not None
    assert side.seconds[-1].cpu.server is None
    assert side.seconds[-1].cpu.machine is not None
    # The kernel counts connections to a port, whoever has it.
    assert side.seconds[-1].states == {"open": 1}


@contextmanager
def dialled_only(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        yield sock


def test_nothing_but_this_machine_is_seen_of_a_server_elsewhere() -> None:
    sampler = SurrealSampler([target(8000, "192.0.2.1"), target(8000, "192.0.2.2")])
    sampler.sample(0.0, "before")
    sampler.sample(1.0)
    assert sampler.surplus(1.0) == 0
    sampler.finish()
    assert sampler.side.notes == [
        "there are several servers: only the first, ws://192.0.2.1:8000/rpc, was watched",
        "the server was not watched: the server is not on this machine",
    ]
    assert sampler.side.in_use_before is None
    assert all(look.states == {} for look in sampler.side.seconds)


def test_connections_that_do_not_go_are_told(
    server: EmbeddedSurreal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_bench.watch.watcher._GONE_WAIT_S", 0.3)
    watcher = watch_surreal([target(server.port)], local_pid=server.pid)
    watcher.start()
    with dialled(server.port, 3):
        side = watcher.stop()
    assert side.in_use_after == 3
    assert side.notes == ["3 more client connections than before the run, 0.3 s after its end"]


def test_memory_that_may_not_be_read_is_a_note(
    server: EmbeddedSurreal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise UnseenError("no permission to read it")

    monkeypatch.setattr("pool_bench.watch.surreal.sampler.pss_bytes", refuse)
    sampler = SurrealSampler([target(server.port)], local_pid=server.pid)
    for when in ("before", "after"):
        sampler.sample(0.0, "before" if when == "before" else "after")
    assert sampler.side.notes == ["memory of the server was not measured: no permission to read it"]
    assert memory.pss_bytes(server.pid)


# Two threads that burn, one of which now and then rests.
THREADS = """
import threading, time
def burn(rest_s):
    while True:
        until = time.thread_time() + 0.01
        while time.thread_time() < until: pass
        time.sleep(rest_s)
for rest_s in (0, 0.01):
    threading.Thread(target=burn, args=(rest_s,)).start()
print("going", flush=True)
"""


def test_the_busiest_thread_is_not_the_sum_of_them() -> None:
    with subprocess.Popen([sys.executable, "-c", THREADS], stdout=subprocess.PIPE, text=True) as burner:
        try:
            assert burner.stdout is not None
            assert burner.stdout.readline() == "going\n"
            meter, process = ThreadMeter(), psutil.Process(burner.pid)
            # Nothing is used while it is looked at, so that all who look see the same.
            process.suspend()
            before, outer_began = _thread_times(process), time.monotonic()
            assert meter.look(burner.pid) is None
            inner_began = time.monotonic()
            process.resume()
            await_true(lambda: sorted(_used(process, before))[-2] >= 0.1)
            process.suspend()
            inner_s = time.monotonic() - inner_began
            share = meter.look(burner.pid)
            outer_s = time.monotonic() - outer_began
            each = _used(process, before)
        finally:
            burner.kill()
    assert share is not None
    assert (max(each) - TICK_S) / outer_s <= share <= (max(each) + TICK_S) / inner_s


def _thread_times(process: psutil.Process) -> dict[int, float]:
    """What the threads of a process have used, seconds."""
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def _used(process: psutil.Process, before: dict[int, float]) -> list[float]:
    return [used - before[thread] for thread, used in _thread_times(process).items() if thread in before]


def test_a_process_that_is_gone_has_no_threads() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    meter = ThreadMeter()
    assert meter.look(gone.pid) is None
    assert meter.look(gone.pid) is None
    assert meter.look(None) is None
    assert meter.look(os.getpid()) is None
    assert meter.look(os.getpid()) is not None
