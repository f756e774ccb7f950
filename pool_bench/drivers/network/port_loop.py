"""An event loop whose connections do not wait for a search of local ports, for clients of others' making.

asyncpg, and websockets under SurrealDB's client, leave the making of sockets to `loop.create_connection`. It
is handed connected ones while many ports are in use (`local_ports.py`), and left alone otherwise.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from pool_bench.drivers.network.local_ports import LocalPorts

# What `create_connection` takes of these is of no use to a socket that is connected already.
_OF_MAKING: Final = (
    "family",
    "proto",
    "flags",
    "local_addr",
    "happy_eyeballs_delay",
    "interleave",
    "all_errors",
)


def with_ports(loop: asyncio.AbstractEventLoop, ports: LocalPorts) -> asyncio.AbstractEventLoop:
    """`loop`, whose `create_connection` connects from `ports` where they are crowded."""
    plain: Callable[..., Any] = loop.create_connection

    async def create_connection(
        factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        is_ours = bool(host) and port is not None and options.get("sock") is None
        if not is_ours or options.get("local_addr") or not ports.is_crowded(perf_counter_ns()):
            connected: tuple[asyncio.BaseTransport, asyncio.BaseProtocol] = await plain(
                factory, host, port, **options
            )
            return connected
        if options.get("ssl") and options.get("server_hostname") is None:
            options["server_hostname"] = host
        kept = {name: value for name, value in options.items() if name not in _OF_MAKING}
        sock = await _connected(loop, ports, str(host), int(port or 0), options)
        try:
            connected = await plain(factory, sock=sock, **kept)
        except BaseException:
            sock.close()
            raise
        return connected

    loop.create_connection = create_connection  # type: ignore[method-assign, assignment]
    return loop


async def _connected(
    loop: asyncio.AbstractEventLoop, ports: LocalPorts, host: str, port: int, options: dict[str, Any]
) -> socket.socket:
    """A socket connected to the first address of `host` that can be reached; fails as asyncio does."""
    errors: list[OSError] = []
    for family, address in await _addresses(loop, host, port, options):
        # Nagle's algorithm is switched off by the loop only where the protocol is named.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            await ports.connect(sock, family, address)
        except OSError as error:
            sock.close()
            errors.append(error)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if len(errors) == 1:
        raise errors[0]
    raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")


async def _addresses(
    loop: asyncio.AbstractEventLoop, host: str, port: int, options: dict[str, Any]
) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        found = await loop.getaddrinfo(
            host,
            port,
            family=options.get("family", 0),
            type=socket.SOCK_STREAM,
            flags=options.get("flags", 0),
        )
        return [(family, address) for family, _type, _proto, _name, address in found]
    return [(socket.AF_INET, (host, port)) if version == 4 else (socket.AF_INET6, (host, port, 0, 0))]
