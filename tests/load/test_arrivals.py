"""Schedules: what is due by when, whatever the shape of the rate."""

import itertools
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.load.arrivals import Arrivals, Leg, Profile, constant, ramp, spike, steps

rates = st.floats(0.1, 100_000)
lengths = st.floats(0.01, 1000)
legs = st.builds(Leg, lengths, rates, rates)
profiles = st.one_of(
    st.builds(Profile, st.lists(legs, min_size=1, max_size=5).map(tuple)),
    st.builds(constant, rates),
    st.builds(spike, rates, rates, st.floats(0, 100), lengths),
)


def _first(arrivals: Arrivals, count: int) -> list[int]:
    return [arrivals.advance() for _ in range(count)]


def _until(arrivals: Arrivals, end_s: float) -> list[int]:
    found = []
    while arrivals.next_ns < end_s * 1e9:
        found.append(arrivals.advance())
    return found


@given(profile=profiles, t=st.floats(0, 5000))
def test_when_is_the_inverse_of_count(profile: Profile, t: float) -> None:
    assert profile.when(profile.count(t)) == pytest.approx(t, rel=1e-6, abs=1e-6)


@given(profile=profiles, times=st.lists(st.floats(0, 5000), min_size=2, max_size=10))
def test_what_is_due_never_becomes_less(profile: Profile, times: list[float]) -> None:
    counts = [profile.count(t) for t in sorted(times)]
    assert all(a <= b * (1 + 1e-12) + 1e-9 for a, b in pairwise(counts))


@given(profile=profiles, t=st.floats(0, 2000), step=st.floats(1e-3, 0.1))
def test_the_count_grows_by_the_rate(profile: Profile, t: float, step: float) -> None:
    grown = profile.count(t + step) - profile.count(t)
    slack = 1e-6 * (profile.count(t) + 1)
    # Between two moments the rate passes every leg's end, too.
    ends = itertools.accumulate(leg.seconds for leg in profile.legs)
    inside = [end for end in ends if t <= end <= t + step]
    seen = [profile.rate(x) for x in (t, t + step, *inside, *(x * (1 - 1e-9) for x in inside))]
    assert min(seen) * step * (1 - 1e-6) - slack <= grown <= max(seen) * step * (1 + 1e-6) + slack


@given(rate=rates, count=st.integers(1, 500))
def test_even_arrivals_of_a_constant_rate_do_not_drift(rate: float, count: int) -> None:
    due = _first(Arrivals(constant(rate)), count)
    assert all(abs(ns - i * 1e9 / rate) <= 1 for i, ns in enumerate(due))


@given(rate=st.integers(1, 5000), seconds=st.integers(1, 20))
def test_a_whole_number_of_seconds_holds_exactly_the_rate(rate: int, seconds: int) -> None:
    if rate * seconds <= 20_000:
        assert len(_until(Arrivals(constant(rate)), seconds)) == rate * seconds


@given(profile=profiles, spacing=st.sampled_from(["constant", "poisson"]), seed=st.integers())
def test_arrivals_never_go_back(profile: Profile, spacing: str, seed: int) -> None:
    due = _first(Arrivals(profile, spacing, seed), 200)  # type: ignore[arg-type]  # sampled
    assert due == sorted(due)
    assert due[0] >= 0


@given(profile=st.builds(Profile, st.lists(legs, min_size=1, max_size=5).map(tuple)))
def test_even_arrivals_are_the_whole_numbers_of_the_count(profile: Profile) -> None:
    due = _first(Arrivals(profile), 100)
    counts = [profile.count(ns / 1e9) for ns in due]
    assert counts == pytest.approx(range(100), abs=1e-3 + 2e-9 * profile.highest)


@given(seed=st.integers())
def test_the_same_seed_gives_the_same_arrivals(seed: int) -> None:
    assert _first(Arrivals(constant(100), "poisson", seed), 50) == _first(
        Arrivals(constant(100), "poisson", seed), 50
    )


def test_poisson_arrivals_are_as_many_and_as_irregular_as_they_should_be() -> None:
    due = _first(Arrivals(constant(1000), "poisson", 1), 20_000)
    gaps = [(b - a) / 1e6 for a, b in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    # The standard error of a mean of 20,000 exponential gaps is 0.7 %.
    assert mean == pytest.approx(1.0, rel=0.04)
    assert deviation == pytest.approx(1.0, rel=0.05)
    # Memoryless: a gap longer than the mean has the share 1/e.
    assert sum(gap > 1 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), rel=0.05)


def test_poisson_arrivals_follow_a_ramp() -> None:
    due = _until(Arrivals(ramp(100, 3900, 10), "poisson", 3), 10)
    assert len(due) == pytest.approx(20_000, rel=0.04)
    assert sum(ns < 5e9 for ns in due) == pytest.approx(ramp(100, 3900, 10).count(5), rel=0.08)


@pytest.mark.parametrize(
    ("profile", "t", "rate", "count"),
    [
        (ramp(100, 300, 10), 5, 200, 750),
        (ramp(100, 300, 10), 20, 300, 2000 + 3000),
        (steps((100, 200, 400), 9), 3.5, 200, 300 + 100),
        (steps((100, 200, 400), 9), 100, 400, 900 + 1200 + 91 * 400),
        (spike(100, 1000, 2, 1), 2.5, 1000, 200 + 500),
        (spike(100, 1000, 2, 1), 4, 100, 200 + 1000 + 100),
        (spike(100, 1000, 0, 1), 2, 100, 1100),
        (ramp(300, 100, 10), 10, 100, 2000),
        (constant(50).after(2), 3, 50, 150),
        (ramp(100, 300, 10).after(1), 1, 100, 100),
    ],
)
def test_shapes_are_what_their_names_say(profile: Profile, t: float, rate: float, count: float) -> None:
    assert profile.rate(t) == pytest.approx(rate)
    assert profile.count(t) == pytest.approx(count)


@pytest.mark.parametrize(
    "leg", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, -1, 1), (math.inf, 1, 2), (1, math.inf, 1)]
)
def test_legs_without_length_or_rate_are_refused(leg: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="leg"):
        Leg(*leg)


def test_a_profile_without_legs_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a leg"):
        Profile(())
