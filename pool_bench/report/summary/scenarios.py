"""What only one scenario has to say: bursts, ramps, spikes, steadiness, recovery, stress."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from pool_bench.compare.pools import PoolComparison, PoolRounds, Spread
from pool_bench.report.text import Paint, format_percent, format_rate, table
from pool_bench.results.checkout import CheckoutIntervalRecord, CheckoutRecord, RecoveryRecord
from pool_bench.results.run import IntervalRecord, RunRecord
from pool_bench.units import format_duration, format_ms

# Stretches of a timeline shorter than this share of the others are no measure of a rate.
_SLIVER: Final = 0.5


def shape_lines(contest: PoolComparison, paint: Paint) -> list[str]:
    """The lines that belong to `contest`'s scenario, none where it has nothing special."""
    make = _SHAPES.get(contest.scenario)
    if make is None:
        return []
    drawn = table(make(contest.groups))
    return [paint(drawn[0], "bold"), *drawn[1:]] if len(drawn) > 1 else []


def _bursts(groups: Sequence[PoolRounds]) -> list[list[str]]:
    rows = [["bursts, ms", "count", "p50", "max", "served one after the other: p50", "p99 apart"]]
    for group in groups:
        bursts = group.bursts
        p50, top = bursts.percentiles_ms((50, 100))
        apart = _neighbours(group)
        rows.append([group.pool, f"{bursts.count:,}", format_ms(p50), format_ms(top), *apart])
    return rows


def _neighbours(group: PoolRounds) -> list[str]:
    spreads = [
        Spread.of(
            checkout.fairness.neighbours_histogram.percentile_ms(percentile) for checkout in group.checkouts
        )
        for percentile in (50.0, 99.0)
    ]
    return [format_ms(spread.median if spread is not None else None) for spread in spreads]


def _steadiness(groups: Sequence[PoolRounds]) -> list[list[str]]:
    rows = [["steadiness", "op/s, slowest stretch", "fastest", "slowest of fastest"]]
    for group in groups:
        rates = [rate for run in group.runs for _, rate in seconds_of(run)]
        if rates:
            share = min(rates) / max(rates) if max(rates) else None
            cells = (format_rate(min(rates)), format_rate(max(rates)), format_percent(share))
            rows.append([group.pool, *cells])
    return rows


def seconds_of(run: RunRecord) -> list[tuple[float, float]]:
    """End and rate of each whole stretch of the timeline."""
    usual = median([second.seconds for second in run.timeline]) if run.timeline else 0.0
    return [
        (second.t, second.ok / second.seconds)
        for second in run.timeline
        if second.seconds > usual * _SLIVER and second.t <= run.duration_s + usual / 2
    ]


def _joined(group: PoolRounds) -> list[tuple[IntervalRecord, CheckoutIntervalRecord]]:
    """Operations and pool of the same stretches, all rounds."""
    return [
        (second, stretch)
        for run, checkout in zip(group.runs, group.checkouts, strict=True)
        for second, stretch in zip(run.timeline, checkout.timeline, strict=False)
        if second.seconds > 0
    ]


def _ramp(groups: Sequence[PoolRounds]) -> list[list[str]]:
    rows = [["ramp", "clients", "op/s", "wait p50", "wait p99 ms"]]
    for group in groups:
        joined = _joined(group)
        levels = sorted({stretch.clients for _, stretch in joined if stretch.clients})
        name = group.pool
        for level in _few(levels):
            here = [pair for pair in joined if pair[1].clients == level]
            rate = median(second.ok / second.seconds for second, _ in here)
            rows.append([name, f"{level:,}", format_rate(rate), *_waits(stretch for _, stretch in here)])
            name = ""
    return rows


def _few(levels: Sequence[int]) -> list[int]:
    """The first, the last, and some in between."""
    if len(levels) <= 4:
        return list(levels)
    return [levels[round(index * (len(levels) - 1) / 3)] for index in range(4)]


def _waits(stretches: Iterable[CheckoutIntervalRecord]) -> list[str]:
    known = list(stretches)
    cells = []
    for name in ("wait_p50", "wait_p99"):
        spread = Spread.of(getattr(stretch, name) for stretch in known)
        cells.append(format_ms(spread.median if spread is not None else None))
    return cells


def _spike(groups: Sequence[PoolRounds]) -> list[list[str]]:
    rows = [["spike: wait p99, ms", "before", "during (most)", "after", "calm again after"]]
    for group in groups:
        calm = group.spread(lambda run, checkout: calm_after_s(run, checkout))
        before = group.spread(lambda run, checkout: _worst(_part(run, checkout, 0), median))
        during = group.spread(lambda run, checkout: _worst(_part(run, checkout, 1), max))
        after = group.spread(lambda run, checkout: _worst(_part(run, checkout, 2), median))
        cells = [format_ms(spread.median if spread else None) for spread in (before, during, after)]
        rows.append([group.pool, *cells, "not at all" if calm is None else format_duration(calm.median)])
    return rows


def _part(run: RunRecord, checkout: CheckoutRecord, third: int) -> list[CheckoutIntervalRecord]:
    """One third of a spike's timeline."""
    length = run.duration_s / 3
    return [stretch for stretch in checkout.timeline if third * length < stretch.t <= (third + 1) * length]


def _worst(part: Sequence[CheckoutIntervalRecord], choose: Callable[[list[float]], float]) -> float | None:
    known = [stretch.wait_p99 for stretch in part if stretch.wait_p99 is not None]
    return choose(known) if known else None


def calm_after_s(run: RunRecord, checkout: CheckoutRecord) -> float | None:
    """How long after a spike's end the waits are what they were before, seconds; None where never.

    As they were means at most twice the median p99 of before, or a millisecond.
    """
    before = _worst(_part(run, checkout, 0), median)
    if before is None:
        return None
    limit = max(2 * before, 1.0)
    end_s = run.duration_s * 2 / 3
    calm_since: float | None = None
    for stretch in _part(run, checkout, 2):
        if stretch.wait_p99 is None or stretch.wait_p99 > limit:
            calm_since = None
        elif calm_since is None:
            calm_since = stretch.t
    return None if calm_since is None else max(calm_since - end_s, 0.0)


def _recovery(groups: Sequence[PoolRounds]) -> list[list[str]]:
    rows = [["restart", "server away", "first back", "all back", "clients", "errors", "opened", "at once"]]
    for group in groups:
        known = [checkout.recovery for checkout in group.checkouts if checkout.recovery is not None]
        if not known:
            continue
        moments = [each.after_up_s(each.all_s) for each in known]
        rows.append(
            [
                group.pool,
                _moment(Spread.of(each.away_s for each in known)),
                _moment(Spread.of(each.after_up_s(each.first_s) for each in known)),
                "not all" if None in moments else _moment(Spread.of(moments)),
                _fewest(known),
                f"{median(each.failed for each in known):,.0f}",
                f"{median(each.opened for each in known):,.0f}",
                f"{max(each.opening_peak for each in known):,}",
            ]
        )
    return rows


def _moment(spread: Spread | None) -> str:
    return "never" if spread is None else format_duration(spread.median) or "0s"


def _fewest(known: Sequence[RecoveryRecord]) -> str:
    worst = min(known, key=lambda each: each.recovered / max(each.clients, 1))
    return f"{worst.recovered:,}/{worst.clients:,}"


_SHAPES: Final[dict[str, Callable[[Sequence[PoolRounds]], list[list[str]]]]] = {
    "burst": _bursts,
    "sustained": _steadiness,
    "ramp": _ramp,
    "spike": _spike,
    "reconnect": _recovery,
}
