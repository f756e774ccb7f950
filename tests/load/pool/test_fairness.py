"""Who overtook whom, against a count by hand."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.load.pool.fairness import GrantLog
from pool_bench.stats.checkouts import OVERTAKING_NS, Fairness
from pool_bench.stats.histogram import Histogram

MS = 1_000_000
Row = tuple[int, int, int]


def collect(rows: Sequence[Row], *, clients: int, cuts: Sequence[int] = ()) -> tuple[Fairness, Histogram]:
    """Feed rows in the order of their grants, taken in several parts."""
    arrivals = GrantLog(clients)
    total, waits = Fairness(), Histogram()
    for index, row in enumerate(rows):
        arrivals.granted.extend(row)
        if index in cuts:
            fairness, some = arrivals.take()
            total.merge(fairness)
            waits.merge(some)
    fairness, some = arrivals.take()
    total.merge(fairness)
    waits.merge(some)
    total.merge(arrivals.by_client())
    return total, waits


def overtaken_by_hand(rows: Sequence[Row]) -> int:
    """Grants that came more than a millisecond after that of a later arrival."""
    return sum(
        any(
            other_began > began and other_granted <= granted - OVERTAKING_NS
            for other_began, other_granted, _ in rows
        )
        for began, granted, _ in rows
    )


def test_first_come_first_served_overtakes_nobody() -> None:
    rows = [(index * 10, 5 * MS + index * 2 * MS, index % 4) for index in range(100)]
    fairness, waits = collect(rows, clients=4, cuts=(10, 50))
    assert (fairness.granted, fairness.overtaken, fairness.starved) == (100, 0, 0)
    assert fairness.index == 1.0
    assert waits.count == 100


def test_last_come_first_served_overtakes_all_but_the_last() -> None:
    rows = [(1000 - index, 10 * MS + index * 2 * MS, index) for index in range(10)]
    fairness, _ = collect(rows, clients=10)
    assert fairness.overtaken == 9


def test_the_order_within_one_turn_of_the_loop_is_no_overtaking() -> None:
    rows = [(100, 10 * MS, 0), (50, 10 * MS + MS // 2, 1)]
    assert collect(rows, clients=2)[0].overtaken == 0


def test_one_who_times_out_while_later_ones_are_served_is_starved() -> None:
    arrivals = GrantLog(2)
    arrivals.granted.extend((200, 10 * MS, 0))
    arrivals.timed_out(100, 20 * MS)
    arrivals.timed_out(300, 20 * MS)
    arrivals.timed_out(100, 10 * MS)
    fairness, _ = arrivals.take()
    assert fairness.starved == 1


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(0, 4)), max_size=60),
    st.sets(st.integers(0, 59), max_size=6),
)
def test_overtaking_is_what_a_count_by_hand_says_however_it_is_cut(
    drawn: list[tuple[int, int, int]], cuts: set[int]
) -> None:
    rows: list[Row] = sorted(
        ((began * MS // 4, (began * MS // 4) + waited * MS // 3, client) for began, waited, client in drawn),
        key=lambda row: row[1],
    )
    fairness, waits = collect(rows, clients=5, cuts=sorted(cuts))
    assert fairness.overtaken == overtaken_by_hand(rows)
    assert fairness.granted == waits.count == len(rows)
    assert fairness.grants.sum() == len(rows)
    assert fairness.waits_ns.sum() == sum(granted - began for began, granted, _ in rows)
    by_client = np.bincount([client for *_, client in rows], minlength=5) if rows else np.zeros(5)
    assert (fairness.grants == by_client).all()
