"""Runs of a result file as the arrays that comparisons resample."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from pool_bench.compare.samples import Round
from pool_bench.results.hold import HoldRecord
from pool_bench.results.run import IntervalRecord, RunRecord

# The last look of a run is at what was left over: too short to stand for one of the others.
_SHORT: Final = 0.5
# Looks get longer as a long run ages, and pools are looked at several times a second.
_SHORTEST_LOOKS: Final = 0.25


def measured_round(run: RunRecord) -> Round | None:
    """Operations of a run by the look, of a second or less; None where it has no timeline.

    What ended after measuring, in the grace period, belongs to the last second of measuring, as it was
    begun there.
    """
    rows: list[list[IntervalRecord]] = []
    lengths = sorted(second.seconds for second in run.timeline)
    usual_s = lengths[int(len(lengths) * _SHORTEST_LOOKS)] if lengths else 0.0
    for second in run.timeline:
        late = second.t > run.duration_s + 1e-3 or second.seconds < _SHORT * usual_s
        if rows and late:
            rows[-1].append(second)
        else:
            rows.append([second])
    if not rows:
        return None
    return Round(
        seconds=np.array([row[0].seconds for row in rows]),
        ok=np.array([sum(second.ok for second in row) for row in rows], dtype=np.float64),
        failed=np.array([sum(second.failed for second in row) for row in rows], dtype=np.float64),
        quantiles_ms=np.array([_quantiles_ms(row) for row in rows], dtype=np.float64),
        latency=run.histogram,
        duration_s=run.duration_s,
    )


def _quantiles_ms(row: list[IntervalRecord]) -> list[float]:
    """p50, p95, p99 and maximum of a second, or of what it had begun where nothing ended in it; or NaN."""
    second = next((second for second in row if second.p50 is not None), row[0])
    known = (second.p50, second.p95, second.p99, second.max)
    return [float("nan") if value is None else value for value in known]


def keepalive_round(hold: HoldRecord) -> Round | None:
    """Keep-alive queries by the second; None where there were none.

    A second has p50 and maximum only; p95 and p99 are put between them as they are in the whole run,
    so that of this round only the median's spread is worth anything.
    """
    p50, p95, p99 = hold.keepalive_histogram.percentiles_ms((50, 95, 99))
    if p50 is None or p95 is None or p99 is None:
        return None
    rows = []
    for second in hold.timeline:
        middle, top = second.keepalive_p50, second.keepalive_max
        if middle is None or top is None:
            rows.append([float("nan")] * 4)
        else:
            rows.append([middle, min(middle * p95 / p50, top), min(middle * p99 / p50, top), top])
    return Round(
        seconds=np.array([second.seconds for second in hold.timeline]),
        ok=np.array([second.keepalives for second in hold.timeline], dtype=np.float64),
        failed=np.zeros(len(hold.timeline)),
        quantiles_ms=np.array(rows, dtype=np.float64),
        latency=hold.keepalive_histogram,
        duration_s=hold.open_s + hold.hold_s + hold.close_s,
    )


def dropped_round(run: RunRecord, hold: HoldRecord) -> Round | None:
    """Drops by the second; those that were never dropped are spread over all seconds. None of no timeline."""
    seconds = hold.timeline
    if not seconds:
        return None
    kept = max(hold.opened + hold.reopened - hold.dropped, 0) / len(seconds)
    return Round(
        seconds=np.array([second.seconds for second in seconds]),
        ok=np.full(len(seconds), kept),
        failed=np.array([second.dropped for second in seconds], dtype=np.float64),
        quantiles_ms=np.full((len(seconds), 4), float("nan")),
        latency=run.histogram,
        duration_s=hold.open_s + hold.hold_s + hold.close_s,
    )


def all_of(rounds: Iterable[Round | None]) -> list[Round]:
    """`rounds`, or none of them where one is missing."""
    found = list(rounds)
    kept = [round_ for round_ in found if round_ is not None]
    return kept if len(kept) == len(found) else []
