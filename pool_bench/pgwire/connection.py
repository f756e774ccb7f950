"""The client's side of one PostgreSQL connection: bytes in, events out.

In h11's manner: `send` turns an event into the bytes to write, `receive_data` takes bytes that were
read (`b""` for the end of the stream), `next_event` gives what they mean or `NEED_DATA`. No socket,
no clock. What is legal when stands in `state.py`.

Rows are counted and thrown away without being buffered, and every other message has a size limit,
so that memory stays bounded whatever the server sends.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum
from types import MappingProxyType
from typing import Final

from pool_bench.pgwire import events as ev
from pool_bench.pgwire import messages
from pool_bench.pgwire.errors import LocalProtocolError, RemoteProtocolError
from pool_bench.pgwire.foreign import protocol_of
from pool_bench.pgwire.state import CLIENT, SERVER, State

# A server has no reason to send more in one message than this, rows excepted. libpq draws the line
# for errors before authentication at 30,000 bytes.
MAX_MESSAGE_BYTES: Final = 1 << 20
MAX_STARTUP_MESSAGE_BYTES: Final = 30_000


class NeedData(Enum):
    """Type of the sentinel `NEED_DATA`."""

    NEED_DATA = "NEED_DATA"


NEED_DATA: Final = NeedData.NEED_DATA

_PARSERS: Final[MappingProxyType[int, Callable[[bytes], ev.ServerEvent]]] = MappingProxyType(
    {
        ord("R"): messages.authentication,
        ord("E"): messages.error_response,
        ord("N"): messages.notice_response,
        ord("S"): messages.parameter_status,
        ord("K"): messages.backend_key_data,
        ord("Z"): messages.ready_for_query,
        ord("v"): messages.negotiate_protocol_version,
        ord("A"): messages.notification_response,
    }
)
_DATA_ROW: Final = ord("D")
_COPY_DATA: Final = ord("d")
_COMMAND_COMPLETE: Final = ord("C")
_EMPTY_QUERY: Final = ord("I")
_ERROR: Final = ord("E")
_IGNORED_IN_QUERY: Final = frozenset(b"THc")  # row description, copy out, copy done
_COPY_IN: Final = frozenset(b"GW")

_UNAUTHENTICATED: Final = frozenset(
    (
        State.TLS_ASKED,
        State.STARTING,
        State.PASSWORD_WANTED,
        State.PASSWORD_SENT,
        State.SASL_WANTED,
        State.SASL_STARTED,
        State.SASL_CHALLENGED,
        State.SASL_ANSWERED,
        State.SASL_PROVEN,
    )
)
_NO_MESSAGES: Final = frozenset((State.NEW, State.TLS_ASKED, State.TLS_ANSWERED, State.CLOSED, State.BROKEN))
_QUERY_STATES: Final = frozenset((State.QUERYING, State.TERMINATED))

# What stands between AuthenticationOk and BackendKeyData is the same on every connection to one
# server, so it is parsed once. The tail is BackendKeyData of protocol 3.0 and an idle ReadyForQuery.
_KEY_HEADER: Final = b"K\0\0\0\x0c"
_READY_IDLE: Final = b"Z\0\0\0\x05I"
_TAIL_BYTES: Final = 13 + len(_READY_IDLE)
_REPORTS: Final = frozenset((ev.ParameterStatus, ev.BackendKeyData))
_MAX_KNOWN_REPORTS: Final = 64
_MAX_REPORT_BYTES: Final = 8192
_known_reports: dict[bytes, tuple[ev.ParameterStatus, ...]] = {}
# Whole answers to a start-up message that were parsed before, up to the key, which is another each time.
_OK: Final = b"R\0\0\0\x08\0\0\0\0"
_KEY_AND_READY_BYTES: Final = _TAIL_BYTES - len(_KEY_HEADER)
_known_welcomes: set[bytes] = set()


class Connection:
    """One connection's protocol state; use a new one for each socket.

    Args:
        reports: whether ParameterStatus and BackendKeyData become events; without, they are checked
            and passed over.
    """

    __slots__ = (
        "_closed",
        "_data",
        "_position",
        "_queue",
        "_reports",
        "_row_bytes",
        "_rows",
        "_skip",
        "state",
    )

    def __init__(self, *, reports: bool = True) -> None:
        self._reports = reports
        self.state = State.NEW
        self._data: bytes | bytearray = b""
        self._position = 0
        self._skip = 0
        self._rows = 0
        self._row_bytes = 0
        self._closed = False
        self._queue: deque[ev.ServerEvent] | None = None

    def send(self, event: ev.ClientEvent) -> bytes:
        """The bytes to write for `event`.

        Raises:
            LocalProtocolError: the protocol does not allow it now.
        """
        state = CLIENT.get((self.state, type(event)))
        if state is None:
            raise LocalProtocolError(f"cannot send {type(event).__name__} while {self.state.name}")
        self.state = state
        return event.encoded

    @property
    def trailing_data(self) -> bool:
        """True where bytes were received that no event has been made of yet."""
        return self._position < len(self._data)

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server; `b""` says that it closed its side.

        What follows the end, or what broke the protocol, is thrown away.
        """
        if not data or self._closed:
            self._closed = True
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._position == len(self._data):
            self._data = data
        else:
            rest = bytearray(memoryview(self._data)[self._position :]) if self._position else self._data
            if isinstance(rest, bytes):
                rest = bytearray(rest)
            rest += data
            self._data = rest
        self._position = 0

    def next_event(self) -> ev.ServerEvent | NeedData:
        """The next thing the server said, or `NEED_DATA`.

        Raises:
            RemoteProtocolError: what it said is no message, too long, or not allowed now; the
                connection is of no further use.
        """
        queue = self._queue
        if queue:
            return queue.popleft()
        before = self.state
        try:
            return self._parse()
        except RemoteProtocolError as error:
            other = protocol_of(self._data) if before <= State.STARTING else None
            self.state = State.BROKEN
            self._closed = True
            self._data = b""
            self._position = self._skip = 0
            if other is not None:
                raise RemoteProtocolError(f"this is {other}, not PostgreSQL's ({error})") from None
            raise

    def _parse(self) -> ev.ServerEvent | NeedData:
        while True:
            state = self.state
            data, position = self._data, self._position
            available = len(data) - position
            if state in _NO_MESSAGES:
                if state is State.BROKEN:
                    raise RemoteProtocolError("the server has broken the protocol before")
                if state is State.CLOSED:
                    return NEED_DATA
                answer = self._tls_answer(data[position]) if available else None
                if answer is not None:
                    return answer
            if available < 5:
                return self._no_more()
            kind = data[position]
            length = int.from_bytes(data[position + 1 : position + 5], "big", signed=True)
            if kind == _ERROR and state <= State.STARTING and not 8 <= length <= MAX_STARTUP_MESSAGE_BYTES:
                return self._old_error()
            if length < 4:
                raise RemoteProtocolError(f"message {chr(kind)!r} has length {length}")
            if state in _QUERY_STATES and kind in (_DATA_ROW, _COPY_DATA):
                self._count_row(length, available)
                continue
            limit = MAX_STARTUP_MESSAGE_BYTES if state in _UNAUTHENTICATED else MAX_MESSAGE_BYTES
            if length > limit:
                raise RemoteProtocolError(f"message {chr(kind)!r} is {length:,} bytes long")
            if available <= length:
                return self._no_more()
            end = position + 1 + length
            self._position = end
            event = self._event(kind, bytes(data[position + 5 : end]))
            if event is not None:
                return event

    def _event(self, kind: int, payload: bytes) -> ev.ServerEvent | None:
        if self.state in _QUERY_STATES:
            if kind in _IGNORED_IN_QUERY:
                return None
            if kind in _COPY_IN:
                raise RemoteProtocolError("the query wants COPY data, which this client does not send")
            if kind in (_COMMAND_COMPLETE, _EMPTY_QUERY):
                tag = messages.command_tag(payload) if kind == _COMMAND_COMPLETE else ""
                event: ev.ServerEvent = ev.CommandComplete(tag, self._rows, self._row_bytes)
                self._rows = self._row_bytes = 0
                return event
            if kind == _ERROR:
                self._rows = self._row_bytes = 0
        parser = _PARSERS.get(kind)
        if parser is None:
            raise RemoteProtocolError(f"unexpected message {chr(kind)!r} while {self.state.name}")
        event = parser(payload)
        transitions = SERVER[self.state]
        try:
            following = transitions[type(event)]
        except KeyError:
            name = type(event).__name__
            raise RemoteProtocolError(f"unexpected {name} while {self.state.name}") from None
        if following is not None:
            self.state = following
            if following is State.AUTHENTICATED:
                self._take_known_reports()
        elif not self._reports and type(event) in _REPORTS:
            return None
        return event

    def _take_known_reports(self) -> None:
        """Queue the parameter reports at hand if the very same bytes were parsed before."""
        data, position = self._data, self._position
        tail = len(data) - _TAIL_BYTES
        if not position <= tail <= position + _MAX_REPORT_BYTES or not data.endswith(_READY_IDLE):
            return
        if data[tail : tail + 5] != _KEY_HEADER:
            return
        block = bytes(data[position:tail])
        known = _known_reports.get(block)
        if known is None:
            known = _parse_reports(block)
            if known is None:
                return
            if len(_known_reports) >= _MAX_KNOWN_REPORTS:
                _known_reports.clear()
            _known_reports[block] = known
        if self._reports:
            self._queue = deque(known)
            self._position = tail
        else:
            self._position = len(data) - len(_READY_IDLE)
            if position == len(_OK) and data.startswith(_OK):
                if len(_known_welcomes) >= _MAX_KNOWN_REPORTS:
                    _known_welcomes.clear()
                _known_welcomes.add(bytes(data[: tail + len(_KEY_HEADER)]))

    def _tls_answer(self, byte: int) -> ev.SSLAnswer | None:
        if self.state is not State.TLS_ASKED:
            raise RemoteProtocolError(f"the server speaks unasked, while {self.state.name}")
        if byte == _ERROR:
            return None
        if byte not in b"SN":
            raise RemoteProtocolError(f"answer to SSLRequest is {chr(byte)!r}")
        self._position += 1
        self.state = State.TLS_ANSWERED
        # Bytes sent along with the answer were put there by someone in the middle (CVE-2021-23222).
        if self.trailing_data:
            raise RemoteProtocolError("unencrypted data after the answer to SSLRequest")
        return ev.SSLAnswer(byte == ord("S"))

    def _old_error(self) -> ev.ServerEvent | NeedData:
        """A server that cannot even fork answers as in protocol 2: a plain string without a length."""
        data, position = self._data, self._position
        if protocol_of(data) is not None:
            raise RemoteProtocolError("an error message of protocol 2")
        end = data.find(b"\0", position, position + MAX_STARTUP_MESSAGE_BYTES)
        if end < 0:
            if len(data) - position >= MAX_STARTUP_MESSAGE_BYTES:
                raise RemoteProtocolError("error message without an end")
            return self._no_more()
        self._position = end + 1
        self.state = State.FAILED
        text = bytes(data[position + 1 : end]).decode("utf-8", "replace").strip()
        return ev.ErrorResponse({"M": text})

    def _count_row(self, length: int, available: int) -> None:
        self._rows += 1
        self._row_bytes += length - 4
        taken = min(available, length + 1)
        self._position += taken
        self._skip = length + 1 - taken

    def _no_more(self) -> ev.ServerEvent | NeedData:
        if self.trailing_data and self.state <= State.STARTING and protocol_of(self._data) is not None:
            raise RemoteProtocolError("half a message")
        if not self._closed:
            return NEED_DATA
        clean = not self.trailing_data and not self._skip
        self.state = State.CLOSED
        return ev.ConnectionClosed(clean)


def is_known_welcome(data: bytes) -> bool:
    """Whether this answer to a start-up message is, but for its key, one that was parsed before.

    Then it is the whole of it: the session is authenticated and the server waits for a query (`State.READY`).
    """
    return data[:-_KEY_AND_READY_BYTES] in _known_welcomes and data.endswith(_READY_IDLE)


def _parse_reports(block: bytes) -> tuple[ev.ParameterStatus, ...] | None:
    """The reports in `block`; None where it is not whole ParameterStatus messages and nothing else."""
    reports = []
    position = 0
    while position < len(block):
        length = int.from_bytes(block[position + 1 : position + 5], "big")
        end = position + 1 + length
        if block[position] != ord("S") or length < 4 or end > len(block):
            return None
        try:
            reports.append(messages.parameter_status(block[position + 5 : end]))
        except RemoteProtocolError:
            return None
        position = end
    return tuple(reports)
