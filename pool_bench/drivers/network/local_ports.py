"""Where in the range of local ports the kernel looks for a free one, once many of them are in use.

Left to itself, Linux looks for the local port of a connection among those of the range's first parity, from a
place that moves on, and among the others only once all of these are taken (`__inet_hash_connect`). Beside
connections that have half of the range, each further `connect` begins with a search of that half in vain:
0.5 to 0.8 ms with the default range instead of some 10 us, which would be reported as the server's.
`IP_LOCAL_PORT_RANGE` (Linux 6.3, ip(7)) narrows the search to a slice of the range, where a free port of
either parity is found at once, or its lack. Slices are used in turn, so that a port does not come again
sooner than the system would hand it out again: the other end may still remember it.

As long as few sockets are in use, nothing of this is done: the option is one more system call. A process that
shares the work with others has slices of its own (`confine`), so that they do not search each other's.
"""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns
from typing import Final

from pool_bench.targets.addresses import SocketAddress

# What `connect` says where it has begun. Windows says EWOULDBLOCK; elsewhere that is EAGAIN: the accept
# queue of a Unix socket is full, and nothing is in progress.
IN_PROGRESS: Final = frozenset((0, errno.EINPROGRESS, *((errno.EWOULDBLOCK,) if os.name == "nt" else ())))

# linux/in.h; Python has no name for it. The level is IPv4's for IPv6, too.
_IP_LOCAL_PORT_RANGE: Final = 51
_NET: Final = Path("/proc/net")
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE: Final = (32768, 60999)
_UNSUPPORTED: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL)

# Small enough for a search of a whole slice to take a few microseconds.
_SLICE_PORTS: Final = 128
_LOOK_NS: Final = 100_000_000
# For so long a slice without a free port is passed over, and a search by the system is remembered.
_REMEMBERED_NS: Final = 1_000_000_000
# Sockets in use, over ports, from which on the system may have to search: while half of the ports of its
# first parity are free, it finds one at once. A connection within one machine has two sockets.
_CROWDED_SHARE: Final = 0.25
_MOST_PLACES: Final = 1024


class LocalPorts:
    """Connects sockets of this process from local ports that are found without a search.

    Args:
        bounds: lowest and highest local port; None asks the system.
        net: the directory of the kernel's socket statistics.
        slice_ports: how many ports a slice has.

    Attributes:
        crowded: so many sockets are in use that `connect_ex` is to be used in the place of the socket's own.
        look_ns: when to call `look` again, perf_counter_ns.
    """

    def __init__(
        self, bounds: tuple[int, int] | None = None, *, net: Path = _NET, slice_ports: int = _SLICE_PORTS
    ) -> None:
        self._bounds = bounds
        self._slice_ports = slice_ports
        self._net = net
        # Elsewhere ports are not looked for in this way, nor can the search be narrowed.
        self._narrows = sys.platform == "linux"
        self.look_ns = 0 if self._narrows else sys.maxsize
        self.crowded = False
        self._searches = 0
        self._range = bounds or _DEFAULT_RANGE
        self._all = _slices_of(*self._range, slice_ports)
        # Ours among several processes of one run; None where it is the only one.
        self._own: tuple[int, int] | None = None
        self._searched_ns = self._renewed_ns = -_REMEMBERED_NS
        # The slices that may have a free port, by where connections come from and go to.
        self._slices: dict[tuple[str, SocketAddress], deque[bytes]] = {}

    def confine(self, low: int, high: int) -> None:
        """Connect from these ports from now on, and from others only where none of them is free."""
        if self._narrows:
            self._own, self.crowded = (low, high), True
            self._all = self._own_slices()
            self._slices.clear()

    def _own_slices(self) -> deque[bytes]:
        low, high = self._range
        if self._own is not None:
            low, high = max(low, self._own[0]), min(high, self._own[1])
        return _slices_of(low, high, self._slice_ports)

    def look(self, now_ns: int) -> None:
        """See how many sockets are in use."""
        self.look_ns = now_ns + _LOOK_NS
        if now_ns - self._renewed_ns >= _REMEMBERED_NS:
            self._renewed_ns = now_ns
            self._renew()
        low, high = self._range
        in_use = _sockets_in_use(self._net)
        is_many = in_use is None or in_use > (high - low + 1) * _CROWDED_SHARE
        is_confined = self._own is not None and self._narrows
        self.crowded = is_confined or is_many or now_ns - self._searched_ns < _REMEMBERED_NS

    def _renew(self) -> None:
        bounds = self._bounds or port_range() or self._range
        if bounds != self._range:
            self._range = bounds
            self._all = self._own_slices()
            self._slices.clear()
        for place in [place for place, slices in self._slices.items() if len(slices) < len(self._all)]:
            del self._slices[place]

    def connect_ex(
        self, sock: socket.SocketType, family: socket.AddressFamily, address: SocketAddress, source: str = ""
    ) -> int:
        """Do what the socket's own `connect_ex` does, from a port of a slice that has a free one.

        Args:
            sock: a socket that is not connected.
            family: its address family.
            address: where to.
            source: the local address that the socket is bound to, if any.

        Returns:
            The socket's error number, 0 for none.

        Raises:
            OSError: as the socket's own raises it.
        """
        if family == socket.AF_UNIX:
            return sock.connect_ex(address)
        slices = self._slices.get((source, address))
        if slices is None:
            slices = self._begin(source, address)
        while slices and self._narrow(sock, slices[0]):
            outcome = sock.connect_ex(address)
            if outcome != errno.EADDRNOTAVAIL:
                slices.rotate(-1)
                return outcome
            slices.popleft()
        if self._narrows and self._narrow(sock, _option(*self._range)):
            # All of it as a range of our own, in which both parities are alike (Linux 6.8).
            return sock.connect_ex(address)
        outcome = sock.connect_ex(address)
        with suppress(OSError):
            self.handed_out(sock.getsockname()[1])
        return outcome

    def _begin(self, source: str, address: SocketAddress) -> deque[bytes]:
        if len(self._slices) >= _MOST_PLACES:
            self._slices.clear()
        slices = self._slices[source, address] = self._all.copy()
        # Those that begin together, or again, are not to begin with the same ports.
        slices.rotate(os.getpid() + self._renewed_ns)
        return slices

    def _narrow(self, sock: socket.SocketType, option: bytes) -> bool:
        """Have the system look in a slice only; False where it cannot."""
        if not self._narrows:
            return False
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, option)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self._narrows = False
            return False
        return True

    async def connect(
        self, sock: socket.socket, family: socket.AddressFamily, address: SocketAddress, source: str = ""
    ) -> None:
        """Connect a non-blocking socket from a coroutine, from a port of a slice where many are in use.

        Raises:
            OSError: it could not be connected.
        """
        loop = asyncio.get_running_loop()
        if not self.is_crowded(perf_counter_ns()):
            await loop.sock_connect(sock, address)
            if family != socket.AF_UNIX:
                self.handed_out(sock.getsockname()[1])
            return
        outcome = self.connect_ex(sock, family, address, source)
        if outcome in IN_PROGRESS:
            if outcome:
                await _writable(loop, sock.fileno())
            outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if outcome:
            raise OSError(outcome, os.strerror(outcome))

    def is_crowded(self, now_ns: int) -> bool:
        """`crowded`, after a look if it is time for one."""
        if now_ns >= self.look_ns:
            self.look(now_ns)
        return self.crowded

    def look_at(self, fd: int) -> None:
        """Learn of the local port of a connection that somebody else's code has made."""
        if self.is_crowded(perf_counter_ns()):
            with suppress(OSError), socket.socket(fileno=os.dup(fd)) as sock:
                if sock.family != socket.AF_UNIX:
                    self.handed_out(sock.getsockname()[1])

    def take_searches(self) -> int:
        """Connects for which the system is known to have searched all ports of one parity in vain, since the
        last call.
        """
        taken, self._searches = self._searches, 0
        return taken

    def handed_out(self, port: int) -> None:
        """Learn of a port that the system chose from the whole range for a connection.

        One of the second parity says that it searched all of the first, which are in use or wait for the end
        of their TIME_WAIT.
        """
        low, high = self._range
        if low <= port <= high and (port - low) % 2:
            self._searches += 1
            self._searched_ns = perf_counter_ns()
            self.crowded = True


async def _writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, wake)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _option(low: int, high: int) -> bytes:
    return struct.pack("=I", low | high << 16)


def _slices_of(low: int, high: int, ports: int) -> deque[bytes]:
    firsts = range(low, high + 1, ports)
    return deque(_option(first, min(first + ports - 1, high)) for first in firsts)


def port_range() -> tuple[int, int] | None:
    """The lowest and the highest local port of this machine; None where it does not tell."""
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):
        return None
    return low, high


def _sockets_in_use(net: Path) -> int | None:
    """TCP sockets that are open in this network namespace; None where the kernel does not tell.

    Connections in TIME_WAIT are left out: most of them are the server's end, on whatever machine that is.
    """
    in_use = None
    for name, kind in (("sockstat", "TCP:"), ("sockstat6", "TCP6:")):
        with suppress(OSError, ValueError, IndexError):
            for line in (net / name).read_text().splitlines():
                if line.startswith(kind):
                    words = line.split()
                    in_use = (in_use or 0) + int(words[words.index("inuse") + 1])
    return in_use


# One for the process: it is the machine that is crowded.
LOCAL_PORTS: Final = LocalPorts()
