"""What several generators send, added up: no operation lost or counted twice, percentiles of all samples."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.load.merging import Merger
from pool_bench.stats.checkouts import CheckoutStats, Fairness
from pool_bench.stats.client_time import ClientTime
from pool_bench.stats.histogram import PERCENTILES, Histogram
from pool_bench.stats.holds import HoldInterval, HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.timeline import Timeline

Samples = list[int]


def _stats(t: float, samples: Sequence[int], in_flight: int = 1) -> BenchStats:
    stats = BenchStats(ok=len(samples))
    stats.latency.record(np.array(samples, dtype=np.int64))
    interval = Interval(
        t=t,
        seconds=1.0,
        ok=stats.ok,
        failed=0,
        in_flight=in_flight,
        lag_ms=0,
        cpu_s=0.1,
        latency=stats.latency,
    )
    stats.intervals = Timeline([interval])
    return stats


def _snapshot(
    t: float,
    samples: Sequence[int] = (),
    *,
    stage: Stage = Stage.MEASURE,
    final: bool = False,
) -> Snapshot:
    return Snapshot(
        stage=Stage.DONE if final else stage,
        elapsed_s=t,
        seconds=1.0,
        targets=(_stats(t, samples),),
        warmup=BenchStats(),
        in_flight=1,
        backing_off=0,
        client=ClientUsage(cpu_s=0.1, wall_s=1.0, rss_bytes=10),
        final=final,
    )


def _total(merged: Sequence[Snapshot]) -> BenchStats:
    """As `Run` adds them up: all but the last entries of the timeline are sealed on the way."""
    total = BenchStats()
    for snapshot in merged:
        total.merge(snapshot.targets[0])
        total.intervals.seal(keep=2)
    return total


@st.composite
def _courses(draw: st.DrawFn) -> tuple[list[list[Snapshot]], list[int], Samples]:
    """What each generator sends, the order in which it comes, and all samples."""
    senders = draw(st.integers(2, 5))
    ticks = draw(st.integers(1, 6))
    samples: Samples = []
    courses = []
    for _ in range(senders):
        course = []
        # Some miss ticks, as one that stood still does.
        moments = draw(st.lists(st.sampled_from(range(1, ticks + 1)), unique=True).map(sorted))
        for moment in moments:
            own = draw(st.lists(st.integers(1_000, 10_000_000_000), max_size=4))
            samples += own
            course.append(_snapshot(moment + draw(st.floats(-0.2, 0.3)), own))
        last = draw(st.lists(st.integers(1_000, 10_000_000_000), max_size=4))
        samples += last
        end = max(ticks, course[-1].elapsed_s if course else 0.0)
        course.append(_snapshot(end + draw(st.floats(0.01, 1.0)), last, final=True))
        courses.append(course)
    order = draw(st.permutations([number for number, course in enumerate(courses) for _ in course]))
    return courses, list(order), samples


@settings(max_examples=60)
@given(_courses())
def test_counts_and_percentiles_are_those_of_all_samples_whatever_comes_when(
    given_: tuple[list[list[Snapshot]], list[int], Samples],
) -> None:
    courses, order, samples = given_
    merger = Merger(len(courses), tick_s=1.0, interval_s=1.0)
    merged: list[Snapshot] = []
    for number in order:
        merger.add(number, courses[number].pop(0))
        merged += merger.take()
    total = _total(merged)
    expected = Histogram()
    expected.record(np.array(samples, dtype=np.int64))
    assert total.ok == len(samples) == sum(interval.ok for interval in total.intervals)
    assert total.latency == expected
    assert total.latency.percentiles_ms(PERCENTILES) == expected.percentiles_ms(PERCENTILES)
    assert [snapshot.final for snapshot in merged] == [False] * (len(merged) - 1) + [True]
    assert all(a.elapsed_s <= b.elapsed_s for a, b in pairwise(merged))
    ends = [interval.t for interval in total.intervals]
    assert ends == sorted(set(ends))
    assert sum(snapshot.client.cpu_s for snapshot in merged) == pytest.approx(0.1 * len(order))


def test_seconds_that_end_a_little_apart_are_one() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    merger.add(0, _snapshot(1.498, [5_000]))
    assert list(merger.take()) == []
    merger.add(1, _snapshot(1.502, [7_000]))
    (both,) = merger.take()
    (interval,) = both.targets[0].intervals
    assert (interval.ok, interval.in_flight, both.in_flight) == (2, 2, 2)
    assert (both.client.processes, both.client.cpu_s, both.client.wall_s, both.client.rss_bytes) == (
        2,
        0.2,
        1.0,
        20,
    )


def test_one_that_is_behind_is_not_waited_for_and_counted_where_it_comes() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    seen: list[Snapshot] = []
    for second in (1, 2, 3, 4):
        merger.add(0, _snapshot(second, [1_000]))
        seen += merger.take()
    # Two seconds behind the fourth: the first two go without it.
    assert [snapshot.elapsed_s for snapshot in seen] == [1, 2]
    for second in (1, 2, 3, 4):
        merger.add(1, _snapshot(second, [2_000]))
    seen += merger.take()
    assert [(snapshot.elapsed_s, snapshot.targets[0].ok) for snapshot in seen] == [
        (1, 1),
        (2, 1),
        (3, 4),
        (4, 2),
    ]
    intervals = _total(seen).intervals
    assert [(interval.t, interval.ok, interval.in_flight) for interval in intervals] == [
        (1, 1, 1),
        (2, 1, 1),
        (3, 4, 2),
        (4, 2, 2),
    ]


def test_one_that_is_lost_is_not_waited_for() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    merger.add(1, _snapshot(1.0, [1_000]))
    merger.add(0, _snapshot(1.0, [1_000]))
    merger.lose(1)
    merger.add(0, _snapshot(2.0, [1_000]))
    merger.add(0, _snapshot(2.1, [1_000], final=True))
    merged = list(merger.take())
    assert [(snapshot.targets[0].ok, snapshot.final) for snapshot in merged] == [
        (2, False),
        (1, False),
        (1, True),
    ]


def test_one_that_was_suspended_counts_where_the_others_are() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    late = _snapshot(1.0, [1_000])
    late.client.time = ClientTime(suspended_s=3.0, suspensions=1)
    seen: list[Snapshot] = []
    for second in (1, 2, 3):
        merger.add(0, _snapshot(second, [1_000]))
    merger.add(1, late)
    seen += merger.take()
    merger.add(0, _snapshot(5, [1_000]))
    merger.add(1, _snapshot(2.0, [9_000]))
    seen += merger.take()
    # Its second second ended when the others' fifth did.
    assert seen[-1].targets[0].intervals[-1].t == 5
    assert sum(snapshot.targets[0].ok for snapshot in seen) == 6


def test_what_is_held_and_what_it_costs_adds_up_over_processes_and_not_over_time() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    whole = HoldStats()
    for t, stage, bytes_ in ((0.0, Stage.OPEN, 100), (1.0, Stage.OPEN, 0), (2.0, Stage.HOLD, 0)):
        for number in (0, 1):
            snapshot = _snapshot(t, stage=stage)
            opened = 5 if t == 1.0 else 0
            held = HoldInterval(t, 1.0, str(stage), 5 if t else 0, 5, opened, 0, 0, Histogram(), Histogram())
            snapshot.hold = HoldStats(
                opened=opened,
                base_rss_bytes=bytes_,
                held_rss_bytes=300 if t == 1.0 else 0,
                intervals=Timeline([held]),
            )
            merger.add(number, snapshot)
        for merged in merger.take():
            assert merged.hold is not None
            whole.merge(merged.hold)
    assert (whole.opened, whole.base_rss_bytes, whole.held_rss_bytes, whole.held_peak) == (10, 200, 600, 10)
    assert [(each.t, each.stage, each.held) for each in whole.intervals] == [
        (0.0, "open", 0),
        (1.0, "open", 10),
        (2.0, "hold", 10),
    ]


def _holding(t: float, held: int, stage: Stage = Stage.HOLD) -> Snapshot:
    entry = HoldInterval(t, 1.0, str(stage), held, held, 0, 0, 0, Histogram(), Histogram())
    return replace(_snapshot(t, stage=stage), hold=HoldStats(intervals=Timeline([entry])))


def test_all_hold_from_the_last_one_opened_to_the_first_one_closed() -> None:
    first = [(1.0, 3, Stage.OPEN), (2.0, 3, Stage.HOLD), (3.0, 3, Stage.HOLD), (4.0, 0, Stage.CLOSE)]
    second = [(1.0, 2, Stage.OPEN), (2.0, 4, Stage.OPEN), (3.0, 4, Stage.HOLD), (4.0, 4, Stage.HOLD)]
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    whole = HoldStats()
    for number, snapshots in ((0, first), (1, [*second, (5.0, 0, Stage.CLOSE)])):
        for t, held, stage in snapshots:
            merger.add(number, _holding(t, held, stage))
        merger.lose(number)
    for merged in merger.take():
        assert merged.hold is not None
        whole.merge(merged.hold)
    assert [(each.stage, each.held) for each in whole.intervals] == [
        ("open", 5),
        ("open", 7),
        ("hold", 7),
        ("close", 4),
        ("close", 0),
    ]


def test_an_entry_of_one_process_has_what_the_others_hold_meanwhile() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    seen: list[Snapshot] = []
    for number, t, held in ((0, 1.0, 3), (1, 1.0, 4), (0, 2.0, 3), (0, 3.0, 2), (0, 4.0, 2)):
        merger.add(number, _holding(t, held))
        seen += merger.take()
    merger.lose(1)
    merger.add(0, replace(_holding(5.0, 2), final=True))
    seen += merger.take()
    whole = HoldStats()
    for each in seen:
        assert each.hold is not None
        whole.merge(each.hold)
    assert [(each.t, each.held) for each in whole.intervals] == [(1, 7), (2, 7), (3, 6), (4, 2), (5, 2)]


def test_clients_of_different_processes_are_different_clients() -> None:
    merger = Merger(2, tick_s=1.0, interval_s=1.0)
    for number in (0, 1):
        snapshot = _snapshot(1.0)
        grants = np.array([4, 0] if number == 0 else [0, 4], dtype=np.int64)
        snapshot.checkout = CheckoutStats(fairness=Fairness(grants=grants, waits_ns=grants * 10))
        merger.add(number, snapshot)
    (merged,) = merger.take()
    assert merged.checkout is not None
    assert merged.checkout.fairness.grants.tolist() == [4, 0, 0, 4]
    assert merged.checkout.fairness.index == pytest.approx(0.5)
    assert math.isclose(float(merged.checkout.fairness.waits_ns.sum()), 80)
