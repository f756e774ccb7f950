from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pool_bench.report.plot.sheet import (
    Sheet,
    format_latency,
    format_tick,
    latency_axis,
    latency_ticks,
    short_count,
    spread,
    style,
    time_ticks,
    widen,
)


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 1.0)), min_size=1, max_size=8),
)
def test_spread_labels_never_overlap_and_stay_inside_where_there_is_room(
    wished: list[tuple[float, float]],
) -> None:
    centres, sizes = [c for c, _ in sorted(wished)], [s for _, s in sorted(wished)]
    placed = spread(centres, sizes, 0.0, 10.0)
    edges = [(place - size / 2, place + size / 2) for place, size in zip(placed, sizes, strict=True)]
    assert all(left[1] <= right[0] + 1e-9 for left, right in pairwise(edges))
    assert edges[0][0] >= -1e-9
    assert edges[-1][1] <= 10 + 1e-9


def test_labels_with_room_stay_where_they_wish_to_be() -> None:
    assert spread([1.0, 5.0, 9.0], [1.0, 1.0, 1.0], 0.0, 10.0) == [1.0, 5.0, 9.0]
    assert spread([5.0, 5.0], [1.0, 1.0], 0.0, 10.0) == [4.5, 5.5]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0.0011, "1.10 µs"),
        (0.85, "850 µs"),
        (0.9999, "1.00 ms"),
        (12.34, "12.3 ms"),
        (101.2, "101 ms"),
        (999.9, "1.00 s"),
        (59_950.0, "60.0 s"),
        (3_600_000.0, "3,600 s"),
    ],
)
def test_latencies_have_three_digits_and_the_unit_people_use(milliseconds: float | None, text: str) -> None:
    assert format_latency(milliseconds) == text


def test_ticks_are_written_without_needless_digits() -> None:
    assert [format_tick(tick) for tick in (0.1, 1.0, 1.5, 10.0, 1000.0)] == [
        "100 µs",
        "1 ms",
        "1.5 ms",
        "10 ms",
        "1 s",
    ]


@given(st.floats(0.0005, 1e6), st.floats(1.1, 1e9), st.integers(3, 16))
def test_there_is_always_a_tick_and_never_more_than_fit(low: float, ratio: float, at_most: int) -> None:
    ticks = latency_ticks(low, low * ratio, at_most)
    assert 1 <= len(ticks) <= at_most + 1
    assert ticks == sorted(set(ticks))
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)


def test_a_wide_axis_has_powers_of_ten_and_a_narrow_one_even_steps() -> None:
    assert latency_ticks(0.05, 60_000, 8) == [0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]
    assert [round(tick, 3) for tick in latency_ticks(3.9, 4.45, 8)] == [3.9, 4.0, 4.1, 4.2, 4.3, 4.4]


def test_an_axis_marks_all_steps_of_its_decades_once_between_its_ends() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    latency_axis(axes, "x", 0.85, 25.0, at_most=8)
    latency_axis(axes, "y", 2.5, 4.5, at_most=2)
    across, up = (artist for artist in figure.get_children() if isinstance(artist, Line2D))
    marked = [*np.asarray(across.get_xdata()), *axes.get_xticks()]
    assert sorted(round(tick, 9) for tick in marked) == [0.9, *range(1, 11), 20]
    assert sorted([*np.asarray(up.get_ydata()), *axes.get_yticks()]) == [3, 4]
    # Where the axis is, whatever the other one shows.
    assert (axes.transAxes - across.get_transform()).transform((0.0, 0.0))[1] == 0
    assert not len(axes.get_xticks(minor=True))


@given(st.floats(0.001, 1e6), st.floats(1, 1e6))
def test_widened_ends_enclose_the_range_and_are_never_a_point(low: float, ratio: float) -> None:
    left, right = widen(low, low * ratio)
    assert left < low <= low * ratio < right
    assert right / left >= 1.2999


def test_long_text_is_shortened_to_its_room() -> None:
    with style():
        sheet = Sheet(10, 5)
        assert sheet.fit("short", 3.0) == "short"
        words = sheet.fit("postgresql://" + "w" * 300 + "/db", 3.0)
        assert "…" in words
        assert sheet.measure(words) <= 3.0
        assert sheet.fit("", 1.0) == ""


def test_counts_are_short() -> None:
    assert [short_count(value) for value in (0, 950, 1200, 3e6, 2.5e9)] == ["0", "950", "1.2k", "3M", "2.5G"]


@given(axes=st.just(Figure().add_subplot()), end=st.floats(0.2, 5000), at_most=st.integers(5, 8))
def test_times_are_labelled_in_steps_that_are_easily_read(axes: Axes, end: float, at_most: int) -> None:
    axes.set_xlim(0, end)
    time_ticks(axes, "s", at_most=at_most)
    shown = [tick for tick in axes.get_xticks() if 0 <= tick <= end]
    assert 2 <= len(shown) <= at_most + 1
    assert shown[0] == 0
    step = Decimal(f"{shown[1]:.3g}").normalize()
    digit = step.as_tuple().digits
    assert digit in ({(1,), (2,), (5,)} if step < 1 else {(1,), (2,), (3,), (5,), (6,)})
    assert axes.xaxis.get_major_formatter()(shown[1]) == f"{shown[1]:g} s"
