"""Where a socket is connected to: numeric addresses as they are, names looked up."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pool_bench.drivers.network.failures import StreamError
from pool_bench.errors import FailureKind
from pool_bench.targets.addresses import SocketAddress, label_of


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """One address to try.

    Attributes:
        family: socket family.
        address: what `connect` takes.
        is_near: a connect ends within the system call (loopback, Unix socket), so that sending at
            once saves waiting for the socket to become writable.
    """

    family: socket.AddressFamily
    address: SocketAddress
    is_near: bool

    @property
    def label(self) -> str:
        """The address for people: `127.0.0.1:5432`, `[::1]:5432`, or the path of a Unix socket."""
        return label_of(self.address)


def literal_endpoint(host: str, port: int) -> SocketEndpoint | None:
    """The endpoint of a numeric address; None where a name must be looked up."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return SocketEndpoint(socket.AF_INET, (host, port), address.is_loopback)
    if address.scope_id is not None:
        return None  # the interface name has to be looked up
    return SocketEndpoint(socket.AF_INET6, (host, port, 0, 0), address.is_loopback)


def endpoints_of(
    entries: Iterable[tuple[socket.AddressFamily, int, int, str, Sequence[Any]]],
) -> list[SocketEndpoint]:
    """What `getaddrinfo` answers as endpoints, in its order."""
    endpoints = []
    for family, _type, _protocol, _name, entry in entries:
        host, port = str(entry[0]), int(entry[1])
        address: SocketAddress = (host, port)
        if len(entry) > 2:
            address = host, port, int(entry[2]), int(entry[3])
        is_near = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        endpoints.append(SocketEndpoint(family, address, is_near))
    return endpoints


def look_up(host: str, port: int, name: str) -> list[SocketEndpoint]:
    """Look a host up; blocking, so call it in a thread.

    Args:
        host: its name, or an address with the name of an interface.
        port: where it listens.
        name: what it is called in an error.

    Raises:
        StreamError: it has no address.
    """
    try:
        endpoints = endpoints_of(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise _unresolved(name, error) from error
    return endpoints


async def resolve(host: str, port: int) -> list[SocketEndpoint]:
    """Look a host up by the means of the event loop.

    Raises:
        StreamError: it has no address.
    """
    try:
        entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _unresolved(host, error) from error
    return endpoints_of(entries)


def _unresolved(host: str, error: OSError | UnicodeError) -> StreamError:
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    return StreamError(FailureKind.DNS, f"cannot resolve {host!r}: {reason}")
