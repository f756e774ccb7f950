"""Statistics of a pool under load merge exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.results.checkout import RecoveryRecord
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats, Fairness, Recovery
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.timeline import Timeline


def fairness_of(grants: list[int], wait_ns: int = 1_000_000) -> Fairness:
    """Clients with so many checkouts, all of which waited alike."""
    counts = np.array(grants, dtype=np.int64)
    return Fairness(granted=sum(grants), grants=counts, waits_ns=counts * wait_ns)


def waits(*values_ms: float) -> Histogram:
    """A histogram of these milliseconds."""
    histogram = Histogram()
    histogram.record((np.array(values_ms) * 1e6).astype(np.int64))
    return histogram


def test_jains_index_is_one_for_all_alike_and_a_share_for_one_who_has_all() -> None:
    assert fairness_of([7, 7, 7, 7]).index == 1.0
    assert fairness_of([28, 0, 0, 0]).index == 0.25
    assert fairness_of([0, 0]).index is None
    assert Fairness().index is None


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_jains_index_lies_between_one_client_and_all_of_them(grants: list[int]) -> None:
    index = fairness_of(grants).index
    if not any(grants):
        assert index is None
    else:
        assert index is not None
        assert 1 / len(grants) - 1e-9 <= index <= 1 + 1e-9


def test_sums_by_client_merge_by_number_whatever_their_length() -> None:
    total = fairness_of([1, 2])
    total.merge(fairness_of([10, 20, 30], wait_ns=2_000_000))
    assert total.grants.tolist() == [11, 22, 30]
    assert total.granted == 63
    assert total.client_waits_ms() == pytest.approx((21 / 11, 42 / 22, 2.0))
    assert Fairness().client_waits_ms() is None


def test_counts_add_up_peaks_are_the_highest_and_words_stay() -> None:
    total = CheckoutStats()
    total.merge(CheckoutStats(version="1", behaviour="m", opened=3, opening_peak=2, size_peak=5, open_s=0.5))
    total.merge(CheckoutStats(opened=4, open_failed=1, opening_peak=7, size_peak=4, bursts=waits(3.0)))
    assert (total.version, total.behaviour) == ("1", "m")
    assert (total.opened, total.open_failed, total.opening_peak, total.size_peak) == (7, 1, 7, 5)
    assert (total.open_s, total.bursts.count) == (0.5, 1)


def test_the_latest_word_on_a_recovery_counts() -> None:
    total = CheckoutStats(recovery=Recovery(stopping_s=1.0))
    total.merge(CheckoutStats(recovery=Recovery(stopping_s=1.0, up_s=2.5, first_s=2.4, all_s=3.0)))
    total.merge(CheckoutStats())
    assert total.recovery is not None
    record = RecoveryRecord.of(total.recovery)
    assert record.away_s == 1.5
    assert record.after_up_s(record.first_s) == 0.0
    assert record.after_up_s(record.all_s) == 0.5
    assert RecoveryRecord.of(Recovery(stopping_s=1.0)).after_up_s(2.0) is None


def test_intervals_of_the_same_end_become_one_until_they_are_sealed() -> None:
    total = CheckoutStats(intervals=Timeline([CheckoutInterval(1.0, 5, 2, 1, waits(1.0))]))
    total.merge(CheckoutStats(intervals=Timeline([CheckoutInterval(1.0, 6, 3, 0, waits(9.0))])))
    total.merge(CheckoutStats(intervals=Timeline([CheckoutInterval(2.0, 6, 3, 0, waits(4.0))])))
    assert [(one.t, one.clients, one.connections) for one in total.intervals] == [(1.0, 11, 5), (2.0, 6, 3)]
    total.intervals.seal()
    assert total.intervals[0].wait_p99 == pytest.approx(9.0, rel=1e-3)
    assert total.intervals[0].waits is None
    with pytest.raises(ValueError, match="sealed"):
        total.merge(CheckoutStats(intervals=Timeline([CheckoutInterval(2.0, 1, 1, 0, waits(1.0))])))
