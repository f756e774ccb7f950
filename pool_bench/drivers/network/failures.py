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


def server_error(event: ev.ErrorResponse, phase: Phase) -> ConnectError:
    """An error that the server reports, made fit to be counted by and to be shown on a terminal."""
    state = event.sqlstate
    if state is not None and not (len(state) == 5 and state.isascii() and state.isalnum()):
        state = None
    return said_error(event.message, phase, sqlstate=state, detail=event.detail, hint=event.hint)


def said_error(
    message: str, phase: Phase, *, sqlstate: str | None, detail: str | None, hint: str | None
) -> ConnectError:
    """An error as a server words it, with DETAIL and HINT where they say more of the connection."""
    kind = kind_of_sqlstate(sqlstate, f"{message} {detail}" if detail else message)
    said = clean(message[:_MAX_REASON_CHARACTERS])
    for label, more in (("DETAIL", detail), ("HINT", hint)):
        told = clean((more or "")[:_MAX_REASON_CHARACTERS])
        if told and told not in said and is_about_connection(sqlstate):
            said += f" · {label}: {told}"
    return ConnectError(kind, phase, said, sqlstate=sqlstate)


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
