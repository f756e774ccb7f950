"""However the network cuts a stream, it means the same."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pool_bench.pgwire import RemoteProtocolError
from pool_bench.pgwire import connection as connection_module
from pool_bench.pgwire import events as ev
from tests.support.postgres_messages import (
    EXCHANGES,
    FINAL,
    FIRST,
    GREETING,
    KEY,
    OK,
    PASSWORD,
    QUERY,
    READY,
    STARTUP,
    TERMINATE,
    Exchange,
    by_bytes,
    forget_reports,
    play,
    recordings,
    report,
    whole,
)

_SENT: dict[str, list[ev.ClientEvent]] = {
    "trust": [STARTUP, QUERY, TERMINATE],
    "md5er": [STARTUP, PASSWORD, TERMINATE],
    "plain": [STARTUP, PASSWORD, TERMINATE],
    "scrammer": [STARTUP, FIRST, FINAL, TERMINATE],
    "wrong": [STARTUP, FIRST, FINAL],
}


def _recorded(name: str) -> Exchange:
    answers = [data for side, data in recordings()[name] if side == "server"]
    return list(zip(_SENT[name], answers, strict=True))


ALL = EXCHANGES | {f"PostgreSQL 18, {name}": _recorded(name) for name in _SENT}


def _without_reports(events: list[ev.ServerEvent]) -> list[ev.ServerEvent]:
    return [event for event in events if not isinstance(event, (ev.ParameterStatus, ev.BackendKeyData))]


@pytest.fixture(params=["cold", "warm"])
def cache(request: pytest.FixtureRequest) -> str:
    forget_reports()
    return str(request.param)


@pytest.mark.parametrize("name", ALL)
def test_byte_by_byte_delivery_gives_the_events_of_whole_delivery(name: str, cache: str) -> None:
    expected = play(ALL[name])
    if cache == "cold":
        forget_reports()
    assert play(ALL[name], by_bytes) == expected
    assert play(ALL[name], by_bytes, reports=False) == _without_reports(expected)
    assert play(ALL[name], reports=False) == _without_reports(expected)
    assert play(ALL[name]) == expected


@pytest.mark.parametrize("name", ALL)
def test_every_cut_in_two_gives_the_events_of_whole_delivery(name: str, cache: str) -> None:
    exchange = ALL[name]
    expected = play(exchange)
    silent = _without_reports(expected)
    for cut in range(1, max(len(data) for _, data in exchange)):

        def split(data: bytes, cut: int = cut) -> list[bytes]:
            return [piece for piece in (data[:cut], data[cut:]) if piece]

        if cache == "cold":
            forget_reports()
        assert play(exchange, split) == expected
        if cache == "cold":
            forget_reports()
        assert play(exchange, split, reports=False) == silent


@given(name=st.sampled_from(sorted(ALL)), cold=st.booleans(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_cuts_give_the_events_of_whole_delivery(name: str, cold: bool, data: st.DataObject) -> None:
    def split(stream: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=12)))
        edges = [0, *cuts, len(stream)]
        return [piece for a, b in pairwise(edges) if (piece := stream[a:b])]

    expected = play(ALL[name])
    if cold:
        forget_reports()
    assert play(ALL[name], split) == expected
    assert play(ALL[name], split, reports=False) == _without_reports(expected)


_name = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)


@given(
    pairs=st.lists(st.tuples(_name, _name), max_size=8),
    tail=st.sampled_from(
        [KEY + READY, READY, KEY, b"", KEY + READY + report("late", "1"), KEY + b"Z\0\0\0\5E"]
    ),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_known_reports_never_change_what_is_heard(pairs: list[tuple[str, str]], tail: bytes) -> None:
    greeting = OK + b"".join(report(name, value) for name, value in pairs) + tail
    exchange = [(STARTUP, greeting)]
    forget_reports()
    slowly = play(exchange, by_bytes)
    assert [e for e in slowly if isinstance(e, ev.ParameterStatus)][: len(pairs)] == [
        ev.ParameterStatus(name, value) for name, value in pairs
    ]
    for _ in range(2):
        assert play(exchange) == slowly
        assert play(exchange, reports=False) == _without_reports(slowly)


@pytest.mark.parametrize(
    "block",
    [
        b"S\0\0\0\x03",
        b"S\0\0\0\x08a\0b",
        b"S\0\0\0\x06ab",
        b"S\0\0\0\x40a\0b\0",
        b"N" + report("a", "b")[1:],
        b"S\0",
        b"S" * 9000,
    ],
)
def test_reports_that_are_none_are_not_remembered(block: bytes) -> None:
    forget_reports()
    for split in (whole, by_bytes):
        with suppress(RemoteProtocolError):
            play([(STARTUP, OK + block + KEY + READY)], split)
    assert not connection_module._known_reports


def test_a_block_of_reports_is_parsed_once_for_all_connections() -> None:
    forget_reports()
    play([(STARTUP, GREETING)])
    assert len(connection_module._known_reports) == 1
    play([(STARTUP, GREETING)])
    assert len(connection_module._known_reports) == 1


def test_the_number_of_known_reports_is_bounded() -> None:
    forget_reports()
    for number in range(200):
        events = play([(STARTUP, OK + report("n", str(number)) + KEY + READY)])
        assert ev.ParameterStatus("n", str(number)) in events
        assert len(connection_module._known_reports) <= 64
    forget_reports()
