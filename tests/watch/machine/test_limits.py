"""The limits of this machine, beside what the processes and the kernel themselves say."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from pool_bench.stats.walls import MemoryUse, Use
from pool_bench.targets.surreal import surreal_target
from pool_bench.watch.machine.limits import (
    LimitsReader,
    destinations_of,
    files_of,
    killed_processes,
    local_port_count,
    memory_of,
    process_of,
)
from tests.support.held_sessions import await_true, quiet_port, target

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")

# Listens on a port, says which, and accepts nothing.
LISTENER = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=3)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def listener() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that listens and accepts nothing, and a URL of it."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, str(quiet_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, f"postgresql://u@127.0.0.1:{int(process.stdout.readline())}/d?sslmode=disable"
        process.kill()


def test_the_process_that_listens_is_found_with_its_descriptors_and_its_queue() -> None:
    with listener() as (process, url), ExitStack() as stack:
        reader = LimitsReader([target(url)])
        assert reader.is_here
        (found,) = reader.processes()
        assert (found.pid, found.stopped) == (process.pid, False)
        assert found.name.startswith("python")
        assert found.files == Use(50, psutil.Process(process.pid).num_fds())
        host = target(url).hosts[0]
        for _ in range(6):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((host.name, host.port))
        await_true(lambda: reader.queues()[0].waiting == 4)
        seen = reader.look([os.getpid()])
        assert [(one.where, one.waiting, one.limit) for one in seen.queues] == [(f"port {host.port}", 4, 3)]
        assert seen.queues[0].is_full
        assert seen.unanswered == 2
        assert seen.dropped >= 2
        assert seen.ports is not None
        assert (seen.ports.used, seen.ports.limit) == (6, local_port_count())
        assert LimitsReader([target(url)], source_ips=3).ports()[0] == Use(3 * seen.ports.limit, 6)


def test_a_process_that_is_stopped_is_told() -> None:
    with listener() as (process, url):
        reader = LimitsReader([target(url)])
        os.kill(process.pid, signal.SIGSTOP)
        await_true(lambda: reader.processes()[0].stopped)
        os.kill(process.pid, signal.SIGCONT)
        await_true(lambda: not reader.processes()[0].stopped)


def test_after_a_restart_the_process_is_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        url = f"postgresql://u@127.0.0.1:{ours.getsockname()[1]}/d?sslmode=disable"
        with listener() as (process, other):
            reader = LimitsReader([target(other)])
            assert [one.pid for one in reader.processes()] == [process.pid]
        assert reader.processes() == []
        assert [one.pid for one in LimitsReader([target(url)]).processes()] == [os.getpid()]


def test_a_unix_socket_leads_to_its_process_and_a_name_to_its_addresses(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(tmp_path / ".s.PGSQL.7"))
        ours.listen(5)
        reader = LimitsReader([target(f"postgresql://u@/d?host={tmp_path}&port=7")])
        assert [one.pid for one in reader.processes()] == [os.getpid()]
        assert [(one.waiting, one.limit) for one in reader.queues()] == [(0, 5)]
        assert reader.ports() == (None, 0)
    (way,) = destinations_of([target("postgresql://u@localhost:7/d"), target("postgresql://u@localhost:7/e")])
    assert "127.0.0.1" in way.addresses
    (way,) = destinations_of([surreal_target("ws://[::1]:8000", user="u", password="p", environ={})])
    assert (way.addresses, way.port) == (frozenset({"::1"}), 8000)


def test_of_a_server_elsewhere_nothing_is_said_but_what_is_here() -> None:
    reader = LimitsReader([target("postgresql://u@192.0.2.1:5432/d?sslmode=disable")])
    seen = reader.look([os.getpid()])
    assert not seen.is_here
    assert (seen.processes, seen.queues, seen.ports, seen.unanswered) == ([], [], None, 0)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert seen.own_files is not None
    assert seen.own_files.limit == soft


def test_descriptors_are_counted_without_the_right_to_list_them(tmp_path: Path) -> None:
    assert files_of(2**22 + 1) is None
    process = tmp_path / "7"
    process.mkdir()
    (process / "limits").write_text(
        "Max open files            1024                 4096                 files\n"
    )
    assert files_of(7, tmp_path) is None
    (process / "limits").write_text(
        "Max open files            unlimited            unlimited            files\n"
    )
    assert files_of(7, tmp_path) is None
    assert process_of(7, tmp_path) is None
    # The name may have anything in it.
    (process / "stat").write_text("7 (a) T (b) S 1 7 7")
    (process / "fd").mkdir()
    (process / "limits").write_text(
        "Max open files            2                 4096                 files\n"
    )
    (process / "fd" / "0").touch()
    found = process_of(7, tmp_path)
    assert found is not None
    assert (found.name, found.stopped, found.files) == ("a) T (b", False, Use(2, 1))


def test_memory_is_that_of_the_machine_and_of_groups_with_a_limit(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "7").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n")
    (proc / "7" / "cgroup").write_text("0::/a/b\n")
    (groups / "a" / "b").mkdir(parents=True)
    (groups / "a" / "memory.max").write_text("1000\n")
    (groups / "a" / "memory.current").write_text("990\n")
    (groups / "a" / "memory.stat").write_text("anon 5\ninactive_file 90\nactive_file 3\n")
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "b" / "memory.current").write_text("990\n")
    assert memory_of([7, 8], proc, groups) == [
        MemoryUse("this machine", 1000 << 10, 600 << 10),
        MemoryUse("the control group a", 1000, 900),
    ]
    (proc / "7" / "cgroup").write_text("4:memory:/old\n")
    (groups / "memory" / "old").mkdir(parents=True)
    (groups / "memory" / "old" / "memory.limit_in_bytes").write_text("1000\n")
    (groups / "memory" / "old" / "memory.usage_in_bytes").write_text("995\n")
    (groups / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (groups / "memory" / "memory.usage_in_bytes").write_text("995\n")
    old = memory_of([7], proc, groups)[1:]
    assert old == [MemoryUse("the control group old", 1000, 995)]
    assert old[0].is_full
    assert memory_of([], tmp_path, groups) == []


def test_this_machine_has_memory_ports_and_a_count_of_the_killed() -> None:
    (machine, *_) = memory_of([os.getpid()])
    assert machine.limit == pytest.approx(psutil.virtual_memory().total, rel=0.01)
    assert 0 < machine.used < machine.limit
    assert killed_processes() >= 0
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert local_port_count() == high - low + 1
