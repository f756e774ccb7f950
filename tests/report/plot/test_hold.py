from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.axes import Axes

from pool_bench.errors import UsageError
from pool_bench.report.plot.figures import plot, plot_hold
from pool_bench.report.plot.hold import draw_hold, held_curve
from pool_bench.report.plot.hold_compare import draw_hold_compare, only_holds
from pool_bench.report.plot.sheet import Sheet, style
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.stats.server import ServerObservation, ServerSample
from tests.report.live.test_hold_lines import plans
from tests.report.plot.test_figures import LONG, assert_legible, svg_text
from tests.support.results.holds import (
    FDS,
    SHUTDOWN,
    Plan,
    all_refused,
    held_run,
    hold_session,
    loaded_hold,
    many,
    normal,
    one_second,
    restarted,
    slots_exhausted,
    watched,
)
from tests.support.results.runs import TOO_MANY, lognormal_ms, run_of, session_of, stats_of


def pooler() -> ServerObservation:
    looks = [
        ServerSample(float(t), pools={"cl_active": 500, "cl_waiting": t, "sv_idle": 20, "sv_used": 3, "x": 1})
        for t in range(60)
    ]
    looks[-1].pools["maxwait_us"] = 10**7
    return ServerObservation(seconds=looks)


def stopped_while_opening() -> ResultRecord:
    return loaded_hold(Plan(asked=900, rate=100, stop_at_s=3.5), name="a $x_1$ <name> " * 9)


def long_run() -> ResultRecord:
    return loaded_hold(Plan(hold_s=1500, drops={700: {SHUTDOWN: 500}}, reconnect=True, actives=9))


def hostile() -> ResultRecord:
    side = watched(9)
    side.seconds[5].states["\x1b]0;gone\x07 and a very long state that nobody ever heard of"] = 10**6
    run = held_run(Plan(asked=9, refused={TOO_MANY: 2, FDS: 1}, hold_s=9), server_side=side)
    run.targets = (LONG, LONG)
    return from_session(hold_session(run))


RUNS: dict[str, Callable[[], ResultRecord]] = {
    "normal": lambda: loaded_hold(normal(), server_side=watched()),
    "drops and reconnects": lambda: loaded_hold(restarted(), server_side=watched(), name="restart"),
    "emptied": lambda: loaded_hold(restarted(reconnect=False)),
    "slots": lambda: loaded_hold(slots_exhausted()),
    "all refused": lambda: loaded_hold(all_refused()),
    "one second": lambda: loaded_hold(one_second()),
    "15,000 through a pooler": lambda: loaded_hold(many(), server_side=pooler()),
    "stopped while opening": stopped_while_opening,
    "long": long_run,
    "hostile": hostile,
    "nothing asked": lambda: loaded_hold(Plan(asked=0, hold_s=0)),
    "dropped at once": lambda: loaded_hold(Plan(asked=3, hold_s=1, drops={0: {SHUTDOWN: 3}})),
}
COMPARISONS: dict[str, tuple[str, ...]] = {
    "two": ("normal", "drops and reconnects"),
    "with failed ones": ("slots", "all refused", "one second"),
    "all dead": ("all refused", "nothing asked"),
    "many": tuple(RUNS),
}


@cache
def result_of(case: str) -> ResultRecord:
    return RUNS[case]()


def drawn(result: ResultRecord) -> Sheet:
    run = result.runs[0]
    assert run.hold is not None
    return draw_hold(result, run, run.hold)


@pytest.mark.parametrize("case", RUNS)
def test_texts_of_a_run_do_not_overlap(case: str) -> None:
    with style():
        assert_legible(drawn(result_of(case)))


@pytest.mark.parametrize("case", COMPARISONS)
def test_texts_of_a_comparison_do_not_overlap(case: str) -> None:
    with style():
        assert_legible(draw_hold_compare(only_holds([result_of(name) for name in COMPARISONS[case]])))


@pytest.mark.parametrize("case", ["drops and reconnects", "hostile", "nothing asked"])
@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_runs_of_all_sorts_become_pictures(case: str, file_format: str) -> None:
    data = plot([result_of(case)], file_format="png" if file_format == "png" else "svg")
    assert data.startswith(b"\x89PNG" if file_format == "png" else b"<?xml")


@given(plans)
@settings(max_examples=10, deadline=None)
def test_no_run_breaks_the_picture(plan: Plan) -> None:
    with style():
        drawn(loaded_hold(plan)).figure.draw_without_rendering()


def test_the_picture_says_what_it_shows() -> None:
    text = svg_text(plot([result_of("drops and reconnects")], file_format="svg"))
    for words in (
        "Held connections: bench@db.example.com:6432/app",
        "asked 500, held 500",
        "536 dropped, 536 replaced: 500 server_shutdown, 30 reset",
        "opening 167ms, holding 1m, closing 40ms; 1.76 KB of client memory each",
        "Connect latency",
        "Phases",
        "Survival",
        "48.3% at 1m",
        "Keep-alive latency",
        "Active queries",
        "Server backends",
        "1.81 MB each",
        "max_connections 513",
    ):
        assert words in text, words
    assert "403 too_many_connections" in svg_text(plot([result_of("slots")], file_format="svg"))
    pooled = svg_text(plot([result_of("15,000 through a pooler")], file_format="svg"))
    assert "PgBouncer" in pooled
    assert "cl_active" in pooled
    assert "maxwait" not in pooled
    assert "Server backends" not in pooled


def test_lost_connection_requests_are_in_the_picture() -> None:
    latencies = np.concatenate([lognormal_ms(400), np.full(80, 1002.0), np.full(20, 3002.0)])
    run = held_run(Plan(latency_ms=latencies))
    run.total.phases.clear()
    text = svg_text(plot([from_session(hold_session(run))], file_format="svg"))
    assert "80 connects waited 1 s, 20 waited 3 s: the accept queue was full" in text


def test_what_was_asked_for_stays_in_the_picture_whatever_the_guard_allowed() -> None:
    run = held_run(Plan(asked=91))
    run.asked = 500
    result = from_session(hold_session(run))
    (loaded,) = result.runs
    assert loaded.hold is not None
    with style():
        sheet = draw_hold(result, loaded, loaded.hold)
        assert_legible(sheet)
    words = [label.get_text() for label in sheet.labels]
    assert "asked 500" in words
    assert any(line.startswith("asked 500, held 91") for line in words)
    assert "409 of 500 asked were not tried: the server keeps slots free" in words
    held = sheet.figure.axes[0]
    assert any(list(np.asarray(line.get_ydata())) == [500, 500] for line in held.lines)
    assert held.get_ylim()[1] > 500
    several = svg_text(plot([result, result_of("normal")], file_format="svg"))
    assert "91 of 500" in several
    assert "500 connections asked" in several


@pytest.mark.parametrize("case", ["normal", "slots", "emptied"])
def test_what_was_asked_for_is_drawn_even_where_all_of_it_was_held(case: str) -> None:
    with style():
        sheet = drawn(result_of(case))
    assert any(list(np.asarray(line.get_ydata())) == [500, 500] for line in sheet.figure.axes[0].lines)
    assert "asked 500" in [label.get_text() for label in sheet.labels]


def test_all_panels_over_time_have_the_axis_of_the_run() -> None:
    side = watched(seconds=70)
    # It began to look before the run, and looked on after it.
    side.origin_s = 3.0
    result = loaded_hold(restarted(), server_side=side)
    hold = result.runs[0].hold
    assert hold is not None
    with style():
        sheet = drawn(result)
    over_time = [axes for axes in sheet.figure.axes if _is_over_time(axes)]
    # Connections, drops, keep-alives, active queries, backends; the survival's axis is one of ages.
    assert len(over_time) == 5
    assert {axes.get_xlim() for axes in over_time} == {(0.0, hold.timeline[-1].t)}
    backends = over_time[-1].lines[0]
    assert np.asarray(backends.get_xdata())[0] == -3


def _is_over_time(axes: Axes) -> bool:
    of_age = any(line.get_drawstyle() == "steps-post" for line in axes.lines)
    return axes.get_xscale() == "linear" and not of_age


def test_what_a_run_has_not_is_not_drawn() -> None:
    text = svg_text(plot([result_of("one second")], file_format="svg"))
    for words in ("Survival", "dropped", "Keep-alive", "Server"):
        assert words not in text


def test_a_long_run_keeps_its_dips_in_fewer_points() -> None:
    hold = result_of("long").runs[0].hold
    assert hold is not None
    times, lows, highs = held_curve(hold.timeline)
    assert len(times) <= 600 < len(hold.timeline)
    # A dip of one second, and the two ends.
    assert lows[1:-1].min() == 0
    assert highs.max() == 500
    assert np.all(np.diff(times) > 0)


def test_dropped_connections_in_the_picture_add_up() -> None:
    with style():
        axes = drawn(result_of("drops and reconnects")).figure.axes[1]
    dropped, replaced = (patch.get_data().values.sum() for patch in axes.patches)  # type: ignore[attr-defined]
    assert (dropped, replaced) == (536, 536)


def test_several_files_are_compared() -> None:
    text = svg_text(plot([result_of("normal"), result_of("slots")], file_format="svg"))
    for words in ("2 runs of held connections compared", "97 of 500", "memory each", "500 connections asked"):
        assert words in text
    assert "Survival" not in text
    assert "Survival" in svg_text(plot([result_of("normal"), result_of("emptied")], file_format="svg"))


def test_several_runs_of_one_file_are_compared_too() -> None:
    result = loaded_hold(normal())
    twice = replace(result, runs=(result.runs[0], replace(result.runs[0], label="again")))
    text = svg_text(plot([twice], file_format="svg"))
    assert "2 runs of held connections compared" in text
    assert "again" in text


def test_held_connections_and_connect_cycles_do_not_compare() -> None:
    cycles = replace(from_session(session_of(run_of(stats_of([1.0])))), source="cycles.json")
    with pytest.raises(UsageError, match=r"this run holds connections and cycles\.json opens and closes"):
        plot([cycles, loaded_hold(normal())])
    assert plot_hold([loaded_hold(normal())])
