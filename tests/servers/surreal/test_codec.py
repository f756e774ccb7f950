"""Sessions on the way in and out of the embedded engine, for messages of all sorts."""

import json
from typing import Any
from uuid import UUID

import cbor2
import pytest
from cbor2 import CBORTag
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.servers.surreal.codec import (
    RequestError,
    add_session,
    decode,
    read_request,
    remove_session,
    write_answer,
)

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_messages = st.dictionaries(st.text(), _values, max_size=300).map(
    lambda extra: {**extra, "id": 1, "method": "query"} | {"session": None}
)


@given(message=_messages, session=st.uuids())
def test_the_last_session_of_a_request_is_the_one_that_was_added(
    message: dict[str, Any], session: UUID
) -> None:
    raw = cbor2.dumps(message)
    sent = cbor2.loads(add_session(read_request(raw, "cbor"), session))
    assert sent["session"] == session
    assert cbor2.dumps({**sent, "session": None}) == raw


@given(message=_messages, behind=st.binary(min_size=1, max_size=20))
def test_nothing_may_stand_behind_a_request(message: dict[str, Any], behind: bytes) -> None:
    with pytest.raises(RequestError, match="Parse error"):
        read_request(cbor2.dumps(message) + behind, "cbor")


@given(data=st.binary(max_size=60), form=st.sampled_from(["cbor", "json"]))
def test_anything_is_a_request_or_a_request_error(data: bytes, form: Any) -> None:
    refusal = None
    try:
        request = read_request(data, form)
    except RequestError as error:
        refusal = error.answer
    if refusal is None:
        assert isinstance(cbor2.loads(request.raw), dict)
    else:
        assert refusal["error"]["code"] in (-32700, -32600)
        assert write_answer(refusal, form)


@given(result=_values, session=st.uuids(), named=st.none() | st.uuids())
def test_an_answer_has_the_session_that_the_client_named_or_none(
    result: object, session: UUID, named: UUID | None
) -> None:
    bare: dict[str, Any] = {"id": 1, "result": result}
    answer = remove_session(cbor2.dumps({**bare, "session": session}), session, named)
    assert answer == cbor2.dumps(bare if named is None else {**bare, "session": named})
    assert remove_session(cbor2.dumps(bare), session, named) == cbor2.dumps(bare)


@given(result=_values)
def test_every_answer_can_be_written_as_json(result: object) -> None:
    written = write_answer(cbor2.dumps({"id": 1, "result": result}), "json")
    assert set(json.loads(written)) == {"id", "result"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CBORTag(6, None), None),
        (CBORTag(7, "table"), "table"),
        (CBORTag(8, ["t", {"a": 1}]), 't:{"a": 1}'),
        (CBORTag(12, [0, 0]), "1970-01-01T00:00:00Z"),
        (CBORTag(12, [-1, 5]), "1969-12-31T23:59:59.000000005Z"),
        (CBORTag(14, []), "0ns"),
        (CBORTag(14, [90_061, 1_002_003]), "1d1h1m1s1ms2µs3ns"),
        (CBORTag(89, [CBORTag(88, [0.0, 1.0])]), {"type": "LineString", "coordinates": [[0.0, 1.0]]}),
        (CBORTag(9999, "unknown"), "unknown"),
        (float("inf"), None),
    ],
)
def test_tags_have_words_in_json(value: object, expected: object) -> None:
    assert decode(cbor2.dumps({"result": value}))["result"] == expected
