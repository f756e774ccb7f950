"""Verdict and limit of a run in one sentence: what summaries, tables and live views end in.

A pure function of the run. The limit is worded so that it cannot say anything else than the verdict: where
the client was the bottleneck it is the client, and where it was not, never.
"""

from dataclasses import dataclass
from typing import Literal

from pool_bench.analysis.server_limit import Limit, limit_of
from pool_bench.analysis.verdict import Verdict, judge
from pool_bench.report.text import clean
from pool_bench.stats.runs import RunResult

State = Literal["valid", "suspect", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        state: `valid`, `suspect`, or `failed` where no operation succeeded.
        sentence: verdict and limit, such as `valid; limit: the server (...)`; one line without a full stop.
    """

    state: State
    sentence: str


def outcome_of(run: RunResult) -> Outcome:
    """The outcome of a finished run."""
    verdict = judge(run)
    return Outcome(_state(run, verdict), _sentence(run, verdict, limit_of(run)))


def _state(run: RunResult, verdict: Verdict) -> State:
    if not run.total.ok:
        return "failed"
    return "valid" if verdict.valid else "suspect"


def _sentence(run: RunResult, verdict: Verdict, limit: Limit | None) -> str:
    if run.not_started:
        return f"did not start: {clean(run.not_started)}"
    if not run.total.ok:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in run.total.errors.items())
        hung = run.total.unfinished + run.warmup.unfinished
        if not kinds and hung:
            kinds = f"{hung:,} never ended"
        return f"no operation succeeded{f': {kinds}' if kinds else ''}"
    if limit is None:
        return verdict.words
    return f"{verdict.words}; {'limit ' if limit.what == 'unknown' else ''}{limit.words}"
