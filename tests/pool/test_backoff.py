"""How long a failing target is left alone, and what the arithmetic of the module head is worth."""

import random
import statistics
from itertools import pairwise

import pytest

from pool_bench.pool.retry import Backoff

SECOND = 1_000_000_000


def _outage(seed: int, seconds: float, base_s: float = 0.05, cap_s: float = 2.0) -> list[float]:
    """When attempts are made that fail at once, in seconds of an outage; the last one comes after its end."""
    backoff = Backoff(base_s, cap_s, random.Random(seed))
    attempts = [0.0]
    while attempts[-1] < seconds:
        now = round(attempts[-1] * SECOND)
        backoff.failed(now, now)
        attempts.append(backoff.retry_at_ns / SECOND)
    return attempts


def test_the_first_pauses_double_with_full_jitter() -> None:
    outages = [_outage(seed, 1.0, base_s=0.1) for seed in range(300)]
    for step, limit in enumerate((0.1, 0.2, 0.4, 0.4)):
        pauses = [attempts[step + 1] - attempts[step] for attempts in outages]
        assert 0.95 * limit < max(pauses) <= limit
        assert min(pauses) < 0.05 * limit


@pytest.mark.parametrize(
    ("base", "cap", "seconds"), [(0.05, 2.0, 60.0), (1.0, 2.0, 60.0), (0.01, 30.0, 900.0)]
)
def test_a_pause_is_as_long_as_a_tenth_of_the_outage_or_four_times_the_first_but_not_longer(
    base: float, cap: float, seconds: float
) -> None:
    shares = []
    for seed in range(100):
        for since, until in pairwise(_outage(seed, seconds, base, cap)[4:]):
            longest = min(cap, max(4 * base, 0.1 * since))
            assert until - since <= longest + 1e-9
            shares.append((until - since) / longest)
    assert max(shares) > 0.99
    assert 0.48 < sum(shares) / len(shares) < 0.52


@pytest.mark.parametrize(
    ("seconds", "median", "attempts"), [(1.0, 0.06, 12), (2.0, 0.06, 22), (5.0, 0.15, 41), (20.0, 0.6, 70)]
)
def test_short_outages_are_over_soon_and_cost_as_many_attempts_as_is_said(
    seconds: float, median: float, attempts: int
) -> None:
    outages = [_outage(seed, seconds) for seed in range(1000)]
    late = statistics.median(times[-1] - seconds for times in outages)
    assert late == pytest.approx(median, rel=0.1)
    assert max(times[-1] - seconds for times in outages) <= max(0.2, seconds / 10)
    # The last one succeeds.
    assert statistics.mean(len(times) - 1 for times in outages) == pytest.approx(attempts, rel=0.1)


def test_attempts_never_come_thick_however_long_the_outage() -> None:
    for seed in range(100):
        attempts = _outage(seed, 300.0)
        assert len(attempts) < 420
        assert all(later - now > 1 for now, later in zip(attempts, attempts[25:], strict=False))


def test_attempts_that_failed_together_count_once() -> None:
    backoff = Backoff(0.1, 2.0, random.Random(1))
    for _ in range(10):
        backoff.failed(0, SECOND)
    assert backoff.failures == 1
    backoff.failed(backoff.retry_at_ns, 2 * SECOND)
    assert backoff.failures == 2
    backoff.succeeded()
    assert (backoff.failures, backoff.retry_at_ns) == (0, 0)
