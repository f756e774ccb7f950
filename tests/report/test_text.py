import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.report.text import (
    Paint,
    bar,
    clean,
    colour_wanted,
    ellipsize,
    format_edge,
    format_percent,
    format_rate,
    sparkline,
    table,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_cleaned_text_has_no_control_characters_and_one_line(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned.splitlines()) <= 1
    assert all(character.isprintable() or ord(character) > 0x9F for character in cleaned)


def test_an_escape_sequence_of_a_server_does_not_reach_the_terminal() -> None:
    assert clean("\x1b[2Jgone\r\nnow\u202e") == "[2Jgone now"


@given(st.text(), st.integers(0, 40))
def test_ellipsized_text_fits(text: str, width: int) -> None:
    assert len(ellipsize(text, width)) <= width or len(text) <= width


def test_an_ellipsis_keeps_both_ends() -> None:
    assert ellipsize("postgresql://host/database", 11) == "postg…abase"


@given(st.floats(0, 1))
def test_a_percentage_is_0_or_100_only_where_that_is_exact(share: float) -> None:
    text = format_percent(share)
    value = float(text.strip("<>%"))
    assert 0 <= value <= 100
    assert (value == 100) == (share == 1)
    assert (value == 0) == (share == 0)


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_bar_is_never_longer_than_its_room_nor_invisible(share: float, width: int) -> None:
    drawn = bar(share, width)
    assert len(drawn) <= width
    assert bool(drawn) == (share > 0)


@given(st.lists(st.floats(0, 1e9)), st.integers(0, 70))
def test_a_sparkline_has_a_character_for_each_of_the_last_values(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.25, "250us"), (1.6, "1.6ms"), (1000.0, "1s"), (0.001, "1us"), (3.6e6, "3600s")],
)
def test_edges_carry_the_unit_people_use(milliseconds: float, text: str) -> None:
    assert format_edge(milliseconds) == text


def test_rates_keep_digits_that_mean_something() -> None:
    assert [format_rate(rate) for rate in (0.0, 0.123, 9.96, 12345.6)] == ["0", "0.12", "10", "12,346"]


def test_table_columns_line_up_and_no_line_ends_in_a_space() -> None:
    assert table([["name", "count"], ["a", "1,000"], ["bcd", "2", "x"]]) == [
        "name  count",
        "a     1,000",
        "bcd       2  x",
    ]


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour_wanted(Terminal())
    assert not colour_wanted(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour_wanted(Terminal())


def test_paint_without_colour_changes_nothing() -> None:
    assert Paint(colour=False)("x", "red") == "x"
    assert Paint(colour=True)("x", "red", "bold") == "\x1b[31;1mx\x1b[0m"
