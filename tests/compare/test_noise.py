"""What comparisons say about runs whose truth is known; fixed seeds, so that they say the same every time.

Shares are held against their limits sequentially: two hundred comparisons decide, unless the first sixty or
hundred and twenty leave no doubt (`hold_to`). A share that is half as large again as its limit is hardly more
likely to pass than with two hundred each time, and most of the work is saved.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import pytest

from pool_bench.compare.change import Change, Figure
from pool_bench.compare.comparison import judge_cycles, sample_cycles
from pool_bench.compare.samples import Resampled, Round
from tests.support.results.noise import Noise, noisy_round, round_of

LOOKS = (60, 120, 200)
DECIDED = (Change.BETTER, Change.WORSE)
Make = Callable[[np.random.Generator], tuple[Sequence[Round], Sequence[Round]]]
Figures = tuple[Figure, ...]


def comparisons(make: Make, *, paired: bool = False, seed: int = 1) -> Iterator[Figures]:
    rng = np.random.default_rng(seed)
    while True:
        base, new = make(rng)
        yield judge_cycles(sample_cycles(base), sample_cycles(new), paired=paired)


def is_doubtful(wrong: int, made: int, limit: float) -> bool:
    """Whether so few could be wrong with a chance of 1 % or more if 1.6 times the limit were the truth."""
    share = 1.6 * limit
    chance = sum(math.comb(made, k) * share**k * (1 - share) ** (made - k) for k in range(wrong + 1))
    return chance >= 0.01


def hold_to(
    limit: float, is_wrong: Callable[[Figures], bool], make: Make, *, paired: bool = False
) -> list[Figures]:
    """Assert that at most a share of `limit` of comparisons is wrong; returns those that were made."""
    found: list[Figures] = []
    source = comparisons(make, paired=paired)
    for made in LOOKS:
        found.extend(islice(source, made - len(found)))
        wrong = sum(map(is_wrong, found))
        if not is_doubtful(wrong, made, limit):
            return found
    assert wrong <= limit * made
    return found


def are_any(figures: Figures, *among: Change) -> bool:
    """Whether any figure is decided so."""
    return any(figure.verdict in among for figure in figures)


def is_decided(figures: Figures) -> bool:
    return are_any(figures, *DECIDED)


def is_missed(figures: Figures) -> bool:
    return not are_any(figures, Change.WORSE)


def two_runs(noise: Noise, *, seconds: int = 30, slower: float = 0.0) -> Make:
    def make(rng: np.random.Generator) -> tuple[list[Round], list[Round]]:
        return (
            [noisy_round(rng, noise, seconds=seconds)],
            [noisy_round(rng, noise, seconds=seconds, slower=slower)],
        )

    return make


@pytest.mark.parametrize(
    ("noise", "seconds"),
    [
        (Noise(), 30),
        (Noise(correlation=0.7), 30),
        (Noise(correlation=0.0, drift=0.0), 30),
        (Noise(drift=0.06), 30),
        (Noise(tails=3.0, per_second=0.2), 30),
        (Noise(stalls=0.1), 30),
        (Noise(stalls=0.5), 30),
        (Noise(), 10),
        (Noise(correlation=0.7), 120),
        (Noise(mood=0.007), 30),
    ],
    ids=str,
)
def test_two_runs_of_the_same_thing_are_called_different_at_most_one_time_in_twenty(
    noise: Noise, seconds: int
) -> None:
    hold_to(0.05, is_decided, two_runs(noise, seconds=seconds))


@pytest.mark.parametrize("noise", [Noise(), Noise(stalls=0.1), Noise(mood=0.007)], ids=str)
def test_a_tenth_slower_is_found_in_nine_of_ten_runs_of_half_a_minute(noise: Noise) -> None:
    found = hold_to(0.1, is_missed, two_runs(noise, slower=0.1))
    assert sum(are_any(figures, Change.BETTER) for figures in found) <= 0.01 * len(found)


def test_intervals_hold_the_truth_together_in_95_of_100_comparisons() -> None:
    def is_beside_the_truth(figures: Figures) -> bool:
        for figure in figures:
            truth = 0.0 if figure.quantity.name == "failed" else -0.1
            truth = 1 / 0.9 - 1 if figure.quantity.unit == "ms" else truth
            assert figure.low is not None
            assert figure.high is not None
            if not figure.low <= truth <= figure.high:
                return True
        return False

    hold_to(0.05, is_beside_the_truth, two_runs(Noise(), slower=0.1))


def rounds_in_turn(noise: Noise, *, rounds: int, seconds: int, slower: float = 0.0) -> Make:
    """Rounds that share the mood of the moment, as settings measured in turn do."""

    def make(rng: np.random.Generator) -> tuple[list[Round], list[Round]]:
        moods = 0.1 * rng.standard_normal(rounds)
        base = [noisy_round(rng, noise, seconds=seconds, mood=mood) for mood in moods]
        new = [noisy_round(rng, noise, seconds=seconds, mood=mood, slower=slower) for mood in moods]
        return base, new

    return make


def test_rounds_in_turn_find_what_the_moods_of_the_machine_would_hide() -> None:
    hold_to(0.05, is_decided, rounds_in_turn(Noise(), rounds=6, seconds=5), paired=True)
    hold_to(0.1, is_missed, rounds_in_turn(Noise(), rounds=6, seconds=5, slower=0.1), paired=True)


def test_moods_between_rounds_that_are_not_in_turn_widen_the_interval() -> None:
    noise = Noise(mood=0.1)

    def make(rng: np.random.Generator) -> tuple[list[Round], list[Round]]:
        base, new = ([noisy_round(rng, noise, seconds=10) for _ in range(5)] for _ in range(2))
        return base, new

    hold_to(0.05, is_decided, make)
    # The noise inside the rounds alone would have called most of these different.
    single = list(islice(comparisons(two_runs(noise)), 60))
    assert sum(map(is_decided, single)) > 0.5 * len(single)


def test_percentiles_are_of_all_operations_and_never_averages_of_percentiles_l9() -> None:
    # A worker, a second or a round at 1 ms and one at 100 ms: the p99 of both is 100 ms, not 50.5.
    fast, slow = (round_of(np.full(15, 100.0), np.full((15, 100), ms)) for ms in (1.0, 100.0))
    mixed = round_of(np.full(30, 100.0), np.repeat([[1.0], [100.0]], 15, axis=0) * np.ones((30, 100)))
    for rounds in ((fast, slow), (slow, fast), (mixed,)):
        resampled = Resampled(rounds)
        assert resampled.percentile(99).value == pytest.approx(100.0, rel=0.001)
        assert resampled.percentile(50).value == pytest.approx(1.0, rel=0.001)
        assert resampled.throughput().value == pytest.approx(100.0)


def test_a_stall_in_one_of_two_runs_of_the_same_thing_is_no_difference_of_p99() -> None:
    rng = np.random.default_rng(5)
    latencies = rng.lognormal(2.0, 0.2, (2, 30, 500))
    latencies[1, 17] *= 40
    calm, stalled = (round_of(np.full(30, 500.0), one) for one in latencies)
    figures = judge_cycles(sample_cycles([calm]), sample_cycles([stalled]))
    p99 = next(figure for figure in figures if figure.quantity.name == "p99")
    assert p99.change is not None
    assert p99.change > 5
    assert p99.verdict not in DECIDED


def test_the_same_files_give_the_same_intervals() -> None:
    rng = np.random.default_rng(2)
    base, new = noisy_round(rng, Noise()), noisy_round(rng, Noise())
    once, again = (judge_cycles(sample_cycles([base]), sample_cycles([new])) for _ in range(2))
    assert once == again
