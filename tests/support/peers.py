"""Servers and clients to put on both sides of a proxy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pool_bench.faults import FaultProxy

PATIENCE_S = 60.0
_CHUNK = 65536


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.received = bytearray()

    async def read(self) -> bytes:
        """Some bytes, or none at the end."""
        data = await self._reader.read(_CHUNK)
        self.received += data
        return data

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        while await self.read():
            continue
        return bytes(self.received)


Serve = Callable[[Peer], Awaitable[None]]


class Upstream:
    """A server, and what became of its connections.

    Attributes:
        peers: its connections, in order of arrival.
        ends: how those that are over ended: "eof", or the name of an exception.
    """

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self.ends: list[str] = []
        self._changed = asyncio.Condition()

    async def wait_until(self, holds: Callable[["Upstream"], bool]) -> None:
        """Wait for something that a new or an ended connection makes true."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def handle(self, serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        peer = Peer(reader, writer)
        self.peers.append(peer)
        await self._tell()
        try:
            await serve(peer)
            self.ends.append("eof")
        except OSError as error:
            self.ends.append(type(error).__name__)
        finally:
            writer.close()
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def echo(peer: Peer) -> None:
    """Answer every byte with itself; end when the client has ended."""
    while data := await peer.read():
        peer.writer.write(data)
        await peer.writer.drain()


@asynccontextmanager
async def upstream(serve: Serve = echo) -> AsyncIterator[Upstream]:
    """A server on loopback; all its connections are over at the end."""
    seen = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(seen.handle(serve, reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # what was accepted just now is given to `begin` some ticks later
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        assert [r for r in results if isinstance(r, Exception)] == []


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port of loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def proxied(serve: Serve = echo) -> AsyncIterator[tuple[FaultProxy, Upstream]]:
    """A proxy in front of a server, with a bound on all of it."""
    async with (
        asyncio.timeout(PATIENCE_S),
        upstream(serve) as server,
        FaultProxy("127.0.0.1", server.port) as p,
    ):
        yield p, server


async def exchange(port: int, data: bytes) -> bytes:
    """What a server says to `data` and a FIN behind it."""
    async with client(port) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        return await reader.read()
