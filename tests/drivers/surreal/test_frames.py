"""The frames of a WebSocket, against `websockets` reading the very same bytes alone."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from pool_bench.drivers.surreal.frames import FrameReader, client_frame, server_frame

_LIMIT = 70_000
_SIZES = st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 69_999])

Message = tuple[str, bytes]


def _whole(opcode: Opcode) -> st.SearchStrategy[list[Frame]]:
    return _SIZES.map(lambda size: [Frame(opcode, bytes(size))])


def _in_parts(count: int) -> list[Frame]:
    frames = [
        Frame(Opcode.CONT if number else Opcode.BINARY, bytes([number]) * 100, number == count - 1)
        for number in range(count)
    ]
    # Between the parts of a message there may be control frames, of which none is in parts (section 5.4).
    return [frames[0], Frame(Opcode.PING, b"in between"), *frames[1:]]


_FRAMES = st.one_of(
    _whole(Opcode.BINARY),
    _whole(Opcode.BINARY),
    _whole(Opcode.TEXT),
    st.just([Frame(Opcode.PING, b"are you there")]),
    st.integers(2, 4).map(_in_parts),
    # A message that ends with another in its place.
    st.just([Frame(Opcode.BINARY, b"begun", fin=False), Frame(Opcode.BINARY, b"another")]),
)


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds) if start < stop]


def _messages(protocol: Protocol, parts: list[bytes]) -> list[Message]:
    """What a protocol makes of the data it was given: messages, and what else came of it."""
    found: list[Message] = []
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                found.append(("message", b"".join(parts)))
                parts.clear()
        else:
            found.append((event.opcode.name, bytes(event.data)))
    return found


class _Reading:
    """A reader, and what came of it, in order."""

    def __init__(self, side: Side) -> None:
        self.protocol = Protocol(side, max_size=_LIMIT)
        self.reader = FrameReader(self.protocol, self.take, self.leave)
        self.found: list[Message] = []
        self.left = 0
        self._parts: list[bytes] = []

    def take(self, message: bytes) -> None:
        assert type(message) is bytes
        self.found.append(("message", message))

    def leave(self, data: bytes) -> None:
        assert data
        self.left += len(data)
        self.protocol.receive_data(data)
        self.found += _messages(self.protocol, self._parts)


def _alone(side: Side, pieces: list[bytes]) -> tuple[Protocol, list[Message]]:
    protocol = Protocol(side, max_size=_LIMIT)
    found: list[Message] = []
    parts: list[bytes] = []
    for piece in pieces:
        protocol.receive_data(piece)
        found += _messages(protocol, parts)
    return protocol, found


both_sides = pytest.mark.parametrize("side", [Side.CLIENT, Side.SERVER])


@both_sides
@settings(max_examples=150)
@given(
    frames=st.lists(_FRAMES, min_size=1, max_size=6),
    ends=st.sampled_from([b"", b"goodbye", b"\xff\xff", b"\x83\x00", b"\x82\x7f" + b"\x7f" * 8]),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
)
def test_however_the_bytes_arrive_the_messages_are_those_that_the_library_reads(
    side: Side, frames: list[list[Frame]], ends: bytes, cuts: list[int]
) -> None:
    masked = side is Side.SERVER
    data = b"".join(frame.serialize(mask=masked) for group in frames for frame in group)
    if ends == b"goodbye":
        ends = Frame(Opcode.CLOSE, Close(1001, "going").serialize()).serialize(mask=masked)
    pieces = _split(data + ends, cuts)
    protocol, expected = _alone(side, pieces)
    reading = _Reading(side)
    for piece in pieces:
        reading.reader.read(piece)
    assert reading.found == expected
    assert reading.protocol.state is protocol.state
    assert type(reading.protocol.parser_exc) is type(protocol.parser_exc)
    assert (reading.protocol.close_rcvd, reading.protocol.close_sent) == (
        protocol.close_rcvd,
        protocol.close_sent,
    )


@both_sides
def test_whole_binary_messages_cost_the_library_nothing(side: Side) -> None:
    write = server_frame if side is Side.CLIENT else client_frame
    reading = _Reading(side)
    messages = [bytes([size % 251]) * size for size in (0, 1, 125, 126, 65_535, 65_536)]
    reading.reader.read(b"".join(map(write, messages)))
    assert [message for _, message in reading.found] == messages
    assert reading.left == 0


@both_sides
@pytest.mark.parametrize("shown", [20, None])
def test_a_message_beyond_the_limit_is_refused_by_its_head(side: Side, shown: int | None) -> None:
    write = server_frame if side is Side.CLIENT else client_frame
    reading = _Reading(side)
    reading.reader.read(write(bytes(_LIMIT + 1))[:shown])
    assert reading.protocol.close_sent is not None
    assert reading.protocol.close_sent.code == 1009
    assert reading.found == []


@both_sides
def test_a_frame_that_is_masked_by_the_wrong_side_is_refused_at_once(side: Side) -> None:
    write = client_frame if side is Side.CLIENT else server_frame
    reading = _Reading(side)
    reading.reader.read(write(b"wrong")[:3])
    assert reading.protocol.parser_exc is not None
    assert reading.found == []


@both_sides
def test_after_a_goodbye_no_message_is_taken(side: Side) -> None:
    write = server_frame if side is Side.CLIENT else client_frame
    reading = _Reading(side)
    reading.protocol.send_close(1000)
    assert reading.protocol.state is State.CLOSING
    reading.reader.read(write(b"too late"))
    assert reading.left > 0


@given(size=_SIZES, count=st.integers(1, 3))
def test_what_is_written_is_what_the_library_reads(size: int, count: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    message = message[:size]
    for side, write in ((Side.SERVER, client_frame), (Side.CLIENT, server_frame)):
        protocol, found = _alone(side, [write(message)] * count)
        assert found == [("message", message)] * count
        assert protocol.parser_exc is None


def test_no_two_frames_of_a_client_are_masked_alike() -> None:
    masks = {client_frame(b"x")[2:6] for _ in range(3000)}
    # Of four billion masks, two in three thousand are the same once in a thousand runs; three never are.
    assert len(masks) >= 2998
