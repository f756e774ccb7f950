from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.report.buckets import SERIES, choose_edges, counts_between, extent_ms, log_bars, log_edges
from pool_bench.stats.histogram import Histogram
from tests.support.results.runs import histogram_of_ms

durations_ns = st.lists(st.integers(0, 2 * 3_600_000_000_000), max_size=60)


@given(durations_ns, st.integers(1, 80))
def test_bars_add_up_to_every_recorded_operation(values: list[int], at_most: int) -> None:
    histogram = Histogram()
    histogram.record(np.array(values, dtype=np.int64))
    assert sum(bar.count for bar in log_bars(histogram, at_most=at_most)) == len(values)


@given(durations_ns)
def test_bars_touch_each_other_and_the_outer_ones_are_not_empty(values: list[int]) -> None:
    histogram = Histogram()
    histogram.record(np.array(values, dtype=np.int64))
    bars = log_bars(histogram, at_most=20)
    assert all(left.high_ms == right.low_ms for left, right in pairwise(bars))
    if bars:
        extent = extent_ms(histogram)
        assert extent is not None
        assert bars[0].low_ms <= extent[0] * 1.000001
        assert bars[-1].high_ms >= extent[1] * 0.999999


@given(st.floats(0.001, 1e6), st.floats(1.0, 1e6), st.sampled_from(SERIES))
def test_edges_enclose_the_range_they_were_made_for(
    low: float, ratio: float, series: tuple[float, ...]
) -> None:
    edges = log_edges(low, low * ratio, series=series)
    assert len(edges) >= 2
    assert edges[0] <= low * 1.000001
    assert edges[-1] > low * ratio * 0.999999
    assert (np.diff(edges) > 0).all()


def test_a_narrow_range_gets_finer_bars_than_a_wide_one() -> None:
    narrow, wide = choose_edges(4.0, 5.0, at_most=20), choose_edges(0.1, 60_000.0, at_most=20)
    assert narrow[1] / narrow[0] < 1.03
    assert [f"{edge:g}" for edge in wide[:4]] == ["0.1", "0.2", "0.5", "1"]


def test_bars_are_never_narrower_than_a_histogram_resolves() -> None:
    edges = choose_edges(0.03, 0.05, at_most=64)
    assert np.diff(edges).min() >= 0.004


def test_shared_edges_count_what_lies_beyond_them_in_the_outer_bars() -> None:
    counts = counts_between(histogram_of_ms([0.5, 2, 3, 90]), np.array([1.0, 2.5, 10.0]))
    assert counts.tolist() == [2, 2]


def test_an_empty_histogram_has_no_bars_and_no_extent() -> None:
    assert log_bars(Histogram(), at_most=10) == []
    assert extent_ms(Histogram(), Histogram()) is None


@pytest.mark.parametrize("value_ms", [0.0, 0.001, 1.0, 3_600_000.0])
def test_a_single_operation_is_one_bar_around_it(value_ms: float) -> None:
    (bar,) = log_bars(histogram_of_ms([value_ms]), at_most=10)
    assert bar.count == 1
    assert bar.low_ms <= max(value_ms, 0.001) * 1.001
    assert bar.high_ms >= value_ms * 0.999
