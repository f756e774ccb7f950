"""Failures by kind, and the few exceptions that cross layers.

Foreign exceptions (asyncpg, psycopg, OSError, ssl) are turned into `ConnectError` where they
arise, in `drivers/`; everything above counts kinds and never looks at messages.
"""

import errno
from enum import StrEnum
from typing import Final


class FailureKind(StrEnum):
    """Why an operation failed. The values are the keys of `errors` in the result file."""

    TIMEOUT = "timeout"
    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed"
    DNS = "dns"
    TLS = "tls"
    AUTH = "auth"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    SERVER_SHUTDOWN = "server_shutdown"
    SERVER_STARTING = "server_starting"
    IDLE_TIMEOUT = "idle_timeout"
    PROTOCOL = "protocol"
    CLIENT_FDS = "client_fds"
    CLIENT_PORTS = "client_ports"
    OTHER = "other"


class Phase(StrEnum):
    """A step of one operation.

    `CONNECT` stands for all steps up to ready where a driver hides them, `HOLD` for the time in which an
    open connection is kept and nothing is asked of it. A pool leases in `CHECKOUT`, takes back in `RETURN`.
    """

    RESOLVE = "resolve"
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


class PoolBenchError(Exception):
    """Base of every exception this package raises on purpose."""


class UsageError(PoolBenchError):
    """The user asked for something that cannot be done; the message is one line that names the option."""


class ServerStartError(PoolBenchError):
    """An embedded server did not start; the message carries the end of its log."""


class SaveError(PoolBenchError):
    """Results could not be written where they were to go; the message says where they are instead."""


class ConnectError(PoolBenchError):
    """One operation failed.

    Attributes:
        kind: what sort of failure it was.
        phase: the step it failed in.
        sqlstate: the five characters the server sent, if it sent any.
        message: one line for a person, without secrets.
    """

    def __init__(self, kind: FailureKind, phase: Phase, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.phase = phase
        self.message = message
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        state = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        return f"{self.kind} during {self.phase}: {self.message}{state}"


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
    "53300": FailureKind.TOO_MANY_CONNECTIONS,
    "57P01": FailureKind.SERVER_SHUTDOWN,
    "57P02": FailureKind.SERVER_SHUTDOWN,
    "57P03": FailureKind.SERVER_STARTING,
    "57P05": FailureKind.IDLE_TIMEOUT,
    "25P03": FailureKind.IDLE_TIMEOUT,
    "28000": FailureKind.AUTH,
    "28P01": FailureKind.AUTH,
}


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
    """Classify an ErrorResponse.

    PgBouncer reports most of its own refusals as 08P01, so its message decides there.
    """
    if sqlstate is None:
        return FailureKind.OTHER
    known = _KIND_BY_SQLSTATE.get(sqlstate)
    if known is FailureKind.SERVER_STARTING and "shutting down" in message:
        return FailureKind.SERVER_SHUTDOWN  # 57P03 is said while starting and while ending
    if known is not None:
        return known
    text = message.lower()
    if "no more connections allowed" in text or "too many connections" in text:
        return FailureKind.TOO_MANY_CONNECTIONS
    if "shutting down" in text or "database is disabled" in text or "pgbouncer is paused" in text:
        return FailureKind.SERVER_SHUTDOWN
    if "authentication failed" in text or "no such user" in text:
        return FailureKind.AUTH
    if "idle" in text and "timeout" in text:
        return FailureKind.IDLE_TIMEOUT
    if "timeout" in text:
        return FailureKind.TIMEOUT
    if sqlstate.startswith("08P"):
        return FailureKind.PROTOCOL
    return FailureKind.OTHER
