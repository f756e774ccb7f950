import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from pool_bench.errors import Phase, UsageError
from pool_bench.report.plot.compare import draw_compare, series_of
from pool_bench.report.plot.figures import plot, plot_compare, plot_run, plot_sweep, save_plot
from pool_bench.report.plot.formats import plot_format
from pool_bench.report.plot.run import draw_run, marks_of, stretches
from pool_bench.report.plot.sheet import Sheet, style
from pool_bench.report.plot.sweep import draw_sweep
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.read import load_result
from pool_bench.results.run import IntervalRecord
from pool_bench.results.write import session_to_json, write_json
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import RunResult
from tests.support.results.runs import (
    PHASE_SHARES,
    REFUSED,
    TOO_MANY,
    client_of,
    intervals_of,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
    sweep_runs,
    typical_run,
)

LONG = "postgresql://user@" + "a-very-long-host-name." * 6 + "example.com:5432/database"


def loaded(*runs: RunResult, name: str = "") -> ResultRecord:
    return from_session(session_of(*runs, name=name))


def one_operation() -> ResultRecord:
    return loaded(run_of(stats_of([1.2], phases=PHASE_SHARES)))


def all_failed() -> ResultRecord:
    stats = stats_of(failures={TOO_MANY: 4000, REFUSED: 20})
    stats.intervals = intervals_of([], 10, dict.fromkeys(range(10), 402))
    return loaded(run_of(stats))


def huge_range() -> ResultRecord:
    values = np.exp(np.random.default_rng(2).uniform(np.log(0.05), np.log(60_000), 5000))
    stats = stats_of(values, phases={Phase.CONNECT: 0.9}, failures={REFUSED: 2}, unfinished=30)
    stats.intervals = intervals_of(values, 2000)
    busy = client_of(cpu_share=0.97, lag_ms=14.0)
    run = run_of(
        stats,
        targets=(LONG, "postgresql://x/y"),
        interrupted=True,
        client=busy,
        per_target=[stats, BenchStats()],
    )
    return loaded(run, name="a $x_1$ <name> & more that goes on and on " * 4)


def narrow() -> ResultRecord:
    return loaded(run_of(stats_of(lognormal_ms(50_000, sigma=0.01))))


def nothing() -> ResultRecord:
    return loaded(run_of(BenchStats()))


def typical() -> ResultRecord:
    return loaded(typical_run(), name="pgbouncer")


RUNS = [typical, one_operation, all_failed, huge_range, narrow, nothing]
NEIGHBOURS = (1, 2, 4, 8, 16, 32, 64, 65, 66, 128, 256, 512, 1000)
SWEEPS: dict[str, Callable[[], ResultRecord]] = {
    "one dead level": lambda: loaded(*sweep_runs(), name="sweep"),
    "all dead": lambda: loaded(*sweep_runs(dead=(1, 2, 4, 8, 16, 32, 64))),
    "neighbours": lambda: loaded(*sweep_runs(NEIGHBOURS, dead=(1000,))),
    "two levels": lambda: loaded(*sweep_runs((10, 11), dead=())),
    "one level": lambda: loaded(*sweep_runs((10,), dead=())),
}
COMPARISONS: dict[str, Callable[[], list[ResultRecord]]] = {
    "six": lambda: [
        loaded(
            run_of(stats_of(lognormal_ms(3000, median=index + 1, seed=index))),
            name=f"{index} " + "name " * index * 4,
        )
        for index in range(6)
    ],
    "with a dead one": lambda: [narrow(), all_failed()],
    "all dead": lambda: [all_failed(), nothing()],
    "one operation each": lambda: [one_operation(), one_operation()],
    "ten": lambda: [one_operation() for _ in range(10)],
    "sweeps and a run": lambda: [*(make() for make in SWEEPS.values()), typical()],
    "a dead sweep and a dead run": lambda: [SWEEPS["all dead"](), all_failed()],
}


def boxes_of(sheet: Sheet) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, and the pixels it takes: labels, ticks in view, annotations."""
    sheet.figure.draw_without_rendering()  # ticks get their text when they are drawn
    texts: list[Text] = list(sheet.figure.texts)
    for axes in sheet.figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        for labels, coordinate, ends in (
            (axes.get_xticklabels(), 0, axes.get_xlim()),
            (axes.get_yticklabels(), 1, axes.get_ylim()),
        ):
            low, high = min(ends) * 0.999999, max(ends) * 1.000001
            texts += [label for label in labels if low <= label.get_position()[coordinate] <= high]
    found = []
    for text in texts:
        words = text.get_text()
        if words.strip():
            box = text.get_window_extent()
            # A tick label that was moved a line lower leaves its first line empty.
            empty = len(words) - len(words.lstrip("\n"))
            top = box.y1 - box.height * empty / (words.count("\n") + 1)
            found.append((words, Bbox.from_extents(box.x0, box.y0, box.x1, top)))
    return found


def assert_legible(sheet: Sheet) -> None:
    """No text overlaps another and none is cut off at the edge of the picture."""
    width, height = sheet.figure.get_size_inches() * sheet.figure.dpi
    boxes = boxes_of(sheet)
    for words, box in boxes:
        assert box.x0 >= 0, words
        assert box.y0 >= 0, words
        assert box.x1 <= width, words
        assert box.y1 <= height, words
    # Boxes have the font's full height: a pixel or two of that is always empty.
    for (one, a), (other, b) in combinations(boxes, 2):
        apart = a.x1 - 2 <= b.x0 or b.x1 - 2 <= a.x0 or a.y1 - 3 <= b.y0 or b.y1 - 3 <= a.y0
        assert apart, f"{one!r} overlaps {other!r}"


@pytest.mark.parametrize("make", RUNS)
def test_texts_of_a_run_do_not_overlap(make: Callable[[], ResultRecord]) -> None:
    result = make()
    with style():
        assert_legible(draw_run(result, result.runs[0]))


@pytest.mark.parametrize("case", SWEEPS)
def test_texts_of_a_sweep_do_not_overlap(case: str) -> None:
    with style():
        assert_legible(draw_sweep(SWEEPS[case]()))


@pytest.mark.parametrize("case", COMPARISONS)
def test_texts_of_a_comparison_do_not_overlap(case: str) -> None:
    with style():
        assert_legible(draw_compare(COMPARISONS[case]()))


def svg_text(data: bytes) -> str:
    root = ET.fromstring(data)  # noqa: S314 - our own picture
    return "\n".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_png_is_a_png_and_an_svg_is_xml() -> None:
    png, svg = plot_run(typical()), plot_run(typical(), file_format="svg")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314


def test_the_picture_of_a_run_says_what_it_shows() -> None:
    text = svg_text(plot_run(typical(), file_format="svg"))
    for words in (
        "Connection latency: bench@db.example.com:6432/app",
        "667 conn/s",
        "50 workers",
        "driver wire",
    ):
        assert words in text
    for words in (
        "p50",
        "2.26 ms",
        "p99.9",
        "max",
        "10 ms",
        "222 failed (1.1%)",
        "3 unfinished",
        "auth",
        "2026-11-21",
    ):
        assert words in text


def test_doubts_are_in_the_picture() -> None:
    text = svg_text(plot_run(huge_range(), file_format="svg"))
    assert "interrupted" in text
    assert "The client was the bottleneck" in text
    assert "fewer than 10 operations beyond it" in text
    assert "and 1 more" in text
    assert "$x_1$" in text


def test_a_run_without_a_success_shows_the_time_to_fail() -> None:
    text = svg_text(plot_run(all_failed(), file_format="svg"))
    assert "No operation succeeded" in text
    assert "time to fail" in text
    assert "no operation ended" in svg_text(plot_run(nothing(), file_format="svg"))


def test_a_dead_level_is_a_gap_with_words_and_never_a_zero() -> None:
    result = SWEEPS["one dead level"]()
    text = svg_text(plot_sweep(result, file_format="svg"))
    assert text.count("no success") == 2
    assert "Hollow points: the client was the bottleneck at concurrency 32, 64" in text
    with style():
        sheet = draw_sweep(result)
    for axes in sheet.figure.axes:
        line = axes.lines[0]
        assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).sum() == 1
        assert axes.get_xticks().tolist() == [1, 2, 4, 8, 16, 32, 64]


def test_a_comparison_names_every_file_and_its_figures() -> None:
    text = svg_text(plot_compare(COMPARISONS["six"](), file_format="svg"))
    assert "6 results compared" in text
    assert text.count("conn/s") == 6
    assert "p99.9" in text
    assert "no success" in svg_text(plot_compare(COMPARISONS["with a dead one"](), file_format="svg"))


def test_results_of_one_name_are_told_apart() -> None:
    labels = [one.label for one in series_of([typical(), typical(), narrow()])]
    assert len(set(labels)) == 3
    assert labels[0].startswith("pgbouncer, 02:30:00")


def test_marks_that_read_the_same_are_one() -> None:
    run = one_operation().runs[0]
    assert [mark.name for mark in marks_of(run.latency_ms, 1)] == ["p50 to max ~"]
    run = typical().runs[0]
    assert [mark.name for mark in marks_of(run.latency_ms, run.ok)] == ["p50", "p90", "p99", "p99.9", "max"]


def test_bars_of_the_histogram_cover_every_success() -> None:
    result = loaded(run_of(stats_of([1.0] * 500 + [2.0] * 500 + [3.0] * 1000)))
    with style():
        axes = draw_run(result, result.runs[0]).figure.axes[0]
    heights = [patch.get_height() for patch in axes.patches if hasattr(patch, "get_height")]
    assert sorted(heights) == [500, 500, 1000]


@pytest.mark.parametrize("file_format", ["png", "svg"])
def test_the_same_result_gives_the_same_bytes_from_memory_and_from_its_file(
    tmp_path: Path, file_format: str
) -> None:
    session = session_of(typical_run(), name="x")
    path = tmp_path / "x.json"
    write_json(path, session_to_json(session))
    target = tmp_path / f"fresh.{file_format}"
    again = tmp_path / f"file.{file_format}"
    save_plot(target, [from_session(session)])
    save_plot(again, [load_result(path)])
    assert target.read_bytes() == again.read_bytes()


def test_the_picture_fits_what_is_to_be_drawn() -> None:
    assert "Connection latency" in svg_text(plot([typical()], file_format="svg"))
    assert "by concurrency" in svg_text(plot([SWEEPS["one dead level"]()], file_format="svg"))
    assert "2 results compared" in svg_text(plot([typical(), narrow()], file_format="svg"))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(UsageError, match="this run holds no run to plot"):
        plot([loaded()])
    with pytest.raises(UsageError, match="no result file to plot"):
        plot([])


def test_other_suffixes_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"--plot: x\.pdf must end in \.png or \.svg"):
        plot_format(Path("x.pdf"), option="--plot")
    assert plot_format(Path("X.SVG")) == "svg"


def test_a_picture_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"cannot write /proc/nowhere/x\.png: "):
        save_plot(Path("/proc/nowhere/x.png"), [one_operation()])


def test_characters_the_font_lacks_and_xml_forbids_make_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    result = loaded(run_of(stats_of([1.0])), name="数据库 🐘 \x00\x1b[2J")
    ET.fromstring(plot_run(result, file_format="svg"))  # noqa: S314
    assert plot_run(result)
    assert capfd.readouterr().err == ""


def test_a_home_that_cannot_be_written_makes_no_noise(tmp_path: Path) -> None:
    code = (
        "from tests.support.results.runs import *\n"
        "from pool_bench.report.plot.figures import plot_run\n"
        "from pool_bench.results.write import from_session\n"
        "print(len(plot_run(from_session(session_of(run_of(stats_of([1.0])))))))\n"
    )
    environment = {
        "HOME": "/proc/nowhere",
        "PATH": "",
        "TMPDIR": str(tmp_path),
        "MPLCONFIGDIR": "/proc/nowhere",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) > 10_000
    assert done.stderr == ""


def test_a_sliver_at_the_end_of_the_timeline_is_no_spike() -> None:
    def second(t: float, seconds: float, ok: int) -> IntervalRecord:
        return IntervalRecord(
            t=t, seconds=seconds, ok=ok, failed=0, in_flight=10, p50=1.0, p99=3.0, max=4.0, lag_ms=0.1
        )

    whole = [second(1.0, 1.0, 100), second(2.0, 1.0, 100)]
    drawn = stretches([*whole, second(2.005, 0.005, 20)])
    assert [(point.start, point.end) for point in drawn] == [(0.0, 1.0), (1.0, 2.005)]
    assert drawn[-1].ok == pytest.approx(120 / 1.005)
    assert len(stretches([*whole, second(2.5, 0.5, 20)])) == 3
    assert len(stretches([second(0.005, 0.005, 20)])) == 1


def test_a_timeline_with_a_sliver_is_still_one_of_seconds(tmp_path: Path) -> None:
    stats = stats_of(lognormal_ms(300))
    stats.intervals = intervals_of(lognormal_ms(300), 3)
    stats.intervals[-1].seconds = 0.005
    path = tmp_path / "picture.svg"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(matplotlib.rcParams, "svg.fonttype", "none")
        save_plot(path, [loaded(run_of(stats))])
    assert "middle second of" not in path.read_text()
