"""What comparisons say about runs whose truth is known; fixed seeds, so that they say the same every time."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pool_bench.report.compare import judge_cycles, sample_cycles
from pool_bench.report.compare_figures import Resampled, Round
from pool_bench.report.compare_verdict import Figure, Verdict
from tests.report.noise import Noise, noisy_round, round_of

REPETITIONS = 200
DECIDED = (Verdict.BETTER, Verdict.WORSE)
Make = Callable[[np.random.Generator], tuple[Sequence[Round], Sequence[Round]]]


def verdicts(make: Make, *, paired: bool = False, seed: int = 1) -> list[tuple[Figure, ...]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(REPETITIONS):
        base, new = make(rng)
        found.append(judge_cycles(sample_cycles(base), sample_cycles(new), paired=paired))
    return found


def share_decided(found: Sequence[tuple[Figure, ...]], *among: Verdict) -> float:
    """The share of comparisons of which any figure is decided so."""
    hits = [any(figure.verdict in among for figure in figures) for figures in found]
    return sum(hits) / len(hits)


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
    assert share_decided(verdicts(two_runs(noise, seconds=seconds)), *DECIDED) <= 0.05


@pytest.mark.parametrize("noise", [Noise(), Noise(stalls=0.1), Noise(mood=0.007)], ids=str)
def test_a_tenth_slower_is_found_in_nine_of_ten_runs_of_half_a_minute(noise: Noise) -> None:
    found = verdicts(two_runs(noise, slower=0.1))
    assert share_decided(found, Verdict.WORSE) >= 0.9
    assert share_decided(found, Verdict.BETTER) <= 0.01


def test_intervals_hold_the_truth_together_in_95_of_100_comparisons() -> None:
    found = verdicts(two_runs(Noise(), slower=0.1))
    held = []
    for figures in found:
        for figure in figures:
            truth = 0.0 if figure.quantity.name == "failed" else -0.1
            truth = 1 / 0.9 - 1 if figure.quantity.unit == "ms" else truth
            assert figure.low is not None
            assert figure.high is not None
            held.append(figure.low <= truth <= figure.high)
    together = np.array(held).reshape(len(found), -1).all(axis=1)
    assert together.mean() >= 0.95


def rounds_in_turn(noise: Noise, *, rounds: int, seconds: int, slower: float = 0.0) -> Make:
    """Rounds that share the mood of the moment, as settings measured in turn do."""

    def make(rng: np.random.Generator) -> tuple[list[Round], list[Round]]:
        moods = 0.1 * rng.standard_normal(rounds)
        base = [noisy_round(rng, noise, seconds=seconds, mood=mood) for mood in moods]
        new = [noisy_round(rng, noise, seconds=seconds, mood=mood, slower=slower) for mood in moods]
        return base, new

    return make


def test_rounds_in_turn_find_what_the_moods_of_the_machine_would_hide() -> None:
    same = verdicts(rounds_in_turn(Noise(), rounds=6, seconds=5), paired=True)
    slower = verdicts(rounds_in_turn(Noise(), rounds=6, seconds=5, slower=0.1), paired=True)
    assert share_decided(same, *DECIDED) <= 0.05
    assert share_decided(slower, Verdict.WORSE) >= 0.9


def test_moods_between_rounds_that_are_not_in_turn_widen_the_interval() -> None:
    noise = Noise(mood=0.1)

    def make(rng: np.random.Generator) -> tuple[list[Round], list[Round]]:
        base, new = ([noisy_round(rng, noise, seconds=10) for _ in range(5)] for _ in range(2))
        return base, new

    assert share_decided(verdicts(make), *DECIDED) <= 0.05
    # The noise inside the rounds alone would have called most of these different.
    single = two_runs(noise)
    assert share_decided(verdicts(single), *DECIDED) > 0.2


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
    assert p99.verdict is Verdict.SAME


def test_the_same_files_give_the_same_intervals() -> None:
    rng = np.random.default_rng(2)
    base, new = noisy_round(rng, Noise()), noisy_round(rng, Noise())
    once, again = (judge_cycles(sample_cycles([base]), sample_cycles([new])) for _ in range(2))
    assert once == again
