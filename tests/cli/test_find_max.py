"""Whose limit a search has found, and how long its trials last."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pool_bench.analysis.objectives import parse_objectives
from pool_bench.analysis.rate_search import RateSearch, Trial
from pool_bench.cli.commands import find_max
from pool_bench.cli.commands.find_max import conclude, find_maximum, is_client_to_blame
from pool_bench.cli.options.generators import GeneratorOptions
from pool_bench.cli.options.loop import FindMax
from pool_bench.cli.options.shared import Output
from pool_bench.cli.session import BenchSession
from pool_bench.load.run import StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.brief.run import search_brief
from pool_bench.report.live.view import QuietView
from pool_bench.results.model import SearchRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Limit, SearchResult
from pool_bench.stats.operations import ClientUsage
from pool_bench.stats.runs import RunResult
from tests.support.generators import target
from tests.support.results.open_loop import search_session
from tests.support.results.runs import REFUSED, client_of, run_of, stats_of

OBJECTIVES = parse_objectives("p99<50ms")


def _blamed(latency_ms: float, client: ClientUsage, *, refused: int = 0) -> bool:
    stats = stats_of([latency_ms] * 1000, failures={REFUSED: refused} if refused else {})
    stats.offered = 1000 + refused
    run = run_of(stats, client=client)
    return is_client_to_blame(run, OBJECTIVES.breaches(stats))


def test_a_client_without_time_to_spare_is_to_blame_for_whatever_was_missed() -> None:
    assert _blamed(500, client_of(cpu_share=0.99))
    assert _blamed(5, client_of(cpu_share=0.99), refused=500)


def test_a_late_client_is_to_blame_for_as_much_as_it_was_late() -> None:
    assert _blamed(60, client_of(lag_ms=20))
    assert not _blamed(500, client_of(lag_ms=20))
    assert not _blamed(60, client_of(lag_ms=20), refused=500)


def test_a_client_at_ease_is_never_to_blame() -> None:
    assert not _blamed(60, client_of())
    assert not _blamed(5, client_of(cpu_share=0.99))


@pytest.mark.parametrize("share", [0.4, 0.99])
def test_verdict_and_limit_of_a_search_are_one_sentence_that_does_not_contradict_itself(share: float) -> None:
    session = search_session()
    assert isinstance(session.find_max, SearchResult)
    result = replace(session.find_max, limit=None, why="")
    # The confirmation, which met the objective all the same.
    session.runs[-1].client = client_of(cpu_share=share)
    search = RateSearch(100, lowest=1, highest=20_000)
    search.failed, search.found, search.trial = 800, 566, None
    conclude(result, search, session.runs)
    words = " ".join(
        " ".join(
            search_brief(list(map(RunRecord.of, session.runs)), SearchRecord.of(result)).headline
        ).split()
    )
    busy = share > 0.9
    assert result.limit is (Limit.CLIENT if busy else Limit.SERVER)
    assert words.count("limit: ") == 1
    if busy:
        assert "suspect: client was the bottleneck; limit: this client, not the server" in words
    else:
        assert "valid; limit: the server (at 800/s: p99 180ms, wanted p99<50ms)" in words


@pytest.mark.parametrize(
    ("rate", "kind", "seconds"),
    [
        (100, "raise", 10),
        (10_000, "raise", 2),
        (1, "raise", 60),
        (100, "confirm", 30),
        (10_000, "confirm", 7),
    ],
)
def test_a_trial_lasts_until_its_percentile_means_something(rate: float, kind: str, seconds: float) -> None:
    plan = FindMax(objectives=OBJECTIVES, first=100, highest=20_000, spacing="constant", pause_s=0)
    trial = Trial(rate, "confirm" if kind == "confirm" else "raise")
    assert plan.length_s(trial, confirm_s=7) == seconds


def test_no_rate_is_tried_that_the_longest_trial_could_not_judge() -> None:
    plan = FindMax(objectives=OBJECTIVES, first=100, highest=20_000, spacing="constant", pause_s=0)
    assert plan.lowest == pytest.approx(1000 / 60)


def test_processes_double_while_the_client_is_the_limit_and_the_same_rate_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[tuple[float, int]] = []

    def measured(
        work: BenchSession, plan: FindMax, spec: ConnectSpec, trial: Trial, *, number: int
    ) -> RunResult:
        tried.append((trial.rate, spec.processes))
        # One process does 200 a second, each further one as much, and the server 500.
        slow = trial.rate > 500 or trial.rate > 200 * spec.processes
        busy = trial.rate > 200 * spec.processes
        stats = stats_of([500 if slow else 5] * 1000)
        stats.offered = 1000
        run = run_of(stats, client=client_of(cpu_share=0.99 if busy else 0.3))
        work.session.runs.append(run)
        return run

    monkeypatch.setattr(find_max, "_measure", measured)
    said: list[str] = []
    output = Output(
        directory=tmp_path, json=None, plot=None, plot_format="png", no_save=True, quiet=True, verbose=False
    )
    work = BenchSession(
        output=output, stop=StopSwitch(), view=QuietView(), session=search_session(), levels=(100,)
    )
    work.session.runs.clear()
    monkeypatch.setattr(BenchSession, "message", lambda self, text: said.append(text))
    plan = FindMax(objectives=OBJECTIVES, first=100, highest=20_000, spacing="constant", pause_s=0)
    spec = ConnectSpec(targets=(target("postgresql://u@127.0.0.1/d"),), concurrency=100, processes=4)
    find_maximum(work, plan, GeneratorOptions(processes=0), spec)
    work.stop.close()
    assert said == [f"the client was at its limit: going on with {count} processes" for count in (2, 4)]
    again = [(rate, then) for (rate, count), (then, more) in pairwise(tried) if more > count]
    assert len(again) == 2
    assert all(rate == then for rate, then in again)
    search = work.session.find_max
    assert search is not None
    assert search.found is not None
    assert 400 < search.found <= 500
    assert search.limit is Limit.SERVER
