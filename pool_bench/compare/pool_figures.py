"""Figures of loads on pools that change while they are measured: bursts, ramps, spikes, restarts.

What differs between the stretches of such a run is what it is for, and no noise: resampling them says
nothing. So only whole rounds are compared with each other, and their spread is the only one there is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pool_bench.compare.bootstrap import Spread
from pool_bench.compare.change import Quantity, Scale
from pool_bench.compare.samples import Sampled
from pool_bench.results.checkout import CheckoutRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.histogram import Histogram

Merged = Callable[[Sequence[tuple[RunRecord, CheckoutRecord]]], float | None]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A figure: of all rounds together, and by the same rule of each."""

    quantity: Quantity
    of: Merged


def sample_rounds(runs: Sequence[RunRecord]) -> dict[Quantity, Sampled]:
    """The figures of rounds of a changing load on a pool; their spread is that between the rounds."""
    rounds = [(run, run.checkout) for run in runs if run.checkout is not None]
    if not rounds:
        return {}
    return {shown.quantity: _sampled(shown, rounds) for shown in _SHOWN[runs[0].scenario]}


def _sampled(shown: _Shown, rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> Sampled:
    value = shown.of(rounds)
    each = [shown.of([round_]) for round_ in rounds]
    if shown.quantity.scale is Scale.RATIO:
        each = [None if value is None else math.log(max(value, 1e-9)) for value in each]
    estimates = tuple(math.nan if value is None else value for value in each)
    return Sampled(value, sum(estimates) / len(estimates), estimates, Spread(0.0, math.inf))


def _throughput(rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> float | None:
    seconds = sum(run.duration_s for run, _ in rounds)
    return sum(run.ok for run, _ in rounds) / seconds if seconds else None


def _failed(rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> float | None:
    ended = sum(run.ok + run.failed for run, _ in rounds)
    return sum(run.failed for run, _ in rounds) / ended if ended else None


def _operation(percentile: float) -> Merged:
    return lambda rounds: Histogram.merged([run.histogram for run, _ in rounds]).percentile_ms(percentile)


def _wait(percentile: float) -> Merged:
    return lambda rounds: Histogram.merged(
        [run.phase_histograms["checkout"] for run, _ in rounds if "checkout" in run.phase_histograms]
    ).percentile_ms(percentile)


def _burst(rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> float | None:
    return Histogram.merged([checkout.bursts_histogram for _, checkout in rounds]).percentile_ms(50)


def _all_back(rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> float | None:
    """Mean time until all clients were back, milliseconds; None where some never were."""
    moments = [
        None if checkout.recovery is None else checkout.recovery.after_up_s(checkout.recovery.all_s)
        for _, checkout in rounds
    ]
    known = [moment for moment in moments if moment is not None]
    return sum(known) / len(known) * 1e3 if known and len(known) == len(moments) else None


def _lost(rounds: Sequence[tuple[RunRecord, CheckoutRecord]]) -> float | None:
    """Clients that never came back, of all."""
    known = [checkout.recovery for _, checkout in rounds if checkout.recovery is not None]
    clients = sum(recovery.clients for recovery in known)
    return 1 - sum(recovery.recovered for recovery in known) / clients if clients else None


_RATE: Final = _Shown(Quantity(name="throughput", unit="/s", more_is_better=True), _throughput)
_FAILED: Final = _Shown(Quantity(name="failed", unit="%", scale=Scale.SHARE), _failed)
_P50: Final = _Shown(Quantity(name="p50", unit="ms"), _operation(50))
_P99: Final = _Shown(Quantity(name="p99", unit="ms"), _operation(99))
_SHOWN: Final[dict[str, tuple[_Shown, ...]]] = {
    "burst": (_Shown(Quantity(name="burst p50", unit="ms"), _burst), _P99, _FAILED),
    "ramp": (_RATE, _P50, _P99, _FAILED),
    "spike": (_RATE, _Shown(Quantity(name="wait p99", unit="ms"), _wait(99)), _FAILED),
    "reconnect": (
        _Shown(Quantity(name="all back", unit="ms"), _all_back),
        _Shown(Quantity(name="never back", unit="%", scale=Scale.SHARE), _lost),
        _RATE,
        _FAILED,
    ),
}
