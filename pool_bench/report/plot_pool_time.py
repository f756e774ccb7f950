"""The course of a load that changes in time: operations a second and waits, a line for each pool."""

from collections.abc import Sequence
from statistics import median
from typing import Final, Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pool_bench.report.plot_parts import (
    FAINT,
    GRID,
    MARGIN,
    MUTED,
    Sheet,
    count_axis,
    latency_axis,
    short_count,
    widen,
)
from pool_bench.report.pool_groups import Group, Spread

TIMED: Final = ("ramp", "spike", "reconnect")
_PANEL: Final = 1.45
_BETWEEN: Final = 0.5
_LEFT: Final = MARGIN + 0.55
_RIGHT: Final = 0.55
COURSE: Final = 2 * _PANEL + _BETWEEN + 0.75
# A stretch shorter than this, or beyond the end by more, is only what was left over.
_LEAST_S: Final = 0.02
_LEAST_MS: Final = 1e-3


class Line(Protocol):
    """What is drawn: a group in a colour."""

    @property
    def group(self) -> Group:
        """Its rounds."""

    @property
    def colour(self) -> str:
        """Its colour."""


def course_panel(sheet: Sheet, lines: Sequence[Line], top: float, scenario: str) -> None:
    """Draw the course of `scenario` from `top` (inches) on."""
    width = sheet.width - _LEFT - MARGIN - _RIGHT
    upper = sheet.axes(_LEFT, top, width, _PANEL)
    lower = sheet.axes(_LEFT, top + _PANEL + _BETWEEN, width, _PANEL)
    sheet.panel_title(_LEFT, top - 0.08, "Operations per second", "over time; clients at work in grey")
    sheet.panel_title(
        _LEFT, top + _PANEL + _BETWEEN - 0.08, "Wait, p99", "of checkouts granted in each stretch"
    )
    end_s = max(run.duration_s for line in lines for run in line.group.runs) or 1.0
    for axes in (upper, lower):
        axes.set_xlim(0, end_s)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("seconds", fontsize=9)
    rates = [rate for line in lines for _, rate in _rates(line.group)]
    upper.set_ylim(0, (max(rates, default=0.0) or 1.0) * 1.1)
    count_axis(upper)
    for line in lines:
        points = _rates(line.group)
        upper.plot(*_columns(points), "-", color=line.colour, linewidth=1.6, zorder=3)
    _clients(upper, lines[0].group)
    _waits(lower, lines)
    if scenario == "reconnect":
        _outage(upper, lower, lines)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [t for t, _ in points], [value for _, value in points]


def _rates(group: Group) -> list[tuple[float, float]]:
    """Middle of each stretch and the median of the rounds' rates in it."""
    stretches = [
        [
            (second.t - second.seconds / 2, second.ok / second.seconds)
            for second in run.timeline
            if second.seconds > _LEAST_S and second.t <= run.duration_s + _LEAST_S
        ]
        for run in group.runs
    ]
    return _medians(stretches)


def _medians(rounds: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The rounds' median at each place of the timeline; as long as most of the rounds are."""
    longest = max((len(points) for points in rounds), default=0)
    merged = []
    for index in range(longest):
        here = [points[index] for points in rounds if index < len(points)]
        if len(here) * 2 > len(rounds):
            merged.append((median(t for t, _ in here), median(value for _, value in here)))
    return merged


def _waits(axes: Axes, lines: Sequence[Line]) -> None:
    courses = [
        _medians(
            [
                [
                    (stretch.t, max(stretch.wait_p99, _LEAST_MS))
                    for stretch in one.timeline
                    if stretch.wait_p99 is not None and stretch.t <= run.duration_s + _LEAST_S
                ]
                for run, one in zip(line.group.runs, line.group.checkouts, strict=True)
            ]
        )
        for line in lines
    ]
    values = [value for course in courses for _, value in course]
    if not values:
        axes.set_yticks([])
        return
    low, high = widen(min(values), max(values), least_ratio=4.0, margin=1.3)
    latency_axis(axes, "y", low, high, at_most=5)
    for line, course in zip(lines, courses, strict=True):
        axes.plot(*_columns(course), "-", color=line.colour, linewidth=1.6, zorder=3)


def _clients(axes: Axes, group: Group) -> None:
    """How many clients were at work, in the background on an axis of its own."""
    timeline = group.checkouts[0].timeline
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    most = max((stretch.clients for stretch in timeline), default=1)
    behind.fill_between(
        [stretch.t for stretch in timeline],
        [stretch.clients for stretch in timeline],
        step="pre",
        color=GRID,
        linewidth=0,
    )
    behind.set_ylim(0, most * 1.15)
    behind.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    behind.yaxis.set_major_formatter(lambda value, _: short_count(value))
    behind.tick_params(length=0, colors=MUTED)
    for spine in behind.spines.values():
        spine.set_color(FAINT)


def _outage(upper: Axes, lower: Axes, lines: Sequence[Line]) -> None:
    """The time in which the server was away: the median of all rounds."""
    known = [
        one.recovery
        for line in lines
        for one in line.group.checkouts
        if one.recovery is not None and one.recovery.up_s is not None
    ]
    began, ended = Spread.of(each.stopping_s for each in known), Spread.of(each.up_s for each in known)
    if began is None or ended is None:
        return
    for axes in (upper, lower):
        axes.axvspan(began.median, ended.median, color=FAINT, alpha=0.6, linewidth=0, zorder=1)
    lower.text(
        began.median,
        0.96,
        " server away",
        transform=lower.get_xaxis_transform(),
        va="top",
        fontsize=8.5,
        color=MUTED,
    )
