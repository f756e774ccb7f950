"""One connection through the proxy: a socket to the client, one to the server, and a flow each way.

Both sockets are ours before a transport gets them, since linger and shutdown are what makes a RST or a FIN.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from pool_bench.faults.conditions import Conditions, Cut, Mode
from pool_bench.faults.flow import End, Flow

# A socket closed with a linger time of 0 sends RST: socket(7), SO_LINGER.
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_WRITE_BUFFER: Final = 64 * 1024


def reset_on_close(sock: socket.socket) -> None:
    """Make a RST of the socket's end."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


class _Endpoint(asyncio.Protocol):
    """One of a link's two sockets."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, changed: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._changed = changed
        self.gone = False
        self.inbound = Flow(loop, self)
        self.outbound: Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        self.inbound.feed(data)

    def eof_received(self) -> bool:
        self.inbound.end(End.EOF)
        return True  # the other direction goes on

    def pause_writing(self) -> None:
        if self.outbound is not None:
            self.outbound.full = True

    def resume_writing(self) -> None:
        if self.outbound is not None:
            self.outbound.full = False
            self.outbound.move()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if self.outbound is not None:
            self.outbound.drop()
        self.inbound.end(End.RESET)
        self._changed()

    def pause(self) -> None:
        """Read no further."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    def end(self, end: End) -> None:
        """Send a FIN or a RST behind what was written."""
        if self._transport is None or self._transport.is_closing():
            return
        if end is End.EOF:
            try:
                self._transport.write_eof()
            except OSError:
                # It was reset, and nobody reads it who could have been told.
                self._transport.abort()
            self._changed()
        else:
            reset_on_close(self._sock)
            self._transport.close()

    def close(self) -> None:
        """Close once everything is written."""
        if self._transport is not None:
            self._transport.close()

    def cut(self, how: Cut) -> None:
        """End at once; what is not written is lost."""
        if how is Cut.RST:
            reset_on_close(self._sock)
        else:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        if self._transport is None:
            self._sock.close()
            self.gone = True
        else:
            self._transport.abort()


class Link:
    """One accepted connection, and its continuation to the server.

    Attributes:
        number: 0 for the first connection that the proxy accepted.
        finished: done when both sockets are closed.
    """

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        conditions: Conditions,
        upstream: Callable[[], tuple[str, int]],
        done: Callable[["Link"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client_sock = sock
        self._client = _Endpoint(self._loop, sock, self._changed)
        self._server: _Endpoint | None = None
        self._upstream = upstream
        self._done = done
        self._passable = asyncio.Event()
        self._cut_how: Cut | None = None
        self._interruptible = False
        self.number = number
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self.apply(conditions)
        self._opening: asyncio.Task[None] | None = self._loop.create_task(self._open())

    def apply(self, conditions: Conditions) -> None:
        """Treat the bytes of this connection so from now on."""
        self._conditions = conditions
        held = conditions.mode is Mode.HOLE
        if held:
            self._passable.clear()
        else:
            self._passable.set()
        ways = [(self._client.inbound, conditions.to_server_delay_s)]
        if self._server is not None:
            ways.append((self._server.inbound, conditions.to_client_delay_s))
        for flow, delay_s in ways:
            flow.held, flow.delay_s, flow.bytes_per_s = held, delay_s, conditions.bytes_per_s
            flow.move()

    def cut(self, how: Cut = Cut.RST) -> None:
        """End the connection on both sides at once; what is on its way is lost."""
        if self._opening is None:
            self._cut(how)
            return
        self._cut_how = how
        # A transport that is being made must be finished first: some loops forget a half-made one.
        if self._interruptible:
            self._opening.cancel()

    def cut_after(self, count: int, how: Cut = Cut.RST) -> None:
        """End the connection when `count` more bytes have been handed on to the client.

        Raises:
            RuntimeError: it has not reached the server yet, or it is over.
        """
        if self._server is None or self.finished.done():
            raise RuntimeError("only a connection that is open on both sides can be cut after some bytes")
        self._server.inbound.limit(count, lambda: self._cut(how))

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes handed on to the server, and to the client."""
        server = self._server
        return self._client.inbound.moved, server.inbound.moved if server is not None else 0

    async def _open(self) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._client, self._client_sock)
            sock = await self._reach_server()
            if sock is not None:
                await self._join(sock)
        except OSError:
            self._cut_how = Cut.RST
        except asyncio.CancelledError:
            self._cut_how = self._cut_how or Cut.RST
            raise
        finally:
            self._opening = None
            if self._cut_how is not None:
                self._cut(self._cut_how)
            self._changed()

    async def _reach_server(self) -> socket.socket | None:
        """A socket to the server; None where it is not wanted any more."""
        if self._cut_how is not None:
            return None
        self._interruptible = True
        try:
            await asyncio.sleep(self._conditions.connect_delay_s)
            while not self._passable.is_set():
                await self._passable.wait()
            if self._client.gone:
                return None
            host, port = self._upstream()
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._loop.sock_connect(sock, (host, port))
            except BaseException:
                sock.close()
                raise
            return sock
        finally:
            self._interruptible = False

    async def _join(self, sock: socket.socket) -> None:
        server = self._server = _Endpoint(self._loop, sock, self._changed)
        server.outbound, self._client.outbound = self._client.inbound, server.inbound
        self.apply(self._conditions)
        await self._loop.create_connection(lambda: server, sock=sock)
        self._client.inbound.open(server)
        server.inbound.open(self._client)

    def _cut(self, how: Cut) -> None:
        self._client.cut(how)
        if self._server is not None:
            self._server.cut(how)

    def _changed(self) -> None:
        """Close what has ended both ways, and finish when nothing is open."""
        client, server = self._client, self._server
        if server is not None and client.inbound.ended and server.inbound.ended:
            client.close()
            server.close()
        over = self._opening is None and client.gone and (server is None or server.gone)
        if over and not self.finished.done():
            self.finished.set_result(None)
            self._done(self)
