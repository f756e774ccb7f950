"""The state of a connection's start-up, and every transition there is, in one table.

https://www.postgresql.org/docs/current/protocol-flow.html. A message that has no entry for the
present state is a protocol error. Authentication requests are split by their sub-code, so that a
server cannot say "ok" in the middle of a SCRAM exchange and so skip proving itself.
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from types import MappingProxyType
from typing import Final

from pool_bench.pgwire import events as ev


class State(IntEnum):
    """Where a connection is; integers, since an `Enum` member's hash is computed in Python.

    In the order of a connection's life: up to `STARTING` a server may not speak protocol 3 yet.
    """

    NEW = auto()
    TLS_ASKED = auto()
    TLS_ANSWERED = auto()
    STARTING = auto()
    PASSWORD_WANTED = auto()
    PASSWORD_SENT = auto()
    SASL_WANTED = auto()
    SASL_STARTED = auto()
    SASL_CHALLENGED = auto()
    SASL_ANSWERED = auto()
    SASL_PROVEN = auto()
    AUTHENTICATED = auto()
    READY = auto()
    QUERYING = auto()
    FAILED = auto()
    TERMINATED = auto()
    CLOSED = auto()
    BROKEN = auto()


S = State

CLIENT: Final[Mapping[tuple[State, type[ev.ClientEvent]], State]] = MappingProxyType(
    {
        (S.NEW, ev.SSLRequest): S.TLS_ASKED,
        (S.NEW, ev.Startup): S.STARTING,
        (S.TLS_ANSWERED, ev.Startup): S.STARTING,
        (S.PASSWORD_WANTED, ev.Password): S.PASSWORD_SENT,
        (S.SASL_WANTED, ev.SASLInitialResponse): S.SASL_STARTED,
        (S.SASL_CHALLENGED, ev.SASLResponse): S.SASL_ANSWERED,
        (S.READY, ev.Query): S.QUERYING,
        (S.READY, ev.Terminate): S.TERMINATED,
        (S.QUERYING, ev.Terminate): S.TERMINATED,
    }
)

_Transitions = Mapping[type[ev.ServerEvent], State | None]

_LEGAL_ANY_TIME: Final[_Transitions] = {
    ev.NoticeResponse: None,
    ev.ErrorResponse: S.FAILED,
}
_REPORTS: Final[_Transitions] = {
    ev.NoticeResponse: None,
    ev.ParameterStatus: None,
    ev.NotificationResponse: None,
}
_STARTING: Final[_Transitions] = {
    **_LEGAL_ANY_TIME,
    ev.NegotiateProtocolVersion: None,
    ev.AuthenticationOk: S.AUTHENTICATED,
    ev.AuthenticationCleartextPassword: S.PASSWORD_WANTED,
    ev.AuthenticationMD5Password: S.PASSWORD_WANTED,
    ev.AuthenticationSASL: S.SASL_WANTED,
    ev.AuthenticationUnsupported: None,
}

# None keeps the state.
SERVER: Final[Mapping[State, _Transitions]] = MappingProxyType(
    {
        S.NEW: {},
        S.TLS_ANSWERED: {},
        S.TLS_ASKED: {ev.SSLAnswer: S.TLS_ANSWERED, ev.ErrorResponse: S.FAILED},
        S.STARTING: _STARTING,
        # While we think, the server can still lose patience.
        S.PASSWORD_WANTED: _LEGAL_ANY_TIME,
        S.SASL_WANTED: _LEGAL_ANY_TIME,
        S.SASL_CHALLENGED: _LEGAL_ANY_TIME,
        S.PASSWORD_SENT: {**_LEGAL_ANY_TIME, ev.AuthenticationOk: S.AUTHENTICATED},
        S.SASL_STARTED: {**_LEGAL_ANY_TIME, ev.AuthenticationSASLContinue: S.SASL_CHALLENGED},
        S.SASL_ANSWERED: {**_LEGAL_ANY_TIME, ev.AuthenticationSASLFinal: S.SASL_PROVEN},
        S.SASL_PROVEN: {**_LEGAL_ANY_TIME, ev.AuthenticationOk: S.AUTHENTICATED},
        S.AUTHENTICATED: {
            **_LEGAL_ANY_TIME,
            **_REPORTS,
            ev.BackendKeyData: None,
            ev.ReadyForQuery: S.READY,
        },
        # An idle session hears of a shutdown by an ErrorResponse of its own.
        S.READY: {**_REPORTS, ev.ErrorResponse: S.FAILED},
        # An error in a query ends with ReadyForQuery; a fatal one with the end of the connection.
        S.QUERYING: {
            **_REPORTS,
            ev.CommandComplete: None,
            ev.ErrorResponse: None,
            ev.ReadyForQuery: S.READY,
        },
        S.TERMINATED: {**_REPORTS, ev.ErrorResponse: None, ev.CommandComplete: None, ev.ReadyForQuery: None},
        S.FAILED: {**_REPORTS, ev.ErrorResponse: None},
    }
)
