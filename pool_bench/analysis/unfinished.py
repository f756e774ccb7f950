"""Operations that were begun and never ended: how many, at which step, and what would have ended them."""

from dataclasses import dataclass
from typing import Literal

from pool_bench.errors import Phase
from pool_bench.stats.runs import RunResult
from pool_bench.units import format_duration


@dataclass(frozen=True, slots=True)
class Hanging:
    """Operations that hung in the same step.

    Attributes:
        begun: when they were begun: in the warm-up, or while it was measured.
        phase: the step they were at, None where that is not known.
        count: how many.
        limit: the option and value that would have ended them, "" where nothing bounds this step.
        limit_s: that value, seconds.
    """

    begun: Literal["warmup", "measured"]
    phase: Phase | None
    count: int
    limit: str
    limit_s: float | None


def hanging_of(run: RunResult) -> tuple[Hanging, ...]:
    """What of a finished run never ended; those begun in the warm-up first."""
    found = []
    for begun, stats in (("warmup", run.warmup), ("measured", run.total)):
        steps: dict[Phase | None, int] = dict(sorted(stats.unfinished_in.items()))
        unknown = stats.unfinished - sum(steps.values())
        if unknown > 0:
            steps[None] = unknown
        for phase, count in steps.items():
            limit, limit_s = _limit(run, phase)
            stage: Literal["warmup", "measured"] = "warmup" if begun == "warmup" else "measured"
            found.append(Hanging(stage, phase, count, limit, limit_s))
    return tuple(found)


def _limit(run: RunResult, phase: Phase | None) -> tuple[str, float | None]:
    if run.pool is not None:
        # Nothing but the acquire is bounded: a query may take as long as it likes.
        if phase is not Phase.CHECKOUT:
            return "", None
        return f"--timeout={format_duration(run.pool.timeout_s)}", run.pool.timeout_s
    limit_s = run.parameters.get("connect_timeout_s")
    if not isinstance(limit_s, (int, float)) or not limit_s:
        return "", None
    return f"--connect-timeout={format_duration(float(limit_s))}", float(limit_s)
