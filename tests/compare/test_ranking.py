"""A ranking takes rounds enough that chance does not make it, and what can be said is said before."""

import numpy as np
import pytest

from pool_bench.compare.ranking import best, left_out, rounds_needed
from pool_bench.compare.readiness import pools_too_few, settings_too_short
from pool_bench.report.live.pool_progress import Progress
from tests.support.results.pools import contest_of, loaded_runs, pool_run
from tests.support.results.runs import session_of


@pytest.mark.parametrize(("pools", "rounds"), [(2, 4), (3, 5), (5, 6)])
def test_pools_that_are_alike_are_rarely_set_apart_by_as_many_rounds(pools: int, rounds: int) -> None:
    assert rounds_needed(pools) == rounds
    rng = np.random.default_rng(5)
    tries = 2000
    rates = rng.normal(size=(tries, pools, rounds))
    first = rates[:, :, None, :].min(axis=-1) > rates[:, None, :, :].max(axis=-1)
    assert first.any(axis=(1, 2)).mean() <= 0.06


def test_a_pool_that_could_not_begin_has_its_row_and_no_rank() -> None:
    lost = pool_run("asyncpg", dead=True)
    lost.not_started = "no module named asyncpg"
    session = session_of(pool_run("reference"), lost)
    contest = contest_of(session)
    assert [group.pool for group in contest.groups] == ["reference", "asyncpg"]
    winner = best(contest)
    assert winner is not None
    assert winner.pool == "reference"
    assert left_out(contest) == ["asyncpg did not start."]
    progress = Progress(total=4, rounds=1, each_s=2.0)
    head, row, *rest = [
        line for n, run in enumerate(loaded_runs(session), 1) for line in progress.lines(run, n)
    ]
    assert head.split()[:7] == ["pool", "round", "op/s", "p50", "ms", "p99", "ms"]
    assert row.split()[:3] == ["reference", "1/1", "833"]
    assert row.split()[-2:] == ["0", "6s"]
    assert rest == ["asyncpg        1/1  did not start"]


def test_what_will_be_too_little_is_said_before() -> None:
    few = pools_too_few(["reference", "asyncpg"], ["query"], 3, 10.0)
    assert few == ["3 rounds will rank no pools: 2 of them take 4 (--rounds 4)"]
    assert pools_too_few(["reference", "asyncpg"], ["query"], 5, 10.0) == []
    assert pools_too_few(["reference"], ["query"], 1, 2.0) == [
        "`pool-bench compare` takes 10s of each pool in all, and this is 2s"
    ]
    assert settings_too_short(5, 10.0) == []
    assert settings_too_short(3, 1.0)[0].endswith("takes 10s in all: --duration 4s, or more --rounds")
    assert "--rounds 3 or more" in settings_too_short(2, 30.0)[0]
