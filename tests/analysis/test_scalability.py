"""The law and the knee, on curves whose truth is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.analysis.scalability import KNEE_SHARE, Law, Measured, fit_law, recommend, statement

SIZES = (1, 2, 4, 8, 16, 32, 64)
PEAKED = Law(rate=400.0, contention=0.03, coherency=0.0008)


def measured(
    law: Law, *, noise: float = 0.0, rounds: int = 3, sizes: Sequence[int] = SIZES, seed: int = 1
) -> list[Measured]:
    """Rounds on the law, each off by a share of about `noise`."""
    rng = np.random.default_rng(seed)
    return [
        Measured(size, float(law.at(np.array([float(size)]))[0] * math.exp(rng.normal(0, noise))))
        for _ in range(rounds)
        for size in sizes
    ]


@given(st.floats(10, 1e5), st.floats(0, 0.5), st.floats(0, 0.01))
@settings(deadline=None)
def test_without_noise_the_law_is_found(rate: float, contention: float, coherency: float) -> None:
    law = Law(rate, contention, coherency)
    found = fit_law(measured(law, rounds=1))
    assert found is not None
    assert found.rate == pytest.approx(rate, rel=1e-5)
    assert found.contention == pytest.approx(contention, abs=1e-5)
    assert found.coherency == pytest.approx(coherency, abs=1e-6)


def test_the_peak_is_where_the_derivative_vanishes_and_the_knee_has_95_percent_of_the_best() -> None:
    sizes = np.arange(1, 129, dtype=np.float64)
    values = PEAKED.at(sizes)
    assert PEAKED.peak == pytest.approx(math.sqrt((1 - 0.03) / 0.0008))
    assert abs(PEAKED.peak - sizes[int(np.argmax(values))]) <= 1
    knee = PEAKED.knee(1, 64)
    best = values[:64].max()
    assert values[knee - 1] >= KNEE_SHARE * best > values[knee - 2]
    assert Law(1.0, 0.1, 0.0).peak == math.inf
    assert Law(1.0, 1.5, 0.1).peak == 1.0


def test_the_interval_covers_the_true_knee_about_as_often_as_it_says() -> None:
    truth = PEAKED.knee(1, 64)
    covered = 0
    for seed in range(40):
        sizing = recommend(measured(PEAKED, noise=0.05, seed=seed))
        assert sizing.knee_low is not None
        assert sizing.knee_high is not None
        covered += sizing.knee_low <= truth <= sizing.knee_high
    # 38 of 40 on average; a bootstrap of 21 points is a little too sure.
    assert covered >= 33


def test_with_moderate_noise_a_size_near_the_knee_is_recommended_and_the_peak_is_known() -> None:
    sizing = recommend(measured(PEAKED, noise=0.03, rounds=5))
    truth = PEAKED.knee(1, 64)
    assert sizing.why_not == ""
    assert sizing.knee is not None
    assert truth / 1.5 <= sizing.knee <= truth * 1.5
    assert sizing.peak_low is not None
    assert sizing.peak_low <= PEAKED.peak * 1.2
    told = " ".join(statement(sizing))
    assert told.startswith(f"Recommended: {sizing.knee} connections (95% interval")
    assert not sizing.knee_at_end


def test_a_curve_that_only_grows_gives_a_lower_bound_and_says_so() -> None:
    sizing = recommend(measured(Law(100.0, 0.0, 0.0), noise=0.01))
    assert sizing.growing
    assert sizing.knee_at_end
    told = " ".join(statement(sizing))
    assert "lower bound" in told
    assert "still growing" in told


def test_a_serial_resource_needs_one_connection() -> None:
    sizing = recommend(measured(Law(500.0, 1.0, 0.0), noise=0.01))
    assert sizing.knee == 1
    assert sizing.knee_high == 1


def test_rounds_that_contradict_each_other_carry_no_recommendation() -> None:
    sizing = recommend(measured(PEAKED, noise=0.8, seed=3))
    assert sizing.why_not
    told = statement(sizing)
    assert told[0].startswith("No recommendation: ")
    assert not any(line.startswith("Recommended") for line in told)


def test_a_curve_of_another_kind_carries_no_recommendation() -> None:
    zigzag = [
        Measured(size, 1000.0 if index % 2 else 100.0) for index, size in enumerate(SIZES) for _ in range(3)
    ]
    sizing = recommend(zigzag)
    assert sizing.why_not


def test_too_few_sizes_or_no_success_at_all_is_said() -> None:
    few = recommend(measured(PEAKED, sizes=(1, 2, 4)))
    assert few.law is None
    assert few.knee is None
    assert "at least 5 sizes" in statement(few)[0]
    none = recommend([Measured(size, 0.0) for size in SIZES])
    assert "not 0" in statement(none)[0]
    assert fit_law([Measured(1, 10.0), Measured(2, 20.0)]) is None


def test_the_same_rounds_give_the_same_answer() -> None:
    points = measured(PEAKED, noise=0.1)
    one, other = recommend(points), recommend(points)
    assert (one.knee, one.knee_low, one.knee_high) == (other.knee, other.knee_low, other.knee_high)
    assert (one.curve_low == other.curve_low).all()
