import io
import re
import threading

import pytest
from rich.console import Console

from pool_bench.report.live.hold_terminal import HoldTerminalView
from pool_bench.report.live.operation_terminal import OperationTerminalView
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from tests.support.results.runs import REFUSED, TOO_MANY, bimodal_ms, snapshot_of, stats_of

LONG = "postgresql://user@a-very-long-host-name.eu-central-1.rds.amazonaws.com:5432/database"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def view_of(width: int, targets: list[str]) -> tuple[OperationTerminalView, Console, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=width, height=50, force_terminal=True, highlight=False)
    return (
        OperationTerminalView(stream, targets=targets, clock=clock, console=console),
        console,
        clock,
        stream,
    )


def text_of(view: OperationTerminalView, console: Console, snapshot: Snapshot) -> list[str]:
    with console.capture() as capture:
        console.print(view.render(snapshot))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capture.get()).splitlines()


def test_the_picture_has_all_figures_of_the_second() -> None:
    view, console, _, _ = view_of(100, ["postgresql://h/db"])
    view.begin_run("concurrency 50", 3, 7, 10.0, 1.0)
    snapshot = snapshot_of(stats_of(bimodal_ms(500), failures={TOO_MANY: 12}), backing_off=4)
    view.update(snapshot)
    text = "\n".join(text_of(view, console, snapshot))
    for words in (
        "run 3/7",
        "3s of 10s",
        "500 conn/s",
        "p50",
        "max",
        "12 failed",
        "50 in flight",
        "4 backing off",
    ):
        assert words in text
    for words in ("42% CPU", "loop lag", "too_many_connections", "sorry, too many clients", "█"):
        assert words in text
    view.close()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("targets", [1, 3])
def test_no_line_is_wider_than_the_terminal(width: int, targets: int) -> None:
    view, console, _, _ = view_of(width, [LONG] * targets)
    view.begin_run("concurrency 50", 3, 7, 10.0, 1.0)
    stats = [stats_of(bimodal_ms(300), failures={TOO_MANY: 9, REFUSED: 10**4}) for _ in range(targets)]
    snapshot = snapshot_of(*stats)
    view.update(snapshot)
    assert max(map(len, text_of(view, console, snapshot))) <= width
    view.close()


def test_sixty_columns_cut_nothing_but_names() -> None:
    view, console, _, _ = view_of(60, [LONG, LONG])
    view.begin_run("concurrency 50", 3, 7, 10.0, 1.0)
    snapshot = snapshot_of(stats_of(bimodal_ms(3000)), stats_of(bimodal_ms(3000), failures={TOO_MANY: 10**4}))
    view.update(snapshot)
    lines = text_of(view, console, snapshot)
    assert all("…" not in line for line in lines if not line.startswith(("postgresql", "run")))
    view.close()


def test_several_targets_get_a_row_each() -> None:
    view, console, _, _ = view_of(100, ["postgresql://one/db", "postgresql://two/db"])
    view.begin_run("c", 1, 1, 0.0, 0.0)
    snapshot = snapshot_of(stats_of([1.0]), stats_of([2.0], failures={REFUSED: 3}))
    view.update(snapshot)
    text = "\n".join(text_of(view, console, snapshot))
    assert "postgresql://one/db" in text
    assert "postgresql://two/db" in text
    assert "until Ctrl-C" in text
    view.close()


def test_it_draws_at_most_once_a_second_and_always_at_the_end() -> None:
    view, _, clock, stream = view_of(80, ["t"])
    view.begin_run("c", 1, 1, 10.0, 0.0)
    drawn = []
    for step, final in ((0.0, False), (0.3, False), (0.3, False), (0.4, False), (0.1, True)):
        clock.now += step
        before = stream.tell()
        view.update(snapshot_of(stats_of([1.0]), final=final))
        drawn.append(stream.tell() > before)
    assert drawn == [True, False, False, True, True]
    view.close()


def test_it_starts_no_thread_and_gives_the_cursor_back() -> None:
    view, _, _, stream = view_of(80, ["t"])
    threads = threading.active_count()
    view.begin_run("c", 1, 1, 10.0, 0.0)
    view.update(snapshot_of(stats_of([1.0])))
    assert threading.active_count() == threads
    view.close()
    view.close()
    written = stream.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("duration_s", [0.0, 10.0])
def test_no_stage_and_no_empty_second_breaks_it(stage: Stage, duration_s: float) -> None:
    view, console, _, _ = view_of(80, [])
    view.begin_run("", 1, 1, duration_s, 0.0)
    for snapshot in (snapshot_of(stage=stage), snapshot_of(BenchStats(), stage=stage, elapsed_s=-3.0)):
        view.update(snapshot)
        assert text_of(view, console, snapshot)
    view.message("[bold]not markup[/bold]")
    view.close()


def test_messages_are_text_not_markup() -> None:
    view, _, _, stream = view_of(80, [])
    view.message("[bold]50[/bold] \x1b[2J")
    assert "[bold]50[/bold] [2J" in stream.getvalue()


@pytest.mark.parametrize(
    ("index", "total", "last", "stays"),
    [
        (1, 1, False, True),  # the only run
        (2, 3, False, False),  # another one follows, and has a picture of its own
        (3, 3, False, True),
        (2, 3, True, True),  # it was cut short, so none follows
        (1, 0, False, False),  # a trial of nobody knows how many
    ],
)
def test_the_last_frame_stays(index: int, total: int, last: bool, stays: bool) -> None:
    for view, stream in (view_of(80, ["a"])[::3], hold_view()):
        view.begin_run("the label", index, total, 10.0, 0.0)
        view.update(snapshot_of(stats_of(bimodal_ms(300))))
        view.end_run(last=last)
        assert ("the label" in stream.getvalue().rpartition("\x1b[2K")[2]) is stays
        view.close()


def hold_view() -> tuple[HoldTerminalView, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=50, force_terminal=True, highlight=False)
    return HoldTerminalView(stream, asked=5, console=console), stream
