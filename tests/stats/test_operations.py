"""Histograms against HdrHistogram and NumPy; nothing is lost by merging."""

import copy
import pickle
import sys
from collections import Counter

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.stats.histogram import (
    HIGHEST_US,
    LOWEST_US,
    PERCENTILES,
    SIGNIFICANT_DIGITS,
    Histogram,
    bucket_lower_us,
    bucket_upper_us,
)
from pool_bench.stats.operations import (
    BenchStats,
    ClientUsage,
    FailureKey,
    Interval,
    Recorder,
    errors_by_name,
)
from pool_bench.stats.timeline import Timeline

HOUR_NS = HIGHEST_US * 1000

# Spread over all orders of magnitude, as latencies are.
_duration = st.one_of(
    st.integers(0, HOUR_NS),
    st.integers(0, 36).flatmap(lambda bits: st.integers(0, 2**bits)),
    st.sampled_from([0, 1, 499, 500, 999, 1000, 2_047_000, 2_047_500, 2_048_000, HOUR_NS, 2 * HOUR_NS]),
)
_durations = st.lists(_duration, max_size=60)


def histogram(values: list[int]) -> Histogram:
    filled = Histogram()
    filled.record(np.array(values, dtype=np.int64))
    return filled


def merged(*parts: Histogram) -> Histogram:
    total = Histogram()
    for part in parts:
        total.merge(part)
    return total


def hdr(values: list[int]) -> HdrHistogram:
    filled = HdrHistogram(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
    for value in values:
        filled.record_value(min((value + 500) // 1000, HIGHEST_US))
    return filled


@given(_durations)
@settings(deadline=None)
def test_buckets_are_those_of_hdrhistogram(values: list[int]) -> None:
    ours, theirs = histogram(values), hdr(values)
    indices, counts = ours.nonzero()
    expected = np.array(theirs.counts)
    assert list(indices) == list(np.flatnonzero(expected))
    assert list(counts) == list(expected[indices])
    assert ours.count == theirs.total_count
    for index in indices[:5]:
        one = np.array([index])
        low, high = int(bucket_lower_us(one)[0]), int(bucket_upper_us(one)[0])
        assert theirs.get_lowest_equivalent_value(low) == low
        assert theirs.get_highest_equivalent_value(low) == high


@given(_durations)
@settings(deadline=None)
def test_encoding_is_hdrhistograms_and_comes_back(values: list[int]) -> None:
    ours = histogram(values)
    text = ours.encode()
    theirs = HdrHistogram.decode(text)
    assert list(theirs.counts) == list(hdr(values).counts)
    again = Histogram.decode(text)
    assert [list(part) for part in again.nonzero()] == [list(part) for part in ours.nonzero()]
    assert again.count == ours.count
    assert again.encode() == text
    if values:
        theirs_hdr = hdr(values)
        wanted = theirs_hdr.get_value_at_percentile(50) / 1e3
        found = again.percentile_ms(50)
        assert found is not None
        assert abs(found - wanted) <= max(0.001, wanted / 1000)


@pytest.mark.parametrize(
    "text", ["", "x", "HISTFAAAA", "AAAA" * 20, "not base64 é", "HISTFAAAABl42pNpmSzMwMDAxAABzFCaEUoz"]
)
def test_what_is_no_encoding_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="HdrHistogram"):
        Histogram.decode(text)


@given(st.text(max_size=40))
@settings(deadline=None)
def test_no_text_makes_decoding_raise_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Histogram.decode(text)


def test_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="another range"):
        Histogram.decode(HdrHistogram(1, 1000, 2).encode().decode("ascii"))


@given(_durations.filter(bool), st.one_of(st.sampled_from([0.0, *PERCENTILES, 100.0]), st.floats(0, 100)))
@settings(deadline=None)
def test_percentiles_are_the_nearest_rank_to_within_a_bucket(values: list[int], percentile: float) -> None:
    found = histogram(values).percentile_ms(percentile)
    assert found is not None
    exact = int(np.percentile(values, percentile, method="inverted_cdf"))
    neighbours = {
        int(v)
        for v in np.percentile(
            values, [max(0, percentile - 1e-6), min(100, percentile + 1e-6)], method="inverted_cdf"
        )
    }
    assert min(values) / 1e6 <= found <= max(values) / 1e6

    def near(value: int) -> bool:
        # Rounded to a microsecond, and then to three digits upwards; beyond an hour is one bucket.
        return value > HOUR_NS or value / 1e6 - 0.0005 <= found <= value / 1e6 * 1.001 + 0.0011

    assert near(exact) or any(near(value) for value in neighbours)


def test_ranks_are_not_pushed_up_by_binary_fractions() -> None:
    values = [1_000_000] * 999 + [5_000_000_000]
    found = histogram(values).percentile_ms(99.9)
    assert found is not None
    assert found < 1.1


@given(_durations, _durations, _durations)
@settings(deadline=None)
def test_merging_is_recording_everything_in_one(a: list[int], b: list[int], c: list[int]) -> None:
    x, y, z = histogram(a), histogram(b), histogram(c)
    whole = histogram(a + b + c)
    for total in (merged(x, y, z), merged(z, y, x), merged(merged(x, y), z), merged(x, merged(y, z))):
        assert total == whole
        assert total.count == len(a + b + c)
        assert total.summary_ms()["p99"] == whole.summary_ms()["p99"]
        if whole.count:
            assert total.mean_ms == pytest.approx(whole.mean_ms, rel=1e-9)
            assert total.stdev_ms == pytest.approx(whole.stdev_ms, rel=1e-6, abs=1e-6)
    assert x == histogram(a)


def test_merging_does_not_share_buckets() -> None:
    part = histogram([1000])
    total = merged(part)
    total.record(np.array([1000], dtype=np.int64))
    assert (part.count, total.count) == (1, 2)
    assert list(part.nonzero()[1]) == [1]


def test_histograms_that_differ_in_one_bucket_are_not_equal() -> None:
    assert histogram([1000, 2000, 9000]) != histogram([1000, 5000, 9000])
    assert histogram([1000]) != histogram([1000, 1000])
    assert histogram([1000]) != "a histogram"
    assert Histogram() == Histogram()


@given(_durations)
@settings(deadline=None)
def test_pickling_keeps_everything(values: list[int]) -> None:
    original = histogram(values)
    for again in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):  # noqa: S301 - our own
        assert again == original
        assert again.summary_ms() == original.summary_ms()
        again.record(np.array([5], dtype=np.int64))
        assert again.count == original.count + 1


@given(st.lists(st.integers(0, HOUR_NS), min_size=1, max_size=100), st.integers(1, 5))
@settings(deadline=None)
def test_mean_and_deviation_are_numpys(values: list[int], parts: int) -> None:
    total = merged(*(histogram(values[start::parts]) for start in range(parts)))
    exact = np.array(values, dtype=np.float64) / 1e6
    assert total.mean_ms == pytest.approx(exact.mean(), rel=1e-12)
    assert total.stdev_ms == pytest.approx(exact.std(), rel=1e-9, abs=1e-9)
    assert total.total_s == pytest.approx(sum(values) / 1e9, rel=1e-12)
    assert (total.min_ns, total.max_ns) == (min(values), max(values))


def test_the_deviation_of_a_narrow_distribution_far_from_zero_is_stable() -> None:
    rng = np.random.default_rng(1)
    values = 3_000_000_000_000 + rng.integers(0, 100, 100_000)
    total = merged(*(histogram(list(part)) for part in np.split(values, 100)))
    assert total.stdev_ms == pytest.approx(values.std() / 1e6, rel=1e-6)


@given(_durations, st.lists(st.floats(0, 4e6), max_size=20).map(sorted))
@settings(deadline=None)
def test_bins_add_up_to_every_value(values: list[int], edges: list[float]) -> None:
    bins = histogram(values).binned(np.array(edges, dtype=np.float64))
    assert len(bins) == len(edges) + 1
    assert bins.sum() == len(values)
    assert (bins >= 0).all()


def test_values_fall_into_the_bin_around_them() -> None:
    assert list(histogram([500_000, 1_500_000, 1_600_000, 9_000_000]).binned(np.array([1.0, 2.0, 3.0]))) == [
        1,
        2,
        0,
        1,
    ]


@pytest.mark.parametrize("count", [1, 4095, 4096, 20_000])
def test_both_ways_of_filling_count_the_same(count: int) -> None:
    values = np.random.default_rng(2).integers(0, HOUR_NS, count)
    at_once = Histogram()
    at_once.record(values)
    in_pieces = Histogram()
    for part in np.array_split(values, 1 + count // 100):
        in_pieces.record(part)
    assert at_once == in_pieces


def test_an_empty_histogram_has_no_figures() -> None:
    empty = Histogram()
    empty.record(np.zeros(0, dtype=np.int64))
    assert empty.summary_ms() == dict.fromkeys(
        ("min", "mean", "stdev", "p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99", "max")
    )
    assert (empty.count, empty.total_s, empty.percentile_ms(50)) == (0, 0.0, None)
    assert repr(empty) == "Histogram(count=0, min_ns=0, max_ns=0)"
    assert Histogram.decode(empty.encode()) == empty


# --- recording --------------------------------------------------------------------------------

PHASES = (Phase.TCP, Phase.TLS, Phase.QUERY)


def failure(
    kind: FailureKind = FailureKind.REFUSED, sqlstate: str | None = None, text: str = "no"
) -> ConnectError:
    return ConnectError(kind, Phase.TCP, text, sqlstate=sqlstate)


@given(
    st.lists(st.tuples(st.integers(0, 10**10), *[st.integers(-1, 10**10)] * 3), max_size=600),
    st.integers(0, 300),
)
@settings(deadline=None, max_examples=30)
def test_the_recorder_counts_every_operation_and_every_phase_that_happened(
    rows: list[tuple[int, int, int, int]], failures: int
) -> None:
    recorder = Recorder(PHASES)
    for row in rows:
        recorder.ok(row)
    for number in range(failures):
        recorder.failed(failure(), number)
    recorder.unfinished(3)
    stats = recorder.take()
    assert (stats.ok, stats.failed, stats.unfinished) == (len(rows), failures, 3)
    assert stats.latency == histogram([row[0] for row in rows])
    assert stats.failure_latency == histogram(list(range(failures)))
    for column, phase in enumerate(PHASES, 1):
        happened = [row[column] for row in rows if row[column] >= 0]
        assert (phase in stats.phases) == bool(happened)
        assert stats.phases.get(phase, Histogram()) == histogram(happened)


def test_taking_begins_anew() -> None:
    recorder = Recorder(PHASES)
    recorder.ok((5000, 1, -1, -1))
    recorder.failed(failure(), 7)
    assert recorder.take().attempts == 2
    assert recorder.take() == BenchStats()


def test_a_recorder_does_not_grow_with_the_number_of_operations() -> None:
    recorder = Recorder(PHASES)

    def size() -> int:
        return sys.getsizeof(recorder._rows) + sys.getsizeof(recorder._failures_ns)

    largest = 0
    for number in range(3000):
        recorder.ok((number, number, -1, number))
        recorder.failed(failure(), number)
        largest = max(largest, size())
    assert largest < 2 * (512 * 4 + 512) * 8
    assert recorder.take().attempts == 6000


def test_failures_are_told_apart_by_kind_phase_and_sqlstate() -> None:
    recorder = Recorder(PHASES)
    for sqlstate in ("53300", "53300", None, "57P03"):
        recorder.failed(failure(FailureKind.OTHER, sqlstate, f"message {sqlstate}"), 1)
    stats = recorder.take()
    key = FailureKey(FailureKind.OTHER, Phase.TCP, "53300")
    assert (stats.failures[key].count, stats.failures[key].sample) == (2, "message 53300")
    assert len(stats.failures) == 3
    assert stats.errors == {FailureKind.OTHER: 4}


def test_a_server_that_invents_errors_does_not_fill_the_memory() -> None:
    parts = []
    for second in range(3):
        recorder = Recorder(PHASES)
        for number in range(400):
            recorder.failed(failure(FailureKind.OTHER, f"{second}{number:04}", "x" * 10_000), 1)
        parts.append(recorder.take())
    total = BenchStats.merged(parts)
    assert total.errors == {FailureKind.OTHER: 1200}
    assert len(total.failures) == 257
    assert all(len(failure.sample) <= 500 for failure in total.failures.values())


def test_errors_are_listed_by_frequency() -> None:
    stats = BenchStats()
    stats.count_failure(FailureKey(FailureKind.TIMEOUT, Phase.TCP), 1, "a")
    stats.count_failure(FailureKey(FailureKind.REFUSED, Phase.TCP), 1, "b")
    stats.count_failure(FailureKey(FailureKind.RESET, Phase.AUTH), 1, "c")
    stats.count_failure(FailureKey(FailureKind.RESET, Phase.TCP), 1, "c")
    assert list(stats.errors.items()) == [("reset", 2), ("refused", 1), ("timeout", 1)]
    assert errors_by_name(stats.errors) == {"reset": 2, "refused": 1, "timeout": 1}


# --- merging ----------------------------------------------------------------------------------


def second(t: float, values: list[int]) -> Interval:
    return Interval(t, 1.0, len(values), 1, 2, 3.0, 0.5, histogram(values))


@st.composite
def _stats(draw: st.DrawFn) -> BenchStats:
    responses = draw(st.booleans())
    recorder = Recorder(PHASES, responses=responses)
    for value in draw(st.lists(st.integers(0, 10**9), max_size=10)):
        service = (value,) if not responses else (value, value - value // 4)
        recorder.ok((*service, value // 2, -1, value // 3))
    for value in draw(st.lists(st.integers(0, 10**9), max_size=5)):
        recorder.offered(2)
        recorder.dropped(1)
        recorder.begun(value)
    for value in draw(st.lists(st.integers(0, 10**9), max_size=5)):
        kind = draw(st.sampled_from([FailureKind.REFUSED, FailureKind.TIMEOUT]))
        recorder.failed(failure(kind), value)
    recorder.unfinished(draw(st.integers(0, 3)))
    stats = recorder.take()
    for t in sorted(draw(st.sets(st.integers(1, 6), max_size=4))):
        stats.intervals.append(second(float(t), draw(st.lists(st.integers(0, 10**9), max_size=3))))
    return stats


@given(st.lists(_stats(), max_size=4))
@settings(deadline=None)
def test_merging_statistics_loses_nothing_in_any_order(parts: list[BenchStats]) -> None:
    before = pickle.dumps(parts)
    total, backwards = BenchStats.merged(parts), BenchStats.merged(reversed(parts))
    nested = BenchStats.merged([BenchStats.merged(parts[:2]), BenchStats.merged(parts[2:])])
    assert total == backwards == nested
    assert pickle.loads(before) == parts  # noqa: S301 - our own
    assert total.ok == sum(part.ok for part in parts)
    assert total.attempts == sum(part.attempts for part in parts)
    assert total.latency.count == total.ok
    assert total.failure_latency.count == total.failed == sum(total.errors.values())
    assert total.offered == sum(part.offered for part in parts) == 2 * total.dropped
    assert total.schedule_error.count == total.dropped
    assert total.service.count == sum(part.service.count for part in parts)
    intervals = [interval for part in parts for interval in part.intervals]
    assert [interval.t for interval in total.intervals] == sorted({interval.t for interval in intervals})
    for name in ("ok", "failed", "in_flight", "cpu_s"):
        assert sum(getattr(i, name) for i in total.intervals) == sum(getattr(i, name) for i in intervals)


def test_the_success_rate_is_successes_over_attempts() -> None:
    assert BenchStats().success_rate is None
    assert BenchStats(ok=3, failed=1, unfinished=2).success_rate == 0.5


def test_intervals_of_one_second_become_one() -> None:
    one, other = second(1.0, [1000]), second(1.0, [3000])
    other.seconds, other.lag_ms = 1.5, 9.0
    one.merge(other)
    assert (one.seconds, one.ok, one.failed, one.in_flight, one.lag_ms, one.cpu_s) == (1.5, 2, 2, 4, 9.0, 1.0)
    assert one.latency == histogram([1000, 3000])
    assert other.latency == histogram([3000])


def test_seconds_of_an_open_loop_add_up_what_was_due() -> None:
    one, other = second(1.0, [1000]), second(1.0, [3000])
    one.offered, one.dropped, one.late_ms, one.service = 3, 2, 1.0, histogram([5000])
    other.offered, other.dropped, other.late_ms, other.service = 4, 1, 7.0, histogram([25_000])
    one.merge(other)
    assert (one.offered, one.dropped, one.late_ms) == (7, 3, 7.0)
    assert one.service == histogram([5000, 25_000])
    assert other.service == histogram([25_000])
    one.seal()
    assert (one.service_p50, one.service_p99) == (0.005, 0.025)


def test_a_recorder_of_responses_keeps_both_times_and_the_phases_apart() -> None:
    recorder = Recorder(PHASES, responses=True)
    for _ in range(1000):
        recorder.ok((9_000_000, 4_000_000, 1_000_000, -1, 2_000_000))
    stats = recorder.take()
    assert stats.latency.percentile_ms(50) == pytest.approx(9.0, rel=1e-3)
    assert stats.service.percentile_ms(50) == pytest.approx(4.0, rel=1e-3)
    assert stats.service.count == stats.latency.count == stats.ok == 1000
    assert [stats.phases[phase].count for phase in PHASES if phase in stats.phases] == [1000, 1000]


def test_what_was_dropped_is_no_success() -> None:
    assert BenchStats(ok=3, failed=1, dropped=2).success_rate == 0.5


def test_sealed_intervals_keep_their_percentiles_and_cannot_be_merged() -> None:
    one = second(1.0, [1_000_000, 3_000_000])
    one.seal()
    one.seal()
    assert one.latency is None
    assert one.p50 == pytest.approx(1.0, rel=1e-3)
    assert one.max == 3.0
    for a, b in ((one, second(1.0, [])), (second(1.0, []), one)):
        with pytest.raises(ValueError, match="sealed"):
            a.merge(b)


def test_sealing_spares_the_last_intervals() -> None:
    stats = BenchStats(intervals=Timeline([second(float(t), [1000]) for t in range(1, 6)]))
    stats.intervals.seal(keep=2)
    assert [interval.latency is None for interval in stats.intervals] == [True, True, True, False, False]
    stats.merge(BenchStats(intervals=Timeline([second(5.0, [2000]), second(6.0, [])])))
    assert (len(stats.intervals), stats.intervals[4].ok) == (6, 2)
    stats.intervals.seal()
    assert all(interval.latency is None for interval in stats.intervals)
    stats.intervals.seal(keep=100)


def test_what_the_client_cost_adds_up_over_time() -> None:
    usage = ClientUsage(cpu_s=0.5, wall_s=1.0, rss_bytes=10, lag=histogram([1000]))
    usage.merge(ClientUsage(cpu_s=0.7, wall_s=1.0, rss_bytes=5, lag=histogram([2000])))
    assert usage.cpu_share == pytest.approx(0.6)
    assert (usage.rss_bytes, usage.lag.count) == (10, 2)
    assert ClientUsage().cpu_share == 0.0


# Made by this encoder, and what hdr-histogram-js 3.0.1 reads from it (docs/read_percentiles.mjs), in us.
READ_BY_JAVASCRIPT = {
    "HISTFAAAACJ4nJNpmSzMwMDAwwABzFCaEURcm7yEwf4DVIAJAQCJ2gSq": {10: 2, 50: 6, 90: 10, 95: 11, 99.9: 11},
    "HISTFAAAAUB4nJWTfU6DQBDFoZSW0lqrjR8EkTRIGkIIQcN/Jl7AUxlv0Ct4Js/hEdydGWbZ3YKyv3lvExLyMjPw8HnaO47/4eDx6HalfZ++nLcfevD6/vz"
    "0eH97vdtuN5swDIMgWEgWc1lzWXBmVAAVmXVc5S5KXVCWKUR5xiPPcJTuNj67kt+7Jcvejeq8Y8W+YkfW7GuNC1bHJavjCqTYg5AbUMedQHrEimYxCEmYlDgQ"
    "GZELHYUfgUKoFF4CFVALGtALkVHOf1IOkGCmICqlBjWEzGjFm6qbhJWOpiB2StXrpeYMSUoJEXUSG52cm5idImdWGRPr95Joe5maUlBOqU3M7KXVOpmSIjdTjE"
    "xM9dIKxdr2p6ToExvvJRr4xoZScP/mN1aO9tIYvQynZJSTn9kL/i/VYC+N8U/+lZJre/kF8R1YdA==": {
        0.1: 1,
        10: 4,
        50: 889,
        90: 205439,
        95: 405759,
        99: 699391,
        99.9: 790015,
    },
}


@pytest.mark.parametrize("payload", READ_BY_JAVASCRIPT)
def test_a_payload_has_the_percentiles_that_javascripts_reader_finds_in_it(payload: str) -> None:
    histogram = Histogram.decode(payload)
    for percentile, microseconds in READ_BY_JAVASCRIPT[payload].items():
        assert histogram.percentile_ms(percentile) == pytest.approx(microseconds / 1000, rel=0.001)


@given(st.lists(st.tuples(st.sampled_from(list(FailureKind)), st.integers(0, 400)), max_size=700))
@settings(deadline=None, max_examples=20)
def test_however_many_sorts_of_failures_there_are_none_is_lost_and_they_stay_few(
    failures: list[tuple[FailureKind, int]],
) -> None:
    stats = BenchStats()
    for kind, number in failures:
        stats.count_failure(FailureKey(kind, Phase.QUERY, f"{number:05}"), 1, "no")
    assert sum(count.count for count in stats.failures.values()) == len(failures)
    assert len(stats.failures) <= 256 + len(FailureKind)
    kinds = Counter(kind for kind, _ in failures)
    assert stats.errors == dict(kinds)
