"""Local addresses to connect from, in turn: each has local ports of its own."""

import contextlib
import errno
import ipaddress
import socket
import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.targets import Target

# Linux: bind the address alone and choose the port when connecting, so that a port can serve again for
# another peer. Python names the option from 3.12 on.
_BIND_ADDRESS_NO_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class SourceAddresses:
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

    def bind(self, sock: socket.SocketType, family: socket.AddressFamily) -> str:
        """Bind `sock` to the next address of its family; a Unix socket is left alone.

        Returns:
            That address; "" for a Unix socket.

        Raises:
            OSError: no source address is of this family, or it cannot be bound.
        """
        if family == socket.AF_UNIX:
            return ""
        addresses = self._cycles.get(family)
        if addresses is None:
            raise OSError(errno.EAFNOSUPPORT, "no --source-ip is of the address family of the server")
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        address = next(addresses)
        sock.bind((address, 0))
        return address


def check_sources(addresses: Sequence[str], targets: Iterable[Target], *, here: bool = True) -> None:
    """Make sure that connections to `targets` can be made from `addresses`.

    Args:
        here: this machine makes them.

    Raises:
        UsageError: one is no address, or not one of this machine; or none is of a target's family.
    """
    families = set()
    for text in addresses:
        family = _family(text)
        families.add(family)
        if not here:
            continue
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((text, 0))
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise UsageError(f"--source-ip {text}: not an address of this machine ({reason})") from None
    for target in targets if addresses else ():
        for way in target.ways:
            if way.path:
                raise UsageError(f"--source-ip: {way.shown} is a Unix socket, which has no addresses")
            with contextlib.suppress(ValueError):  # a name: what it leads to is known only later
                version = ipaddress.ip_address(way.name).version
                if _FAMILIES[version] not in families:
                    raise UsageError(
                        f"--source-ip: {way.shown} needs an IPv{version} address to connect from"
                    )


def _family(text: str) -> socket.AddressFamily:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(f"--source-ip {text}: not an IPv4 or IPv6 address") from None
    return _FAMILIES[address.version]
