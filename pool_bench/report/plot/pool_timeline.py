"""The course of a load that changes in time: operations a second and waits, a line for each pool.

Where nothing succeeded a line has a gap. A restart has two parts more: operations that failed, and when the
clients of each pool were back.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pool_bench.compare.pools import PoolRounds, Spread
from pool_bench.report.plot.sheet import (
    FAINT,
    GRID,
    MARGIN,
    MUTED,
    VERMILLION,
    Dashes,
    Sheet,
    count_axis,
    latency_axis,
    short_count,
    widen,
)
from pool_bench.results.checkout import CheckoutRecord, RecoveryRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration

TIMED: Final = ("ramp", "spike", "reconnect")
RESTART: Final = "reconnect"
# Of a column of the picture, inches.
WIDTH: Final = 10.0
_PANEL: Final = 1.45
_FAILURES: Final = 0.8
_BETWEEN: Final = 0.5
_ROW: Final = 0.2
_LEFT: Final = MARGIN + 0.55
_RIGHT: Final = 0.55
# A stretch shorter than this, or beyond the end by more, is only what was left over.
_LEAST_S: Final = 0.02
_LEAST_MS: Final = 1e-3

# A moment in seconds, and a figure; NaN where there is none.
Point = tuple[float, float]


class Line(Protocol):
    """What is drawn: a group, its name, and how its lines look."""

    @property
    def group(self) -> PoolRounds:
        """Its rounds."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def colour(self) -> str:
        """Its colour."""

    @property
    def dashes(self) -> Dashes:
        """How its lines are dashed."""


def course_height(scenario: str, lines: Sequence[Line]) -> float:
    """How much room the course of `scenario` takes, inches."""
    height = 2 * _PANEL + _BETWEEN + 0.75
    return height + _FAILURES + _BETWEEN + recoveries_height(lines) if scenario == RESTART else height


def recoveries_height(lines: Sequence[Line]) -> float:
    """How much room the words on recoveries take, inches."""
    return _ROW * (len(lines) + 1)


def course_panel(sheet: Sheet, lines: Sequence[Line], top: float, scenario: str) -> None:
    """Draw the course of `scenario` from `top` (inches) on."""
    width = sheet.width - _LEFT - MARGIN - _RIGHT
    restart = scenario == RESTART
    upper = sheet.axes(_LEFT, top, width, _PANEL)
    sheet.panel_title(_LEFT, top - 0.08, "Operations per second", "over time; clients at work in grey")
    top += _PANEL + _BETWEEN
    lower = sheet.axes(_LEFT, top, width, _PANEL)
    sheet.panel_title(_LEFT, top - 0.08, "Wait, p99", "of checkouts granted in each stretch")
    top += _PANEL
    panels = [upper, lower]
    if restart:
        top += _BETWEEN
        panels.append(sheet.axes(_LEFT, top, width, _FAILURES))
        sheet.panel_title(_LEFT, top - 0.08, "Failed per second", "○ first client back   ● all clients back")
        top += _FAILURES
    _share_time(panels, max(run.duration_s for line in lines for run in line.group.runs) or 1.0)
    rates = [_course(line.group, _rates) for line in lines]
    known = [rate for course in rates for _, rate in course if not math.isnan(rate)]
    upper.set_ylim(0, (max(known, default=0.0) or 1.0) * 1.1)
    count_axis(upper)
    for line, course in zip(lines, rates, strict=True):
        _draw(upper, line, course)
    _clients(upper, lines[0].group)
    _waits(lower, lines)
    if restart:
        _failures(panels[-1], lines)
        _outage(panels, lines)
        recoveries(sheet, lines, top + 0.55)


def _share_time(panels: Sequence[Axes], end_s: float) -> None:
    for axes in panels:
        axes.set_xlim(0, end_s)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
        axes.tick_params(labelbottom=axes is panels[-1])
    panels[-1].set_xlabel("seconds", fontsize=9)


def _draw(axes: Axes, line: Line, course: Sequence[Point]) -> None:
    """A line with gaps; what stands alone between two of them is a dot."""
    times, values = [t for t, _ in course], [value for _, value in course]
    axes.plot(times, values, line.dashes, color=line.colour, linewidth=1.6, zorder=3)
    known = [not math.isnan(value) for value in values]
    before, after = [False, *known[:-1]], [*known[1:], False]
    alone = [
        point
        for point, here, left, right in zip(course, known, before, after, strict=True)
        if here and not (left or right)
    ]
    if alone:
        axes.plot([t for t, _ in alone], [value for _, value in alone], "o", color=line.colour, markersize=3)


def _rates(run: RunRecord, _one: CheckoutRecord) -> list[Point]:
    """Middle of each stretch, and what succeeded in it each second; NaN where nothing did."""
    return [(t, rate or math.nan) for t, rate in _per_second(run, lambda ok, _failed: ok)]


def _failed(run: RunRecord, _one: CheckoutRecord) -> list[Point]:
    return _per_second(run, lambda _ok, failed: failed)


def _per_second(run: RunRecord, count: Callable[[int, int], int]) -> list[Point]:
    return [
        (second.t - second.seconds / 2, count(second.ok, second.failed) / second.seconds)
        for second in run.timeline
        if second.seconds > _LEAST_S and second.t <= run.duration_s + _LEAST_S
    ]


def _p99s(run: RunRecord, one: CheckoutRecord) -> list[Point]:
    """Middle of each stretch, and its p99; NaN where no checkout was granted."""
    begins = [0.0, *(stretch.t for stretch in one.timeline)]
    return [
        (
            (begin + stretch.t) / 2,
            math.nan if stretch.wait_p99 is None else max(stretch.wait_p99, _LEAST_MS),
        )
        for begin, stretch in zip(begins, one.timeline, strict=False)
        if stretch.t - begin > _LEAST_S and stretch.t <= run.duration_s + _LEAST_S
    ]


def _course(group: PoolRounds, take: Callable[[RunRecord, CheckoutRecord], list[Point]]) -> list[Point]:
    """The rounds' median at each place of the timeline; as long as most of the rounds are.

    NaN where most of them have no figure.
    """
    rounds = [take(run, checkout) for run, checkout in zip(group.runs, group.checkouts, strict=True)]
    merged = []
    for index in range(max((len(points) for points in rounds), default=0)):
        here = [points[index] for points in rounds if index < len(points)]
        if len(here) * 2 <= len(rounds):
            continue
        known = [value for _, value in here if not math.isnan(value)]
        figure = median(known) if len(known) * 2 > len(here) else math.nan
        merged.append((median(t for t, _ in here), figure))
    return merged


def _waits(axes: Axes, lines: Sequence[Line]) -> None:
    courses = [_course(line.group, _p99s) for line in lines]
    values = [value for course in courses for _, value in course if not math.isnan(value)]
    if not values:
        axes.set_yticks([])
        return
    low, high = widen(min(values), max(values), least_ratio=4.0, margin=1.3)
    latency_axis(axes, "y", low, high, at_most=5)
    for line, course in zip(lines, courses, strict=True):
        _draw(axes, line, course)


def _failures(axes: Axes, lines: Sequence[Line]) -> None:
    """What failed in each stretch, and on the axis when the clients were back."""
    highest = 1.0
    for line in lines:
        course = _course(line.group, _failed)
        values = [value for _, value in course]
        highest = max(highest, *values)
        axes.step(
            [t for t, _ in course],
            values,
            line.dashes,
            where="mid",
            color=line.colour,
            linewidth=1.6,
            zorder=3,
        )
        back = (
            (_moment(line, lambda restart: restart.first_s), False),
            (_moment(line, lambda restart: restart.all_s), True),
        )
        for moment_s, full in back:
            if moment_s is not None:
                axes.plot(
                    [moment_s],
                    [0],
                    "o",
                    color=line.colour,
                    markerfacecolor=line.colour if full else "white",
                    markersize=6,
                    markeredgewidth=1.5,
                    clip_on=False,
                    zorder=4,
                )
    axes.set_ylim(0, highest * 1.15)
    count_axis(axes, ticks=3)


def _moment(line: Line, of: Callable[[RecoveryRecord], float | None]) -> float | None:
    """The rounds' median of a moment of their restarts, None where one of them did not come so far."""
    moments = [of(checkout.recovery) for checkout in line.group.checkouts if checkout.recovery is not None]
    known = [moment for moment in moments if moment is not None]
    return median(known) if known and len(known) == len(moments) else None


def recoveries(sheet: Sheet, lines: Sequence[Line], top: float, edge: float = 0.0) -> None:
    """A row of words for each pool, from `top` on, in a column that begins at `edge`. Inches."""
    left = edge + _LEFT
    for line in lines:
        words, whole = _recovery_words(line.group)
        sheet.line((left, top + 0.07), (left + 0.2, top + 0.07), colour=line.colour, width=2.5)
        label = sheet.fit(line.label, 2.0, 9)
        sheet.text(left + 0.28, top, label, bold=True)
        at = left + 0.28 + sheet.measure(label, 9, bold=True) + 0.12
        shown = sheet.fit(words, edge + WIDTH - at - MARGIN, 9)
        sheet.text(at, top, shown, colour=MUTED if whole else VERMILLION)
        top += _ROW


def _recovery_words(group: PoolRounds) -> tuple[str, bool]:
    """When the clients were back after the server was, and what failed; and whether all came back."""
    known = [checkout.recovery for checkout in group.checkouts if checkout.recovery is not None]
    if not known:
        return "no restart was seen", False
    first = Spread.of(each.after_up_s(each.first_s) for each in known)
    if first is None:
        words, whole = "no client came back", False
    else:
        words = f"first client back after {format_duration(first.median) or '0s'}"
        ends = [each.after_up_s(each.all_s) for each in known]
        every = [end for end in ends if end is not None]
        whole = len(every) == len(known)
        if whole:
            words += f", all after {format_duration(median(every)) or '0s'}"
        else:
            worst = min(known, key=lambda each: each.recovered / max(each.clients, 1))
            words += f", not all in {len(known) - len(every)} of {len(known)} rounds"
            words += f" (at worst {worst.recovered:,} of {worst.clients:,})"
    failed = median(each.failed for each in known)
    return f"{words}; {failed:,.0f} operations failed", whole


def _clients(axes: Axes, group: PoolRounds) -> None:
    """How many clients were at work, in the background on an axis of its own."""
    timeline = group.checkouts[0].timeline
    behind = axes.twinx()
    behind.set_zorder(axes.get_zorder() - 1)
    axes.patch.set_visible(False)
    most = max((stretch.clients for stretch in timeline), default=1)
    behind.fill_between(
        [0.0, *(stretch.t for stretch in timeline)],
        # Each stretch is as high as it was at its end.
        [timeline[0].clients if timeline else 0, *(stretch.clients for stretch in timeline)],
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


def _outage(panels: Sequence[Axes], lines: Sequence[Line]) -> None:
    """The time in which the server was away: the median of all rounds."""
    known = [
        checkout.recovery
        for line in lines
        for checkout in line.group.checkouts
        if checkout.recovery is not None and checkout.recovery.up_s is not None
    ]
    began, ended = Spread.of(each.stopping_s for each in known), Spread.of(each.up_s for each in known)
    if began is None or ended is None:
        return
    for axes in panels:
        axes.axvspan(began.median, ended.median, color=FAINT, alpha=0.6, linewidth=0, zorder=1)
    panels[1].text(
        began.median,
        0.96,
        " server away",
        transform=panels[1].get_xaxis_transform(),
        va="top",
        fontsize=8.5,
        color=MUTED,
    )
