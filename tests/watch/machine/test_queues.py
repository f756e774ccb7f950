"""Accept queues, connections to a port and dropped requests, beside what the sockets themselves know."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from pool_bench.watch.machine.queues import dropped_requests, listening_at, listening_on, reaching
from tests.support.held_sessions import await_true, quiet_port

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has sock_diag(7)")

BACKLOG = 3


@contextmanager
def knocking(family: socket.AddressFamily, address: object, count: int) -> Iterator[list[socket.socket]]:
    """Connects under way of which nobody waits for the end."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            one = stack.enter_context(socket.socket(family))
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)  # type: ignore[arg-type]
            sockets.append(one)
        yield sockets


def test_a_full_accept_queue_has_one_more_than_its_size_and_drops_the_rest() -> None:
    before = dropped_requests()
    with socket.create_server(("127.0.0.1", quiet_port()), backlog=BACKLOG) as listener:
        port = listener.getsockname()[1]
        (empty,) = listening_on(port)
        assert (empty.address, empty.waiting, empty.limit) == ("127.0.0.1", 0, BACKLOG)
        with knocking(socket.AF_INET, ("127.0.0.1", port), 9):
            await_true(lambda: listening_on(port)[0].waiting == BACKLOG + 1)
            (way,) = reaching(port)
            assert (way.address, way.taken, way.unanswered) == ("127.0.0.1", 9, 9 - BACKLOG - 1)
            # Other sockets of this machine may drop some as well.
            assert dropped_requests() - before >= 9 - BACKLOG - 1
            listener.accept()[0].close()
            assert listening_on(port)[0].waiting <= BACKLOG + 1


def test_a_listener_for_both_families_is_one_and_its_peers_are_named_as_they_are() -> None:
    with socket.create_server(("::", quiet_port()), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        assert [one.address for one in listening_on(port)] == ["::"]
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("::1", port)):
            assert {one.address: one.taken for one in reaching(port)} == {"127.0.0.1": 1, "::1": 1}


@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_socket_has_a_queue_too(tmp_path: Path, abstract: bool) -> None:
    path = f"\0pool-bench-{tmp_path}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(BACKLOG)
        other.bind(f"{path}x")
        other.listen(1)
        with knocking(socket.AF_UNIX, path, 9):
            (found,) = listening_at(path)
            assert (found.waiting, found.limit) == (BACKLOG + 1, BACKLOG)
        assert listening_at(f"{path}y") == []


def test_nobody_listens_where_nobody_does() -> None:
    port = quiet_port()
    assert listening_on(port) == []
    assert reaching(port) == []


def test_a_system_that_counts_no_drops_has_none(tmp_path: Path) -> None:
    assert dropped_requests(tmp_path / "netstat") == 0
    (tmp_path / "netstat").write_text("TcpExt: SyncookiesSent\nTcpExt: 4\nIpExt: InNoRoutes\nIpExt: 7\n")
    assert dropped_requests(tmp_path / "netstat") == 0
    (tmp_path / "netstat").write_text("TcpExt: ListenOverflows ListenDrops\nTcpExt: 4 6\n")
    assert dropped_requests(tmp_path / "netstat") == 6
