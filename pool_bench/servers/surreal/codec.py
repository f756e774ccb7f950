"""SurrealDB's RPC messages on their way to the embedded engine and back; bytes in, bytes out, no I/O.

The engine speaks CBOR only and has one table of sessions for all callers, with an owner's session for
requests that name none. So each request gets the session of the socket it came by, as its last key: the
engine takes the last of equal keys. Nothing may stand behind the map, or it would be read in the place of
that key. The session is the last key of the engine's answer, too, and is taken off again. Neither way are
values encoded anew, which would cost time and lose what CBOR's tags say; only JSON needs that.

RPC protocol: https://surrealdb.com/docs/surrealdb/integration/rpc,
CBOR's tags: https://surrealdb.com/docs/surrealdb/integration/cbor
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any, Final, Literal, cast
from uuid import UUID

import cbor2
from cbor2 import CBORTag

Format = Literal["cbor", "json"]

# What the engine allows (SURREAL_MAX_OBJECT_PARSING_DEPTH), the envelope included.
_MAX_DEPTH: Final = 102
_SESSION_KEY: Final = b"\x67session\xd8\x25\x50"
_SESSION_BYTES: Final = len(_SESSION_KEY) + 16
_NONE_TAG: Final = 6

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DURATION_UNITS: Final = (("y", 31_536_000), ("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_GEOMETRIES: Final = {
    89: "LineString",
    90: "Polygon",
    91: "MultiPoint",
    92: "MultiLineString",
    93: "MultiPolygon",
}


class RequestError(Exception):
    """A message that is no request.

    Attributes:
        answer: the error that a server answers it with.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["error"]["message"])
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        raw: its CBOR encoding: one map, and nothing behind it.
        id: what the answer has to repeat; None where there is none.
        method: such as `query`; empty where it is no string, which the engine has to refuse.
        session: the session that the client named.
    """

    raw: bytes
    id: object
    method: str
    session: UUID | None


def failure(
    code: int, kind: str, message: str, details: object = None, *, request: Request | None = None
) -> dict[str, Any]:
    """An answer that says what went wrong, as the engine words its own."""
    error = {"code": code, "kind": kind, "message": message, "details": details, "cause": None}
    answer: dict[str, Any] = {"error": error}
    if request is not None and request.id is not None:
        answer["id"] = request.id
    if request is not None and request.session is not None:
        answer["session"] = request.session
    return answer


def success(request: Request, result: object) -> dict[str, Any]:
    """An answer with a result."""
    answer = {"result": result}
    if request.id is not None:
        answer["id"] = request.id
    if request.session is not None:
        answer["session"] = request.session
    return answer


def parse_error() -> dict[str, Any]:
    """The answer to what cannot be decoded."""
    return failure(-32700, "Validation", "Parse error", {"kind": "Parse"})


def invalid_request() -> dict[str, Any]:
    """The answer to a map that is no request."""
    return failure(-32600, "Validation", "Invalid request", {"kind": "InvalidRequest"})


def read_request(data: bytes, form: Format) -> Request:
    """Decode one message of a client.

    Raises:
        RequestError: it is not one map, or names a session that is no UUID.
    """
    try:
        message = _decode_whole(data) if form == "cbor" else json.loads(data, parse_constant=_refuse)
        raw = data if form == "cbor" else cbor2.dumps(message)
    # Whatever a hostile message makes a decoder or encoder stumble over.
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError):
        raise RequestError(parse_error()) from None
    if not isinstance(message, dict):
        raise RequestError(parse_error())
    method = message.get("method")
    return Request(
        raw=raw,
        id=message.get("id"),
        method=method if isinstance(method, str) else "",
        session=_session_of(message.get("session")),
    )


def add_session(request: Request, session: UUID) -> bytes:
    """The request as the engine gets it: under `session`, whatever session it names itself."""
    raw = request.raw
    pair = _SESSION_KEY + session.bytes
    first = raw[0]
    if 0xA0 <= first < 0xB7:
        return bytes((first + 1,)) + raw[1:] + pair
    if first == 0xBF:
        return raw[:-1] + pair + b"\xff"
    # The number of pairs, in the first byte itself or in the 1, 2, 4 or 8 after it (RFC 8949, section 3).
    size = 0 if first == 0xB7 else 1 << (first - 0xB8)
    pairs = int.from_bytes(raw[1 : 1 + size], "big") if size else first - 0xA0
    return b"\xbb" + (pairs + 1).to_bytes(8, "big") + raw[1 + size :] + pair


def remove_session(answer: bytes, session: UUID, named: UUID | None) -> bytes:
    """The engine's answer as the client gets it.

    Args:
        answer: what the engine said.
        session: the session that `add_session` added.
        named: the session that the client named, which has to stand in the place of it.
    """
    if not answer.endswith(_SESSION_KEY + session.bytes):
        return answer
    if named is not None:
        return answer[:-16] + named.bytes
    return bytes((answer[0] - 1,)) + answer[1:-_SESSION_BYTES]


def write_answer(answer: bytes | Mapping[str, Any], form: Format) -> bytes:
    """An answer in a client's format; JSON is UTF-8.

    Args:
        answer: what the engine said, or an answer of ours.

    Raises:
        ValueError: a value has no place in that format, such as a date after the year 9999 in JSON.
    """
    if form == "cbor":
        return answer if isinstance(answer, bytes) else cbor2.dumps(answer)
    try:
        content = decode(answer) if isinstance(answer, bytes) else answer
        return json.dumps(content, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()
    except (cbor2.CBORError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"Failed to encode JSON response: {error}") from error


def decode(answer: bytes) -> Any:
    """An answer of the engine, its values as JSON has them."""
    return _without_infinities(cbor2.loads(answer, tag_hook=_plain_tag))


def _decode_whole(data: bytes) -> object:
    decoder = cbor2.CBORDecoder(BytesIO(data), max_depth=_MAX_DEPTH, allow_duplicate_keys=False)
    message: object = decoder.decode()
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return message
    raise ValueError("unexpected data after the message")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _session_of(value: object) -> UUID | None:
    if value is None or (isinstance(value, CBORTag) and value.tag == _NONE_TAG):
        return None
    if isinstance(value, CBORTag) and value.tag == 9:
        value = value.value
    if isinstance(value, UUID):
        return value
    try:
        return UUID(cast("str", value))
    except (ValueError, AttributeError, TypeError):
        raise RequestError(invalid_request()) from None


def _without_infinities(value: Any) -> Any:
    """JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):  # what stands below a tag may be cbor2's frozendict
        return {str(key): _without_infinities(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(each) for each in value]
    return value


def _plain(value: object) -> object:
    """A value of a type that `json` does not know."""
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, CBORTag):
        return _plain_tag(value, False)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _plain_tag(tag: CBORTag, _immutable: bool) -> object:
    """What JSON has in the place of a tagged value; the value itself for tags that it need not know."""
    form = _PLAIN_FORMS.get(tag.tag)
    return tag.value if form is None else form(tag.value)


def _record_id(value: Any) -> str:
    table, key = value
    return f"{_name(str(table))}:{_name(key) if isinstance(key, str) else _literal(key)}"


class _Bare(str):
    """Text that stands for itself, without quotes."""

    __slots__ = ()


def _name(text: str) -> str:
    return text if isinstance(text, _Bare) or _IDENTIFIER.fullmatch(text) else f"`{text}`"


def _literal(value: object) -> str:
    if isinstance(value, UUID):
        return f"u'{value}'"
    if isinstance(value, _Bare):
        return value
    return json.dumps(_without_infinities(value), default=_plain, ensure_ascii=False)


def _datetime(value: Any) -> str:
    seconds, nanoseconds = (*value, 0, 0)[:2]
    whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z"


def _duration(value: Any) -> str:
    seconds, nanoseconds = (*value, 0, 0)[:2]
    parts = []
    for unit, size in _DURATION_UNITS:
        count, seconds = divmod(seconds, size)
        parts.append((count, unit))
    for unit, size in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
        count, nanoseconds = divmod(nanoseconds, size)
        parts.append((count, unit))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0ns"


def _range(value: Any) -> str:
    (begin, begin_mark), (end, end_mark) = (bound or ("", "") for bound in value)
    return _Bare(f"{begin}{'>' if begin_mark == '>' else ''}..{'=' if end_mark == '=' else ''}{end}")


def _geometry(kind: str) -> Callable[[Any], object]:
    def form(value: Any) -> object:
        return {"type": kind, "coordinates": [_coordinates(each) for each in value]}

    return form


def _coordinates(value: Any) -> object:
    return value["coordinates"] if isinstance(value, dict) else value


_PLAIN_FORMS: Final[Mapping[int, Callable[[Any], object]]] = {
    _NONE_TAG: lambda _: None,
    8: _record_id,
    12: _datetime,
    14: _duration,
    49: _range,
    50: lambda value: (_literal(value), "="),
    51: lambda value: (_literal(value), ">"),
    88: lambda value: {"type": "Point", "coordinates": list(value)},
    **{tag: _geometry(kind) for tag, kind in _GEOMETRIES.items()},
    94: lambda value: {"type": "GeometryCollection", "geometries": list(value)},
}
