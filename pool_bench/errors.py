"""Failures by kind, and the few exceptions that cross layers.

Foreign exceptions (asyncpg, psycopg, OSError, ssl) are turned into `ConnectError` where they
arise, in `drivers/`; everything above counts kinds and never looks at messages.
"""

import errno
import re
from enum import StrEnum
from typing import Final, Self

from pool_bench.cleaning import clean


class FailureKind(StrEnum):
    """Why an operation failed. The values are the keys of `errors` in the result file.

    `docs/failures.md` has what people see, what it means and what to do for each. `BACKEND_DOWN` is what a
    pooler says that is there itself, and does not get to its server.
    """

    TIMEOUT = "timeout"
    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed"
    DNS = "dns"
    TLS = "tls"
    AUTH = "auth"
    NO_DATABASE = "no_database"
    BACKEND_DOWN = "backend_down"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    SERVER_SHUTDOWN = "server_shutdown"
    SERVER_STARTING = "server_starting"
    IDLE_TIMEOUT = "idle_timeout"
    PROTOCOL = "protocol"
    SESSION_ATTRS = "session_attrs"
    CLIENT_FDS = "client_fds"
    CLIENT_PORTS = "client_ports"
    OTHER = "other"


class Phase(StrEnum):
    """A step of one operation.

    `EARLIER` is the time that was lost on hosts and addresses before the one that took the connection;
    `CONNECT` stands for all steps up to ready where a driver hides them, `HOLD` for the time in which an
    open connection is kept and nothing is asked of it. A pool leases in `CHECKOUT`, takes back in `RETURN`.
    """

    RESOLVE = "resolve"
    EARLIER = "earlier"
    TCP = "tcp"
    TLS = "tls"
    UPGRADE = "upgrade"
    SIGNIN = "signin"
    USE = "use"
    AUTH = "auth"
    READY = "ready"
    CONNECT = "connect"
    CHECKOUT = "checkout"
    QUERY = "query"
    HOLD = "hold"
    RETURN = "return"
    CLOSE = "close"


def reason_of(error: OSError | None) -> str:
    """What an operating-system error says, as the end of a line."""
    text = "" if error is None else error.strerror or str(error)
    return text[:1].lower() + text[1:]


class PoolBenchError(Exception):
    """Base of every exception this package raises on purpose."""


class UsageError(PoolBenchError):
    """The user asked for something that cannot be done; the message is one line that names the option."""


class ServerStartError(PoolBenchError):
    """An embedded server did not start; the message carries the end of its log."""


class SaveError(PoolBenchError):
    """Results could not be written where they were to go; the message says where they are instead."""


class LeaseOverError(PoolBenchError):
    """A connection was used that has been given back to its pool."""


class ConnectError(PoolBenchError):
    """One operation failed.

    Attributes:
        kind: what sort of failure it was.
        phase: the step it failed in.
        sqlstate: the five characters the server sent, if it sent any.
        message: one line for a person, without secrets, cleaned of what a server may have put into it.
        address: where, as `host:port`; "" where that is not known.
        passed_over: addresses that were tried before, and what was wrong there.
    """

    def __init__(
        self,
        kind: FailureKind,
        phase: Phase,
        message: str,
        *,
        sqlstate: str | None = None,
        address: str = "",
    ) -> None:
        self.message = clean(message)
        super().__init__(self.message)
        self.kind = kind
        self.phase = phase
        self.sqlstate = sqlstate
        self.address = address
        self.passed_over: tuple[tuple[str, FailureKind], ...] = ()

    def at(self, address: str) -> Self:
        """The same error, with the address where it happened."""
        self.address = address
        return self

    def __str__(self) -> str:
        state = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        return f"{self.kind} during {self.phase}: {self.message}{state}"


class QueryTimeoutError(ConnectError, TimeoutError):
    """A query did not end within the limit of its connection, and was cancelled."""

    def __init__(self, message: str) -> None:
        super().__init__(FailureKind.TIMEOUT, Phase.QUERY, message)


_KIND_BY_ERRNO: Final = {
    errno.ECONNREFUSED: FailureKind.REFUSED,
    errno.ENOENT: FailureKind.REFUSED,
    errno.ECONNRESET: FailureKind.RESET,
    errno.EPIPE: FailureKind.RESET,
    errno.ECONNABORTED: FailureKind.RESET,
    errno.ETIMEDOUT: FailureKind.TIMEOUT,
    errno.EMFILE: FailureKind.CLIENT_FDS,
    errno.ENFILE: FailureKind.CLIENT_FDS,
    errno.EADDRNOTAVAIL: FailureKind.CLIENT_PORTS,
    # Linux answers a full accept queue of a Unix socket with EAGAIN; nothing listens there in time.
    errno.EAGAIN: FailureKind.REFUSED,
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_KIND_BY_SQLSTATE: Final = {
    "3D000": FailureKind.NO_DATABASE,
    "53300": FailureKind.TOO_MANY_CONNECTIONS,
    "57P01": FailureKind.SERVER_SHUTDOWN,
    "57P02": FailureKind.SERVER_SHUTDOWN,
    "57P03": FailureKind.SERVER_STARTING,
    "57P04": FailureKind.NO_DATABASE,
    "57P05": FailureKind.IDLE_TIMEOUT,
    "25P03": FailureKind.IDLE_TIMEOUT,
    "28000": FailureKind.AUTH,
    "28P01": FailureKind.AUTH,
}

# Poolers give one SQLSTATE to all they have to say (PgBouncer 08P01, pgcat and PgDog 58000, pgpool-II and
# Supavisor XX000), so their words decide. They are those of PgBouncer 1.7 to 1.25, Odyssey 1.3, pgcat 1.2,
# PgDog, pgpool-II 4, Supavisor 2 and RDS Proxy. The first that matches counts: what a pooler passes on from
# its server ("server login has been failing, cached error: sorry, too many clients already") names the
# server's state, but a log-in there is not the client's own.
_KIND_BY_WORDS: Final = tuple(
    (re.compile(words), kind)
    for words, kind in (
        (
            r"is starting up|not yet accepting connections|in recovery mode",
            FailureKind.SERVER_STARTING,
        ),
        (
            r"no more connections allowed|too many (clients|connections|servers)|remaining connection slots|"
            r"client connections exceeded|max (client|proxy) connections reached|max clients reached|\(emax",
            FailureKind.TOO_MANY_CONNECTIONS,
        ),
        (
            r"shutting down|server shutdown|database (\S+ )?is disabled|pgbouncer is paused|"
            r"terminating connection due to administrator",
            FailureKind.SERVER_SHUTDOWN,
        ),
        (r"no such database|database \S+ does not exist", FailureKind.NO_DATABASE),
        (
            r"server login (has been failing|failed)|^connect failed|server conn crashed|"
            r"server dns lookup failed|failed to connect to remote server|remote server read/write error|"
            r"could not get connection from the pool|connection pool .* is down|all servers (are )?down|"
            r"all backend nodes are down|circuit ?breaker",
            FailureKind.BACKEND_DOWN,
        ),
        (
            r"authentication failed|no such user|tenant[ /]\S*( or)? ?(user )?.*not found|"
            r"password for user .* is wrong|login rejected|no pg_hba\.conf entry|no password supplied|"
            r"role .* does not exist",
            FailureKind.AUTH,
        ),
        (r"ssl is required|ssl required|connect with tls|requires? (ssl|tls)", FailureKind.TLS),
        (r"idle.*(timeout|limit)|disconnecting idle client", FailureKind.IDLE_TIMEOUT),
        (r"timeout|timed[- ]out", FailureKind.TIMEOUT),
    )
)
# In these a server or pooler speaks of the connection; in others of the query, in whatever words.
_ABOUT_CONNECTIONS: Final = ("08", "25", "28", "53", "57", "58", "XX")


# asyncio raises some of these without an errno ("Connection lost").
_KIND_BY_CLASS: Final = (
    (TimeoutError, FailureKind.TIMEOUT),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (ConnectionError, FailureKind.RESET),
)


def kind_of_os_error(error: OSError) -> FailureKind:
    """Classify a socket error by its errno or its class; `OTHER` where neither is about connecting."""
    if error.errno is not None:
        return _KIND_BY_ERRNO.get(error.errno, FailureKind.OTHER)
    for kind_of_error, kind in _KIND_BY_CLASS:
        if isinstance(error, kind_of_error):
            return kind
    return FailureKind.OTHER


def kind_of_sqlstate(sqlstate: str | None, message: str = "") -> FailureKind:
    """Classify an ErrorResponse by its SQLSTATE, and where that says little by its words.

    Args:
        message: the message, and its DETAIL where there is one.
    """
    if sqlstate is None:
        return FailureKind.OTHER
    known = _KIND_BY_SQLSTATE.get(sqlstate)
    if known is FailureKind.SERVER_STARTING and "shutting down" in message:
        return FailureKind.SERVER_SHUTDOWN  # 57P03 is said while starting and while ending
    if known is not None:
        return known
    told = kind_of_words(message) if sqlstate.startswith(_ABOUT_CONNECTIONS) else None
    if told is not None:
        return told
    return FailureKind.PROTOCOL if sqlstate.startswith("08P") else FailureKind.OTHER


def kind_of_words(message: str) -> FailureKind | None:
    """Classify what a server or pooler says of a connection, None where the words are of no known kind."""
    text = message.lower()
    return next((kind for words, kind in _KIND_BY_WORDS if words.search(text)), None)


def is_about_connection(sqlstate: str | None) -> bool:
    """Whether an error speaks of the connection, and not of a query, whose error could show its data."""
    return sqlstate is None or sqlstate == "3D000" or sqlstate.startswith(_ABOUT_CONNECTIONS)
