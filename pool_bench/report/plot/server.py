"""What the server went through, under the timeline of the run: cores, queues, set-up times."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from matplotlib.axes import Axes

from pool_bench.report.plot.sheet import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILLION,
    Sheet,
    count_axis,
    latency_axis,
    time_ticks,
    widen,
)
from pool_bench.report.text import clean
from pool_bench.results.parts import SummaryRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.server import CpuRecord, ServerSampleRecord, ServerSideRecord
from pool_bench.units import format_duration

_HALF: Final = 0.85
_GAP: Final = 0.3
_FEWEST_LOOKS: Final = 3
_ROW: Final = 0.27

# Name, colour and figure of a line.
_Line = tuple[str, str, Callable[[ServerSampleRecord], int | None]]
_POOLED: Final[tuple[_Line, ...]] = (
    ("waiting", VERMILLION, lambda look: look.pools.get("cl_waiting")),
    ("served", BLUE, lambda look: look.pools.get("cl_active")),
    ("servers", GREEN, lambda look: _members(look)),
)
_DIRECT: Final[tuple[_Line, ...]] = (
    ("backends", BLUE, lambda look: sum(look.states.values())),
    ("starting", ORANGE, lambda look: look.states.get("starting", 0)),
)
_ONE_PROCESS: Final[tuple[_Line, ...]] = (
    ("connections", BLUE, lambda look: sum(look.states.values())),
    ("closing", ORANGE, lambda look: look.states.get("closing", 0)),
)


def server_height(run: RunRecord) -> float:
    """How much longer the sheet is for the server of `run`, inches; 0 where there is nothing to draw."""
    side = run.server_side
    if side is None or len(side.timeline) < _FEWEST_LOOKS or not run.timeline:
        return 0.0
    return 0.75 + 2 * _HALF + _GAP + 0.3


def server_panels(
    sheet: Sheet, run: RunRecord, unit: tuple[float, str], top: float, *, left: float, timeline_left: float
) -> None:
    """Draw them below `top`, the set-up times from `left` on, the rest below the timeline. Inches.

    Args:
        unit: seconds in the unit of the timeline, and its name.
    """
    side = run.server_side
    if side is None:
        return
    if side.limit is not None:
        room = sheet.width - left - MARGIN - sheet.measure("Server", 9.5, bold=True) - 0.1
        sheet.panel_title(left, top + 0.25, "Server", sheet.fit(side.limit.words, room, 8.5))
    top += 0.65
    if side.setup is not None and side.setup.latency_ms:
        _setup_panel(sheet, run, side, left, top, timeline_left - left - 0.75)
    else:
        for row, words in enumerate(_figures(side)):
            line = sheet.fit(words, timeline_left - left - 0.75, 8.5)
            sheet.text(left, top + 0.2 * row, line, size=8.5, colour=MUTED)
    width = sheet.width - timeline_left - MARGIN - 0.05
    end_s = run.timeline[-1].t
    begin = side.origin_s or 0.0
    cores = sheet.axes(timeline_left, top, width, _HALF)
    _cores(sheet, cores, run, side, (timeline_left, top, width), unit[0])
    cores.tick_params(labelbottom=False)
    below = top + _HALF + _GAP
    counts = sheet.axes(timeline_left, below, width, _HALF)
    pooled = any("cl_waiting" in look.pools for look in side.timeline)
    lines = _POOLED if pooled else _ONE_PROCESS if side.one_process else _DIRECT
    times = [(look.t - begin) / unit[0] for look in side.timeline]
    highest = 1
    for _, colour, figure in lines:
        values = [figure(look) for look in side.timeline]
        highest = max(highest, *(value for value in values if value is not None), 1)
        counts.plot(
            times,
            [float("nan") if value is None else value for value in values],
            color=colour,
            linewidth=1.4,
            marker="o" if len(times) < 15 else None,
            markersize=3,
        )
    counts.set_ylim(0, highest * 1.15)
    count_axis(counts, ticks=3, whole=True)
    entries = [(name, colour) for name, colour, _ in lines]
    _heading(sheet, timeline_left, width, below, "clients" if pooled else "at each look", entries)
    for axes in (cores, counts):
        axes.set_xlim(0, end_s / unit[0])
        time_ticks(axes, unit[1], at_most=6)


def _figures(side: ServerSideRecord) -> list[str]:
    """What was counted over the whole run, a line each."""
    lines = []
    if "sessions" in side.sessions:
        begun_by = " begun by the pooler" if "cl_active" in side.timeline[-1].pools else ""
        lines.append(f"sessions{begun_by}: {side.sessions['sessions']:,}")
        lines += [
            f"sessions {name}: {count:,}"
            for name, count in side.sessions.items()
            if name != "sessions" and count
        ]
    if side.used_peak is not None and side.max_connections is not None:
        lines.append(f"slots in use at peak: {side.used_peak:,} of {side.max_connections:,}")
    waited_us = max(look.pools.get("maxwait_us", 0) for look in side.timeline)
    if waited_us:
        lines.append(f"longest wait for a server connection: {format_duration(waited_us / 1e6)}")
    return lines


def _members(look: ServerSampleRecord) -> int | None:
    """Server connections of all pools, whatever they do."""
    counts = [count for name, count in look.pools.items() if name.startswith("sv_")]
    return sum(counts) if counts else None


def _cores(
    sheet: Sheet,
    axes: Axes,
    run: RunRecord,
    side: ServerSideRecord,
    box: tuple[float, float, float],
    unit: float,
) -> None:
    begin = side.origin_s or 0.0
    looks = [
        ((before.t + after.t) / 2 - begin, after.cpu)
        for before, after in pairwise(side.timeline)
        if after.cpu is not None
    ]
    highest, entries = 0.0, []
    shares: tuple[tuple[str, str, Callable[[CpuRecord], float | None]], ...] = (
        ("machine", MUTED, lambda cpu: cpu.machine),
        ("server", ORANGE, lambda cpu: cpu.server),
        (clean(side.pooler_name)[:16], PURPLE, lambda cpu: cpu.pooler),
    )
    for name, colour, figure in shares:
        points = [(t / unit, value) for t, cpu in looks if (value := figure(cpu)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5)
            entries.append((name, colour))
            highest = max(highest, *(value for _, value in points))
    client = [
        ((second.t - second.seconds / 2) / unit, second.cpu_s / second.seconds)
        for second in run.timeline
        if second.cpu_s is not None and second.seconds >= 0.1
    ]
    if client:
        axes.plot(*zip(*client, strict=True), color=BLUE, linewidth=1.5)
        entries.append(("client", BLUE))
        highest = max(highest, *(value for _, value in client))
    if side.cores:
        axes.axhline(side.cores, color=INK, linewidth=1.0, linestyle=(0, (4, 2.5)), alpha=0.75)
    axes.set_ylim(0, max(highest, side.cores or 0, 0.1) * 1.12)
    count_axis(axes, ticks=3)
    left, top, width = box
    _heading(sheet, left, width, top, "cores", entries)


def _heading(
    sheet: Sheet, left: float, width: float, top: float, words: str, entries: Sequence[tuple[str, str]]
) -> None:
    """What a frame shows, and its legend at the right."""
    right = left + width
    bottom = top - 0.06
    for name, colour in reversed(entries):
        sheet.text(right, bottom, name, size=8.5, colour=MUTED, align="right", vertical="bottom")
        right -= sheet.measure(name, 8.5) + 0.06
        sheet.line((right - 0.16, bottom - 0.065), (right, bottom - 0.065), colour=colour, width=2.5)
        right -= 0.32
    if sheet.measure(words, 8.5) <= right + 0.06 - left:
        sheet.text(left, bottom, words, size=8.5, colour=MUTED, vertical="bottom")


def _setup_panel(
    sheet: Sheet, run: RunRecord, side: ServerSideRecord, left: float, top: float, width: float
) -> None:
    """Rows for what the client waited for and for the server's own part of it."""
    assert side.setup is not None  # noqa: S101 - asked before
    rows: list[tuple[str, str, SummaryRecord]] = [
        ("client", BLUE, run.phases_ms[name]) for name in ("auth", "connect") if name in run.phases_ms
    ]
    for name, words in (("total", "server"), ("fork", "fork"), ("auth", "auth.")):
        if name in side.setup.latency_ms:
            rows.append((words, ORANGE, side.setup.latency_ms[name]))
    known = [
        (name, colour, max(summary.p50, 0.001), max(summary.p99, 0.001), max(summary.max, 0.001))
        for name, colour, summary in rows
        if summary.p50 is not None and summary.p99 is not None and summary.max is not None
    ]
    if not known:
        return
    height = _ROW * len(known) + 0.1
    sheet.panel_title(left, top - 0.08, "Set-up", "what the client waited for, and the server's part of it")
    axes = sheet.axes(left, top, width, height)
    axes.spines["left"].set_visible(False)
    low, high = widen(min(row[2] for row in known), max(row[4] for row in known), margin=1.25)
    latency_axis(axes, "x", low, high, at_most=6)
    for index, (_, colour, p50, p99, maximum) in enumerate(known):
        axes.plot([p50, maximum], [index, index], color=FAINT, linewidth=1.2, zorder=2)
        axes.plot(
            [p50, p99],
            [index, index],
            color=colour,
            linewidth=6.5,
            alpha=0.4,
            solid_capstyle="butt",
            zorder=3,
        )
        axes.plot([p50], [index], "o", color=colour, markersize=5.5, zorder=4)
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_yticks(range(len(known)), [row[0] for row in known])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
