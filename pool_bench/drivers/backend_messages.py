"""What a PostgreSQL says before it ends a connection, for clients that throw it away."""

from typing import Final

from pool_bench.drivers.network.failures import server_error
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import RemoteProtocolError
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.messages import error_response

_HEADER_BYTES: Final = 5
# Longer ones are passed over, for a whole message is kept until it can be read.
_LONGEST_BYTES: Final = 1 << 16
_WORDS: Final = b"EN"


class BackendMessageTap:
    """Listens to the messages of a session, cut anywhere, for errors and notices; knows no I/O.

    See PostgreSQL's documentation, chapter "Message Formats": a byte for the kind, the length, the content.

    Attributes:
        last_error: the last error, if nothing arrived after the data it was in; None where there was none.
    """

    __slots__ = ("_kept", "_skip", "last_error")

    def __init__(self) -> None:
        self.last_error: ConnectError | None = None
        # The beginning of a message, and how many bytes of one that does not matter are still to come.
        self._kept = b""
        self._skip = 0

    def feed(self, data: bytes) -> bool:
        """Take what has arrived, which begins where the data before it ended.

        Returns:
            Whether it announces the end of the session; `last_error` is why.
        """
        self.last_error = None
        passed = min(self._skip, len(data))
        self._skip -= passed
        data = self._kept + data[passed:]
        position = 0
        while len(data) - position >= _HEADER_BYTES:
            # The length counts itself.
            length = 1 + max(int.from_bytes(data[position + 1 : position + _HEADER_BYTES], "big"), 4)
            after = position + length
            if data[position] in _WORDS and length <= _LONGEST_BYTES:
                if after > len(data):
                    break
                if self._is_end(data[position], data[position + _HEADER_BYTES : after]):
                    return True
            position = after
        self._skip += max(position - len(data), 0)
        self._kept = data[position:]
        return False

    def _is_end(self, kind: int, content: bytes) -> bool:
        try:
            event = ev.ErrorResponse(error_response(content).fields)
        except RemoteProtocolError:
            return False
        error = server_error(event, Phase.HOLD)
        # A crash is announced by a warning only.
        is_end = event.severity in ("FATAL", "PANIC") or error.kind is FailureKind.SERVER_SHUTDOWN
        if is_end or kind == ord("E"):
            self.last_error = error
        return is_end
