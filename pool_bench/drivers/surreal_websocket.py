"""SurrealDB's RPC messages in a WebSocket.

The protocol is `websockets`, without its I/O: handshake, goodbyes, pings, fragments, and whatever is out of
order. Only whole binary messages in one frame, which nearly all are, are read and written here, at a fifth of
what that costs there.
"""

import asyncio
import logging
import os
import struct
from collections.abc import Iterator
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI
from websockets.utils import apply_mask

from pool_bench.drivers.surreal_channel import Channel
from pool_bench.drivers.surreal_link import LinkError
from pool_bench.drivers.surreal_rpc import kind_of_close, kind_of_status, one_line
from pool_bench.errors import FailureKind
from pool_bench.targets_surreal import SurrealTarget

_MAX_MESSAGE_BYTES: Final = 64 << 20
_CLOSE_WAIT_S: Final = 5.0
_LOGGER: Final = logging.getLogger("websockets.client")
_CBOR: Final = Subprotocol("cbor")
_HEADERS_END: Final = b"\r\n\r\n"
# A binary message in one frame (RFC 6455, section 5.2); a server's frames are not masked, a client's are.
_WHOLE_BINARY: Final = 0x82
_MASKED: Final = 0x80
# Continuation, text and binary, with more to come and without; goodbye, ping, pong.
_FIRST_BYTES: Final = frozenset(b"\x00\x01\x02\x80\x81\x82\x88\x89\x8a")
_NEVER: Final = 1 << 64
_RANDOM_BYTES: Final = 4096


class WebSocketChannel(Channel):
    """Requests as messages of a WebSocket (RFC 6455).

    Args:
        target: where the server is.
        max_message_bytes: longest message that is taken; None for any.
    """

    def __init__(self, target: SurrealTarget, *, max_message_bytes: int | None = _MAX_MESSAGE_BYTES) -> None:
        super().__init__()
        uri = WebSocketURI(target.is_secure, target.host, target.port, target.path, "")
        self._protocol = ClientProtocol(uri, subprotocols=[_CBOR], max_size=max_message_bytes, logger=_LOGGER)
        self._max_bytes: float = float("inf") if max_message_bytes is None else max_message_bytes
        # The latest bytes of the answer to the upgrade; None once its end was found.
        self._headers: bytes | None = b""
        # The beginning of a frame that does not even say how long it is.
        self._begun = b""
        # Bytes of the current frame that are still to come and belong to `websockets`.
        self._owed = 0
        # The parts of a message in several frames.
        self._parts: list[bytes] = []
        self._is_in_parts = False

    async def open(self) -> None:
        """Turn HTTP into a WebSocket.

        Raises:
            LinkError: the server does not play along.
        """
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        await self._answer()
        if self._protocol.subprotocol != _CBOR:
            self.abort()
            raise LinkError(FailureKind.PROTOCOL, "the server does not speak SurrealDB's CBOR")

    async def close(self) -> None:
        """Exchange goodbyes, and let the server close the connection (RFC 6455, section 7.1.1)."""
        self.on_end = None
        if not self.is_closed:
            self._protocol.send_close(1000)
            try:
                async with asyncio.timeout(_CLOSE_WAIT_S):
                    self._flush()
                    # The goodbye is no answer, so the end of the connection ends the waiting.
                    await self._answer()
            except (LinkError, TimeoutError):
                pass
        self.link.abort()

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Take whole binary messages, and leave all else to `websockets`."""
        at = 0
        if self._headers is not None:
            at = self._end_of_headers(data)
            self._feed(data[:at], arrived_ns)
        elif self._begun:
            data, self._begun = self._begun + data, b""
        end = len(data)
        while at < end:
            if self._owed:
                stop = min(at + self._owed, end)
                self._owed -= stop - at
                self._feed(data[at:stop], arrived_ns)
            else:
                payload, stop = _frame_bounds(data, at)
                if not stop:
                    self._begun = data[at:]
                    return
                is_ours = data[at] == _WHOLE_BINARY and stop <= end
                fits = stop - payload <= self._max_bytes and not self._is_in_parts
                if is_ours and fits and self._protocol.state is State.OPEN:
                    self._take(data[payload:stop], arrived_ns)
                else:
                    self._owed = max(0, stop - end)
                    stop = min(stop, end)
                    self._feed(data[at:stop], arrived_ns)
            at = stop

    def _end_of_headers(self, data: bytes) -> int:
        """How many of these bytes belong to the answer to the upgrade."""
        assert self._headers is not None  # noqa: S101 - it is still being read
        known = len(self._headers)
        found = (self._headers + data).find(_HEADERS_END)
        if found < 0:
            self._headers = (self._headers + data)[-3:]
            return len(data)
        self._headers = None
        return found + len(_HEADERS_END) - known

    def _feed(self, data: bytes, arrived_ns: int) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        self._flush()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event, arrived_ns)
            elif protocol.handshake_exc is None:
                self._wake({}, arrived_ns)
        if protocol.handshake_exc is not None:
            raise _refusal(protocol.handshake_exc)
        if protocol.parser_exc is not None and protocol.close_rcvd is None:
            reason = one_line(protocol.parser_exc)
            raise LinkError(FailureKind.PROTOCOL, f"the server breaks the WebSocket protocol: {reason}")
        if protocol.close_rcvd is not None and not self._is_leaving:
            code, reason = protocol.close_rcvd.code, protocol.close_rcvd.reason
            said = f": {one_line(reason)}" if reason else ""
            self._fail(LinkError(kind_of_close(code), f"the server closed the WebSocket ({code}{said})"))

    @property
    def _is_leaving(self) -> bool:
        """Whether it was we who said goodbye first."""
        protocol = self._protocol
        return protocol.close_sent is not None and protocol.close_rcvd_then_sent is not True

    def _take_frame(self, frame: Frame, arrived_ns: int) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            return
        self._is_in_parts = not frame.fin
        if self._is_leaving or not self._listens:
            self._parts.clear()
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            self._take(message, arrived_ns)

    @property
    def _listens(self) -> bool:
        """Whether anybody wants messages."""
        return self.is_waiting

    def _take(self, message: bytes, arrived_ns: int) -> None:
        if self._listens:
            self._deliver(message, arrived_ns)

    def _send(self, message: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self.link.write(_client_frame(message, _MASKS.take()))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            # An empty one asks for our half to be closed; the link does that when it goes.
            if data:
                self.link.write(data)


class _Masks:
    """Four bytes at a time that nobody can foresee (RFC 6455, section 5.3), asked of the kernel for many."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: Iterator[tuple[bytes]] = iter(())

    def take(self) -> bytes:
        for (mask,) in self._left:
            return mask
        self._left = struct.iter_unpack("4s", os.urandom(_RANDOM_BYTES))
        return self.take()


_MASKS: Final = _Masks()


def _frame_bounds(data: bytes, at: int) -> tuple[int, int]:
    """Where the payload of the frame that begins there begins, and where the frame ends.

    RFC 6455, section 5.2. Two zeros where so little of it is there that it cannot be told; what breaks the
    protocol in its first two bytes never ends.
    """
    have = len(data) - at
    if have < 2:
        return 0, 0
    size = data[at + 1]
    if data[at] not in _FIRST_BYTES or size & _MASKED:
        return at + 2, _NEVER
    payload = at + 2
    if size >= 126:
        digits = 2 if size == 126 else 8
        if have < 2 + digits:
            return 0, 0
        payload += digits
        size = int.from_bytes(data[at + 2 : payload], "big")
    return payload, payload + size


def _client_frame(message: bytes, mask: bytes) -> bytes:
    """A binary message in one frame, masked, as RFC 6455, section 5.3 asks of clients."""
    size = len(message)
    if size < 126:
        head = bytes((_WHOLE_BINARY, _MASKED | size))
    elif size < 1 << 16:
        head = bytes((_WHOLE_BINARY, _MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_WHOLE_BINARY, _MASKED | 127)) + size.to_bytes(8, "big")
    return head + mask + apply_mask(message, mask)


def _refusal(error: Exception) -> LinkError:
    """Why there is no WebSocket."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return LinkError(kind_of_status(status), f"the server answers HTTP {status} and opens no WebSocket")
    return LinkError(FailureKind.PROTOCOL, f"the server opens no WebSocket: {one_line(error)}")
