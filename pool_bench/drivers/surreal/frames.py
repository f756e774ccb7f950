"""The frames of a WebSocket: whole binary messages are read and written at once, the rest is `websockets`'.

Nearly every message of SurrealDB's is a binary one in one frame. To handle those here costs less than a third
of what it costs there; fragments, pings, goodbyes, and whatever breaks the protocol are left to the library.
Bytes in, bytes out, no I/O. https://datatracker.ietf.org/doc/html/rfc6455#section-5.2
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from websockets.protocol import Protocol, Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_WHOLE_BINARY: Final = 0x82
_MASKED: Final = 0x80
# Continuation, text and binary, with more to come and without; goodbye, ping, pong.
_FIRST_BYTES: Final = frozenset(b"\x00\x01\x02\x80\x81\x82\x88\x89\x8a")
_NEVER: Final = 1 << 64
_RANDOM_BYTES: Final = 4096


class FrameReader:
    """Takes apart what arrives on a WebSocket that is open.

    Args:
        protocol: knows the state of the WebSocket.
        take: called with each message that came in one binary frame; it may raise what it likes.
        leave: called with the bytes that are for `protocol`; it may raise what it likes.
    """

    __slots__ = ("_begun", "_is_masked", "_leave", "_max_bytes", "_owed", "_protocol", "_take")

    def __init__(
        self, protocol: Protocol, take: Callable[[bytes], None], leave: Callable[[bytes], None]
    ) -> None:
        self._protocol = protocol
        self._take = take
        self._leave = leave
        # Clients mask their frames, servers do not.
        self._is_masked = protocol.side is Side.SERVER
        limit = protocol.max_message_size
        self._max_bytes: float = float("inf") if limit is None else limit
        # The beginning of a frame that does not even say how long it is.
        self._begun = b""
        # Bytes still to come of a frame that is left to `protocol`.
        self._owed = 0

    def allow(self, max_bytes: int) -> None:
        """Take messages of this many bytes from now on, but for one that has already begun."""
        self._max_bytes = max_bytes
        self._protocol.max_message_size = max_bytes

    def read(self, data: bytes) -> None:
        """Hand on what has arrived, in order."""
        if self._begun:
            data, self._begun = self._begun + data, b""
        protocol = self._protocol
        at, end = 0, len(data)
        while at < end:
            if self._owed:
                stop = min(at + self._owed, end)
                self._owed -= stop - at
                self._leave(data[at:stop])
                at = stop
                continue
            payload, stop = _frame_bounds(data, at, self._is_masked)
            if not stop:
                self._begun = data[at:]
                return
            if (
                stop <= end
                and data[at] == _WHOLE_BINARY
                and stop - payload <= self._max_bytes
                and protocol.current_size is None
                and protocol.state is State.OPEN
            ):
                message = data[payload:stop]
                self._take(apply_mask(message, data[payload - 4 : payload]) if self._is_masked else message)
            else:
                self._owed = max(0, stop - end)
                stop = min(stop, end)
                self._leave(data[at:stop])
            at = stop


def client_frame(message: bytes) -> bytes:
    """A binary message in one frame, masked as section 5.3 asks of clients."""
    mask = _MASKS.take()
    return _head(_MASKED, len(message)) + mask + apply_mask(message, mask)


def server_frame(message: bytes) -> bytes:
    """A binary message in one frame."""
    return _head(0, len(message)) + message


def _head(masked: int, size: int) -> bytes:
    if size < 126:
        return bytes((_WHOLE_BINARY, masked | size))
    if size < 1 << 16:
        return bytes((_WHOLE_BINARY, masked | 126)) + size.to_bytes(2, "big")
    return bytes((_WHOLE_BINARY, masked | 127)) + size.to_bytes(8, "big")


def _frame_bounds(data: bytes, at: int, is_masked: bool) -> tuple[int, int]:
    """Where the payload of the frame that begins there begins, and where the frame ends.

    Two zeros where so little of it is there that it cannot be told; what breaks the protocol in its first two
    bytes never ends.
    """
    have = len(data) - at
    if have < 2:
        return 0, 0
    size = data[at + 1]
    if data[at] not in _FIRST_BYTES or (size >= _MASKED) is not is_masked:
        return at + 2, _NEVER
    size &= ~_MASKED
    payload = at + 2
    if size >= 126:
        digits = 2 if size == 126 else 8
        if have < 2 + digits:
            return 0, 0
        payload += digits
        size = int.from_bytes(data[at + 2 : payload], "big")
    if is_masked:
        payload += 4
    return payload, payload + size


class _Masks:
    """Four bytes at a time that nobody can foresee, asked of the kernel for a thousand."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: Iterator[tuple[bytes]] = iter(())

    def take(self) -> bytes:
        for (mask,) in self._left:
            return mask
        self._left = struct.iter_unpack("4s", os.urandom(_RANDOM_BYTES))
        return self.take()


_MASKS: Final = _Masks()
