import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pool_bench.watch.machine import listeners as module
from pool_bench.watch.machine.listeners import listening_pids, owners

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")


def refused(*_arguments: object) -> list[object]:
    raise OSError("the kernel lists no sockets")


def forbidden(*_arguments: object) -> list[object]:
    raise AssertionError("all connections of this machine were read")


@pytest.mark.parametrize("asked", ["the kernel", "all connections"])
def test_who_listens_on_a_port_is_found_without_a_look_at_connections_if_it_can_be(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked == "the kernel":
        monkeypatch.setattr(psutil, "net_connections", forbidden)
    else:
        monkeypatch.setattr(module, "listening_on", refused)
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert listening_pids(port) == {os.getpid()}
            assert listening_pids(port, lambda address: address == "127.0.0.1") == {os.getpid()}
            assert listening_pids(port, lambda address: address != "127.0.0.1") == set()


def test_a_process_that_is_not_to_be_seen_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "owners", lambda _inodes: [])
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert listening_pids(ours.getsockname()[1]) == {None}


def test_of_a_server_that_forks_only_the_parent_counts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        os.set_inheritable(ours.fileno(), True)
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; print(); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            inode = os.fstat(ours.fileno()).st_ino
            assert owners([inode]) == [os.getpid()]
            child.kill()
