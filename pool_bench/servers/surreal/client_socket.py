"""One client's WebSocket to the embedded engine, from the handshake on.

A request goes to the engine as it arrives, and the answer to the client as the engine gives it, without a
task in between: what the gateway costs counts as the server's in all that is measured against it. Frames are
those of `drivers/surreal/frames.py`; all but the plainest are read by `websockets`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from pool_bench.drivers.surreal.frames import FrameReader, server_frame
from pool_bench.servers.surreal.codec import Format
from pool_bench.servers.surreal.engine import ClientSessions, Running
from pool_bench.servers.surreal.guard import Bounds

_MAX_MESSAGE_BYTES: Final = 128 << 20
# Messages of one socket that are answered at the same time; then reading waits.
_MAX_IN_FLIGHT: Final = 100
_PING_EVERY_S: Final = 5.0
_GOODBYE_WAIT_S: Final = 2.0
_LOGGER: Final = logging.getLogger("websockets.server")


class ClientSocket(asyncio.Protocol):
    """Takes a connection over after its handshake.

    Args:
        transport: the connection; what arrives on it comes here from now on.
        sessions: answers the messages.
        form: what the messages are written in.
        before: the connection's protocol until now, which hears of its end, too.
        bounds: what the client may cost before it has signed in. Who sends a larger message behind its
            sign-in has to have read that answer first.
        on_signed_in: called once, when it has.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        sessions: ClientSessions,
        form: Format,
        before: asyncio.BaseProtocol,
        bounds: Bounds,
        on_signed_in: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._sessions = sessions
        self._form = form
        self._before = before
        self._bounds = bounds
        self._on_signed_in = on_signed_in
        self._is_stranger = True
        self._stranger_bytes = 0
        self._is_refused = False
        self._protocol = Protocol(Side.SERVER, max_size=bounds.message_bytes, logger=_LOGGER)
        self._max_in_flight = bounds.in_flight
        self._reader = FrameReader(self._protocol, self._take, self._feed)
        # The parts of a message in several frames.
        self._parts: list[bytes] = []
        self._is_text = False
        self._running: set[Running] = set()
        # What arrived while nothing more could be begun.
        self._waiting: deque[bytes] = deque()
        self._is_clogged = False
        self._is_reading = True
        self._is_pacing = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._ping = self._loop.call_later(_PING_EVERY_S, self._send_ping)
        if sessions.signed_in:
            self._trust()
        transport.set_protocol(self)

    async def wait_until_ended(self) -> None:
        """Wait until the connection is lost; it is closed at once where that is cancelled."""
        try:
            await self._ended
        finally:
            self._end()
            self._transport.abort()

    async def say_goodbye(self, code: CloseCode, reason: str, timeout_s: float) -> None:
        """Ask the client to leave, and wait so many seconds for it."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        await asyncio.wait([self._ended], timeout=timeout_s)
        self._transport.abort()

    def refuse(self, reason: str) -> None:
        """End it for what the client does or does not do; it has little time to take notice."""
        self._is_refused = True
        self._waiting.clear()
        if self._protocol.state is State.OPEN:
            self._protocol.fail(CloseCode.POLICY_VIOLATION, reason)
            self._flush()
        self._loop.call_later(_GOODBYE_WAIT_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Messages, or parts of them."""
        if self._is_refused:
            return
        if self._is_stranger and self._bounds.within_s:
            self._stranger_bytes += len(data)
            if self._stranger_bytes > self._bounds.total_bytes:
                self.refuse(f"more than {self._bounds.total_bytes} bytes without signing in")
                return
        self._reader.read(data)

    def pause_writing(self) -> None:
        """The client does not read its answers; nothing more is begun for it until it does."""
        self._is_clogged = True
        self._pace()

    def resume_writing(self) -> None:
        """It does."""
        self._is_clogged = False
        self._pace()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever ended it: what runs for this client is dropped."""
        self._end()
        self._before.connection_lost(exc)

    def _end(self) -> None:
        self._ping.cancel()
        self._waiting.clear()
        for running in tuple(self._running):
            running.cancel()
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def _has_room(self) -> bool:
        return len(self._running) < self._max_in_flight and not self._is_clogged

    def _take(self, message: bytes) -> None:
        if self._has_room and not self._waiting:
            self._begin(message)
        else:
            self._waiting.append(message)
            self._pace()

    def _begin(self, message: bytes) -> None:
        running = self._sessions.begin(message, self._form, self._say)
        if running is not None:
            self._running.add(running)

    def _pace(self) -> None:
        """Begin what waits and read on, or stop reading, as there is room."""
        if self._is_pacing:
            # An answer that came at once, below: with thousands of those in a row the stack would not do.
            return
        self._is_pacing = True
        try:
            while self._waiting and self._has_room:
                self._begin(self._waiting.popleft())
        finally:
            self._is_pacing = False
        can_read = self._has_room and not self._waiting
        if can_read is not self._is_reading and not self._transport.is_closing():
            self._is_reading = can_read
            if can_read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _say(self, answer: bytes, running: Running | None) -> None:
        if running is not None:
            self._running.discard(running)
        if self._is_stranger and self._sessions.signed_in:
            self._trust()
        if self._protocol.state is State.OPEN:
            if self._form == "cbor":
                self._transport.write(server_frame(answer))
            else:
                self._protocol.send_text(answer)
                self._flush()
        if not self._is_reading:
            self._pace()

    def _trust(self) -> None:
        self._is_stranger = False
        self._max_in_flight = _MAX_IN_FLIGHT
        self._reader.allow(_MAX_MESSAGE_BYTES)
        self._on_signed_in()

    def _send_ping(self) -> None:
        """As a real server does; a dead peer shows when TCP cannot deliver them."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"")
            self._flush()
            self._ping = self._loop.call_later(_PING_EVERY_S, self._send_ping)

    def _feed(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._flush()
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
                if event.opcode is not Opcode.CONT:
                    self._is_text = event.opcode is Opcode.TEXT
                self._parts.append(bytes(event.data))
                if event.fin:
                    self._put_together()

    def _put_together(self) -> None:
        message = b"".join(self._parts)
        self._parts.clear()
        if self._is_text:
            try:
                message.decode()
            except UnicodeDecodeError:
                # RFC 6455, section 8.1
                self._protocol.fail(CloseCode.INVALID_DATA, "text that is not UTF-8")
                self._flush()
                return
        self._take(message)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
