"""The picture of one run: latency histogram, phases, and what happened second by second."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from matplotlib.axes import Axes

from pool_bench.analysis.verdict import is_thin
from pool_bench.errors import Phase
from pool_bench.report.buckets import choose_edges, counts_between, extent_ms
from pool_bench.report.plot.server import server_height, server_panels
from pool_bench.report.plot.sheet import (
    BLUE,
    FAINT,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    VERMILLION,
    Sheet,
    count_axis,
    format_latency,
    latency_axis,
    spread,
    time_ticks,
    widen,
)
from pool_bench.report.text import format_percent, format_rate
from pool_bench.results.model import ResultRecord
from pool_bench.results.parts import SummaryRecord
from pool_bench.results.run import IntervalRecord, RunRecord
from pool_bench.stats.histogram import Histogram
from pool_bench.units import format_duration

_BARS: Final = 64
_LEFT: Final = MARGIN + 0.5
_FEWEST_SECONDS: Final = 3
_MOST_POINTS: Final = 240
# A last interval shorter than this share of the others is no second of its own.
_SLIVER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Mark:
    """A percentile's line: its name (`~` where it rests on too few operations) and milliseconds."""

    name: str
    value: float


def draw_run(result: ResultRecord, run: RunRecord) -> Sheet:
    """Draw `run` of `result`."""
    phases = phases_of(run)
    has_timeline = len(run.timeline) >= _FEWEST_SECONDS
    lower = max(2.15 if has_timeline else 0.0, 0.55 + 0.27 * len(phases) if phases else 0.0)
    notes = run_notes(result, run)
    histogram_height = 3.0
    height = MARGIN + 0.64 + 0.2 * len(notes) + 0.75 + histogram_height + (1.4 + lower if lower else 0.5)
    height += server_height(run) if has_timeline else 0.0
    sheet = Sheet(10.0, height)
    sheet.header("Connection latency: ", target_name(result), _setting(result, run), notes)
    histogram_panel(sheet, run, histogram_height)
    if lower:
        timeline_left = _LEFT
        if phases:
            width = 3.55 if has_timeline else sheet.width - _LEFT - MARGIN - 1.2
            phase_panel(sheet, run, phases, _LEFT, sheet.top, width, 0.27 * len(phases) + 0.1)
            timeline_left = _LEFT + width + 1.35
        if has_timeline:
            _timeline_panel(sheet, run.timeline, timeline_left, sheet.top, lower)
            if server_height(run):
                unit = time_unit(run.timeline[-1].t)
                sheet.top += lower + 0.2
                server_panels(sheet, run, unit, sheet.top, left=_LEFT, timeline_left=timeline_left)
    return sheet


def run_notes(result: ResultRecord, run: RunRecord) -> list[str]:
    """What makes the figures doubtful, one line each."""
    notes, troubles = [], []
    if run.failed:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in list(run.errors.items())[:4])
        share = format_percent(run.failed / run.attempts)
        troubles.append(f"{run.failed:,} failed ({share}): {kinds}")
    if run.unfinished:
        troubles.append(f"{run.unfinished:,} unfinished")
    if run.open_loop is not None and run.open_loop.dropped:
        troubles.append(f"{run.open_loop.dropped:,} of {run.open_loop.offered:,} due were dropped")
    if run.interrupted or (result.interrupted and run is result.runs[-1]):
        troubles.append("interrupted")
    if troubles:
        notes.append(" · ".join(troubles))
    if run.client.saturated:
        notes.append(f"The client was the bottleneck ({run.client.why}): latency is an upper bound")
    return notes


def target_name(result: ResultRecord) -> str:
    """The target, and how many more there were."""
    more = len(result.targets) - 1
    # The scheme says nothing a reader of this picture does not know.
    name = result.target.removeprefix("postgresql://").removeprefix("postgres://") or "?"
    return f"{name} and {more} more" if more > 0 else name


def _setting(result: ResultRecord, run: RunRecord) -> str:
    parts = [
        result.name,
        f"{format_rate(run.throughput)} conn/s",
        f"{run.ok:,} ok",
        f"{run.concurrency:,} workers" if run.open_loop is None else f"{run.open_loop.offered:,} due",
        f"driver {run.driver}",
        format_duration(run.duration_s),
        f"{result.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(result.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def marks_of(summary: SummaryRecord, count: int) -> list[Mark]:
    """The percentiles to mark, ascending; those that read the same share one mark."""
    wanted = (
        ("p50", 50.0, summary.p50),
        ("p90", 90.0, summary.p90),
        ("p99", 99.0, summary.p99),
        ("p99.9", 99.9, summary.p99_9),
        ("max", 100.0, summary.max),
    )
    groups: list[tuple[list[str], bool, float]] = []
    for name, percentile, value in wanted:
        if value is None:
            continue
        thin = is_thin(percentile, count) and name != "max"
        if groups and format_latency(groups[-1][2]) == format_latency(value):
            names, was_thin, _ = groups[-1]
            groups[-1] = ([*names, name], was_thin or thin, value)
        else:
            groups.append(([name], thin, value))
    return [
        Mark((f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]) + (" ~" if thin else ""), value)
        for names, thin, value in groups
    ]


def histogram_panel(sheet: Sheet, run: RunRecord, height: float, *, name: str = "Latency") -> None:
    """Bars of every success with its percentiles; of the time to fail where there was none. Inches."""
    if run.ok:
        histogram, colour = run.histogram, BLUE
        summary: SummaryRecord | None = run.latency_ms
        title, detail = name, "of every success; percentiles from all of them"
    else:
        histogram, summary, colour = run.failure_histogram, run.failure_ms, VERMILLION
        title, detail = "No operation succeeded", "time to fail instead of latency"
    top, width = sheet.top + 0.75, sheet.width - _LEFT - MARGIN
    axes = sheet.axes(_LEFT, top, width, height)
    extent = extent_ms(histogram)
    if extent is None or summary is None:
        sheet.panel_title(_LEFT, top - 0.5, "Nothing to show", "no operation ended")
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "no operation ended", transform=axes.transAxes, ha="center", color=MUTED, fontsize=12
        )
        sheet.top = top + height + 0.95
        return
    marks = marks_of(summary, histogram.count)
    if run.ok and run.open_loop is not None:
        title, detail = (
            "Response time",
            "of every success, from when it was due; orange line: service time, from when it began",
        )
    thin = any(mark.name.endswith("~") for mark in marks)
    if thin:
        detail += "; ~ fewer than 10 operations beyond it"
    sheet.panel_title(_LEFT, top - 0.5, title, detail)
    service = run.open_loop.service_histogram if run.ok and run.open_loop is not None else None
    if service is not None:
        extent = extent_ms(histogram, service) or extent
    _bars(axes, histogram, extent, colour, outline=service)
    low, high = widen(min(extent[0], marks[0].value), max(extent[1], marks[-1].value))
    latency_axis(axes, "x", low, high, at_most=14)
    _draw_marks(sheet, axes, marks, _LEFT, top, width)
    sheet.top = top + height + 0.95


def _bars(
    axes: Axes,
    histogram: Histogram,
    extent: tuple[float, float],
    colour: str,
    *,
    outline: Histogram | None = None,
) -> None:
    """Bars of `histogram`, and `outline` as a line over them."""
    # Few operations in many bars are noise: the number of bars grows as Rice's rule says, times two.
    edges = choose_edges(*extent, at_most=min(max(int(4 * histogram.count ** (1 / 3)), _BARS // 2), _BARS))
    counts = counts_between(histogram, edges)
    # One operation among a million is what a reader looks for in a tail: no bar is thinner than a line.
    shown = np.where(counts > 0, np.maximum(counts, counts.max() * 0.007), 0)
    used = counts > 0
    axes.bar(
        edges[:-1][used],
        shown[used],
        width=np.diff(edges)[used],
        align="edge",
        color=colour,
        edgecolor="white",
        linewidth=0.5,
    )
    highest = float(counts.max())
    if outline is not None:
        others = counts_between(outline, edges)
        highest = max(highest, float(others.max()))
        axes.stairs(others, edges, color=ORANGE, linewidth=1.3)
    axes.set_ylim(0, highest * 1.06)
    count_axis(axes, ticks=5, whole=True)
    axes.set_ylabel("operations", fontsize=8.5)


def _draw_marks(
    sheet: Sheet, axes: Axes, marks: Sequence[Mark], left: float, top: float, width: float
) -> None:
    """Lines at the marks; labels in one row above them, pushed apart and joined to their lines."""
    low, high = axes.get_xlim()
    at = [left + width * float(np.log(mark.value / low) / np.log(high / low)) for mark in marks]
    texts = [(mark.name, format_latency(mark.value)) for mark in marks]
    sizes = [
        max(sheet.measure(name, 8.5), sheet.measure(value, 9.0, bold=True)) + 0.16 for name, value in texts
    ]
    centres = spread(at, sizes, left - 0.3, left + width + 0.2)
    for mark, x, centre, (name, value) in zip(marks, at, centres, texts, strict=True):
        axes.axvline(mark.value, color=INK, linewidth=0.9, alpha=0.75, linestyle=(0, (4, 2.5)))
        sheet.line((x, top), (centre, top - 0.1), colour=MUTED, width=0.8)
        sheet.text(centre, top - 0.26, name, size=8.5, colour=MUTED, align="center", vertical="bottom")
        sheet.text(centre, top - 0.12, value, size=9.0, bold=True, align="center", vertical="bottom")


def phases_of(run: RunRecord) -> list[tuple[str, SummaryRecord, float]]:
    """Name, latencies and share of the mean of each phase that was seen, in their order of happening."""
    order = [str(phase) for phase in Phase]
    # Phases begin with the operation, not when it was due.
    whole = run.latency_ms if run.open_loop is None else run.open_loop.service_ms
    found = []
    for name, summary in run.phases_ms.items():
        histogram = run.phase_histograms.get(name)
        if summary.mean is None or summary.p50 is None or not whole.mean:
            continue
        weight = histogram.count / run.ok if histogram is not None and run.ok else 1.0
        found.append((name, summary, summary.mean * weight / whole.mean))
    return sorted(found, key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def phase_panel(
    sheet: Sheet,
    run: RunRecord,
    phases: Sequence[tuple[str, SummaryRecord, float]],
    left: float,
    top: float,
    width: float,
    height: float,
) -> None:
    """A row for each phase; its share of the mean stands 0.62 inches to the right of `width`. Inches."""
    sheet.panel_title(left, top - 0.08, "Phases", "dot p50, bar to p99, line to max")
    axes = sheet.axes(left, top, width, height)
    axes.spines["left"].set_visible(False)
    values = [
        (max(s.min or 0.001, 0.001), max(s.p50 or 0.001, 0.001), s.p99 or 0.001, s.max or 0.001)
        for _, s, _ in phases
    ]
    low, high = widen(
        min(p50 for _, p50, _, _ in values), max(top_ms for _, _, _, top_ms in values), margin=1.25
    )
    latency_axis(axes, "x", low, high, at_most=6 if width < 5 else 12)
    for row, (_, p50, p99, maximum) in enumerate(values):
        axes.plot([p50, maximum], [row, row], color=FAINT, linewidth=1.2, zorder=2)
        axes.plot(
            [p50, p99], [row, row], color=BLUE, linewidth=6.5, alpha=0.4, solid_capstyle="butt", zorder=3
        )
        axes.plot([p50], [row], "o", color=BLUE, markersize=5.5, zorder=4)
    axes.set_ylim(len(phases) - 0.4, -0.6)
    axes.set_yticks(range(len(phases)), [name for name, _, _ in phases])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    right = left + width + 0.62
    sheet.text(right, top - 0.08, "of mean", size=8.5, colour=MUTED, align="right", vertical="bottom")
    for row, (_, _, share) in enumerate(phases):
        middle = top + height * (row + 0.6) / (len(phases) + 0.2)
        sheet.text(right, middle, format_percent(share), size=9.0, align="right", vertical="center_baseline")


@dataclass(frozen=True, slots=True)
class Stretch:
    """One or several seconds of the timeline, drawn as one point."""

    start: float
    end: float
    ok: float
    failed: float
    p50: tuple[float, float, float]
    p99: tuple[float, float, float]
    offered: float | None = None


def stretches(timeline: Sequence[IntervalRecord]) -> list[Stretch]:
    """The timeline in no more points than a panel can show; rates are per second.

    Percentiles of several seconds cannot be averaged: of each stretch come the lowest, the middle
    and the highest second, NaN where no second had a success. A sliver at the end, such as the few
    milliseconds in which the last operations finish, counts to what is before it: its own rate would be
    a spike that never was.
    """
    # What took no time has no rate.
    timeline = [second for second in timeline if second.seconds > 0]
    sliver: Sequence[IntervalRecord] = timeline[-1:]
    if len(timeline) > 1 and sliver[0].seconds < _SLIVER * max(second.seconds for second in timeline):
        timeline = timeline[:-1]
    else:
        sliver = ()
    size = math.ceil(len(timeline) / _MOST_POINTS)
    found: list[Stretch] = []
    for index in range(0, len(timeline), size):
        part = timeline[index : index + size]
        counted = [*part, *(sliver if index + size >= len(timeline) else ())]
        length = sum(second.seconds for second in counted)
        found.append(
            Stretch(
                start=found[-1].end if found else max(part[0].t - part[0].seconds, 0.0),
                end=counted[-1].t,
                ok=sum(second.ok for second in counted) / length,
                failed=sum(second.failed for second in counted) / length,
                p50=_low_middle_high([second.p50 for second in part]),
                p99=_low_middle_high([second.p99 for second in part]),
                offered=None
                if part[0].offered is None
                else sum(second.offered or 0 for second in counted) / length,
            )
        )
    return found


def _low_middle_high(values: Sequence[float | None]) -> tuple[float, float, float]:
    known = sorted(value for value in values if value)
    # A second without a success has no latency: a gap, not a zero.
    return (known[0], known[len(known) // 2], known[-1]) if known else (math.nan, math.nan, math.nan)


def _timeline_panel(
    sheet: Sheet, timeline: Sequence[IntervalRecord], left: float, top: float, height: float
) -> None:
    width = sheet.width - left - MARGIN - 0.05
    unit, name = time_unit(timeline[-1].t)
    points = stretches(timeline)
    edges = [points[0].start / unit, *(point.end / unit for point in points)]
    known = [value for point in points for value in (*point.p50, *point.p99) if not math.isnan(value)]
    half = (height - 0.45) / 2 if known else height - 0.1

    rate = sheet.axes(left, top, width, half)
    ok, both = [point.ok for point in points], [point.ok + point.failed for point in points]
    due = [point.offered for point in points if point.offered is not None]
    failing = any(point.failed for point in points)
    if failing:
        rate.stairs(both, edges, baseline=ok, fill=True, color=VERMILLION, linewidth=0)
    rate.stairs(ok, edges, fill=True, color=BLUE, alpha=0.25, linewidth=0)
    rate.stairs(ok, edges, baseline=None, color=BLUE, linewidth=1.3)
    if due:
        rate.stairs(due, edges, baseline=None, color=INK, linewidth=1.1, linestyle=(0, (3, 2)))
    rate.set_ylim(0, (max(*both, *due, 0.0) or 1.0) * 1.12)
    count_axis(rate, ticks=3)
    sheet.panel_title(left, top - 0.08, "Over time", "ended per second")
    entries = [("due", INK)] if due else []
    entries += [("ok", BLUE)] if known else []
    legend(sheet, left + width, top - 0.08, [*entries, ("failed", VERMILLION)] if failing else entries)
    lowest = rate
    if known:
        rate.tick_params(labelbottom=False)
        lowest = sheet.axes(left, top + half + 0.3, width, half)
        latency_over_time(lowest, points, edges, known)
        words = "latency of each second"
        if len(points) < len(timeline) - 1:  # more than a sliver put to another
            together = format_duration(points[0].end - points[0].start)
            words = f"middle second of {together}, shade: all"
        below = top + half + 0.24
        legend_left = legend(sheet, left + width, below, [("p50", BLUE), ("p99", ORANGE)])
        words = sheet.fit(words, legend_left - left - 0.1, 8.5)
        sheet.text(left, below, words, size=8.5, colour=MUTED, vertical="bottom")
    for axes in (rate, lowest):
        # From 0, as what the server went through below it.
        axes.set_xlim(0, edges[-1])
        time_ticks(axes, name, at_most=6)


def latency_over_time(
    axes: Axes, points: Sequence[Stretch], edges: Sequence[float], known: Sequence[float]
) -> None:
    """Lines of the two percentiles of `points` between `edges`, in shades of all seconds."""
    middles = [(start + end) / 2 for start, end in pairwise(edges)]
    marker = "o" if len(points) < 15 else None
    for colour, triples in (
        (BLUE, [point.p50 for point in points]),
        (ORANGE, [point.p99 for point in points]),
    ):
        low, middle, high = zip(*triples, strict=True)
        axes.fill_between(middles, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(middles, middle, color=colour, linewidth=1.5, marker=marker, markersize=3)
    latency_axis(axes, "y", *widen(min(known), max(known), least_ratio=4.0, margin=1.2), at_most=5)


def time_unit(seconds: float) -> tuple[float, str]:
    """Seconds in the unit that an axis of such a length is written in, and its name."""
    if seconds <= 300:
        return 1.0, "s"
    return (60.0, "min") if seconds <= 4 * 3600 else (3600.0, "h")


def legend(sheet: Sheet, right: float, bottom: float, entries: Sequence[tuple[str, str]]) -> float:
    """Words with a coloured dash before them, ending at `right`; where they begin. Inches."""
    for words, colour in reversed(entries):
        sheet.text(right, bottom, words, size=8.5, colour=MUTED, align="right", vertical="bottom")
        right -= sheet.measure(words, 8.5) + 0.06
        sheet.line((right - 0.16, bottom - 0.065), (right, bottom - 0.065), colour=colour, width=2.5)
        right -= 0.32
    return right + 0.16
