"""Settings of a pool held against each other: a winner where there is one, and none made by chance."""

from dataclasses import replace

import numpy as np

from pool_bench.compare.pools import group_by_load
from pool_bench.compare.winner import find_winner
from pool_bench.report.summary.pool_contest import rivals_table, statement_of
from pool_bench.report.text import Paint
from pool_bench.results.model import from_session
from pool_bench.results.session import Contest
from pool_bench.stats.runs import RunResult
from tests.compare.test_pool_figures import noisy_run
from tests.support.results.noise import Noise
from tests.support.results.runs import session_of

SIZES = ((1, 5), (5, 10), (10, 20))
SESSIONS = 20


def sized(run: RunResult, pair: tuple[int, int]) -> RunResult:
    assert run.pool is not None
    run.pool = replace(run.pool, min_size=pair[0], size=pair[1])
    return run


def contest(
    rng: np.random.Generator, *slower: float, rounds: int = 5, noise: Noise | None = None, failed: int = 0
) -> Contest:
    """The settings of `SIZES`, each so much slower than the fastest could be."""
    runs = [
        sized(noisy_run(rng, noise or Noise(mood=0.03), slower=share, round_=round_), pair)
        for round_ in range(1, rounds + 1)
        for pair, share in zip(SIZES, slower, strict=False)
    ]
    runs[-1].total.failed = failed
    result = from_session(session_of(*runs))
    (compared,) = group_by_load(result.runs)
    return find_winner(result, compared)


def test_settings_that_are_alike_have_no_winner_and_hardly_ever_one_behind() -> None:
    rng = np.random.default_rng(7)
    contests = [contest(rng, 0.0, 0.0, 0.0, noise=Noise(mood=0.05)) for _ in range(SESSIONS)]
    assert not any(one.won for one in contests)
    assert sum(any(rival.behind for rival in one.rivals) for one in contests) <= 2


def test_a_setting_that_is_a_third_faster_wins_in_nine_of_ten_sessions() -> None:
    rng = np.random.default_rng(8)
    contests = [contest(rng, 0.3, 0.0, 0.3) for _ in range(SESSIONS)]
    assert sum(one.won and one.best == "reference 5-10" for one in contests) >= 18


def test_two_that_do_not_part_have_no_winner_and_the_third_is_behind() -> None:
    one = contest(np.random.default_rng(9), 0.0, 0.0, 0.5)
    assert not one.won
    assert [(rival.name, rival.behind) for rival in one.rivals][1] == ("reference 10-20", True)
    words = " ".join(statement_of(one))
    assert words.startswith("No winner: ")
    assert "not told apart from reference" in words
    assert words.endswith("Behind it: reference 10-20.")
    assert "behind" in rivals_table(one, Paint(colour=False))[3]


def test_too_few_rounds_have_no_winner_however_far_they_are_apart() -> None:
    one = contest(np.random.default_rng(10), 0.0, 0.9, rounds=2)
    assert not one.won
    assert [rival.low for rival in one.rivals] == [None]
    assert statement_of(one)[0] == (
        "No winner: 2 rounds are too few, it takes 3 of each setting to know the noise between them."
    )
    assert rivals_table(one, Paint(colour=False)) == []


def test_a_setting_whose_operations_fail_is_not_compared_and_that_is_said() -> None:
    one = contest(np.random.default_rng(11), 0.5, 0.0, 0.0, failed=10_000)
    assert {one.best, *(rival.name for rival in one.rivals)} == {"reference 1-5", "reference 5-10"}
    assert (one.won, one.best) == (True, "reference 5-10")
    assert "reference 10-20 is not ranked" in " ".join(statement_of(one))
