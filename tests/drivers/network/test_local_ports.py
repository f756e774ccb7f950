"""Local ports while many are in use: found without a search where the kernel can be told, else counted."""

import asyncio
import errno
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pool_bench.drivers.network.local_ports import LocalPorts
from pool_bench.drivers.network.port_loop import with_ports
from tests.support.commands import found_by
from tests.truth.test_generator import in_own_network

_MS = 1_000_000
_SLICE = 8

linux = pytest.mark.skipif(sys.platform != "linux", reason="ports are looked for like this by Linux only")
namespace = pytest.mark.skipif(not in_own_network(), reason="needs a network namespace")


def statistics(directory: Path, *, version_4: int, version_6: int = 0) -> Path:
    """A kernel's socket statistics, as proc(5) has them."""
    (directory / "sockstat").write_text(
        f"sockets: used 77\nTCP: inuse {version_4} orphan 0 tw 90000 alloc 9 mem 1\nUDP: inuse 3 mem 0\n"
    )
    (directory / "sockstat6").write_text(f"TCP6: inuse {version_6}\nUDP6: inuse 3\n")
    return directory


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listening = socket.create_server((request.param, 0), family=family, backlog=1000)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with listening:
        yield listening


def free_run(server: socket.socket, length: int) -> int:
    """The first of so many local ports in a row from which the server can be reached now."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for first in range(high - length, low, -length):
        try:
            with ExitStack() as stack:
                for port in range(first, first + length):
                    sock = stack.enter_context(socket.socket(server.family))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((server.getsockname()[0], port))
        except OSError:
            continue
        return first
    pytest.skip("no local ports in a row are free")


@linux
def test_connects_come_from_slices_in_turn_and_pass_over_full_ones(server: socket.socket) -> None:
    first = free_run(server, 2 * _SLICE)
    ports = LocalPorts((first, first + 2 * _SLICE - 1), slice_ports=_SLICE)
    used = []
    with ExitStack() as stack:
        for _ in range(2 * _SLICE):
            sock = stack.enter_context(socket.socket(server.family))
            assert ports.connect_ex(sock, server.family, server.getsockname()) == 0
            used.append(sock.getsockname()[1])
        # Every port there is, though neither slice nor parity is told which are free.
        assert sorted(used) == list(range(first, first + 2 * _SLICE))
        slices = [(port - first) // _SLICE for port in used]
        assert {slices[0], slices[1]} == {0, 1}
        assert all(one != other for one, other in pairwise(slices))
        with socket.socket(server.family) as sock:
            assert ports.connect_ex(sock, server.family, server.getsockname()) == errno.EADDRNOTAVAIL
    assert ports.take_searches() == 0


@linux
def test_a_slice_that_was_full_is_tried_again_after_a_second(server: socket.socket) -> None:
    first = free_run(server, _SLICE)
    ports = LocalPorts((first, first + _SLICE - 1), slice_ports=_SLICE)
    ports.look(0)
    with ExitStack() as stack:
        for _ in range(_SLICE):
            sock = stack.enter_context(socket.socket(server.family))
            assert ports.connect_ex(sock, server.family, server.getsockname()) == 0
        with socket.socket(server.family) as sock:
            assert ports.connect_ex(sock, server.family, server.getsockname()) == errno.EADDRNOTAVAIL
        # The server ends them first, so that no port is left in TIME_WAIT.
        for _ in range(_SLICE):
            server.accept()[0].close()
    ports.look(2_000 * _MS)
    with socket.socket(server.family) as sock:
        assert ports.connect_ex(sock, server.family, server.getsockname()) == 0
        assert first <= sock.getsockname()[1] < first + _SLICE


@linux
@pytest.mark.parametrize(
    ("version_4", "version_6", "crowded"), [(25, 0, False), (26, 0, True), (0, 26, True), (13, 13, True)]
)
def test_ports_are_crowded_from_a_quarter_of_them_in_sockets_on(
    tmp_path: Path, version_4: int, version_6: int, crowded: bool
) -> None:
    ports = LocalPorts((1000, 1099), net=statistics(tmp_path, version_4=version_4, version_6=version_6))
    assert ports.is_crowded(5 * _MS) is crowded
    statistics(tmp_path, version_4=0 if crowded else 99)
    assert ports.is_crowded(104 * _MS) is crowded, "it looks at most ten times a second"
    assert ports.is_crowded(105 * _MS) is not crowded


@linux
def test_a_port_of_the_second_parity_is_the_sign_of_a_search_and_remembered_for_a_second(
    tmp_path: Path,
) -> None:
    ports = LocalPorts((1000, 1099), net=statistics(tmp_path, version_4=0))
    assert not ports.is_crowded(0)
    for other in (1000, 1098, 999, 1101):
        ports.handed_out(other)
    assert not ports.crowded
    assert ports.take_searches() == 0
    ports.handed_out(1001)
    assert ports.is_crowded(1)
    assert (ports.take_searches(), ports.take_searches()) == (1, 0)


@linux
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_connects_others_clients_from_slices_and_sets_what_it_would_have_set(
    server: socket.socket, factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    first = free_run(server, 2 * _SLICE)
    bounds = range(first, first + 2 * _SLICE)

    async def connect(sockets: int) -> tuple[bool, int]:
        ports = LocalPorts((bounds[0], bounds[-1]), net=statistics(tmp_path, version_4=sockets))
        loop = with_ports(asyncio.get_running_loop(), ports)
        host, port = server.getsockname()[:2]
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        sock = transport.get_extra_info("socket")
        found = sock.getsockname()[1] in bounds, sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()
        await asyncio.sleep(0)
        return found

    for sockets in (0, 2 * _SLICE):
        with asyncio.Runner(loop_factory=factory) as runner:
            is_ours, no_delay = runner.run(connect(sockets))
        assert no_delay == 1
        assert is_ours or not sockets


@linux
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_fails_others_clients_as_it_would_have_failed_them(
    factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def connect() -> None:
        loop = with_ports(asyncio.get_running_loop(), LocalPorts(net=statistics(tmp_path, version_4=60_000)))
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
        with pytest.raises(socket.gaierror):
            await loop.create_connection(asyncio.Protocol, "no-such-host.invalid", 1)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(connect())


def crowded(**arguments: object) -> dict[str, Any]:
    """What `tests/support/crowded_ports.py` found in a network of its own."""
    unshare = shutil.which("unshare")
    assert unshare is not None
    return found_by("tests.support.crowded_ports", arguments, unshare, "-n")


@linux
@namespace
@pytest.mark.parametrize("driver", ["wire", "asyncpg"])
def test_no_connect_searches_where_the_kernel_can_be_told_a_slice(driver: str) -> None:
    found = crowded(ports=400, held=210, driver=driver, seconds=0.5, supported=True)
    assert found["even"] == 200
    assert found["ok"] > 0
    assert found["failed"] == found["searches"] == 0


@linux
@namespace
@pytest.mark.parametrize(("driver", "supported"), [("wire", False), ("asyncpg", False), ("psycopg", True)])
def test_searches_are_counted_where_the_kernel_or_the_driver_cannot_narrow_them(
    driver: str, supported: bool
) -> None:
    found = crowded(ports=400, held=210, driver=driver, seconds=0.5, supported=supported)
    assert found["even"] == 200
    assert found["failed"] == 0
    # All were from ports of the second parity; two are under way where measuring begins, and where it ends.
    assert found["ok"] > 0
    assert found["ok"] - 2 <= found["searches"] <= found["ok"] + 2


@linux
@namespace
def test_nothing_is_looked_for_or_counted_while_few_ports_are_in_use() -> None:
    found = crowded(ports=400, held=5, driver="wire", seconds=0.3, supported=False)
    assert found["ok"] > 0
    assert found["failed"] == found["searches"] == 0
