"""The search for the maximum against servers that are nothing but a capacity."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.analysis.rate_search import RateSearch, Trial

TOLERANCE = 0.05


def _run(search: RateSearch, capacity: float) -> list[Trial]:
    """All trials against a server that sustains `capacity` and nothing more."""
    trials: list[Trial] = []
    while search.trial is not None:
        trials.append(search.trial)
        assert len(trials) < 200
        search.tell(passed=search.trial.rate <= capacity)
    return trials


@given(first=st.floats(1, 10_000), capacity=st.floats(2, 15_000), tolerance=st.floats(0.01, 0.5))
def test_the_capacity_is_found_within_the_tolerance(first: float, capacity: float, tolerance: float) -> None:
    search = RateSearch(first, lowest=1, highest=20_000, tolerance=tolerance)
    trials = _run(search, capacity)
    assert search.found is not None
    assert search.found <= capacity <= search.found * (1 + tolerance) * (1 + 1e-9)
    assert trials[-1].kind == "confirm"
    assert trials[-1].rate == search.found


@given(first=st.floats(1, 10_000), capacity=st.floats(0.1, 50_000), tolerance=st.floats(0.01, 0.5))
def test_the_number_of_trials_is_bounded(first: float, capacity: float, tolerance: float) -> None:
    trials = _run(RateSearch(first, lowest=1, highest=20_000, tolerance=tolerance), capacity)
    coarse = math.log2(20_000) + 2
    fine = max(math.log2(math.log(2) / math.log(1 + tolerance)), 0) + 1
    assert len(trials) <= 2 * (coarse + fine) + 4
    assert all(1 <= trial.rate <= 20_000 for trial in trials)


@given(seed=st.integers(0, 10_000), capacity=st.floats(20, 8_000))
def test_noise_around_the_capacity_moves_the_answer_by_no_more_than_the_noise(
    seed: int, capacity: float
) -> None:
    # Within 15 % of the capacity a trial goes either way.
    rng = random.Random(seed)
    search = RateSearch(100, lowest=1, highest=20_000, tolerance=TOLERANCE)
    count = 0
    while search.trial is not None:
        count += 1
        search.tell(passed=search.trial.rate <= capacity * rng.uniform(0.85, 1.15))
    assert count < 60
    # Four refusals in a row end it without an answer; that is rare, and then there is none, not a wrong one.
    if search.found is not None:
        assert capacity * 0.85 / (1 + TOLERANCE) ** 8 <= search.found <= capacity * 1.15


def test_one_trial_that_fails_by_bad_luck_changes_nothing() -> None:
    search = RateSearch(100, lowest=1, highest=20_000, tolerance=TOLERANCE)
    unlucky = iter([False])
    while search.trial is not None:
        search.tell(passed=search.trial.rate <= 1000 and next(unlucky, True))
    assert search.found == pytest.approx(1000, rel=TOLERANCE)


def test_a_rate_that_passed_by_luck_falls_at_its_confirmation() -> None:
    search = RateSearch(100, lowest=1, highest=20_000, tolerance=TOLERANCE)
    while search.trial is not None:
        limit = 1000 if search.trial.kind == "confirm" else 1150
        search.tell(passed=search.trial.rate <= limit)
    assert search.found is not None
    assert 1000 / 1.25 < search.found <= 1000
    assert search.failed is not None
    assert search.failed > search.found


def test_a_server_beyond_the_highest_rate_is_confirmed_there() -> None:
    search = RateSearch(100, lowest=1, highest=750, tolerance=TOLERANCE)
    trials = _run(search, math.inf)
    assert [trial.rate for trial in trials] == [100, 200, 400, 750, 750]
    assert search.found == 750
    assert search.failed is None


def test_a_server_that_sustains_nothing_ends_the_search_without_an_answer() -> None:
    search = RateSearch(100, lowest=20, highest=750)
    trials = _run(search, 0)
    assert [trial.rate for trial in trials] == [100, 100, 50, 50, 25, 25, 20, 20]
    assert search.found is None
    assert search.passed is None


def test_a_search_that_is_over_takes_no_more_answers() -> None:
    search = RateSearch(1, lowest=1, highest=1)
    _run(search, 10)
    with pytest.raises(ValueError, match="over"):
        search.tell(passed=True)


@pytest.mark.parametrize(("lowest", "highest", "tolerance"), [(0, 1, 0.1), (2, 1, 0.1), (1, 2, 0)])
def test_a_search_without_room_is_refused(lowest: float, highest: float, tolerance: float) -> None:
    with pytest.raises(ValueError, match="needs"):
        RateSearch(1, lowest=lowest, highest=highest, tolerance=tolerance)
