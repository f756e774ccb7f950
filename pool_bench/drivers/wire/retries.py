"""What a dial does when something has gone wrong: another address, another TLS mode, or an error.

As libpq does it; which address comes next, and what is a reason to turn to it, is `routes.py`'s.
"""

from abc import ABC, abstractmethod
from time import perf_counter_ns

from pool_bench.drivers.network.failures import socket_failure
from pool_bench.drivers.wire.farewell import DONE, Ending
from pool_bench.drivers.wire.routes import CANNOT_CONNECT_NOW
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.pgwire import Authenticator, Connection, State


class Failing(Ending, ABC):
    """How a dial fails, or is saved from it. Times are nanoseconds by `perf_counter_ns`."""

    __slots__ = ("_authenticator", "_wire", "_wire_state")

    _authenticator: Authenticator | None
    _wire: Connection | None
    _wire_state: State

    @abstractmethod
    def _connect(self, now_ns: int) -> int:
        """Begin to connect to the present address; returns what to wait for."""

    def time_up(self, message: str, now_ns: int) -> int:
        """The present address has had its time: turn to the next, or give up; returns what to wait for."""
        error = ConnectError(FailureKind.TIMEOUT, self.phase, message)
        if self.phase is Phase.CLOSE and not self._unsent:
            return self._close_ourselves()
        is_connecting = self.phase not in (Phase.RESOLVE, Phase.QUERY, Phase.CLOSE)
        if is_connecting and self._pass_over(error, host=False, now_ns=now_ns):
            return self._elsewhere(now_ns)
        self.abort(error.kind, message, now_ns)
        return DONE

    def abort(self, kind: FailureKind, message: str, now_ns: int) -> None:
        """Give up from outside: `error` says why, the socket is closed."""
        # A query that failed is the reason even where the server then does not let go of us.
        self.error = self._query_error or self._whole_story(ConnectError(kind, self.phase, message))
        self._finish(now_ns)

    def _os_error(self, error: OSError, now_ns: int) -> int:
        if self.phase is Phase.CLOSE:
            return self._closed(now_ns)
        kind, reason = socket_failure(error)
        return self._fail(kind, reason, now_ns)

    def _fail(self, kind: FailureKind, message: str, now_ns: int, sqlstate: str | None = None) -> int:
        """Try another way where libpq would; else end with an error."""
        error = ConnectError(kind, self.phase, message, sqlstate=sqlstate)
        asked = self._session is not None and self._session.asked
        is_host = asked or kind is FailureKind.SESSION_ATTRS or sqlstate == CANNOT_CONNECT_NOW
        # File descriptors that have run out are missing for any other host too.
        is_address = self.phase is Phase.TCP and kind is not FailureKind.CLIENT_FDS
        if (is_host or is_address) and self._pass_over(error, host=is_host, now_ns=now_ns):
            return self._elsewhere(now_ns)
        if self._other_tls_mode(kind):
            self._first_error = error
            return self._retry(now_ns)
        first = self._first_error
        # A wrong password, or a refusal that made us ask for TLS, says more than how the other way ended.
        if first is not None and (kind is FailureKind.TLS or first.sqlstate == "28P01"):
            error = first
        self.error = self._whole_story(error)
        return self._finish(now_ns)

    def _elsewhere(self, now_ns: int) -> int:
        """Connect to another address; what was spent on the one before is in `earlier_ns`."""
        self._forget()
        return self._restart(now_ns)

    def _retry(self, now_ns: int) -> int:
        spent = now_ns - self._mark_ns
        if self.phase is Phase.TCP:
            self.tcp_ns += spent
        elif self.phase is Phase.TLS:
            self.tls_ns = max(self.tls_ns, 0) + spent
        else:
            self.auth_ns += spent
        return self._restart(perf_counter_ns())

    def _restart(self, now_ns: int) -> int:
        self._close_socket()
        self._wire, self._wire_state = None, State.NEW
        self._authenticator = None
        self._tls = None
        return self._connect(now_ns)
