"""The connections of a local port are counted by what the kernel tells, each once."""

import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pool_bench.watch.machine import sockets
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.machine.sockets import count, count_connections
from tests.support.held_sessions import await_true

Way = Callable[[int], dict[str, int]]
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

LISTED = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 242 1
   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 243 1
   2: 0100007F:1F40 0100007F:C351 01 00000000:00000000 00:00000000 00000000     0        0 244 1
   3: 0100007F:C350 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 245 1
   4: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 243 1
   5: 0100007F:1F40 0100007F:C352 08 00000000:00000000 00:00000000 00000000     0        0 246 1
   6: 0100007F:1F40 0100007F:C353 06 00000000:00000000 00:00000000 00000000     0        0 0 3
"""


def by_question(port: int) -> dict[str, int]:
    return count(sockets.ask(port))


def by_file(port: int) -> dict[str, int]:
    return count(sockets.read(port, TABLES))


every_way = pytest.mark.parametrize("way", [by_question, by_file, count_connections])


def dial(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port))


@every_way
def test_a_connection_that_only_its_client_has_ended_is_closing(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with dial("127.0.0.1", port) as first, dial("127.0.0.1", port):
            accepted, _ = listener.accept()
            with accepted:
                assert way(port) == {"open": 2}
                first.shutdown(socket.SHUT_WR)
                await_true(lambda: way(port) == {"open": 1, "closing": 1})
        # The other one was never accepted, and is closed with its listener.
    await_true(lambda: way(port) == {})


@every_way
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_connections_by_ipv6_and_by_ipv4_to_the_same_listener_are_both_seen(way: Way) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with dial("127.0.0.1", port), dial("::1", port):
            assert way(port) == {"open": 2}


def test_more_connections_than_one_answer_holds_are_all_counted() -> None:
    count_of = 800
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=count_of) as listener:
        port = listener.getsockname()[1]
        try:
            clients += (dial("127.0.0.1", port) for _ in range(count_of))
            assert by_question(port) == {"open": count_of}
        finally:
            for client in clients:
                client.close()


def test_those_that_stay_are_counted_exactly_while_others_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            while not stop.is_set():
                with dial("127.0.0.1", other.getsockname()[1]):
                    other.accept()[0].close()

    thread = threading.Thread(target=churn)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        held = [dial("127.0.0.1", port) for _ in range(20)]
        thread.start()
        try:
            assert {count_connections(port)["open"] for _ in range(100)} == {20}
        finally:
            stop.set()
            thread.join()
            for client in held:
                client.close()


def test_a_connection_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(LISTED)
    assert count(sockets.read(8000, (table, tmp_path / "tcp6"))) == {"open": 2, "closing": 1}


def test_where_the_kernel_does_not_answer_its_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_port: int) -> Iterable[object]:
        raise OSError

    monkeypatch.setattr(sockets, "ask", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with dial("127.0.0.1", port):
            assert count_connections(port) == {"open": 1}


def test_a_question_that_the_kernel_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_SOCK_DIAG_BY_FAMILY", 999)
    with pytest.raises(OSError, match="lists no sockets"):
        by_question(1)


def test_without_any_of_it_nothing_is_seen(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match="only Linux"):
        count(sockets.read(8000, (tmp_path / "tcp",)))
