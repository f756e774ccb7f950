"""Connecting sockets from coroutines; cancelling leaves no socket."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from pool_bench.drivers.network.addresses import SocketEndpoint
from pool_bench.drivers.network.failures import StreamError, socket_failure
from pool_bench.drivers.network.local_ports import LOCAL_PORTS, LocalPorts
from pool_bench.drivers.network.source_addresses import SourceAddresses
from pool_bench.errors import FailureKind
from pool_bench.targets.addresses import SocketAddress


@dataclass(slots=True)
class Tried:
    """Which addresses a connect has come to.

    Attributes:
        at: the last one; None before there was any.
        passed: those before, and what was wrong there.
    """

    at: SocketAddress | None = None
    passed: list[tuple[SocketAddress, FailureKind]] = field(default_factory=list)


async def open_socket(
    endpoint: SocketEndpoint, ports: LocalPorts, sources: SourceAddresses | None = None
) -> socket.socket:
    """A socket that is connected to `endpoint`.

    Raises:
        OSError: it could not be connected.
    """
    # asyncio switches Nagle's algorithm off only where the protocol is named. With it, TLS 1.3 would wait
    # some 40 ms: the client speaks twice in succession, Finished and then its first request.
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setblocking(False)
        source = "" if sources is None else sources.bind(sock, endpoint.family)
        await ports.connect(sock, endpoint.family, endpoint.address, source)
    except BaseException:
        sock.close()
        raise
    return sock


async def connect(
    endpoints: Sequence[SocketEndpoint],
    sources: SourceAddresses | None = None,
    tried: Tried | None = None,
) -> socket.socket:
    """Connect to the first endpoint that answers.

    Args:
        endpoints: where to, in this order.
        sources: local addresses to connect from; None leaves the choice to the system.
        tried: is told where it comes to.

    Raises:
        StreamError: none did.
    """
    failure = StreamError(FailureKind.OTHER, "there is nothing to connect to")
    for endpoint in endpoints:
        if tried is not None:
            if tried.at is not None:
                tried.passed.append((tried.at, failure.kind))
            tried.at = endpoint.address
        try:
            return await open_socket(endpoint, LOCAL_PORTS, sources)
        except OSError as error:
            failure = StreamError(*socket_failure(error))
    raise failure
