"""A welcome that was parsed before is known by heart: but for its key, byte for byte, and nothing else is."""

import pytest

from pool_bench.pgwire import NEED_DATA, Connection, State, is_known_welcome
from pool_bench.pgwire import events as ev

_OK = b"R\0\0\0\x08\0\0\0\0"
_REPORT = b"S\0\0\0\x1aapplication_name\0test\0"
_OTHER_REPORT = b"S\0\0\0\x1aapplication_name\0Test\0"
_READY = b"Z\0\0\0\x05I"


def _key(value: int, length: int = 4) -> bytes:
    return b"K" + (8 + length).to_bytes(4, "big") + value.to_bytes(4, "big") + bytes(length)


def _welcome(value: int) -> bytes:
    return _OK + _REPORT + _key(value) + _READY


def _parse(*chunks: bytes) -> Connection:
    """A connection that has sent its start-up message and been answered so."""
    connection = Connection(reports=False)
    connection.send(ev.Startup({"user": "u"}))
    for chunk in chunks:
        connection.receive_data(chunk)
        while connection.next_event() is not NEED_DATA:
            continue
    return connection


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have seen."""
    monkeypatch.setattr("pool_bench.pgwire.connection._known_welcomes", set())


def test_a_welcome_is_known_once_one_was_parsed_whatever_its_key() -> None:
    assert not is_known_welcome(_welcome(1))
    _parse(_welcome(1))
    for value in (1, 2, 0x5A000000):
        assert is_known_welcome(_welcome(value))
        connection = _parse(_welcome(value))
        assert connection.state is State.READY
        assert not connection.trailing_data


def test_a_change_of_any_other_byte_makes_it_unknown() -> None:
    whole = _welcome(7)
    _parse(whole)
    key = range(len(whole) - len(_READY) - 8, len(whole) - len(_READY))
    for index in range(len(whole)):
        changed = bytearray(whole)
        changed[index] ^= 1
        assert is_known_welcome(bytes(changed)) == (index in key)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        _READY,
        _welcome(1)[:-1],
        _welcome(1)[1:],
        _welcome(1) + _READY,
        _welcome(1) + b"N\0\0\0\x05\0",
        _OK + _OTHER_REPORT + _key(1) + _READY,
        _OK + _REPORT + _REPORT + _key(1) + _READY,
        _OK + _REPORT + _key(1, 32) + _READY,
        _OK + _REPORT + _READY,
        _OK + _key(1) + _REPORT + _READY,
    ],
)
def test_what_is_longer_shorter_or_in_another_order_is_unknown(other: bytes) -> None:
    _parse(_welcome(1))
    assert not is_known_welcome(other)


@pytest.mark.parametrize("at", [len(_OK), len(_OK + _REPORT), len(_welcome(1)) - 1])
def test_a_welcome_that_was_parsed_in_pieces_is_not_learned(at: int) -> None:
    connection = _parse(_welcome(1)[:at], _welcome(1)[at:])
    assert connection.state is State.READY
    assert not is_known_welcome(_welcome(1))


def test_a_welcome_that_breaks_the_protocol_is_not_learned() -> None:
    broken = _OK + b"S\0\0\0\x05\0" + _key(1) + _READY
    with pytest.raises(Exception, match="parameter"):
        _parse(broken)
    assert not is_known_welcome(broken)


def test_what_is_known_stays_bounded() -> None:
    from pool_bench.pgwire import connection

    for number in range(1000):
        name = f"{number:04}".encode()
        _parse(_OK + b"S\0\0\0\x0b" + name + b"\0v\0" + _key(1) + _READY)
    assert 0 < len(connection._known_welcomes) <= 64
