"""What reports say about operations that never ended."""

from collections.abc import Sequence
from typing import Final

from pool_bench.errors import Phase
from pool_bench.report.summary.hold_words import kinds_words
from pool_bench.report.text import clean
from pool_bench.results.run import NO_WARMUP, HangingRecord, RunRecord

_MOST_RUNS: Final = 3
# Steps of an operation on a pool that may take as long as they like.
_UNBOUNDED: Final = (Phase.QUERY, Phase.HOLD, Phase.RETURN)


def hanging_words(run: RunRecord) -> list[str]:
    """What never ended, at which step, and which limit would have ended it; a sentence or two for each stage.

    Where nothing ended while it was measured, also how the warm-up's operations failed.
    """
    gave_up = run.hold is not None and run.hold.gave_up_s > 0
    until = "opening was given up" if gave_up else "the run did"
    sentences = [
        _words([step for step in run.hanging if step.begun == begun], until)
        for begun in ("warmup", "measured")
    ]
    before = run.warmup or NO_WARMUP
    if not run.ok and not run.failed and before.failed:
        kinds = kinds_words(before.failures)
        sentences.append(f"{_operations(before.failed)} of the warm-up failed: {kinds}.")
    return [words for words in sentences if words]


def hanging_of_runs(runs: Sequence[RunRecord]) -> list[str]:
    """The same of several runs, each with its label; of many the first ones, and how many more."""
    sentences = [(run.label, words) for run in runs if (words := hanging_words(run))]
    more = len(sentences) - _MOST_RUNS
    return [
        *(f"{clean(label)}: {' '.join(words)}" for label, words in sentences[:_MOST_RUNS]),
        *([f"{more:,} more run{'' if more == 1 else 's'} with operations that never ended: -v"] * (more > 0)),
    ]


def _words(hanging: Sequence[HangingRecord], until: str) -> str:
    if not hanging:
        return ""
    count = sum(step.count for step in hanging)
    which = "begun in the warm-up" if hanging[0].begun == "warmup" else "begun while measuring"
    ranked = sorted((step for step in hanging if step.phase is not None), key=lambda step: -step.count)
    steps = ", ".join(f"{step.phase} ({step.count:,})" for step in ranked)
    where = f", hanging in {steps}" if steps else ""
    limits = " and ".join(dict.fromkeys(step.limit for step in hanging if step.limit))
    them = "it" if count == 1 else "them"
    cure = f" {limits} would have ended {them}." if limits else ""
    if any(step.phase in _UNBOUNDED and not step.limit for step in hanging):
        cure += " Only the checkout has a limit (--timeout)."
    return f"{_operations(count)} {which} had not ended when {until}{where}.{cure}"


def _operations(count: int) -> str:
    return f"{count:,} operation{'' if count == 1 else 's'}"
