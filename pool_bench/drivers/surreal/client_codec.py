"""The official client's values in CBOR, by a codec in C: what its own writes and reads, several times faster.

What is not certain to come out alike is left to the client's own codec: parameters of any but the plain
types, and answers with tags that hold more than plain values. So no value is ever another than with it alone.

CBOR's tags: https://surrealdb.com/docs/surrealdb/integration/cbor
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import cbor2
from surrealdb.data.cbor import decode as decode_as_client
from surrealdb.data.cbor import tag_decoder
from surrealdb.data.types import constants

# None is none of them: the client sends it as SurrealDB's NONE, which its encoder makes of it.
_PLAIN_TYPES: Final = frozenset({str, int, float, bool, bytes, UUID})
# A map of three: a number of eight bytes, the method, and an array of two (RFC 8949, section 3.1).
_PREFIX: Final = b"\xa3\x62id\x1b"
_BEFORE_QUERY: Final = b"\x66method\x65query\x66params\x82"
_NO_PARAMS: Final = b"\xa0"
# What the plain ones of SurrealDB's tags hold.
_PLAIN_TAGS: Final[Mapping[int, type]] = {
    constants.TAG_TABLE_NAME: str,
    constants.TAG_DECIMAL_STRING: str,
    constants.TAG_DATETIME_COMPACT: tuple,
    constants.TAG_DURATION: str,
    constants.TAG_DURATION_COMPACT: tuple,
}
_PLAIN_KEYS: Final = (str, int, UUID)


def encode_query(
    number: int, query: str, params: dict[str, Any], session: UUID | None, transaction: UUID | None
) -> bytes | None:
    """A request to run statements; None where a parameter has to be left to the client's own codec.

    Args:
        number: what the answer repeats.
        query: SurrealQL.
        params: values for the variables in it.
        session: an attached session to run it in.
        transaction: an open transaction to run it in.
    """
    if type(query) is not str or type(params) is not dict:
        return None
    if not params and session is None and transaction is None:
        # What most requests look like, in a quarter of the time.
        return b"".join((_PREFIX, number.to_bytes(8, "big"), _BEFORE_QUERY, cbor2.dumps(query), _NO_PARAMS))
    message: dict[str, object] = {"id": number, "method": "query", "params": [query, params]}
    if session is not None:
        message["session"] = str(session)
    if transaction is not None:
        message["txn"] = str(transaction)
    try:
        return cbor2.dumps(message) if _is_plain(params) else None
    except (cbor2.CBORError, ValueError, RecursionError):
        return None


def decode_message(data: bytes) -> Any:
    """A message of the server, with values as the client has them.

    Raises:
        Exception: whatever the client's own codec raises for what is no message.
    """
    try:
        return cbor2.loads(data, tag_hook=_value_of, semantic_decoders=_REFUSED)
    except (cbor2.CBORError, ValueError, RecursionError):
        return decode_as_client(data)


def _value_of(tag: cbor2.CBORTag, _immutable: bool) -> object:
    number, value = tag.tag, tag.value
    if number == constants.TAG_NONE and value is None:
        return None
    if type(value) is _PLAIN_TAGS.get(number) or (
        number == constants.TAG_RECORD_ID and len(value) == 2 and type(value[1]) in _PLAIN_KEYS
    ):
        # It looks at these two attributes alone.
        return tag_decoder(None, tag)  # type: ignore[arg-type]
    return _refuse(value, _immutable)


def _refuse(_value: object, _immutable: bool) -> object:
    raise ValueError("what stands below this tag is not certain to be read alike")


# Tags that `cbor2` knows by itself, but for the bytes of a UUID (37); SurrealDB sends none of them.
_REFUSED: Final = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 43, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse
)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_plain(each) for key, each in value.items())
    if kind is list:
        return all(_is_plain(each) for each in value)
    return kind in _PLAIN_TYPES
