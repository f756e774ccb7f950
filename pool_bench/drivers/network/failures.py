"""What servers and sockets report, in this package's terms."""

import errno
import os
import ssl
from typing import Final

from pool_bench.cleaning import clean
from pool_bench.errors import (
    ConnectError,
    FailureKind,
    Phase,
    is_about_connection,
    kind_of_os_error,
    kind_of_sqlstate,
)
from pool_bench.pgwire import events as ev

_MAX_REASON_CHARACTERS: Final = 500


class StreamError(Exception):
    """A connection, or the look-up before it, failed.

    Attributes:
        kind: what sort of failure it was.
        message: one line for a person.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def one_line(text: object, otherwise: str = "no reason given") -> str:
    """What a server says, on one line and without what could upset a terminal; `otherwise` for nothing."""
    return clean(str(text)[:_MAX_REASON_CHARACTERS]) or otherwise


def server_error(event: ev.ErrorResponse, phase: Phase) -> ConnectError:
    """An error that the server reports, made fit to be counted by and to be shown on a terminal."""
    state = event.sqlstate
    if state is not None and not (len(state) == 5 and state.isascii() and state.isalnum()):
        state = None
    return reported_error(event.message, phase, sqlstate=state, detail=event.detail, hint=event.hint)


def reported_error(
    message: str, phase: Phase, *, sqlstate: str | None, detail: str | None, hint: str | None
) -> ConnectError:
    """An error as a server words it, with DETAIL and HINT where they say more of the connection."""
    kind = kind_of_sqlstate(sqlstate, f"{message} {detail}" if detail else message)
    words = one_line(message, "")
    for label, text in (("DETAIL", detail), ("HINT", hint)):
        more = one_line(text or "", "")
        if more and more not in words and is_about_connection(sqlstate):
            words += f" · {label}: {more}"
    return ConnectError(kind, phase, words, sqlstate=sqlstate)


def socket_failure(error: OSError) -> tuple[FailureKind, str]:
    """Kind and reason of what a socket, with TLS or without, raised."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        # Before Python 3.12 this is also how a reset looks behind TLS.
        return FailureKind.CLOSED, "the server closed the connection"
    if isinstance(error, ssl.SSLError):
        return FailureKind.TLS, _tls_reason(error)
    if error.errno == errno.ENOTCONN:
        # The peer has reset the connection, and an earlier call has already been told.
        return FailureKind.RESET, os.strerror(errno.ECONNRESET)
    return kind_of_os_error(error), error.strerror or str(error)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verification failed: {error.verify_message}"
    return (error.reason or str(error)).replace("_", " ").lower()
