"""Nothing that somebody else says steers a terminal, turns a line around, or hides in it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.cleaning import clean
from pool_bench.drivers.base import ServerInfo
from pool_bench.errors import ConnectError, FailureKind, Phase


@given(st.text())
def test_what_is_left_is_one_line_of_visible_characters(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == clean(cleaned)
    assert not {unicodedata.category(mark) for mark in cleaned} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert cleaned == cleaned.strip()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("one\ntwo\ttwo", "one two two"),
        ("\x1b[31mred\x9b0m", "[31mred 0m"),
        ("pay\u202elap", "pay lap"),
        ("ad\u200bmin", "ad min"),
        ("\u3164", ""),
        ("naïve 日本 ✓", "naïve 日本 ✓"),
    ],
)
def test_what_shows_stays_and_what_hides_is_a_space(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_an_ellipsis_ends_what_is_too_long() -> None:
    assert clean("x" * 50, 10) == "x" * 9 + "…"


def test_what_servers_say_of_themselves_and_of_failures_is_clean() -> None:
    info = ServerInfo("Postgre\x1b]0;SQL", "18\u202e.6" + "9" * 500, pooled=False)
    assert (info.product, len(info.version)) == ("Postgre ]0;SQL", 100)
    error = ConnectError(FailureKind.OTHER, Phase.AUTH, "no\r\n\x1b[2J way")
    assert str(error) == "other during auth: no [2J way"
