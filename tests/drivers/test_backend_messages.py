"""What a server says before it ends a connection is heard, however the stream is cut."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pool_bench.drivers.backend_messages import BackendMessageTap
from pool_bench.errors import ConnectError, FailureKind


def message(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4, "big") + content


def told(kind: bytes, severity: str, sqlstate: str) -> bytes:
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": "words"}
    return message(kind, b"".join(f"{key}{value}\0".encode() for key, value in fields.items()) + b"\0")


ENDS = {
    told(b"E", "FATAL", "57P01"): FailureKind.SERVER_SHUTDOWN,
    told(b"N", "WARNING", "57P02"): FailureKind.SERVER_SHUTDOWN,
    told(b"E", "FATAL", "53300"): FailureKind.TOO_MANY_CONNECTIONS,
}
# Rows may hold what looks like the beginning of a message, and be longer than what is kept of one.
others = st.one_of(
    st.builds(message, st.sampled_from([b"D", b"C", b"Z", b"T", b"S"]), st.binary(max_size=40)),
    st.just(message(b"D", b"E" * 70_000)),
    st.just(message(b"D", told(b"E", "FATAL", "57P01"))),
    st.just(told(b"N", "NOTICE", "00000")),
    st.just(message(b"N", b"N" * 70_000)),
    st.just(message(b"E", b"no field of any kind")),
)
errors = st.just(told(b"E", "ERROR", "42601"))


def hear(stream: bytes, cuts: Sequence[int]) -> tuple[list[bool], ConnectError | None]:
    tap = BackendMessageTap()
    places = sorted({0, *(cut % len(stream) for cut in cuts), len(stream)})
    heard = [tap.feed(stream[start:end]) for start, end in itertools.pairwise(places)]
    return heard, tap.last_error


@given(st.lists(others | errors, max_size=6), st.sampled_from(list(ENDS)), st.lists(st.integers(0, 1 << 20)))
def test_the_end_is_heard_after_whatever_came_before_it(
    before: list[bytes], end: bytes, cuts: list[int]
) -> None:
    (*early, last), said = hear(b"".join(before) + end, cuts)
    assert not any(early)
    assert last
    assert said is not None
    assert said.kind is ENDS[end]


@given(st.lists(others, min_size=1, max_size=6), st.lists(st.integers(0, 1 << 20)))
def test_what_is_no_word_of_the_server_s_is_none(stream: list[bytes], cuts: list[int]) -> None:
    heard, said = hear(b"".join(stream), cuts)
    assert not any(heard)
    assert said is None


@given(st.lists(others, max_size=3))
def test_an_error_is_the_last_word_until_more_arrives(before: list[bytes]) -> None:
    tap = BackendMessageTap()
    assert not tap.feed(b"".join(before) + told(b"E", "ERROR", "42601") + message(b"Z", b"I"))
    assert tap.last_error is not None
    assert tap.last_error.sqlstate == "42601"
    assert not tap.feed(message(b"Z", b"I"))
    assert tap.last_error is None


def test_of_a_word_without_an_end_little_is_kept() -> None:
    tap = BackendMessageTap()
    tap.feed(b"E" + (0xFFFFFFF0).to_bytes(4, "big"))
    for _ in range(100):
        assert not tap.feed(bytes(1 << 16))
    assert tap._kept == b""
