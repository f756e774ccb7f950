import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.compare.bootstrap import (
    Spread,
    between_rounds,
    block_length,
    combined,
    half_width,
    resample,
    student_quantile,
)


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    # Tables of Student's distribution.
    [
        (0.975, 1.0, 12.706),
        (0.975, 2.0, 4.303),
        (0.995, 5.0, 4.032),
        (0.995, 10.0, 3.169),
        (0.975, 30.0, 2.042),
        (0.975, 1000.0, 1.962),
    ],
)
def test_students_quantiles_are_those_of_the_tables(
    probability: float, degrees: float, quantile: float
) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(quantile, rel=5e-4)


@given(n=st.integers(1, 60), length=st.floats(1, 20), seed=st.integers(0, 1000))
def test_each_resample_has_as_many_seconds_as_the_run(n: int, length: float, seed: int) -> None:
    weights = resample(n, length, 20, np.random.default_rng(seed))
    assert weights.shape == (20, n)
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) == n).all()


def test_every_second_is_drawn_equally_often_wherever_it_stands() -> None:
    weights = resample(20, 5.0, 20_000, np.random.default_rng(3))
    assert weights.mean(axis=0) == pytest.approx(np.ones(20), abs=0.05)


def test_longer_stretches_keep_neighbours_together() -> None:
    neighbours = []
    for length in (1.0, 10.0):
        weights = resample(40, length, 4000, np.random.default_rng(4)) - 1
        neighbours.append(float((weights[:, :-1] * weights[:, 1:]).mean()))
    assert abs(neighbours[0]) < 0.05
    assert neighbours[1] > 0.5


def test_correlated_seconds_get_longer_stretches_than_independent_ones() -> None:
    rng = np.random.default_rng(1)
    shocks = rng.standard_normal(1000)
    correlated = np.zeros(1000)
    for index in range(1, 1000):
        correlated[index] = 0.97 * correlated[index - 1] + shocks[index]
    assert block_length(shocks) == pytest.approx(math.sqrt(1000))
    assert block_length(correlated) > 1.5 * math.sqrt(1000)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_stretches_are_never_so_long_that_there_are_fewer_than_three(values: list[float]) -> None:
    length = block_length(np.array(values))
    assert 1 <= length <= max(len(values) / 3, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_a_steady_rate_has_a_length_too(n: int) -> None:
    assert block_length(np.full(n, 7.0)) >= 1


def test_two_rounds_say_nothing_about_the_noise_between_rounds() -> None:
    assert between_rounds([1.0, 2.0]) is None
    assert between_rounds([1.0, math.nan, 2.0]) is None
    assert between_rounds([1.0, 2.0, 3.0]) == Spread(1 / 3, 2.0)


def test_noise_between_rounds_counts_where_it_is_more_than_the_noise_inside_them() -> None:
    within = Spread(1.0, 20.0)
    assert combined(within, None) == within
    assert combined(within, Spread(0.5, 2.0)) == within
    much = combined(within, Spread(100.0, 2.0))
    assert much.variance == pytest.approx(100.0)
    assert much.degrees == pytest.approx(2.0, rel=0.05)
    little = combined(within, Spread(1.01, 2.0))
    assert little.degrees == pytest.approx(20.0, rel=0.05)


def test_an_interval_is_wider_the_fewer_degrees_it_rests_on() -> None:
    widths = [half_width(Spread(1.0, degrees), 0.99) for degrees in (1.0, 3.0, 10.0, 1e9)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2.58, abs=0.01)
    assert half_width(Spread(0.0, 5.0), 0.99) == 0.0
