"""A long run's timeline is short, and nothing in it is lost, averaged or moved."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.checkouts import CheckoutInterval
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import HoldInterval
from pool_bench.stats.operations import Interval
from pool_bench.stats.server import CpuUse, ServerSample, SetupSecond
from pool_bench.stats.timeline import Coarsening, Timeline
from tests.support.results.runs import run_of, session_of, stats_of

DAY_S = 86_400
Entry = Interval | HoldInterval | CheckoutInterval


def second(t: float, values_ns: list[int], *, seconds: float = 1.0) -> Interval:
    latency = Histogram()
    latency.record(np.array(values_ns, dtype=np.int64))
    return Interval(
        t=t,
        seconds=seconds,
        ok=len(values_ns),
        failed=1,
        in_flight=int(t) % 7,
        lag_ms=t % 3,
        cpu_s=0.25,
        latency=latency,
    )


def coarsened(
    intervals: list[Interval], tiers: tuple[tuple[float, float], ...], keep: int = 2
) -> list[Interval]:
    """What a timeline is after these have come one after another."""
    timeline: list[Interval] = []
    coarsening: Coarsening[Interval] = Coarsening(tiers)
    for interval in intervals:
        timeline.append(interval)
        coarsening.seal(timeline, keep)
    for interval in timeline:
        interval.seal()
    return timeline


@dataclass(slots=True)
class Tick:
    """A stretch that costs nothing."""

    t: float
    count: int = 1
    sort: str = ""

    def joined(self, later: "Tick") -> "Tick":
        return Tick(later.t, self.count + later.count)

    def seal(self) -> None:
        pass


def test_a_day_of_seconds_stays_far_under_ten_megabytes() -> None:
    timeline: list[Tick] = []
    coarsening: Coarsening[Tick] = Coarsening()
    for t in range(1, DAY_S + 1):
        timeline.append(Tick(float(t)))
        coarsening.seal(timeline, 2)
    assert sum(tick.count for tick in timeline) == DAY_S
    assert [tick.count for tick in timeline[-3600:]] == [1] * 3600
    total = stats_of(())
    total.intervals = Timeline([second(float(t) + 80_000.123, [123_456_789] * 99) for t in range(100)])
    for interval in total.intervals:
        interval.seal()
    entries = json.loads(dumps(session_to_json(session_of(run_of(total)))))["runs"][0]["timeline"]
    each = len(json.dumps(entries)) / len(entries)
    assert len(timeline) * each < 10e6 / 3, "server, pool and holding have timelines, too"


@given(
    st.lists(
        st.tuples(st.floats(0.2, 2.5), st.lists(st.integers(1_000, 10**9), max_size=4)),
        min_size=1,
        max_size=120,
    ),
    st.integers(1, 3),
)
def test_stretches_are_the_seconds_they_stand_for(seconds: list[tuple[float, list[int]]], keep: int) -> None:
    t, made = 0.0, []
    for length, values in seconds:
        t += length
        made.append((t, length, values))
    timeline = coarsened(
        [second(t, values, seconds=length) for t, length, values in made], ((4.0, 10.0), (12.0, 30.0)), keep
    )
    assert [one.t for one in timeline] == sorted(one.t for one in timeline)
    assert timeline[-1].t == made[-1][0]
    rest = list(made)
    for stretch in timeline:
        part = [rest.pop(0) for _ in range(sum(end <= stretch.t for end, _, _ in rest))]
        merged = Histogram()
        merged.record(np.array([v for _, _, values in part for v in values], dtype=np.int64))
        assert stretch.ok == merged.count
        assert stretch.failed == len(part)
        assert abs(stretch.seconds - sum(length for _, length, _ in part)) < 1e-9
        assert [stretch.p50, stretch.p95, stretch.p99, stretch.max] == merged.percentiles_ms(
            (50, 95, 99, 100)
        )
        assert stretch.in_flight == int(part[-1][0]) % 7
        assert stretch.lag_ms == max(end % 3 for end, _, _ in part)
    assert not rest
    young = made[-1][0] - 10.0
    assert all(stretch.t in {end for end, _, _ in made} for stretch in timeline)
    assert all(stretch.failed == 1 for stretch in timeline if stretch.t - stretch.seconds > young)


def test_stages_of_holding_stay_apart_and_the_peak_is_the_highest() -> None:
    timeline: list[HoldInterval] = []
    coarsening: Coarsening[HoldInterval] = Coarsening(((10.0, 20.0),))
    for t in range(1, 61):
        timeline.append(
            HoldInterval(
                t=float(t),
                seconds=1.0,
                stage="open" if t < 5 else "hold",
                held=t,
                held_peak=100 - t,
                opened=1,
                dropped=0,
                closed=0,
                keepalive=Histogram(),
                active=Histogram(),
            )
        )
        coarsening.seal(timeline, 2)
    assert [(one.stage, one.held, one.held_peak, one.opened) for one in timeline[:3]] == [
        ("open", 4, 99, 4),
        ("hold", 9, 95, 5),
        ("hold", 19, 90, 10),
    ]
    assert sum(one.opened for one in timeline) == 60


def hold_second(t: float, values_ns: list[int]) -> HoldInterval:
    latency = second(t, values_ns).latency
    return HoldInterval(t, 1.0, "hold", 3, 4, 2, 1, 0, keepalive=latency, active=Histogram())


def checkout_second(t: float, values_ns: list[int]) -> CheckoutInterval:
    return CheckoutInterval(t, 5, 2, 1, second(t, values_ns).latency)


@given(
    parts=st.lists(
        st.dictionaries(st.integers(1, 6), st.lists(st.integers(0, 10**9), max_size=3), max_size=5),
        max_size=5,
    ),
    make=st.sampled_from([second, hold_second, checkout_second]),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_timelines_merged_in_any_order_and_any_pieces_are_the_whole(
    parts: list[dict[int, list[int]]], make: Callable[[float, list[int]], Entry], random: Random
) -> None:
    def entries(part: dict[int, list[int]]) -> list[Entry]:
        return [make(float(t), part[t]) for t in sorted(part)]

    ordered, shuffled, nested = (Timeline[Entry]() for _ in range(3))
    for part in parts:
        ordered.merge(entries(part))
    for part in random.sample(parts, len(parts)):
        # A part that arrives second by second, in any order.
        for entry in random.sample(entries(part), len(part)):
            shuffled.merge([entry])
    halves = [Timeline[Entry](), Timeline[Entry]()]
    for index, part in enumerate(parts):
        halves[index % 2].merge(entries(part))
    before = pickle.dumps(halves)
    for half in halves:
        nested.merge(half)
    assert ordered == shuffled == nested
    assert pickle.loads(before) == halves  # noqa: S301 - our own
    assert [entry.t for entry in ordered] == sorted({float(t) for part in parts for t in part})


def test_entries_that_come_late_are_matched_and_put_in_their_place() -> None:
    timeline = Timeline([checkout_second(1.0, [1000]), checkout_second(10.0, [])])
    timeline.merge([checkout_second(1.0, [3000]), checkout_second(2.0, [])])
    assert [(entry.t, entry.clients) for entry in timeline] == [(1.0, 10), (2.0, 5), (10.0, 5)]
    timeline.merge([checkout_second(10.0, []), checkout_second(11.0, [])])
    assert [(entry.t, entry.clients) for entry in timeline[2:]] == [(10.0, 10), (11.0, 5)]


def test_looks_at_a_server_become_one_with_their_peaks_and_mean_cores() -> None:
    looks = [
        ServerSample(
            t=float(t),
            states={"idle": t, f"s{t}": 1},
            used=t,
            sessions={"sessions": 10 * t},
            cpu=CpuUse(machine=1.0 * (t % 2), server=0.5),
            setup=SetupSecond(t, 1.0, 2.0),
        )
        for t in range(1, 5)
    ]
    whole = looks[0].joined(looks[1]).joined(looks[2].joined(looks[3]))
    assert (whole.t, whole.looks, whole.used, whole.states["idle"]) == (4.0, 4, 4, 4)
    assert whole.states.keys() == {"idle", "s1", "s2", "s3", "s4"}
    assert whole.sessions == {"sessions": 40}
    assert whole.cpu == CpuUse(machine=0.5, server=0.5)
    assert whole.setup == SetupSecond(10, None, None)
