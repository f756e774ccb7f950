"""Pictures of pools: complete, without overlapping words, and the same from a file."""

import io
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.lines import Line2D

from pool_bench.compare.comparison import compare
from pool_bench.contenders.base import CONTENDER_NAMES, SURREAL_CONTENDER_NAMES
from pool_bench.errors import UsageError
from pool_bench.report.plot.differences import draw_differences
from pool_bench.report.plot.figures import plot
from pool_bench.report.plot.pool_size import draw_sizes
from pool_bench.report.plot.pools import draw_pools
from pool_bench.report.plot.sheet import INK, Sheet, pool_colour, style
from pool_bench.results.model import from_session
from pool_bench.stats.histogram import Histogram
from tests.support.results.pools import pool_run, pool_session, recovery_of, size_session
from tests.support.results.runs import session_of, typical_run

SCENARIOS = ("churn", "burst", "ramp", "spike", "reconnect")


def check_words(sheet: Sheet) -> None:
    """No text placed by hand overlaps another or leaves the sheet."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in sheet.labels if text.get_text()]
    figure = sheet.figure.bbox
    for index, (words, box) in enumerate(boxes):
        assert box.x0 >= figure.x0 - 1, words
        assert box.x1 <= figure.x1 + 1, words
        for other, another in boxes[index + 1 :]:
            overlap = min(box.x1, another.x1) - max(box.x0, another.x0) > 1 and (
                min(box.y1, another.y1) - max(box.y0, another.y0) > 1
            )
            assert not overlap, (words, other)


@pytest.mark.parametrize("scenarios", [("query",), SCENARIOS])
def test_a_band_for_each_load_with_every_pool(scenarios: tuple[str, ...]) -> None:
    result = from_session(pool_session(scenarios))
    with style():
        sheet = draw_pools([result])
        check_words(sheet)
    words = {text.get_text() for text in sheet.labels}
    assert {*scenarios, "reference", "asyncpg", "psycopg", "sqlalchemy"} <= words


def test_long_names_and_queries_are_cut_not_overlapped() -> None:
    session = pool_session(("query",), name="a name that goes on and on " * 8)
    other = pool_session(("query", "spike"), name="another such name " * 8)
    with style():
        sheet = draw_pools([from_session(session), from_session(other)])
        check_words(sheet)


def test_a_pool_without_success_is_drawn_as_such() -> None:
    runs = [pool_run("reference"), pool_run("asyncpg", dead=True)]
    for scenario in ("query", "ramp", "reconnect"):
        dead = [pool_run(pool, scenario=scenario, dead=True) for pool in ("reference", "asyncpg")]
        assert plot([from_session(session_of(*dead))]).startswith(b"\x89PNG")
    picture = imread(io.BytesIO(plot([from_session(session_of(*runs))])))
    assert picture.std() > 0.01


def test_a_sweep_of_sizes_has_its_law_and_its_words() -> None:
    rates = {1: 100.0, 2: 195.0, 4: 370.0, 8: 660.0, 16: 1000.0, 32: 1200.0, 64: 1150.0}
    result = from_session(size_session(rates))
    with style():
        sheet = draw_sizes(result)
        check_words(sheet)
    assert any(text.get_text().startswith("Recommended: ") for text in sheet.labels)
    few = from_session(size_session({1: 100.0, 2: 190.0, 4: 300.0}))
    with style():
        check_words(draw_sizes(few))
    assert plot([result], file_format="svg").count(b"<svg") == 1


def test_pools_are_not_drawn_together_with_what_is_none() -> None:
    pools, cycles = from_session(pool_session()), from_session(session_of(typical_run(2000)))
    with pytest.raises(UsageError, match="without a pool"):
        plot([pools, cycles])
    with pytest.raises(UsageError, match="one by one"):
        plot([pools, from_session(size_session({1: 10.0, 2: 20.0}))])


def test_an_outage_is_a_gap_with_its_failures_and_the_recovery_of_each_pool() -> None:
    session = pool_session(("reconnect",), pools=("reference", "asyncpg"), rounds=3)
    for run in session.runs:
        assert run.checkout is not None
        for second, stretch in zip(run.total.intervals, run.checkout.intervals, strict=True):
            # The server is away from 2 s to 3.5 s; the end of each stretch is its time.
            if 2 < second.t <= 3:
                second.ok, second.failed, second.latency = 0, 40, None
                stretch.waits = Histogram()
    result = from_session(session)
    with style():
        sheet = draw_pools([result])
        check_words(sheet)
    rates, waits, failed = _panels_over_time(sheet)
    for axes in (rates, waits):
        assert len(_courses(axes)) == 2
        for line in _courses(axes):
            points = zip(_floats(line.get_xdata()), _floats(line.get_ydata()), strict=True)
            assert [t for t, value in points if math.isnan(value)] == [2.5]
    for pool, line in zip(("reference", "asyncpg"), failed.lines[::3], strict=True):
        assert line.get_color() == pool_colour(pool)
        assert _floats(line.get_ydata()) == [0, 0, 40, 0, 0, 0]
    # Hollow where the first client of a pool was back, filled where all were.
    assert [_floats(line.get_xdata()) for line in failed.lines[1:3]] == [[3.6], [4.2]]
    assert [_floats(line.get_xdata()) for line in failed.lines[4:6]] == [[3.6], [5.2]]
    words = [text.get_text() for text in sheet.labels]
    assert "first client back after 100ms, all after 700ms; 33 operations failed" in words
    assert "first client back after 100ms, all after 1.7s; 33 operations failed" in words


def test_recoveries_are_told_even_where_there_is_no_room_for_the_course() -> None:
    loads = ("churn", "query", "burst", "ramp", "spike", "sustained", "naive", "stress", "reconnect")
    with style():
        sheet = draw_pools([from_session(pool_session(loads))])
        check_words(sheet)
    words = [text.get_text() for text in sheet.labels]
    assert any(line.startswith("no room for timelines beside this many loads") for line in words)
    assert sum(line.startswith("first client back after 100ms, all after ") for line in words) == 4


def test_clients_that_never_came_back_are_told_and_have_no_moment() -> None:
    runs = [
        pool_run("asyncpg", scenario="reconnect", round_=1, recovery=recovery_of(4.0)),
        pool_run("asyncpg", scenario="reconnect", round_=2, recovery=recovery_of(None)),
    ]
    with style():
        sheet = draw_pools([from_session(session_of(*runs))])
        check_words(sheet)
    words = [text.get_text() for text in sheet.labels]
    assert (
        "first client back after 100ms, not all in 1 of 2 rounds (at worst 50 of 100); 33 operations failed"
        in words
    )
    filled = [
        line
        for axes in sheet.figure.axes
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markersize() == 6
    ]
    assert [line.get_markerfacecolor() for line in filled] == ["white"]


def test_a_pool_has_its_colour_in_every_picture_whoever_else_is_in_it() -> None:
    alone = from_session(pool_session(("query", "ramp"), pools=("psycopg",)))
    others = from_session(pool_session(("query", "ramp"), pools=("sqlalchemy", "reference", "psycopg")))
    colour = pool_colour("psycopg")
    assert len({pool_colour(name) for name in CONTENDER_NAMES}) == len(CONTENDER_NAMES)
    assert len({pool_colour(name) for name in SURREAL_CONTENDER_NAMES}) == len(SURREAL_CONTENDER_NAMES)
    with style():
        sheets = [draw_pools([alone]), draw_pools([others]), draw_pools([others, alone])]
    for sheet, rows in zip(sheets, (1, 3, 4), strict=True):
        bars = sheet.figure.axes[0].patches
        assert len(bars) == rows
        assert to_hex(bars[-1].get_facecolor()) == colour.lower()
        courses = [_courses(axes) for axes in _panels_over_time(sheet)]
        assert len(courses) == 2
        for lines in courses:
            assert lines[-1].get_color() == colour
    # Of two files its bars and lines differ in how they are drawn.
    bars, lines = sheets[-1].figure.axes[0].patches, courses[0]
    assert bars[2].get_alpha() != bars[3].get_alpha()
    assert lines[2].get_linestyle() != lines[3].get_linestyle()
    sizes = from_session(size_session({1: 100.0, 2: 190.0, 4: 300.0}))
    with style():
        drawn = {
            line.get_color()
            for axes in draw_sizes(sizes).figure.axes
            for line in axes.lines
            if line.get_linewidth() in (1.6, 1.8)
        }
    assert drawn <= {pool_colour("reference"), INK}
    assert pool_colour("reference") in drawn


def test_a_comparison_of_pools_shows_each_in_its_colour() -> None:
    base, new = (from_session(pool_session(pools=("reference", "asyncpg"))) for _ in range(2))
    with style():
        sheet = draw_differences([compare(base, new)])
    swatches = [line for line in sheet.figure.findobj(Line2D) if line.get_linewidth() == 7]
    assert [line.get_color() for line in swatches] == [pool_colour("reference"), pool_colour("asyncpg")]


def _panels_over_time(sheet: Sheet) -> list[Axes]:
    return [axes for axes in sheet.figure.axes if axes.get_xlim() == (0, 6) and _courses(axes)]


def _courses(axes: Axes) -> list[Line2D]:
    return [line for line in axes.lines if line.get_linewidth() == 1.6]


def _floats(values: object) -> list[float]:
    return [float(value) for value in np.asarray(values, dtype=np.float64)]
