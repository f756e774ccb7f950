"""A TCP connection, with TLS or without, that stamps what arrives and hands it on at once.

Not asyncio's own streams and TLS: those hide when data arrived, hold a quarter of a megabyte for each TLS
connection, and report failures of TLS as the transport's. Here TLS is OpenSSL between two memory buffers.
"""

import asyncio
import contextlib
import socket
import ssl
from time import perf_counter_ns
from typing import Final, Protocol, cast

from pool_bench.drivers.network.failures import StreamError, socket_failure
from pool_bench.errors import FailureKind

_READ_BYTES: Final = 65536


class Receiver(Protocol):
    """Who is told what happens on a stream."""

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Take what arrived, and when the event loop learnt of it.

        Raises:
            StreamError: the peer is not to be listened to any longer.
        """

    def lost(self, error: StreamError) -> None:
        """Hear, once, that nothing will arrive any more."""


class _Tls:
    """OpenSSL between two memory buffers."""

    __slots__ = ("incoming", "layer", "outgoing")

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.layer = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)


class Stream(asyncio.Protocol):
    """One connection. Nothing that arrives is kept here, so a peer can fill no memory.

    Attributes:
        arrived_ns: when the latest data arrived, as `perf_counter_ns` counts.
    """

    __slots__ = ("_handshake", "_receiver", "_tls", "_transport", "arrived_ns")

    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self._transport: asyncio.Transport | None = None
        self._tls: _Tls | None = None
        self._handshake: asyncio.Future[None] | None = None
        self.arrived_ns = 0

    @property
    def is_lost(self) -> bool:
        """Whether nothing can arrive any more."""
        return self._receiver is None

    @property
    def unsent_bytes(self) -> int:
        """What was written and waits for the peer to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def open(self, sock: socket.socket) -> None:
        """Take over a connected socket, which belongs to the event loop from now on.

        Raises:
            OSError: it is not connected any more.
        """
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)
        except BaseException:
            # Whoever it belonged to when this was cancelled.
            sock.close()
            raise

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Make the handshake of TLS.

        Raises:
            StreamError: it failed.
        """
        try:
            tls = self._tls = _Tls(context, name)
        except ValueError as error:
            raise StreamError(FailureKind.TLS, f"{name!r} cannot be asked for by TLS: {error}") from error
        if self._receiver is None:
            raise StreamError(FailureKind.CLOSED, "the server closed the connection")
        self._handshake = asyncio.get_running_loop().create_future()
        try:
            self._do_handshake(tls)
            await self._handshake
        finally:
            self._handshake = None

    def write_at_once(self) -> None:
        """Hand the kernel what is written when it is written, not at the end of the event loop's turn.

        To be called once it is open. Where many connections are written to in a turn, the server can begin
        with the first while the last is still being written to.
        """
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    def write(self, data: bytes) -> None:
        """Send data; where the connection is lost it goes nowhere."""
        if self._transport is None:
            return
        tls = self._tls
        if tls is None:
            self._transport.write(data)
            return
        try:
            tls.layer.write(data)
        except ssl.SSLError as error:
            self._lose(StreamError(*socket_failure(error)))
            return
        self._flush(tls)

    def close(self) -> None:
        """End it once all is sent; with TLS, politely."""
        tls = self._tls
        if tls is not None and self._handshake is None and self._receiver is not None:
            # Our close_notify is written; the server's is not waited for (RFC 8446, section 6.1).
            with contextlib.suppress(ssl.SSLError):
                tls.layer.unwrap()
            self._flush(tls)
        self._receiver = None
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The event loop has taken over the socket."""
        # A socket's; uvloop's own classes are not derived from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if self._receiver is None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Stamp, decrypt, hand on."""
        self.arrived_ns = perf_counter_ns()
        tls = self._tls
        try:
            if tls is None:
                if self._receiver is not None:
                    self._receiver.received(data, self.arrived_ns)
                return
            tls.incoming.write(data)
            if self._handshake is not None:
                self._do_handshake(tls)
            else:
                self._decrypt(tls)
        except StreamError as error:
            self._lose(error)

    def eof_received(self) -> bool:
        """The server has sent all it wanted to; so have we."""
        self._lose(StreamError(FailureKind.CLOSED, "the server closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by whoever it was."""
        self._transport = None
        if isinstance(exc, OSError):
            self._lose(StreamError(*socket_failure(exc)))
        else:
            self._lose(StreamError(FailureKind.CLOSED, "the connection was closed"))

    def _do_handshake(self, tls: _Tls) -> None:
        waiting = self._handshake
        if waiting is None or waiting.done():
            return
        try:
            tls.layer.do_handshake()
        except ssl.SSLWantReadError:
            self._flush(tls)
            return
        except (ssl.SSLError, ssl.CertificateError) as error:
            # Tells the server why.
            self._flush(tls)
            waiting.set_exception(StreamError(*socket_failure(error)))
            return
        self._flush(tls)
        waiting.set_result(None)
        # Not left to the waiting task: what follows may have arrived along with the end of the handshake.
        self._handshake = None
        self._decrypt(tls)

    def _decrypt(self, tls: _Tls) -> None:
        while self._receiver is not None:
            try:
                data = tls.layer.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                raise StreamError(*socket_failure(error)) from error
            if not data:
                raise StreamError(FailureKind.CLOSED, "the server closed the connection")
            self._receiver.received(data, self.arrived_ns)
        self._flush(tls)

    def _flush(self, tls: _Tls) -> None:
        data = tls.outgoing.read()
        if data and self._transport is not None:
            self._transport.write(data)

    def _lose(self, error: StreamError) -> None:
        handshake = self._handshake
        if handshake is not None and not handshake.done():
            handshake.set_exception(error)
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(error)
        if self._transport is not None:
            self._transport.abort()
