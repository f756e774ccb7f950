"""Durations and latencies as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.units import format_duration, format_ms, parse_duration, parse_rate, parse_share


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("10", 10.0),
        ("1.5", 1.5),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("250\u03bcs", 0.00025),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        (" 5 S ", 5.0),
        ("1m30", 90.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "-1s", "1x", "1s!", "5 5", "1e3", "nan", "inf", "1..5s", "9" * 400]
)
def test_what_is_no_duration_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.000_001, "1us"),
        (0.000_25, "250us"),
        (0.000_784_77, "785us"),
        (0.000_999_4, "999us"),
        (0.000_999_7, "1ms"),
        (0.0125, "12.5ms"),
        (0.9994, "999ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (59.5, "59.5s"),
        (60, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (5430, "1h30m30s"),
    ],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(1e-6, 1e7))
def test_written_durations_read_back_as_they_were(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_latencies_have_three_digits(value: float | None, text: str) -> None:
    assert format_ms(value) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [("200/s", 200.0), ("200", 200.0), (" 90 / M ", 1.5), ("7200/h", 2.0), ("0.5/s", 0.5), ("1.5", 1.5)],
)
def test_rates_are_read_as_operations_a_second(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "0", "0/s", "-1/s", "s", "/s", "1/d", "1e3/s", "1/s/s", "inf", "nan", "1 2", "9" * 400]
)
def test_what_is_no_rate_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("100 %", 1.0), ("1", 1.0), (" 2.5% ", 0.025)],
)
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "-1%", "101%", "1.01", "5", "five", "5%%", "nan", "inf"])
def test_what_is_no_share_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        parse_share(text)
