"""Verdict and limit are one sentence, and never two opinions."""

import pytest

from pool_bench.report.summary.outcome import outcome_of
from pool_bench.results.run import RunRecord
from pool_bench.stats.server import CpuUse
from tests.analysis.test_server_limit import watched
from tests.support.results.runs import REFUSED, client_of, intervals_of, lognormal_ms, run_of, stats_of


def test_a_run_without_a_success_says_so_and_by_what() -> None:
    outcome = outcome_of(RunRecord.of(run_of(stats_of(failures={REFUSED: 300}))))
    assert outcome.state == "failed"
    assert outcome.sentence == "no operation succeeded: 300 refused"


@pytest.mark.parametrize(
    ("cpu_share", "state", "sentence"),
    [
        (
            0.12,
            "valid",
            "valid; limit: the server (its processes used 1.8 of 2 cores; the client 12%)",
        ),
        (
            0.97,
            "suspect",
            "suspect: client was the bottleneck; limit: the client (97% of a core; "
            "the server 1.8 of 2 cores)",
        ),
    ],
)
def test_a_sentence_joins_verdict_and_limit(cpu_share: float, state: str, sentence: str) -> None:
    values = lognormal_ms(5000)
    stats = stats_of(values)
    stats.intervals = intervals_of(values, 10.0)
    run = run_of(stats, client=client_of(cpu_share=cpu_share))
    run.server_side = watched(*[CpuUse(machine=1.9, server=1.8)] * 12)
    outcome = outcome_of(RunRecord.of(run))
    assert (outcome.state, outcome.sentence) == (state, sentence)
