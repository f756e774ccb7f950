import io
import re
import threading

import pytest
from rich.console import Console

from pool_bench.report.live.hold_terminal import HoldTerminalView
from pool_bench.report.live.view import make_hold_view
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from tests.support.results.holds import SHUTDOWN, Plan, many, restarted, slots_exhausted, snapshots_of
from tests.support.results.runs import snapshot_of, stats_of

LONG = "postgresql://user@a-very-long-host-name.eu-central-1.rds.amazonaws.com:5432/database"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def view_of(plan: Plan, width: int = 100) -> tuple[HoldTerminalView, Console, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    console = Console(file=stream, width=width, height=50, force_terminal=True, highlight=False)
    view = HoldTerminalView(
        stream,
        asked=plan.asked,
        targets=[LONG],
        active=bool(plan.actives),
        slots=lambda: (97, 100),
        clock=clock,
        console=console,
    )
    return view, console, clock, stream


def pictures(plan: Plan, width: int = 100) -> list[str]:
    view, console, _, _ = view_of(plan, width)
    view.begin_run(f"hold {plan.asked}", 1, 1, float(plan.hold_s), 0.0)
    drawn = []
    for snapshot in snapshots_of(plan):
        view.update(snapshot)
        drawn.append("\n".join(text_of(view, console, snapshot)))
    view.close()
    return drawn


def text_of(view: HoldTerminalView, console: Console, snapshot: Snapshot) -> list[str]:
    with console.capture() as capture:
        console.print(view.render(snapshot))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capture.get()).splitlines()


def test_opening_shows_how_far_it_is_and_how_long_it_takes() -> None:
    opening = pictures(many())[2]
    for words in ("opening", "6,000 of 15,000", "3,000/s, 3s to go", "held", "connect", "97 of 100 slots"):
        assert words in opening


def test_holding_shows_what_was_lost_and_came_back() -> None:
    drawn = pictures(restarted())
    lost = drawn[22]
    for words in ("holding", "of 1m", "500 dropped", "500 backing off", "drop:server_shutdown", "900/s"):
        assert words in lost
    assert "terminating connection" in lost
    for words in ("500 replaced", "reconnect:server_starting"):
        assert words in drawn[23]
    assert "500 closed, 0 left" in drawn[-1]
    assert "keepalive" in drawn[5]


def test_too_few_are_said_plainly_while_holding() -> None:
    drawn = pictures(slots_exhausted())
    assert "asked 500, holding 97: too_many_connections (53300) 403" in drawn[5]
    assert "sorry, too many clients already" in drawn[5]
    assert "holding 97" not in drawn[1]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for plan in (restarted(), slots_exhausted(), many()):
        assert max(len(line) for one in pictures(plan, width) for line in one.splitlines()) <= width


def test_it_draws_at_most_once_a_second_starts_no_thread_and_gives_the_cursor_back() -> None:
    view, _, clock, stream = view_of(Plan())
    threads = threading.active_count()
    view.begin_run("hold", 1, 1, 10.0, 0.0)
    drawn = []
    for step, final in ((0.0, False), (0.3, False), (0.3, False), (0.4, False), (0.1, True)):
        clock.now += step
        before = stream.tell()
        view.update(snapshot_of(stats_of([1.0]), stage=Stage.OPEN, final=final))
        drawn.append(stream.tell() > before)
    assert drawn == [True, False, False, True, True]
    assert threading.active_count() == threads
    view.close()
    view.close()
    written = stream.getvalue()
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("duration_s", [0.0, 10.0])
def test_no_stage_and_no_empty_second_breaks_it(stage: Stage, duration_s: float) -> None:
    view, console, _, _ = view_of(Plan(asked=0))
    view.begin_run("", 2, 3, duration_s, 0.0)
    for snapshot in (snapshot_of(stage=stage), snapshot_of(BenchStats(), stage=stage, elapsed_s=0.0)):
        view.update(snapshot)
        assert text_of(view, console, snapshot)
    view.close()


def test_messages_and_samples_are_text_without_control_characters() -> None:
    plan = Plan(asked=5, hold_s=2, drops={0: {SHUTDOWN: 2}})
    view, console, _, stream = view_of(plan)
    view.begin_run("x\x1b[2J", 1, 1, 2.0, 0.0)
    text = ""
    for snapshot in snapshots_of(plan):
        assert snapshot.hold is not None
        for drop in snapshot.hold.drops.values():
            drop.sample = "\x1b[2J[bold]boom\x07"
        view.update(snapshot)
        text = "\n".join(text_of(view, console, snapshot))
    view.message("[bold]50[/bold] \x1b[2J")
    assert "[2J[bold]boom" in text
    assert "\x07" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "[bold]50[/bold] [2J" in stream.getvalue()


def test_a_terminal_gets_rich() -> None:
    assert isinstance(make_hold_view(io.StringIO(), stream_is_terminal=True, asked=1), HoldTerminalView)
