"""The quick codec against the official client's own: the same bytes out, the same values in."""

from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from typing import Any
from uuid import UUID, uuid4

import cbor2
import pytest
from cbor2 import CBORTag
from hypothesis import example, given
from hypothesis import strategies as st
from surrealdb.data.cbor import decode, encode
from surrealdb.data.types.datetime import Datetime
from surrealdb.data.types.duration import Duration
from surrealdb.data.types.geometry import GeometryPoint
from surrealdb.data.types.range import BoundExcluded, BoundIncluded, Range
from surrealdb.data.types.record_id import RecordID
from surrealdb.data.types.table import Table
from surrealdb.request_message.message import RequestMessage
from surrealdb.request_message.methods import RequestMethod

from pool_bench.drivers.surreal.client_codec import decode_message, encode_query

_NAMES = st.text(max_size=8)
_SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.uuids(),
)
_PLAIN = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
_KEYS = st.one_of(st.text(max_size=8), st.integers(0, 2**40), st.uuids(), st.lists(st.integers(), max_size=3))
_RICH = st.recursive(
    st.one_of(
        _SCALARS,
        st.none(),
        st.builds(RecordID, st.just("person"), _KEYS),
        st.just(RecordID("person", {"first": [1], "second": {"third": None}})),
        st.builds(Table, st.just("person")),
        st.decimals(allow_nan=False, allow_infinity=False),
        st.builds(Duration, st.integers(0, 2**50)),
        st.builds(GeometryPoint, st.floats(-90, 90), st.floats(-90, 90)),
        st.just(Range(BoundIncluded(1), BoundExcluded([2, {"a": 1}]))),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=10,
)
# What a server writes and the client has no type for.
_TAGGED = st.one_of(
    st.none().map(lambda none: CBORTag(6, none)),
    st.tuples(st.integers(0, 4 * 10**9), st.integers(0, 10**9 - 1)).map(lambda pair: CBORTag(12, list(pair))),
    st.integers(0, 4 * 10**9).map(lambda seconds: CBORTag(14, [seconds])),
)


def _as_client_writes(query: str, params: dict[str, Any], **more: Any) -> Any:
    message = RequestMessage(RequestMethod.QUERY, query=query, params=params, **more)
    written: bytes = message.WS_CBOR_DESCRIPTOR
    return {**cbor2.loads(written), "id": 7}


def _same(one: object, other: object) -> bool:
    """Whether values are equal and of the same types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, RecordID) and isinstance(other, RecordID):
        return one.table_name == other.table_name and _same(one.id, other.id)
    if isinstance(one, (Table, Duration, GeometryPoint, Range, BoundIncluded, BoundExcluded)):
        return _same(vars(one), vars(other))
    # Messages of MIME, which are not equal to any other.
    return one == other or (isinstance(one, Message) and str(one) == str(other))


@given(query=st.text(), params=st.dictionaries(_NAMES, _PLAIN, max_size=4))
@example(query="RETURN 1", params={})
@example(query="x" * 70_000, params={})
def test_a_request_is_the_one_that_the_client_would_send(query: str, params: dict[str, Any]) -> None:
    encoded = encode_query(7, query, params, None, None)
    assert encoded is not None
    assert cbor2.loads(encoded) == _as_client_writes(query, params)
    # Byte for byte, which equal values need not be.
    if params:
        assert encoded.endswith(encode([query, params]))


def test_sessions_and_transactions_are_named_as_the_client_names_them() -> None:
    session, transaction = uuid4(), uuid4()
    encoded = encode_query(7, "RETURN 1", {}, session, transaction)
    assert encoded is not None
    assert cbor2.loads(encoded) == _as_client_writes("RETURN 1", {}, session=session, txn=transaction)


@pytest.mark.parametrize(
    "value",
    [
        None,
        Decimal("1.5"),
        datetime(2026, 1, 1, tzinfo=UTC),
        Datetime("2026-01-01T00:00:00Z"),
        RecordID("person", 1),
        Table("person"),
        Duration(5),
        (1, 2),
        {1: 2},
        {1, 2},
        object(),
    ],
)
def test_any_value_but_the_plainest_is_left_to_the_client(value: object) -> None:
    for params in ({"a": value}, {"a": [{"b": value}]}):
        assert encode_query(7, "RETURN 1", params, None, None) is None


def test_what_the_client_would_refuse_is_left_to_it() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for query, params in ((1, {}), (None, {}), ("x", []), ("x", {"a": deep}), ("\ud800", {"a": 1})):
        assert encode_query(7, query, params, None, None) is None  # type: ignore[arg-type]


@given(value=_RICH | _TAGGED, number=st.integers(0, 9) | _NAMES)
def test_an_answer_has_the_values_that_the_client_would_give(value: object, number: object) -> None:
    answer = {"id": number, "result": [{"result": value, "status": "OK", "type": CBORTag(6, None)}]}
    try:
        data = cbor2.dumps(answer, default=_default)
    except cbor2.CBOREncodeError:
        return
    expected = decode(data)
    found = decode_message(data)
    assert _same(found, expected), (found, expected)


@pytest.mark.parametrize("tag", [*range(64), *range(86, 96), 100, 256, 258, 260, 261, 1004, 43000, 55799])
@pytest.mark.parametrize(
    "value", [None, 1, "x", "1", [1, 2], ["a", {"b": 1}], [], b"\x01", 1.5, UUID(int=1).bytes]
)
def test_whatever_a_tag_holds_it_is_read_or_refused_as_by_the_client(tag: int, value: object) -> None:
    data = cbor2.dumps({"id": 1, "result": CBORTag(tag, value)})
    try:
        expected = decode(data)
    except Exception as error:
        with pytest.raises(type(error)):
            decode_message(data)
    else:
        assert _same(decode_message(data), expected)


@pytest.mark.parametrize("data", [b"", b"\xa1", b"\x9f" * 5000, b"\xc0\x00"])
def test_what_is_no_message_is_refused_as_by_the_client(data: bytes) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011
        decode(data)
    with pytest.raises(type(expected.value)):
        decode_message(data)


def _default(encoder: cbor2.CBOREncoder, value: object) -> None:
    """The client's own values, as its own encoder writes them."""
    encoder.write(encode(value))
