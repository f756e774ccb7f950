"""Verdict and limit of a run in one sentence: what summaries, tables and live views end in.

A pure function of the run. The limit is worded so that it cannot say anything else than the verdict: where
the client was the bottleneck it is the client, and where it was not, never.
"""

from dataclasses import dataclass
from typing import Literal

from pool_bench.report.text import clean
from pool_bench.results.run import NO_WARMUP, RunRecord

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


def outcome_of(run: RunRecord) -> Outcome:
    """The outcome of a finished run."""
    return Outcome(_state(run), _sentence(run))


def _state(run: RunRecord) -> State:
    if not run.ok:
        return "failed"
    return "valid" if run.judgement.valid else "suspect"


def _sentence(run: RunRecord) -> str:
    if run.not_started:
        return f"did not start: {clean(run.not_started)}"
    if not run.ok:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in run.errors.items())
        hung = run.unfinished + (run.warmup or NO_WARMUP).unfinished
        if not kinds and hung:
            kinds = f"{hung:,} never ended"
        return f"no operation succeeded{f': {kinds}' if kinds else ''}"
    limit = None if run.server_side is None else run.server_side.limit
    if limit is None:
        return run.judgement.words
    return f"{run.judgement.words}; {'limit ' if limit.what == 'unknown' else ''}{limit.words}"
