"""SurrealDB's RPC messages over a link: in a WebSocket, or as HTTP requests.

Both take one request at a time and hand back the message that answers it. The protocols are `websockets` and
`h11`, without their I/O; the event loop feeds them as data arrives, so that pings of the server are answered
and its goodbye is noticed while nobody waits for anything.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import h11
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from pool_bench.drivers.surreal_link import Link, LinkError
from pool_bench.drivers.surreal_rpc import decode_answer, kind_of_close, kind_of_status, one_line
from pool_bench.errors import FailureKind
from pool_bench.targets_surreal import SurrealTarget

_MAX_MESSAGE_BYTES: Final = 64 << 20
_MAX_HEADER_BYTES: Final = 64 << 10
_CLOSE_WAIT_S: Final = 5.0
_LOGGER: Final = logging.getLogger("websockets.client")
_CBOR: Final = Subprotocol("cbor")

Answer = dict[str, Any]


class Channel(ABC):
    """One connection for requests.

    Attributes:
        arrived_ns: when the end of the latest answer arrived, as `perf_counter_ns` counts.
        on_end: called once when the connection ends without our asking.
    """

    def __init__(self) -> None:
        self.link = Link(self)
        self.arrived_ns = 0
        self.on_end: Callable[[LinkError], None] | None = None
        self._failure: LinkError | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether no request can be made any more."""
        return self._failure is not None or self.link.is_lost

    @property
    def is_waiting(self) -> bool:
        """Whether a request is under way."""
        return self._waiting is not None

    async def request(self, message: bytes) -> Answer:
        """Send a request and wait for its answer; where that fails or is cancelled the channel is closed.

        Raises:
            LinkError: the connection failed.
        """
        self._send(message)
        return await self._answer()

    @abstractmethod
    async def close(self) -> None:
        """End it politely, in a few seconds at the most; never raises."""

    def abort(self) -> None:
        """End it at once."""
        self.on_end = None
        self._fail(LinkError(FailureKind.CLOSED, "the connection is closed"))
        self.link.abort()

    @abstractmethod
    def received(self, data: bytes, arrived_ns: int) -> None:
        """What the link hands on."""

    def lost(self, error: LinkError) -> None:
        """The link is lost."""
        self._fail(error)

    @abstractmethod
    def _send(self, message: bytes) -> None:
        """Write a request to the link."""

    async def _answer(self) -> Answer:
        if self._failure is not None:
            raise self._failure
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        try:
            return await waiting
        except BaseException:
            # The answer may still come, and could be taken for another's.
            self.abort()
            raise
        finally:
            self._waiting = None

    def _deliver(self, message: bytes, arrived_ns: int) -> None:
        try:
            answer = decode_answer(message)
        except ValueError as error:
            raise LinkError(FailureKind.PROTOCOL, str(error)) from error
        if answer is not None:
            self._wake(answer, arrived_ns)

    def _wake(self, answer: Answer, arrived_ns: int) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            self.arrived_ns = arrived_ns
            waiting.set_result(answer)

    def _fail(self, error: LinkError) -> None:
        if self._failure is None:
            self._failure = error
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_exception(self._failure)
        tell, self.on_end = self.on_end, None
        if tell is not None:
            tell(self._failure)


class WebSocketChannel(Channel):
    """Requests as messages of a WebSocket (RFC 6455)."""

    def __init__(self, target: SurrealTarget) -> None:
        super().__init__()
        uri = WebSocketURI(target.is_secure, target.host, target.port, target.path, "")
        self._protocol = ClientProtocol(
            uri, subprotocols=[_CBOR], max_size=_MAX_MESSAGE_BYTES, logger=_LOGGER
        )
        # The parts of a message in several frames.
        self._parts: list[bytes] = []

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
        """Feed the protocol and take what it makes of it."""
        protocol = self._protocol
        protocol.receive_data(data)
        self._flush()
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._take(event, arrived_ns)
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

    def _take(self, frame: Frame, arrived_ns: int) -> None:
        if frame.opcode not in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT) or self._is_leaving:
            return
        if self._waiting is None:
            self._parts.clear()
            return
        if frame.fin and not self._parts:
            self._deliver(bytes(frame.data), arrived_ns)
            return
        self._parts.append(bytes(frame.data))
        if frame.fin:
            message = b"".join(self._parts)
            self._parts.clear()
            self._deliver(message, arrived_ns)

    def _send(self, message: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(message)
            self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            # An empty one asks for our half to be closed; the link does that when it goes.
            if data:
                self.link.write(data)


class HttpChannel(Channel):
    """Requests as HTTP requests, one after the other on one connection (RFC 9112).

    Attributes:
        token: sent along with each request once it is set.
        namespace: likewise.
        database: likewise.
    """

    def __init__(self, target: SurrealTarget) -> None:
        super().__init__()
        self._target = target
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER_BYTES)
        self._status = 0
        self._body = bytearray()
        self.token: str | None = None
        self.namespace: str | None = None
        self.database: str | None = None

    async def close(self) -> None:
        """Close the connection; HTTP has no goodbye."""
        self.on_end = None
        self._fail(LinkError(FailureKind.CLOSED, "the connection is closed"))
        self.link.close()

    def received(self, data: bytes, arrived_ns: int) -> None:
        """Feed the protocol and take what it makes of it."""
        try:
            self._http.receive_data(data)
            if self._waiting is None:
                raise LinkError(FailureKind.PROTOCOL, "the server answers what was not asked")
            self._read_events(arrived_ns)
        except h11.RemoteProtocolError as error:
            raise _broken(error) from error

    def lost(self, error: LinkError) -> None:
        """The link is lost, which may be the end of an answer."""
        if error.kind is FailureKind.CLOSED and self._waiting is not None and self._status:
            try:
                self._http.receive_data(b"")
                self._read_events(self.link.arrived_ns)
            except h11.RemoteProtocolError:
                error = LinkError(FailureKind.CLOSED, "the server closed the connection within an answer")
            except LinkError as refusal:
                error = refusal
        super().lost(error)

    def _read_events(self, arrived_ns: int) -> None:
        while True:
            match self._http.next_event():
                case h11.Response(status_code=status):
                    self._status = status
                case h11.Data(data=data):
                    if len(self._body) + len(data) > _MAX_MESSAGE_BYTES:
                        raise LinkError(FailureKind.PROTOCOL, "the server's answer is too long")
                    self._body += data
                case h11.EndOfMessage():
                    self._end(arrived_ns)
                    return
                case h11.InformationalResponse():
                    continue
                case _:
                    return

    def _end(self, arrived_ns: int) -> None:
        status, self._status = self._status, 0
        body = bytes(self._body)
        self._body.clear()
        if status != 200:
            said = f": {one_line(body.decode('utf-8', 'replace'))}" if body else ""
            raise LinkError(kind_of_status(status), f"the server answers HTTP {status}{said}")
        self._deliver(body, arrived_ns)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._fail(LinkError(FailureKind.CLOSED, "the server closes the connection after each answer"))

    def _send(self, message: bytes) -> None:
        if self.is_closed:
            return
        headers = [
            ("Host", self._target.authority),
            ("Content-Type", "application/cbor"),
            ("Accept", "application/cbor"),
            ("Content-Length", str(len(message))),
        ]
        if self.token is not None:
            headers.append(("Authorization", f"Bearer {self.token}"))
        if self.namespace is not None:
            headers.append(("Surreal-NS", self.namespace))
        if self.database is not None:
            headers.append(("Surreal-DB", self.database))
        http = self._http
        try:
            head = http.send(h11.Request(method="POST", target=self._target.path, headers=headers))
            body = http.send(h11.Data(data=message))
            end = http.send(h11.EndOfMessage())
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            self._fail(LinkError(FailureKind.OTHER, f"this cannot be sent as HTTP: {error}"))
            return
        # In one piece, so that it leaves in one packet.
        self.link.write((head or b"") + (body or b"") + (end or b""))


def _refusal(error: Exception) -> LinkError:
    """Why there is no WebSocket."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return LinkError(kind_of_status(status), f"the server answers HTTP {status} and opens no WebSocket")
    if isinstance(error, InvalidHandshake):
        return LinkError(FailureKind.PROTOCOL, f"the server opens no WebSocket: {one_line(error)}")
    return LinkError(FailureKind.PROTOCOL, f"the server opens no WebSocket: {one_line(error)}")


def _broken(error: h11.RemoteProtocolError) -> LinkError:
    return LinkError(FailureKind.PROTOCOL, f"the server breaks the HTTP protocol: {one_line(error)}")
