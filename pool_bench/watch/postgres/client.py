"""One connection for questions about a server, each answered within a bounded time or not at all.

psycopg's own blocking calls wait for a silent server without an end. Here every wait has a deadline, and
an event that another thread sets ends it within a tenth of a second. Whatever goes wrong closes the
connection; the next question opens a new one, so that a server may be restarted between two of them.

Only queries without parameters are sent, and none is prepared: psycopg then speaks the simple protocol,
which is all that PgBouncer's console understands.
"""

import ipaddress
import os
import socket
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, LiteralString, TypeVar

from pool_bench.drivers.psycopg import connect_error, libpq_options
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.targets.postgres import PostgresTarget, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.rows import RowFactory

    from pool_bench.watch.postgres.bounded import BoundedConnection

_Result = TypeVar("_Result")

APPLICATION_NAME: Final = "pool-bench watcher"
# How long a server may take to end a connection before we go on without knowing.
CLOSE_WAIT_S: Final = 1.0
# For the answer to one question.
_PATIENCE_S: Final = 2.0
# libpq's least; a server that takes longer to answer would not be seen once a second anyway.
_CONNECT_TIMEOUT_S: Final = 2


def ask_briefly(
    target: PostgresTarget, question: "Callable[[WatchClient], _Result]", timeout_s: float, name: str
) -> _Result | None:
    """Connect, ask, and leave; blocks for `timeout_s` seconds at most, whatever the server does.

    Args:
        question: what is asked over the connection.
        name: of the thread that does it.

    Returns:
        None where there was no answer in time.
    """
    answers: list[_Result] = []
    leave = threading.Event()

    def look() -> None:
        client = WatchClient(target, leave)
        try:
            answers.append(question(client))
        except ConnectError:
            return
        finally:
            client.close(wait_s=CLOSE_WAIT_S)

    # In a thread, for libpq looks up names without a limit of time.
    thread = threading.Thread(target=look, name=name, daemon=True)
    thread.start()
    thread.join(timeout_s)
    leave.set()
    return answers[0] if answers else None


class WatchClient:
    """Asks one server questions, over a connection that is opened when it is needed.

    Used by one thread; `leave` may be set by any.

    Args:
        target: whom to ask.
        leave: once set, every question under way or to come fails.

    Attributes:
        patience_s: how long to wait for the answer to one question once there is a connection, seconds.
        connects: how often a connection was opened.
    """

    def __init__(self, target: PostgresTarget, leave: threading.Event | None = None) -> None:
        self.target: Final = target
        self.patience_s = _PATIENCE_S
        self.connects = 0
        self._leave = leave or threading.Event()
        self._connection: BoundedConnection | None = None
        self._deadline = 0.0

    def ask(self, sql: LiteralString, rows: "RowFactory[_Result]") -> list[_Result]:
        """Run one query; takes `patience_s` at most, and two seconds more for each address to connect to.

        Args:
            sql: a query without parameters.
            rows: what to make of each row.

        Raises:
            ConnectError: there was no answer; the connection is closed. The message holds no secret.
        """
        from pool_bench.watch.postgres.bounded import TimeUpError

        phase, timeout_s = Phase.CONNECT, self.patience_s
        try:
            if self._leave.is_set():
                raise TimeUpError
            if self._connection is None:
                self._connection = self._connect()
                self.connects += 1
            phase = Phase.QUERY
            self._deadline = time.monotonic() + timeout_s
            with self._connection.cursor(row_factory=rows) as cursor:
                return cursor.execute(sql).fetchall()
        except Exception as error:
            self.close()
            # psycopg's frames hold the connection that failed, and the exception holds the frames.
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, TimeUpError):
                raise ConnectError(FailureKind.TIMEOUT, phase, f"no answer within {timeout_s:g} s") from None
            known = connect_error(error, phase)
            raise ConnectError(known.kind, phase, redact(known.message), sqlstate=known.sqlstate) from None

    def _connect(self) -> "BoundedConnection":
        from psycopg.conninfo import make_conninfo

        from pool_bench.watch.postgres.bounded import BoundedConnection

        options = libpq_options(replace(self.target, application_name=APPLICATION_NAME))
        conninfo = make_conninfo(**options, connect_timeout=_CONNECT_TIMEOUT_S)
        connection = BoundedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        connection.still_wanted = self._still_wanted
        return connection

    def _still_wanted(self) -> bool:
        return time.monotonic() < self._deadline and not self._leave.is_set()

    @property
    def backend_pid(self) -> int | None:
        """The process number given at start-up, None without a connection; a pooler's are made up."""
        return self._connection.pgconn.backend_pid if self._connection is not None else None

    @property
    def socket_fd(self) -> int | None:
        """The connection's descriptor, None without one."""
        return self._connection.fileno() if self._connection is not None else None

    @property
    def local_fd(self) -> int | None:
        """Of the socket of the connection; None without one, or where it leads to another machine."""
        return self.socket_fd if self.is_local else None

    @property
    def is_local(self) -> bool:
        """Whether the connection's other end is this machine, or something on it that passes it on."""
        if self._connection is None:
            return False
        pgconn = self._connection.pgconn
        if pgconn.host.startswith((b"/", b"@")):
            return True
        try:
            if ipaddress.ip_address(pgconn.hostaddr.decode().partition("%")[0]).is_loopback:
                return True
            with socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
                # An address of this machine's own is reached from itself.
                return bool(ours.getsockname()[0] == ours.getpeername()[0])
        except (ValueError, OSError):
            return False

    def close(self, *, wait_s: float = 0.0) -> None:
        """End the connection, if there is one.

        Args:
            wait_s: how long to wait at most until the server has closed it, too: only then is its backend
                sure not to be counted by whoever looks next.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            # The copy outlives libpq's own descriptor, and sees the server's end.
            other_end = socket.socket(fileno=os.dup(connection.fileno())) if wait_s > 0 else None
        except OSError:
            other_end = None
        connection.close()
        if other_end is not None:
            with other_end, suppress(OSError):
                deadline = time.monotonic() + wait_s
                while (left := deadline - time.monotonic()) > 0:
                    other_end.settimeout(left)
                    if not other_end.recv(4096):
                        break
