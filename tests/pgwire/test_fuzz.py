"""Whatever arrives is an event or a `RemoteProtocolError`, soon, and is not hoarded."""

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.pgwire import NEED_DATA, Connection, LocalProtocolError, RemoteProtocolError, State
from pool_bench.pgwire import connection as module
from pool_bench.pgwire import events as ev
from tests.pgwire.test_splits import ALL
from tests.pgwire.test_states import in_state
from tests.support.postgres_messages import GREETING, QUERY, STARTUP, buffered, message, reached, whole

_CAP = module.MAX_MESSAGE_BYTES + 5
_HEARING = [state for state in State if state not in (State.CLOSED, State.BROKEN)]


def _devour(connection: Connection, chunks: list[bytes]) -> None:
    """Feed `chunks`; anything but events and a `RemoteProtocolError` fails the test."""
    for chunk in chunks:
        connection.receive_data(chunk)
        try:
            # Each event costs at least a byte, but for the reports that are known.
            for _ in range(2 * len(chunk) + buffered(connection) + 2):
                if connection.next_event() is NEED_DATA:
                    break
            else:
                pytest.fail("more events than bytes")
        except RemoteProtocolError as error:
            assert connection.state is State.BROKEN
            assert str(error).isprintable()  # noqa: PT017 - it need not be raised
            assert buffered(connection) == 0
            return
        assert buffered(connection) <= _CAP + len(chunk)


_messages = st.builds(
    lambda kind, length, body: bytes([kind]) + struct.pack("!i", len(body) + 4 + length) + body,
    st.one_of(st.sampled_from(b"RESKZvNATDCIHWGdcE"), st.integers(0, 255)),
    st.one_of(st.just(0), st.just(0), st.integers(-10, 10), st.integers(-(2**30), 2**30)),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\0\0\0\0", b"\0\0\0\x0a\0\0", b"I", b"\0", b"Sx\0\0", b"\0\0\0\x0b,", b"a\0b\0"]),
    ),
)


@given(
    state=st.sampled_from(_HEARING),
    chunks=st.lists(
        st.one_of(st.binary(min_size=1, max_size=60), _messages, st.just(b""), st.just(GREETING)), max_size=8
    ),
    reports=st.booleans(),
)
@settings(max_examples=700, deadline=None)
def test_any_bytes_in_any_state_are_events_or_a_protocol_error(
    state: State, chunks: list[bytes], reports: bool
) -> None:
    connection = in_state(state)
    connection._reports = reports
    _devour(connection, chunks)


@given(name=st.sampled_from(sorted(ALL)), data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_stream_is_events_or_a_protocol_error(name: str, data: st.DataObject) -> None:
    connection = Connection()
    for event, stream in ALL[name]:
        if connection.state in (State.BROKEN, State.CLOSED):
            return
        try:
            connection.send(event)
        except LocalProtocolError:
            return
        damaged = bytearray(stream)
        for _ in range(data.draw(st.integers(0, 4))):
            if damaged:
                place = data.draw(st.integers(0, len(damaged) - 1))
                match data.draw(st.sampled_from(["set", "insert", "delete", "cut"])):
                    case "set":
                        damaged[place] = data.draw(st.integers(0, 255))
                    case "insert":
                        damaged[place:place] = data.draw(st.binary(max_size=5))
                    case "delete":
                        del damaged[place : place + data.draw(st.integers(1, 5))]
                    case _:
                        del damaged[place:]
        size = data.draw(st.sampled_from([1, 7, 10_000]))
        _devour(connection, [bytes(damaged[i : i + size]) for i in range(0, len(damaged), size)])
    _devour(connection, [b""])


@pytest.mark.parametrize("state", _HEARING)
@pytest.mark.parametrize("kind", [b"R", b"E", b"S", b"Z", b"C", b"T", b"?"])
def test_a_length_of_two_gigabytes_is_refused_at_once(state: State, kind: bytes) -> None:
    connection = in_state(state)
    connection.receive_data(kind + b"\x7f\xff\xff\xff")
    if kind == b"E" and state in (State.STARTING, State.TLS_ASKED):
        # There it is the beginning of a text, which has its own limit.
        assert connection.next_event() is NEED_DATA
        return
    with pytest.raises(RemoteProtocolError):
        connection.next_event()
    assert buffered(connection) == 0


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 3])
def test_a_length_shorter_than_itself_is_refused(length: int) -> None:
    for state in (State.AUTHENTICATED, State.READY, State.QUERYING, State.PASSWORD_SENT):
        connection = in_state(state)
        connection.receive_data(b"Z" + struct.pack("!i", length))
        with pytest.raises(RemoteProtocolError, match="has length"):
            connection.next_event()


def test_before_authentication_a_message_may_be_thirty_thousand_bytes_long_and_no_more() -> None:
    fits = message("E", b"M" + b"x" * 29_990 + b"\0\0")
    for state in (State.PASSWORD_SENT, State.SASL_STARTED):
        connection = in_state(state)
        connection.receive_data(fits)
        assert isinstance(connection.next_event(), ev.ErrorResponse)
        connection = in_state(state)
        connection.receive_data(message("E", b"M" + b"x" * 30_000 + b"\0\0")[:100])
        with pytest.raises(RemoteProtocolError, match="bytes long"):
            connection.next_event()


def test_after_authentication_a_message_may_be_a_mebibyte_long_and_no_more() -> None:
    connection = in_state(State.READY)
    connection.receive_data(b"N" + struct.pack("!i", module.MAX_MESSAGE_BYTES))
    assert connection.next_event() is NEED_DATA
    connection = in_state(State.READY)
    connection.receive_data(b"N" + struct.pack("!i", module.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(RemoteProtocolError, match="bytes long"):
        connection.next_event()


def test_a_message_in_many_pieces_is_buffered_once() -> None:
    connection = in_state(State.READY)
    notice = message("N", b"M" + b"x" * (module.MAX_MESSAGE_BYTES - 20) + b"\0\0")
    for start in range(0, len(notice) - 1000, 1000):
        connection.receive_data(notice[start : start + 1000])
        assert connection.next_event() is NEED_DATA
        assert buffered(connection) <= _CAP + 1000
    connection.receive_data(notice[start + 1000 :])
    assert isinstance(connection.next_event(), ev.NoticeResponse)


def test_huge_rows_are_counted_once_and_never_buffered() -> None:
    connection = reached((STARTUP, GREETING), (QUERY, b""))
    chunk = bytes(1 << 16)
    tracemalloc.start()
    try:
        for number in range(1, 4):
            size = 40 << 20
            connection.receive_data(b"D" + struct.pack("!i", size + 4) + b"first")
            assert connection.next_event() is NEED_DATA
            left = size - 5
            while left:
                piece = chunk[: min(left, len(chunk))]
                connection.receive_data(piece)
                assert connection.next_event() is NEED_DATA
                assert buffered(connection) <= len(chunk)
                left -= len(piece)
            assert connection._rows == number
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    connection.receive_data(message("C", b"SELECT 3\0"))
    assert connection.next_event() == ev.CommandComplete("SELECT 3", 3, 3 * (40 << 20))


def test_a_row_that_claims_two_gigabytes_is_skipped_as_far_as_it_comes() -> None:
    connection = reached((STARTUP, GREETING), (QUERY, b""))
    for piece in whole(b"D\x7f\xff\xff\xff" + bytes(1 << 20)):
        connection.receive_data(piece)
        assert connection.next_event() is NEED_DATA
    assert not connection.trailing_data
    connection.receive_data(b"")
    assert connection.next_event() == ev.ConnectionClosed(False)


@pytest.mark.parametrize("state", [State.STARTING, State.AUTHENTICATED, State.READY, State.FAILED])
def test_a_message_that_never_ends_is_buffered_up_to_its_limit(state: State) -> None:
    connection = in_state(state)
    limit = module.MAX_STARTUP_MESSAGE_BYTES if state is State.STARTING else module.MAX_MESSAGE_BYTES
    connection.receive_data(b"N" + struct.pack("!i", limit))
    for _ in range(2 * limit // 65536 + 2):
        connection.receive_data(bytes(65536))
        try:
            connection.next_event()
        except RemoteProtocolError:
            break
        assert buffered(connection) <= limit + 65536
    else:
        pytest.fail("the message has no end")
