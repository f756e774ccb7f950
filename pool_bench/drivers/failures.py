"""What servers and sockets report, in this package's terms."""

import errno
import os
import ssl
from typing import Final

from pool_bench.errors import ConnectError, FailureKind, Phase, kind_of_os_error, kind_of_sqlstate
from pool_bench.pgwire import events as ev

_MAX_REASON_CHARACTERS: Final = 500


def server_error(event: ev.ErrorResponse, phase: Phase) -> ConnectError:
    """An error that the server reports, made fit to be counted by and to be shown on a terminal."""
    text = event.message
    message = "".join(c if c.isprintable() else "?" for c in text[:_MAX_REASON_CHARACTERS])
    state = event.sqlstate
    if state is not None and not (len(state) == 5 and state.isascii() and state.isalnum()):
        state = None
    return ConnectError(kind_of_sqlstate(state, text), phase, message, sqlstate=state)


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
