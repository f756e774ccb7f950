"""Pictures of pools: complete, without overlapping words, and the same from a file."""

import io

import pytest
from matplotlib.image import imread

from pool_bench.errors import UsageError
from pool_bench.report.plot_parts import Sheet, style
from pool_bench.report.plot_pool import draw_pools
from pool_bench.report.plot_pool_size import draw_sizes
from pool_bench.report.plots import plot
from pool_bench.report.results import from_session
from tests.report.factory import session_of, typical_run
from tests.report.pool_factory import pool_run, pool_session, size_session

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
