"""The TCP connections of a local port, as the kernel lists them.

Asked by sock_diag(7), the kernel looks for them itself, within a millisecond or two. Where it cannot be asked
like that they are picked out of /proc/net/tcp. That lists every socket of the machine, those in TIME_WAIT
included, a page at a time: with tens of thousands it takes tenths of a second, and connections that last for
milliseconds only are seen one after the other as if they were there together.
"""

import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pool_bench.watch.machine.processes import UnseenError

# Of the states of the kernel (include/net/tcp_states.h) those in which a socket belongs to a process.
_STATES: Final = {1: "open", 8: "closing"}
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

# <linux/netlink.h>, <linux/sock_diag.h>, <linux/inet_diag.h>
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
# struct nlmsghdr
_HEADER: Final = struct.Struct("=IHHII")
# struct inet_diag_req_v2: family, protocol, what else to tell, states, the local port; the rest is any.
_REQUEST: Final = struct.Struct("=BBBxI2s46x")
# struct inet_diag_msg: family, state, and of both ends ports and addresses.
_ANSWER: Final = struct.Struct("=BB2x36s")
_RECEIVE_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 2.0


class _Socket(NamedTuple):
    """What makes a connection another one, and its state."""

    ends: bytes
    state: int


def count_connections(port: int) -> dict[str, int]:
    """Connections that have `port` as their local end: `open`, and `closing` where only the client has ended.

    Raises:
        UnseenError: this system does not tell.
    """
    try:
        return count(ask(port))
    except OSError:
        return count(read(port, _TABLES))


def count(listed: Iterable[_Socket]) -> dict[str, int]:
    """How many are in which state.

    Each counts once: where sockets come and go between two parts of a list, the kernel repeats some.
    """
    states = Counter(dict(listed).values())
    return {name: states[number] for number, name in _STATES.items() if states[number]}


def ask(port: int) -> Iterator[_Socket]:
    """The connections of a local port, by sock_diag(7).

    Raises:
        OSError: the kernel does not answer that.
    """
    states = sum(1 << number for number in _STATES)
    for asked in (socket.AF_INET, socket.AF_INET6):
        question = _REQUEST.pack(asked, socket.IPPROTO_TCP, 0, states, port.to_bytes(2, "big"))
        for answer in dump_sockets(asked, question):
            family, state, ends = _ANSWER.unpack_from(answer)
            yield _Socket(bytes([family]) + ends, state)


def dump_sockets(family: int, question: bytes) -> Iterator[bytes]:
    """What the kernel says of each socket of a family that a question of sock_diag(7) is about.

    Args:
        question: a request of that family, such as `struct inet_diag_req_v2`.

    Raises:
        OSError: the kernel does not answer that.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("this system has no netlink")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        length = _HEADER.size + len(question)
        netlink.send(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, family, 0) + question)
        yield from _answers(netlink)


def _answers(netlink: socket.socket) -> Iterator[bytes]:
    while True:
        data = netlink.recv(_RECEIVE_BYTES)
        position = 0
        while position < len(data):
            length, kind, _flags, _number, _sender = _HEADER.unpack_from(data, position)
            content = position + _HEADER.size
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                (number,) = struct.unpack_from("=i", data, content)
                raise OSError(-number, "the kernel lists no sockets")
            yield data[content : position + length]
            # Messages begin at multiples of four bytes.
            position += (length + 3) & ~3


def read(port: int, tables: Iterable[Path]) -> Iterator[_Socket]:
    """The connections of a local port, from the lists that the kernel shows as files.

    Args:
        port: the local port.
        tables: /proc/net/tcp and its like; those that are missing are passed over.

    Raises:
        UnseenError: all are missing.
    """
    # Only a local end is followed by an address. See proc_net_tcp.txt in the kernel's documentation.
    line = re.compile(rb"([0-9A-F]+:%04X [0-9A-F]+:[0-9A-F]{4}) (\w\w) " % port)
    seen = False
    for table in tables:
        try:
            listed = table.read_bytes()
        except OSError:
            continue  # without IPv6 there is no such table
        seen = True
        for ends, state in line.findall(listed):
            yield _Socket(ends, int(state, 16))
    if not seen:
        raise UnseenError("only Linux tells which connections a server has")
