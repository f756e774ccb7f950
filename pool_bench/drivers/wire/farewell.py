"""The end of a dial: Terminate is sent, and the server closes, or does not.

A PostgreSQL closes when it is told that the connection ends. There are servers that close when it ends, our
side of it, and such that never do: what the connect took is known all the same, and their manner is no
failure. After a second our side is ended, after three all of it. What was learned of a target is applied to
its later connections at once.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pool_bench.drivers.network.poller import HUNG_UP, MORE, READ
from pool_bench.drivers.wire.routes import Route
from pool_bench.errors import ConnectError

# A dial waits for nothing more; else for what a poller tells of.
DONE: Final = 0

_RECEIVE_BYTES: Final = 8192
_HALF_CLOSE_NS: Final = 1_000_000_000
_CLOSE_WAIT_NS: Final = 3_000_000_000
# A server that closed none of its last three connections is not waited for any longer.
_KNOWN_SILENT: Final = 3
_SILENT_WAIT_NS: Final = 100_000_000
# Sooner than this after the end of our side, that end was what the server had waited for.
_PROMPT_NS: Final = 250_000_000


class Ending(Route):
    """How a dial ends. Times are nanoseconds by `perf_counter_ns`."""

    __slots__ = (
        "_before_close",
        "_ended_ns",
        "_ends_next",
        "_mark_ns",
        "_query_error",
        "_unsent",
        "close_ns",
        "closed_by_us",
        "edge",
        "error",
        "fd",
        "sock",
        "started_ns",
        "total_ns",
    )

    _before_close: Callable[[int], None] | None
    _ended_ns: int
    _ends_next: bool
    _mark_ns: int
    _query_error: ConnectError | None
    _unsent: bytes
    close_ns: int
    closed_by_us: bool
    edge: bool
    error: ConnectError | None
    fd: int
    sock: socket.SocketType | None
    started_ns: int
    total_ns: int

    def closing_overdue(self, now_ns: int) -> int:
        """Look after a dial that has sent Terminate; returns what to wait for."""
        waited_ns = now_ns - self._mark_ns
        farewell = self._plan.farewell
        if waited_ns >= (_SILENT_WAIT_NS if farewell.silent >= _KNOWN_SILENT else _CLOSE_WAIT_NS):
            farewell.silent += 1
            return self._close_ourselves()
        if not self._ended_ns and not farewell.half_close and waited_ns >= _HALF_CLOSE_NS:
            self._ended_ns = now_ns
            self._half_close()
        return READ

    def _closing(self, now_ns: int, events: int) -> int:
        # The server closes first: its own work for this connection is over then, and the local port
        # is free at once instead of a minute later (TIME_WAIT stays with the side that closes first).
        sock = self.sock
        if not events & HUNG_UP and sock is not None and sock.recv(_RECEIVE_BYTES):
            return self._unread()
        is_usual = not (self._ended_ns or self._unsent or self._before_close or self._plan.farewell.silent)
        if sock is None or not is_usual:
            return self._closed(now_ns)
        # What `_closed` comes to where a server closes as it should.
        self.close_ns = now_ns - self._mark_ns
        self.error = self._query_error
        self.total_ns = now_ns - self.started_ns
        self.sock = None
        sock.close()
        return DONE

    def _closed(self, now_ns: int) -> int:
        """The server has closed: by itself, or because we ended our side after it had not."""
        farewell = self._plan.farewell
        if farewell.silent:
            farewell.silent = 0
        if self._ended_ns and now_ns - self._ended_ns < _PROMPT_NS:
            # The second that we waited before is none of the server's time.
            farewell.half_close = True
            return self._close_ourselves()
        self.close_ns = now_ns - self._mark_ns
        self.error = self._query_error
        return self._finish(now_ns)

    def _unread(self) -> int:
        """What to wait for where something may have been left unread: an edge would not come again for it."""
        if not self.edge:
            return READ
        self.edge = False
        return MORE

    def _half_close(self) -> None:
        # Not the method of an SSLSocket, which would forget its keys: what the server still sends is read.
        if self.sock is not None:
            with suppress(OSError):
                socket.SocketType.shutdown(self.sock, socket.SHUT_WR)

    def _close_ourselves(self) -> int:
        """End the connection as one that the server did not close; what the connect took counts."""
        self.closed_by_us = True
        self.error = self._query_error
        return self._finish(self._mark_ns)

    def _finish(self, now_ns: int) -> int:
        self.total_ns = now_ns - self.started_ns
        self._close_socket()
        return DONE

    def _close_socket(self) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            if self._before_close is not None:
                self._before_close(self.fd)
            sock.close()
