"""SurrealDB's RPC messages in a WebSocket.

The protocol is `websockets`, without its I/O, but for the plainest of frames (`frames.py`).
"""

import asyncio
import logging
from typing import ClassVar, Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from pool_bench.drivers.network.failures import StreamError, one_line
from pool_bench.drivers.surreal.channel import Channel
from pool_bench.drivers.surreal.frames import FrameReader, client_frame
from pool_bench.drivers.surreal.rpc import kind_of_close, kind_of_status
from pool_bench.errors import FailureKind
from pool_bench.targets.surreal import SurrealTarget

_MAX_MESSAGE_BYTES: Final = 64 << 20
_MAX_UNSENT_BYTES: Final = 1 << 20
_CLOSE_WAIT_S: Final = 5.0
_LOGGER: Final = logging.getLogger("websockets.client")
_CBOR: Final = Subprotocol("cbor")
_HEADERS_END: Final = b"\r\n\r\n"


class WebSocketChannel(Channel):
    """Requests as messages of a WebSocket (RFC 6455).

    Args:
        target: where the server is.
        max_message_bytes: longest message that is taken; None for any.
    """

    upgrades: ClassVar = True

    def __init__(self, target: SurrealTarget, *, max_message_bytes: int | None = _MAX_MESSAGE_BYTES) -> None:
        super().__init__()
        uri = WebSocketURI(target.is_secure, target.host, target.port, target.path, "")
        self._protocol = ClientProtocol(uri, subprotocols=[_CBOR], max_size=max_message_bytes, logger=_LOGGER)
        self._reader = FrameReader(self._protocol, self._take, self._feed)
        # The latest bytes of the answer to the upgrade; None once its end was found.
        self._headers: bytes | None = b""
        # The parts of a message in several frames.
        self._parts: list[bytes] = []

    async def open(self) -> None:
        """Turn HTTP into a WebSocket.

        Raises:
            StreamError: the server does not play along.
        """
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        await self._answer()
        if self._protocol.subprotocol != _CBOR:
            self.abort()
            raise StreamError(FailureKind.PROTOCOL, "the server does not speak SurrealDB's CBOR")

    async def close(self) -> None:
        """Exchange goodbyes, and let the server close the connection (RFC 6455, section 7.1.1)."""
        self.on_end = None
        # Where somebody else is waiting for the server's goodbye, that is over now.
        if not self.is_closed and self._protocol.state is State.OPEN:
            self._protocol.send_close(1000)
            try:
                async with asyncio.timeout(_CLOSE_WAIT_S):
                    self._flush()
                    # The goodbye is no answer, so the end of the connection ends the waiting.
                    await self._answer()
            except (StreamError, TimeoutError):
                pass
        self.abort()

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Take whole binary messages, and leave all else to `websockets`."""
        if self._headers is not None:
            headers = self._end_of_headers(data)
            self._feed(data[:headers])
            data = data[headers:]
        if self._protocol.state is State.CONNECTING:
            # There is no WebSocket; this is why.
            self._feed(data)
        else:
            self._reader.read(data)

    def lost(self, error: StreamError) -> None:
        """The stream is lost, which may be the end of a refusal."""
        protocol = self._protocol
        if protocol.state is State.CONNECTING:
            protocol.receive_eof()
            if isinstance(protocol.handshake_exc, InvalidStatus):
                error = _refusal(protocol.handshake_exc)
        super().lost(error)

    def _end_of_headers(self, data: bytes) -> int:
        """How many of these bytes belong to the answer to the upgrade."""
        assert self._headers is not None  # noqa: S101 - it is still being read
        known = len(self._headers)
        end = (self._headers + data).find(_HEADERS_END)
        if end < 0:
            self._headers = (self._headers + data)[-3:]
            return len(data)
        self._headers = None
        return end + len(_HEADERS_END) - known

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        if self.stream.unsent_bytes < _MAX_UNSENT_BYTES:
            self._flush()
        else:
            # Not every ping has to be answered (section 5.5.3); who reads nothing could fill our memory so.
            protocol.data_to_send()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
            elif protocol.handshake_exc is None:
                self._wake({}, self.stream.arrived_ns)
        if protocol.handshake_exc is not None:
            raise _refusal(protocol.handshake_exc)
        if protocol.parser_exc is not None and protocol.close_rcvd is None:
            reason = one_line(protocol.parser_exc)
            raise StreamError(FailureKind.PROTOCOL, f"the server breaks the WebSocket protocol: {reason}")
        if protocol.close_rcvd is not None and not self._is_leaving:
            code, reason = protocol.close_rcvd.code, protocol.close_rcvd.reason
            words = f": {one_line(reason)}" if reason else ""
            self._fail(StreamError(kind_of_close(code), f"the server closed the WebSocket ({code}{words})"))

    @property
    def _is_leaving(self) -> bool:
        """Whether it was we who said goodbye first."""
        protocol = self._protocol
        return protocol.close_sent is not None and protocol.close_rcvd_then_sent is not True

    def _take_frame(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return
        if self._is_leaving or not self._listens:
            self._parts.clear()
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            self._take(message)

    @property
    def _listens(self) -> bool:
        """Whether anybody wants messages."""
        return self.is_waiting

    def _take(self, message: bytes) -> None:
        if self._listens:
            self._deliver(message, self.stream.arrived_ns)

    def _send(self, message: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self.stream.write(client_frame(message))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            # An empty one asks for our half to be closed; the stream does that when it goes.
            if data:
                self.stream.write(data)


def _refusal(error: Exception) -> StreamError:
    """Why there is no WebSocket."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return StreamError(kind_of_status(status), f"the server answers HTTP {status} and opens no WebSocket")
    return StreamError(FailureKind.PROTOCOL, f"the server opens no WebSocket: {one_line(error)}")
