"""An event loop whose connections do not wait for a search of local ports, for clients of others' making.

asyncpg, and websockets under SurrealDB's client, leave the making of sockets to `loop.create_connection`. It
is handed connected ones while many ports are in use (`local_ports.py`), and left alone otherwise.
"""

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from pool_bench.drivers.network.addresses import SocketEndpoint, endpoints_of, literal_endpoint
from pool_bench.drivers.network.connecting import open_socket
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
    for endpoint in await _endpoints(loop, host, port, options):
        try:
            return await open_socket(endpoint, ports)
        except OSError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise OSError(f"Multiple exceptions: {', '.join(map(str, errors))}")


async def _endpoints(
    loop: asyncio.AbstractEventLoop, host: str, port: int, options: dict[str, Any]
) -> list[SocketEndpoint]:
    literal = literal_endpoint(host, port)
    if literal is not None:
        return [literal]
    family, flags = options.get("family", 0), options.get("flags", 0)
    entries = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    return endpoints_of(entries)
