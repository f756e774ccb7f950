"""Statistics of held connections: they add up in any order, stay small, and say how long connections live."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import FailureKind, Phase
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import Ages, HoldInterval, HoldStats, survival
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.timeline import Timeline

ages_ns = st.integers(0, 10**16)
keys = st.builds(
    FailureKey,
    st.sampled_from([FailureKind.CLOSED, FailureKind.SERVER_SHUTDOWN, FailureKind.TIMEOUT]),
    st.sampled_from([Phase.HOLD, Phase.QUERY]),
    st.sampled_from(["", "57P01", "57P05"]),
)


def _histogram(values_ns: list[int]) -> Histogram:
    histogram = Histogram()
    if values_ns:
        histogram.record(np.array(values_ns, dtype=np.int64))
    return histogram


def _interval(t: int, counts: list[int], latencies: list[int]) -> HoldInterval:
    held, opened, dropped, closed = counts
    return HoldInterval(
        t=float(t),
        seconds=1.0,
        stage="hold",
        held=held,
        held_peak=held,
        opened=opened,
        dropped=dropped,
        closed=closed,
        keepalive=_histogram(latencies),
        active=_histogram(latencies[:1]),
    )


@st.composite
def stats(draw: Callable[..., object]) -> HoldStats:
    def some(strategy: st.SearchStrategy[object]) -> object:
        return draw(strategy)

    numbers = st.lists(st.integers(0, 1000), min_size=4, max_size=4)
    one = HoldStats()
    one.opened, one.reopened, one.closed, one.forced = some(numbers)  # type: ignore[misc]
    for key, age in some(st.lists(st.tuples(keys, ages_ns), max_size=5)):  # type: ignore[attr-defined]
        one.count_drop(key, "gone", age)
    for age in some(st.lists(ages_ns, max_size=5)):  # type: ignore[attr-defined]
        one.survivors.add(age)
    latencies: list[int] = some(st.lists(st.integers(1000, 10**10), max_size=4))  # type: ignore[assignment]
    one.keepalive, one.active = _histogram(latencies), _histogram(latencies[1:])
    one.reconnects.failed = len(latencies)
    seconds: set[int] = some(st.sets(st.integers(0, 5)))  # type: ignore[assignment]
    one.intervals = Timeline([_interval(t, some(numbers), latencies) for t in sorted(seconds)])  # type: ignore[arg-type]
    one.open_s, one.hold_s, one.close_s = (float(x) for x in some(numbers)[1:])  # type: ignore[index]
    one.emptied = bool(some(st.booleans()))
    return one


def _merged(*parts: HoldStats) -> HoldStats:
    total = HoldStats()
    for part in parts:
        total.merge(copy.deepcopy(part))
    return total


def _figures(one: HoldStats) -> object:
    """Everything that can be read of it, in an order of its own."""
    drops = sorted(
        (str(key), drop.count, sorted(drop.ages.counts.items())) for key, drop in one.drops.items()
    )
    seconds = [
        (
            i.t,
            i.seconds,
            i.held,
            i.held_peak,
            i.opened,
            i.dropped,
            i.closed,
            _shape(i.keepalive),
            _shape(i.active),
        )
        for i in one.intervals
    ]
    return (
        (one.opened, one.reopened, one.closed, one.forced, one.held, one.dropped, one.held_peak),
        (one.open_s, one.hold_s, one.close_s, one.emptied, one.reconnects.failed),
        drops,
        sorted(one.survivors.counts.items()),
        (_shape(one.keepalive), _shape(one.active)),
        seconds,
        one.survival(),
    )


def _shape(histogram: Histogram | None) -> object:
    assert histogram is not None
    return histogram.count, histogram.percentiles_ms((0, 50, 99, 100))


@settings(max_examples=25, deadline=None)
@given(stats(), stats())
def test_it_does_not_matter_which_comes_first(one: HoldStats, two: HoldStats) -> None:
    assert _figures(_merged(one, two)) == _figures(_merged(two, one))


@settings(max_examples=25, deadline=None)
@given(stats(), stats(), stats())
def test_it_does_not_matter_which_are_added_up_first(
    one: HoldStats, two: HoldStats, three: HoldStats
) -> None:
    assert _figures(_merged(_merged(one, two), three)) == _figures(_merged(one, _merged(two, three)))


@settings(max_examples=25, deadline=None)
@given(stats(), stats())
def test_adding_up_changes_neither_what_was_added_nor_loses_any(one: HoldStats, two: HoldStats) -> None:
    before = _figures(two)
    total = _merged(one)
    total.merge(two)
    total.merge(two)
    assert _figures(two) == before
    assert total.dropped == one.dropped + 2 * two.dropped
    assert total.held == one.held + 2 * two.held
    assert total.dropped_ages().total == total.dropped


@given(st.integers(0, 10**17))
def test_an_age_keeps_three_digits_and_is_never_older_than_it_was(age_ns: int) -> None:
    ages = Ages()
    ages.add(age_ns)
    ((kept_s, count),) = ages.items_s()
    assert count == 1
    assert kept_s <= age_ns / 1e9 * (1 + 1e-12)
    assert age_ns / 1e9 - kept_s <= max(0.001, age_ns / 1e9 / 100)


def test_ages_stay_few_however_many_connections_there_are() -> None:
    ages = Ages()
    for exponent in range(130):
        for step in range(200):
            ages.add(round(1.3**exponent * (1 + step / 200) * 1e6))
    decades = math.log10(max(ages.counts)) - 3
    assert ages.total == 130 * 200
    assert len(ages.counts) <= 1000 + 900 * (decades + 1)


def test_a_hostile_servers_sqlstates_do_not_fill_the_memory_of_a_run() -> None:
    total = HoldStats()
    for second in range(30):
        part = HoldStats()
        for number in range(100):
            part.count_drop(
                FailureKey(FailureKind.OTHER, Phase.HOLD, f"{second:02}{number:03}"), "x" * 9999, 1
            )
        total.merge(part)
    assert total.dropped == 3000
    assert len(total.drops) <= 257
    assert all(len(drop.sample) <= 500 for drop in total.drops.values())


def _brute_force(dropped: list[float], open_: list[float], age: float) -> float:
    """The product over all drops up to `age`, one connection at a time (Kaplan and Meier 1958, eq. 2b)."""
    share = 1.0
    for moment in sorted(set(dropped)):
        if moment <= age:
            at_risk = sum(other >= moment for other in dropped + open_)
            share *= (at_risk - dropped.count(moment)) / at_risk
    return share


lifetimes = st.lists(st.integers(0, 20).map(float), max_size=30)


@given(lifetimes, lifetimes)
def test_survival_is_that_of_kaplan_and_meier(dropped: list[float], open_: list[float]) -> None:
    points = survival(
        [(age, dropped.count(age)) for age in set(dropped)], [(age, open_.count(age)) for age in set(open_)]
    )
    if not dropped + open_:
        assert points == []
        return
    assert (points[0].age_s, points[0].share) == (0.0, 1.0)
    assert points[-1].age_s == max(dropped + open_)
    steps = {point.age_s: point.share for point in points}
    share = 1.0
    for age in sorted({0.0, *dropped, *open_}):
        share = steps.get(age, share)
        assert share == pytest.approx(_brute_force(dropped, open_, age))
    assert [p.share for p in points] == sorted((p.share for p in points), reverse=True)


def test_a_sealed_interval_refuses_to_be_merged() -> None:
    one, two = _interval(1, [1, 1, 0, 0], [5000]), _interval(1, [1, 1, 0, 0], [5000])
    one.seal()
    assert one.keepalives == 1
    assert one.keepalive_max == pytest.approx(0.005, rel=0.01)
    with pytest.raises(ValueError, match="sealed"):
        one.merge(two)
