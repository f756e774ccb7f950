"""Accept queues, connections to a port, and dropped requests, as the kernel counts them.

Of a listening socket sock_diag(7) tells how many connections wait in its queue and how many may: for TCP in
`idiag_rqueue` and `idiag_wqueue`, for a Unix socket in `UNIX_DIAG_RQLEN`. /proc/net/tcp has only the first.
"""

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final

from pool_bench.watch.machine.sockets import dump_sockets

# include/net/tcp_states.h
_ESTABLISHED: Final = 1
_SYN_SENT: Final = 2
_LISTEN: Final = 10
# All in which a local port is taken: there is no state 0, and 12 is that of requests.
_ALL_STATES: Final = 0xFFF & ~1
# struct inet_diag_req_v2: family, protocol, what else to tell, states, ports of both ends; the rest is any.
_INET_REQUEST: Final = struct.Struct("=BBBxI2s2s44x")
# struct inet_diag_msg: family, state, timer, retransmissions, ports, addresses; after interface and cookie
# how long the timer has, both queues, owner, inode.
_INET_ANSWER: Final = struct.Struct("=BBBB2s2s16s16s12xIIIII")
# struct unix_diag_req: family, protocol, states, inode, what to show, cookie.
_UNIX_REQUEST: Final = struct.Struct("=BBHIII8x")
# struct unix_diag_msg: family, type, state, inode, cookie. Attributes follow.
_UNIX_ANSWER: Final = struct.Struct("=BBBxI8x")
_UNIX_SHOW: Final = 0x11
_UNIX_NAME: Final = 0
_UNIX_QUEUES: Final = 4
_ATTRIBUTE: Final = struct.Struct("=HH")

_NETSTAT: Final = Path("/proc/net/netstat")


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket: its address, how many wait in its queue of which size, and its inode."""

    address: str
    waiting: int
    limit: int
    inode: int


@dataclass(frozen=True, slots=True)
class Reaching:
    """Our sockets to one address and port: all that take a local port, and those without an answer yet."""

    address: str
    taken: int
    unanswered: int


def listening_on(port: int) -> list[Listening]:
    """The sockets that listen on a TCP port of this machine.

    Raises:
        OSError: the kernel does not tell.
    """
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _INET_REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, 1 << _LISTEN, port.to_bytes(2, "big"), b"\0\0"
        )
        for answer in dump_sockets(family, request):
            _, _, _, _, _, _, address, _, _, waiting, limit, _, inode = _INET_ANSWER.unpack_from(answer)
            found.append(Listening(_address(family, address), waiting, limit, inode))
    return found


def listening_at(path: str) -> list[Listening]:
    """The sockets that listen at a Unix socket's path; an abstract one starts with a zero byte.

    Raises:
        OSError: the kernel does not tell.
    """
    request = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, 1 << _LISTEN, 0, _UNIX_SHOW)
    found = []
    for answer in dump_sockets(socket.AF_UNIX, request):
        _, _, state, inode = _UNIX_ANSWER.unpack_from(answer)
        attributes = dict(_attributes(answer[_UNIX_ANSWER.size :]))
        name = attributes.get(_UNIX_NAME, b"")
        # The kernel does not look at the states that were asked for.
        if state == _LISTEN and name.rstrip(b"\0") == path.encode("utf-8", "surrogateescape"):
            waiting, limit = struct.unpack_from("=II", attributes.get(_UNIX_QUEUES, bytes(8)))
            found.append(Listening(path, waiting, limit, inode))
    return found


def reaching(port: int) -> list[Reaching]:
    """Sockets of this machine that lead to a TCP port, by address.

    Raises:
        OSError: the kernel does not tell.
    """
    taken: Counter[str] = Counter()
    unanswered: Counter[str] = Counter()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _INET_REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, _ALL_STATES, b"\0\0", port.to_bytes(2, "big")
        )
        for answer in dump_sockets(family, request):
            _, state, _, _, _, _, _, there, *_ = _INET_ANSWER.unpack_from(answer)
            address = _address(family, there)
            taken[address] += 1
            unanswered[address] += state == _SYN_SENT
    return [Reaching(address, count, unanswered[address]) for address, count in taken.items()]


def dropped_requests(netstat: Path = _NETSTAT) -> int:
    """Connection requests that listening sockets of this machine have dropped since it was started.

    `ListenDrops` of /proc/net/netstat, which has `ListenOverflows`, those of full queues, in it; 0 where the
    system does not tell.
    """
    try:
        lines = netstat.read_text().splitlines()
    except OSError:
        return 0
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.startswith("TcpExt:"):
            counters = dict(zip(names.split(), values.split(), strict=False))
            return int(counters.get("ListenDrops", "0"))
    return 0


def _address(family: int, raw: bytes) -> str:
    """An address as it is written; one of IPv4 in IPv6 as one of IPv4."""
    if family == socket.AF_INET:
        return str(ip_address(raw[:4]))
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[position + _ATTRIBUTE.size : position + length]
        # Attributes begin at multiples of four bytes.
        position += (length + 3) & ~3
