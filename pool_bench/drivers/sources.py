"""Local addresses to connect from, in turn: each has local ports of its own."""

import errno
import ipaddress
import socket
import sys
from itertools import cycle
from typing import Final

from pool_bench.errors import UsageError

# Linux: bind the address alone and choose the port when connecting, so that a port can serve again for
# another peer. Python names the option from 3.12 on.
_BIND_ADDRESS_NO_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)


class Sources:
    """Binds sockets to addresses in turn.

    Args:
        addresses: numeric IPv4 and IPv6 addresses.

    Raises:
        UsageError: one is no address, or not one of this machine.
    """

    def __init__(self, addresses: tuple[str, ...]) -> None:
        by_family: dict[socket.AddressFamily, list[str]] = {}
        for address in addresses:
            by_family.setdefault(_family(address), []).append(address)
        self._cycles = {family: cycle(group) for family, group in by_family.items()}

    def bind(self, sock: socket.SocketType, family: socket.AddressFamily) -> None:
        """Bind `sock` to the next address of its family; a Unix socket is left alone.

        Raises:
            OSError: no source address is of this family, or it cannot be bound.
        """
        if family == socket.AF_UNIX:
            return
        addresses = self._cycles.get(family)
        if addresses is None:
            raise OSError(errno.EAFNOSUPPORT, "no --source-ip is of the address family of the server")
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((next(addresses), 0))


def check_source(text: str) -> None:
    """Make sure that connections can be made from `text`.

    Raises:
        UsageError: it is no address, or not one of this machine.
    """
    family = _family(text)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError as error:
            raise UsageError(
                f"--source-ip {text}: not an address of this machine ({(error.strerror or '').lower()})"
            ) from None


def _family(text: str) -> socket.AddressFamily:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"--source-ip {text}: not an IPv4 or IPv6 address") from None
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
