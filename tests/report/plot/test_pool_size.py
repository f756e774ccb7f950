"""Pictures are seen whole: none is larger than a screen, and none so small that its text cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.lines import Line2D

from pool_bench.report.plot.figures import plot
from pool_bench.report.plot.search import draw_search
from pool_bench.report.plot.sheet import TALLEST, Sheet
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.session import SearchResult
from tests.report.plot.test_figures import assert_legible
from tests.support.results.holds import held_run, hold_session, restarted, watched
from tests.support.results.open_loop import search_session
from tests.support.results.pools import pool_session, size_session
from tests.support.results.runs import lognormal_ms, run_of, session_of, stats_of, sweep_runs, typical_run

LOADS = ("churn", "query", "burst", "ramp", "spike", "sustained", "naive", "stress", "reconnect")


def targets() -> list[ResultRecord]:
    parts = [stats_of(lognormal_ms(300)) for _ in range(12)]
    names = [f"postgresql://host{number}/db" for number in range(12)]
    return [from_session(session_of(run_of(per_target=parts, targets=names)))]


PICTURES: dict[str, Callable[[], Sequence[ResultRecord]]] = {
    "run": lambda: [from_session(session_of(typical_run(4000)))],
    "targets": targets,
    "sweep": lambda: [from_session(session_of(*sweep_runs(tuple(2**n for n in range(15)), dead=())))],
    "search": lambda: [from_session(search_session())],
    "held": lambda: [from_session(hold_session(held_run(restarted(), server_side=watched())))],
    "held, several": lambda: [
        from_session(hold_session(held_run(restarted(), server_side=watched()), name=f"run {number}"))
        for number in range(8)
    ],
    "compared": lambda: [from_session(session_of(typical_run(4000), name=f"run {n}")) for n in range(9)],
    "sweeps": lambda: [from_session(session_of(*sweep_runs((1, 4, 16)), name=f"s{n}")) for n in range(6)],
    "pools": lambda: [from_session(pool_session(("query", "spike")))],
    "pools, all loads": lambda: [from_session(pool_session(LOADS))],
    "sizes": lambda: [from_session(size_session({1: 100.0, 2: 190.0, 4: 300.0, 8: 350.0, 16: 340.0}))],
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_picture_is_larger_than_a_screen_or_too_small_to_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[Sheet] = []
    made = Sheet.__post_init__

    def make(sheet: Sheet) -> None:
        made(sheet)
        sheets.append(sheet)

    monkeypatch.setattr(Sheet, "__post_init__", make)
    data = plot(PICTURES[name]())
    size = tuple(int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    assert size[0] <= 1500, size
    assert size[1] <= 1000, size
    (sheet,) = sheets
    assert sheet.height <= TALLEST + 0.25
    # Nine points are nine pixels at the least.
    assert sheet.figure.dpi >= 72
    assert_legible(sheet)


def test_the_line_of_a_search_goes_through_each_rate_once_and_shows_every_trial() -> None:
    session = search_session()
    search = session.find_max
    assert isinstance(search, SearchResult)
    missed = next(step for step in search.steps if not step.passed)
    again = replace(missed, run=len(session.runs))
    session.runs.append(session.runs[missed.run])
    session.find_max = replace(search, steps=[*search.steps, again])
    result = from_session(session)
    assert result.find_max is not None
    sheet = draw_search(result, result.find_max)
    drawn = [line for axes in sheet.figure.axes for line in axes.lines if line.get_linewidth() == 1.6]
    assert len(drawn) == 4
    for line in drawn:
        assert _rates(line) == sorted({step.rate for step in search.steps})
    points = [line for axes in sheet.figure.axes for line in axes.lines if line.get_marker() == "o"]
    assert sum(len(_rates(line)) for line in points) == 4 * (len(search.steps) + 1)


def _rates(line: Line2D) -> list[float]:
    return [float(rate) for rate in np.asarray(line.get_xdata(), dtype=np.float64)]


def test_the_answer_of_a_search_is_whole_however_much_was_asked_and_missed() -> None:
    session = search_session()
    search = session.find_max
    assert isinstance(search, SearchResult)
    slo = ",".join(f"p{number}<{number}ms" for number in range(50, 99, 2))
    why = "at 800/s: " + "; ".join(
        f"p{number} 180ms, wanted p{number}<{number}ms" for number in range(90, 99)
    )
    session.find_max = replace(search, slo=slo, why=why)
    result = from_session(session)
    assert result.find_max is not None
    sheet = draw_search(result, result.find_max)
    words = "".join(label.get_text() for label in sheet.labels).replace(" ", "")
    for told in ("Maximum 566/s: ", f"objective: {slo}", f"limit: the server: {why}"):
        assert told.replace(" ", "") in words
    assert_legible(sheet)
