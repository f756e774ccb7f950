"""SurrealDB's RPC messages: CBOR requests, answers, and their errors in this package's terms. No I/O.

https://surrealdb.com/docs/surrealdb/integration/rpc
"""

from collections.abc import Mapping
from typing import Any, Final

import cbor2

from pool_bench.drivers.network.failures import one_line
from pool_bench.errors import ConnectError, FailureKind, Phase

# Levels of nesting in an answer; the server allows about as many.
_MAX_DEPTH: Final = 128
# One request is under way at a time, so all may have the same number, and be encoded once for all.
_ID: Final = 1

_KIND_BY_PHRASE: Final = (
    ("shutting down", FailureKind.SERVER_SHUTDOWN),
    ("unable to handle the request", FailureKind.TOO_MANY_CONNECTIONS),
)
# https://datatracker.ietf.org/doc/html/rfc6455#section-7.4.1 and its registry
_KIND_BY_CLOSE_CODE: Final = {
    1001: FailureKind.SERVER_SHUTDOWN,
    1002: FailureKind.PROTOCOL,
    1003: FailureKind.PROTOCOL,
    1007: FailureKind.PROTOCOL,
    1008: FailureKind.AUTH,
    1009: FailureKind.PROTOCOL,
    1012: FailureKind.SERVER_SHUTDOWN,
    1013: FailureKind.TOO_MANY_CONNECTIONS,
}
_KIND_BY_STATUS: Final = {
    401: FailureKind.AUTH,
    403: FailureKind.AUTH,
    429: FailureKind.TOO_MANY_CONNECTIONS,
    503: FailureKind.TOO_MANY_CONNECTIONS,
}


def encode_request(method: str, *params: object) -> bytes:
    """A request.

    Raises:
        TypeError: a parameter has no place in CBOR.
    """
    try:
        return cbor2.dumps({"id": _ID, "method": method, "params": list(params)})
    except (cbor2.CBOREncodeError, RecursionError, OverflowError) as error:
        raise TypeError(f"a parameter cannot be sent: {error}") from error


def decode_answer(data: bytes) -> dict[str, Any] | None:
    """An answer, or None for a message that answers nothing (the notification of a live query).

    Raises:
        ValueError: it is neither.
    """
    try:
        message = cbor2.loads(data, max_depth=_MAX_DEPTH)
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ValueError("the server's answer is not CBOR") from error
    if not isinstance(message, dict):
        raise ValueError("the server's answer is not a map")
    number = message.get("id")
    # An error without a number says that our request could not even be read.
    if number is None and "error" not in message:
        return None
    if number not in (None, _ID):
        raise ValueError("the server answers what was not asked")
    return message


def result_of(answer: Mapping[str, Any], phase: Phase) -> Any:
    """The result in an answer.

    Raises:
        ConnectError: the answer is an error, or has no result.
    """
    error = answer.get("error")
    if error is not None:
        raise rpc_error(error, phase)
    if "result" not in answer:
        raise ConnectError(FailureKind.PROTOCOL, phase, "the server's answer has neither result nor error")
    return answer["result"]


def check_statements(result: object) -> None:
    """Look for a failed statement in the result of a query.

    Raises:
        ConnectError: there is one, or the result is none of a query.
    """
    if not isinstance(result, (list, tuple)):
        raise ConnectError(FailureKind.PROTOCOL, Phase.QUERY, "the server's answer is not that to a query")
    for statement in result:
        if not isinstance(statement, dict):
            raise ConnectError(
                FailureKind.PROTOCOL, Phase.QUERY, "the server's answer is not that to a query"
            )
        if statement.get("status") == "ERR":
            raise rpc_error({**statement, "message": statement.get("result")}, Phase.QUERY)


def rpc_error(error: object, phase: Phase) -> ConnectError:
    """An error that the server reports, made fit to be counted by and to be shown on a terminal."""
    if not isinstance(error, dict):
        return ConnectError(FailureKind.PROTOCOL, phase, f"the server reports an error: {one_line(error)}")
    message = one_line(error.get("message", ""))
    return ConnectError(kind_of_error(error.get("kind"), error.get("details"), message), phase, message)


def kind_of_error(kind: object, details: object, message: str) -> FailureKind:
    """Classify an error by SurrealDB's own kinds of error."""
    detail = details.get("kind") if isinstance(details, dict) else None
    if kind == "NotAllowed" and (detail in ("Auth", None) or "ermission" in message):
        return FailureKind.AUTH
    if kind == "Query" and detail == "TimedOut":
        return FailureKind.TIMEOUT
    if kind == "Validation" and detail in ("Parse", "InvalidRequest") and message in _UNREADABLE:
        return FailureKind.PROTOCOL
    if kind == "NotFound" and detail == "Method":
        return FailureKind.PROTOCOL
    for phrase, phrase_kind in _KIND_BY_PHRASE:
        if phrase in message:
            return phrase_kind
    return FailureKind.OTHER


# Of the message, not of the query in it.
_UNREADABLE: Final = ("Parse error", "Invalid request")


def kind_of_close(code: int | None) -> FailureKind:
    """Classify the server's reason to close a WebSocket."""
    return FailureKind.CLOSED if code is None else _KIND_BY_CLOSE_CODE.get(code, FailureKind.CLOSED)


def kind_of_status(status: int) -> FailureKind:
    """Classify an HTTP status that is no success."""
    return _KIND_BY_STATUS.get(status, FailureKind.PROTOCOL)
