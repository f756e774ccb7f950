"""Objectives: read as they are written, and held against statistics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.analysis.objectives import Objective, parse_objectives
from pool_bench.errors import FailureKind
from pool_bench.stats.operations import BenchStats
from tests.support.results.runs import REFUSED, TOO_MANY, stats_of


@pytest.mark.parametrize(
    ("text", "field", "sign", "limit"),
    [
        ("p99<50ms", "p99", "<", 50),
        ("p99.9 <= 1.5s", "p99.9", "<=", 1500),
        ("p50<250us", "p50", "<", 0.25),
        ("max<2s", "max", "<", 2000),
        ("errors<0.1%", "errors", "<", 0.001),
        ("errors<=0", "errors", "<=", 0),
        ("dropped<0.05", "dropped", "<", 0.05),
        ("errors.timeout<=0%", "errors.timeout", "<=", 0),
    ],
)
def test_conditions_are_read_with_their_units(text: str, field: str, sign: str, limit: float) -> None:
    first = parse_objectives(text).conditions[0]
    assert (first.field, first.sign) == (field, sign)
    assert first.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p98<1ms", "p99<50", "p99>5ms", "p99<x", "errors<200%", "errors<0", "p99<0ms", "errors.x<1%"],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_objectives(text)


def test_errors_and_dropped_are_bounded_even_where_nothing_is_said_of_them() -> None:
    assert str(parse_objectives("p99<50ms")) == "p99<50ms,errors<1%,dropped<1%"
    assert str(parse_objectives("errors<0.1%,dropped<=0%")) == "errors<0.1%,dropped<=0%"


@given(
    limit=st.integers(1, 100_000),
    field=st.sampled_from(["p50", "p99", "max"]),
    sign=st.sampled_from(["<", "<="]),
)
def test_what_is_written_is_read_again(limit: int, field: str, sign: str) -> None:
    objectives = parse_objectives(f"{field}{sign}{limit}us,errors<0.1%")
    again = parse_objectives(str(objectives))
    assert str(again) == str(objectives)
    assert again.conditions[0].limit == pytest.approx(limit / 1000)


@pytest.mark.parametrize(
    ("text", "samples"),
    [("p99<1ms", 1000), ("p50<1ms", 100), ("p99.99<1s", 100_000), ("errors<0.1%", 1000), ("max<1s", 100)],
)
def test_percentiles_want_ten_samples_beyond_them_and_shares_more_than_one_failure(
    text: str, samples: int
) -> None:
    assert parse_objectives(text).samples == samples


def test_every_field_is_taken_from_the_statistics() -> None:
    stats = stats_of([10.0] * 90 + [100.0] * 5, failures={TOO_MANY: 3, REFUSED: 1}, unfinished=1)
    stats.offered, stats.dropped = 125, 25
    values = {
        "p50": 10.0,
        "max": 100.0,
        "errors": 0.05,
        "errors.refused": 0.01,
        f"errors.{FailureKind.TIMEOUT}": 0.0,
        "dropped": 0.2,
    }
    for field, value in values.items():
        assert Objective(field, "<", 1).value_of(stats) == pytest.approx(value, rel=1e-3), field


def test_breaches_say_what_was_and_what_was_wanted() -> None:
    stats = stats_of([80.0] * 1000, failures={REFUSED: 50})
    stats.offered = 1050
    breaches = parse_objectives("p99<50ms,errors<10%").breaches(stats)
    assert [str(breach) for breach in breaches] == ["p99 80ms, wanted p99<50ms"]
    assert not parse_objectives("p99<100ms,errors<10%").breaches(stats)


def test_a_run_without_a_success_meets_no_latency() -> None:
    assert len(parse_objectives("p99<50ms").breaches(BenchStats())) == 3
