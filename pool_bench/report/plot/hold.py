"""The picture of a run that held connections: how many over time, how they opened, fared and ended."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pool_bench.analysis.syn_retransmits import syn_steps, waited_words
from pool_bench.report.plot.run import (
    histogram_panel,
    latency_over_time,
    legend,
    phase_panel,
    phases_of,
    run_notes,
    stretches,
    target_name,
    time_unit,
)
from pool_bench.report.plot.sheet import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    SERIES_COLOURS,
    VERMILLION,
    Sheet,
    count_axis,
    time_ticks,
)
from pool_bench.report.summary.server import format_bytes, pool_counts
from pool_bench.report.text import clean, format_percent, format_rate
from pool_bench.results.hold import HoldIntervalRecord, HoldRecord
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import IntervalRecord, RunRecord
from pool_bench.results.server import ServerSampleRecord, ServerSideRecord
from pool_bench.units import format_duration

FloatArray = npt.NDArray[np.float64]

LEFT: Final = MARGIN + 0.5
_HELD_HEIGHT: Final = 1.8
_DROPS_HEIGHT: Final = 0.65
_HISTOGRAM_HEIGHT: Final = 1.7
_SMALL_HEIGHT: Final = 1.45
_SMALL_WIDTH: Final = 3.45
_BETWEEN: Final = 0.95
# Small panels beside each other.
_COLUMNS: Final = 3
_WIDTH: Final = LEFT + _COLUMNS * _SMALL_WIDTH + (_COLUMNS - 1) * _BETWEEN + MARGIN
_FEWEST_SECONDS: Final = 3
_MOST_POINTS: Final = 600
_BINS: Final = 120
_MOST_LINES: Final = 4
_STAGES: Final = {
    "open": ("#e6eff8", "opening"),
    "hold": ("white", "holding"),
    "close": ("#efefef", "closing"),
}


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the small panels: draws itself into a frame of `height` inches at left, top, of a width."""

    draw: Callable[[Sheet, float, float, float], None]
    height: float = _SMALL_HEIGHT


def draw_hold(result: ResultRecord, run: RunRecord, hold: HoldRecord) -> Sheet:
    """Draw `run` of `result`, which held connections."""
    panels = _small_panels(run, hold)
    rows = [panels[index : index + _COLUMNS] for index in range(0, len(panels), _COLUMNS)]
    notes = hold_notes(result, run, hold)
    has_drops = bool(hold.dropped)
    height = MARGIN + 0.64 + 0.2 * len(notes) + 0.35 + _HELD_HEIGHT + 0.45
    height += _DROPS_HEIGHT + 0.35 if has_drops else 0
    height += 0.75 + _HISTOGRAM_HEIGHT + 0.95 if run.attempts else 0
    height += sum(max(panel.height for panel in row) + 0.95 for row in rows)
    sheet = Sheet(_WIDTH, height)
    sheet.header("Held connections: ", target_name(result), _setting(result, run, hold), notes)
    _held_panel(sheet, hold, has_drops=has_drops)
    if run.attempts:
        sheet.top += 0.1
        histogram_panel(sheet, run, _HISTOGRAM_HEIGHT, name="Connect latency")
        sheet.top -= 0.1
    for row in rows:
        top = sheet.top + 0.1
        for column, panel in enumerate(row):
            panel.draw(sheet, LEFT + column * (_SMALL_WIDTH + _BETWEEN), top, panel.height)
        sheet.top = top + max(panel.height for panel in row) + 0.85
    return sheet


def hold_notes(result: ResultRecord, run: RunRecord, hold: HoldRecord) -> list[str]:
    """What the reader must know before the figures, one line each."""
    notes = run_notes(result, run)
    troubles = []
    if hold.dropped:
        kinds: dict[str, int] = {}
        for drop in hold.drops:
            kinds[drop.kind] = kinds.get(drop.kind, 0) + drop.count
        ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        words = ", ".join(f"{count:,} {kind}" for kind, count in ranked[:4])
        replaced = f", {hold.reopened:,} replaced" if hold.reopened else ""
        troubles.append(f"{hold.dropped:,} dropped{replaced}: {words}")
    if hold.forced:
        troubles.append(f"{hold.forced:,} cut off at the end")
    if hold.connections < hold.asked:
        kept = hold.asked - hold.connections
        troubles.append(f"{kept:,} of {hold.asked:,} asked were not tried: the server keeps slots free")
    if troubles:
        notes.append(" · ".join(troubles))
    steps = syn_steps(run.phase_histograms.get("tcp", run.histogram))
    if steps:
        notes.append(f"{waited_words(steps)}: the accept queue was full, connection requests were sent again")
    return notes


def _setting(result: ResultRecord, run: RunRecord, hold: HoldRecord) -> str:
    rate = f"opened at {format_rate(hold.opened / hold.open_s)}/s" if hold.opened and hold.open_s else ""
    parts = [
        result.name,
        f"asked {hold.asked:,}, held {hold.held_peak:,}",
        rate,
        f"held for {format_duration(hold.hold_s)}" if hold.hold_s else "",
        f"driver {run.driver}",
        f"{result.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(result.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def held_curve(timeline: Sequence[HoldIntervalRecord]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """When, the least and the most connections held then, in no more points than a panel can show.

    Of a long run each point stands for several seconds.
    """
    size = math.ceil(len(timeline) / _MOST_POINTS) or 1
    parts = [timeline[index : index + size] for index in range(0, len(timeline), size)]
    times = np.array([part[-1].t for part in parts], dtype=np.float64)
    lows = np.array([min(second.held for second in part) for part in parts], dtype=np.float64)
    highs = np.array([max(second.held for second in part) for part in parts], dtype=np.float64)
    return times, lows, highs


def end_of(hold: HoldRecord) -> float:
    """Where every axis of time of a run ends, seconds since opening began."""
    return hold.timeline[-1].t if hold.timeline else 0.0


def time_axis(axes: Axes, end_s: float, *, at_most: int = 8) -> float:
    """A horizontal axis from 0 to `end_s` seconds, with few ticks; returns the seconds of its unit."""
    unit, name = time_unit(end_s)
    axes.set_xlim(0, (end_s or 1.0) / unit)
    time_ticks(axes, name, at_most=at_most)
    return unit


def _held_panel(sheet: Sheet, hold: HoldRecord, *, has_drops: bool) -> None:
    top, width = sheet.top + 0.35, sheet.width - LEFT - MARGIN
    axes = sheet.axes(LEFT, top, width, _HELD_HEIGHT)
    sheet.panel_title(LEFT, top - 0.08, "Connections", _stages_words(hold))
    end_s = end_of(hold)
    unit = time_axis(axes, end_s)
    _shade_stages(sheet, axes, hold.timeline, unit, width)
    times, lows, highs = held_curve(hold.timeline)
    axes.fill_between(times / unit, 0, highs, color=BLUE, alpha=0.14, linewidth=0)
    if len(times) < len(hold.timeline):
        axes.fill_between(times / unit, lows, highs, color=BLUE, alpha=0.35, linewidth=0)
    axes.plot(times / unit, lows, color=BLUE, linewidth=1.6)
    axes.axhline(hold.asked, color=INK, linewidth=1.0, linestyle=(0, (4, 2.5)), alpha=0.75)
    axes.set_ylim(0, max(hold.asked, hold.held_peak, 1) * 1.18)
    count_axis(axes, ticks=5, whole=True)
    legend(sheet, LEFT + width, top - 0.08, [("held", BLUE), (f"asked {hold.asked:,}", INK)])
    sheet.top = top + _HELD_HEIGHT + 0.3
    if has_drops:
        axes.tick_params(labelbottom=False)
        _drops_panel(sheet, hold, sheet.top, width, end_s)
        sheet.top += _DROPS_HEIGHT + 0.35


def _stages_words(hold: HoldRecord) -> str:
    words = [f"opening {format_duration(hold.open_s)}"]
    if hold.hold_s:
        words.append(f"holding {format_duration(hold.hold_s)}")
    stages = ", ".join([*words, f"closing {format_duration(hold.close_s)}"])
    each = hold.client_bytes_each
    return stages if each is None else f"{stages}; {format_bytes(each)} of client memory each"


def _shade_stages(
    sheet: Sheet, axes: Axes, timeline: Sequence[HoldIntervalRecord], unit: float, width: float
) -> None:
    """A shade for each stage, and its name where it is long enough."""
    start = 0.0
    for index, second in enumerate(timeline):
        if index + 1 < len(timeline) and timeline[index + 1].stage == second.stage:
            continue
        shade, name = _STAGES.get(second.stage, ("white", ""))
        axes.axvspan(start / unit, second.t / unit, color=shade, linewidth=0, zorder=0)
        if width * (second.t - start) / timeline[-1].t > sheet.measure(name, 8.5) + 0.12:
            middle = (start + second.t) / 2 / unit
            place = axes.get_xaxis_transform()
            axes.text(middle, 0.98, name, transform=place, ha="center", va="top", color=MUTED, fontsize=8.5)
        start = second.t


def _drops_panel(sheet: Sheet, hold: HoldRecord, top: float, width: float, end_s: float) -> None:
    axes = sheet.axes(LEFT, top, width, _DROPS_HEIGHT)
    unit = time_axis(axes, end_s)
    step_s = math.ceil(end_s / _BINS) or 1
    edges = np.arange(math.ceil(end_s / step_s) + 1, dtype=np.float64) * step_s
    middles = [second.t - second.seconds / 2 for second in hold.timeline]
    dropped, _ = np.histogram(middles, edges, weights=[second.dropped for second in hold.timeline])
    # While opening, first ones and replacements are counted together.
    back = [second.opened if second.stage == "hold" else 0 for second in hold.timeline]
    replaced, _ = np.histogram(middles, edges, weights=back)
    axes.stairs(dropped, edges / unit, fill=True, color=VERMILLION, linewidth=0)
    entries = [("dropped", VERMILLION)]
    if replaced.any():
        axes.stairs(replaced, edges / unit, baseline=None, color=GREEN, linewidth=1.3)
        entries.append(("replaced", GREEN))
    axes.set_ylim(0, max(float(dropped.max()), float(replaced.max()), 1.0) * 1.15)
    count_axis(axes, ticks=2, whole=True)
    legend(sheet, LEFT + width, top - 0.06, entries)
    each = "each second" if step_s == 1 else f"each {format_duration(step_s)}"
    sheet.text(LEFT, top - 0.06, f"in {each}", size=8.5, colour=MUTED, vertical="bottom")


def _small_panels(run: RunRecord, hold: HoldRecord) -> list[_Panel]:
    panels = []
    phases = phases_of(run)
    if phases:
        height = 0.27 * len(phases) + 0.1

        def draw_phases(sheet: Sheet, left: float, top: float, height: float) -> None:
            # Shares of the mean stand to the right of the frame.
            phase_panel(sheet, run, phases, left, top, _SMALL_WIDTH - 0.62, height)

        panels.append(_Panel(draw_phases, height))
    if hold.dropped and hold.survival:
        panels.append(
            _Panel(lambda sheet, left, top, height: _survival_panel(sheet, hold, left, top, height))
        )
    for name, histogram_count, high_name, seconds in (
        ("Keep-alive latency", hold.keepalive_histogram.count, "max", _keepalives(hold)),
        ("Active queries", hold.active_histogram.count, "p99", _actives(hold)),
    ):
        if histogram_count and sum(second.p50 is not None for second in seconds) >= _FEWEST_SECONDS:
            panels.append(_queries_panel(name, high_name, seconds, end_of(hold)))
    side = run.server_side
    if side is not None and len(side.timeline) >= _FEWEST_SECONDS:
        panels += _server_panels(side, end_of(hold))
    return panels


def _seconds(
    hold: HoldRecord, take: Callable[[HoldIntervalRecord], tuple[int, float | None, float | None]]
) -> list[IntervalRecord]:
    """The timeline of queries in the form of one of operations, `p99` being the higher figure."""
    found = []
    for second in hold.timeline:
        if second.stage == "close" or not second.seconds:
            continue
        count, low, high = take(second)
        found.append(
            IntervalRecord(
                t=second.t,
                seconds=second.seconds,
                ok=count,
                failed=0,
                in_flight=0,
                p50=low,
                p99=high,
                max=high,
                lag_ms=None,
            )
        )
    return found


def _keepalives(hold: HoldRecord) -> list[IntervalRecord]:
    return _seconds(hold, lambda second: (second.keepalives, second.keepalive_p50, second.keepalive_max))


def _actives(hold: HoldRecord) -> list[IntervalRecord]:
    return _seconds(hold, lambda second: (second.actives, second.active_p50, second.active_p99))


def _queries_panel(name: str, high_name: str, seconds: Sequence[IntervalRecord], end_s: float) -> _Panel:
    def draw(sheet: Sheet, left: float, top: float, height: float) -> None:
        axes = sheet.axes(left, top, _SMALL_WIDTH, height)
        points = stretches(seconds)
        unit, _ = time_unit(end_s)
        edges = [points[0].start / unit, *(point.end / unit for point in points)]
        known = [value for point in points for value in (*point.p50, *point.p99) if not math.isnan(value)]
        latency_over_time(axes, points, edges, known)
        time_axis(axes, end_s, at_most=5)
        # Where one point stands for several seconds, the shade behind the lines needs a word.
        shaded = "shade: all" if len(points) < len(seconds) - 1 else ""
        sheet.panel_title(left, top - 0.08, name, shaded)
        legend(sheet, left + _SMALL_WIDTH, top - 0.08, [("p50", BLUE), (high_name, ORANGE)])

    return _Panel(draw)


def _survival_panel(sheet: Sheet, hold: HoldRecord, left: float, top: float, height: float) -> None:
    axes = sheet.axes(left, top, _SMALL_WIDTH, height)
    last = hold.survival[-1]
    unit = time_axis(axes, last.age_s, at_most=5)
    ages = [point.age_s / unit for point in hold.survival]
    shares = [point.share for point in hold.survival]
    axes.fill_between(ages, 0, shares, step="post", color=BLUE, alpha=0.14, linewidth=0)
    axes.step(ages, shares, where="post", color=BLUE, linewidth=1.6)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    detail = f"share still open by age; {format_percent(last.share)} at {format_duration(last.age_s)}"
    sheet.panel_title(left, top - 0.08, "Survival", detail)


def _server_panels(side: ServerSideRecord, end_s: float) -> list[_Panel]:
    panels = []
    if any(look.states for look in side.timeline):
        title = "Server connections" if side.one_process else "Server backends"
        cost, limit = side.backend_cost_bytes, side.max_connections
        panels.append(_server_panel(side, end_s, title, _by_state, cost, limit))
    if any(pool_counts(look.pools) for look in side.timeline):
        panels.append(_server_panel(side, end_s, "PgBouncer", _by_pool, side.pooler_client_bytes, None))
    return panels


def _server_panel(
    side: ServerSideRecord,
    end_s: float,
    title: str,
    by_name: Callable[[ServerSampleRecord], Mapping[str, int]],
    cost: int | None,
    limit: int | None,
) -> _Panel:
    """Counts by name on the run's clock up to `end_s`; `cost` bytes each, at most `limit`."""

    def draw(sheet: Sheet, left: float, top: float, height: float) -> None:
        axes = sheet.axes(left, top, _SMALL_WIDTH, height)
        looks = side.timeline
        unit = time_axis(axes, end_s, at_most=5)
        # The watching begins before the run.
        times = (np.array([look.t for look in looks]) - (side.origin_s or 0.0)) / unit
        names = _most(looks, by_name)
        entries = []
        for name, colour in zip(names, SERIES_COLOURS, strict=False):
            axes.plot(times, [by_name(look).get(name, 0) for look in looks], color=colour, linewidth=1.5)
            entries.append((clean(name)[:24], colour))
        highest = max((by_name(look).get(name, 0) for look in looks for name in names), default=0)
        if limit:
            axes.axhline(limit, color=INK, linewidth=1.0, linestyle=(0, (4, 2.5)), alpha=0.75)
            entries.append((f"max_connections {limit:,}", INK))
            highest = max(highest, limit)
        axes.set_ylim(0, max(highest, 1) * 1.1)
        count_axis(axes, ticks=4, whole=True)
        sheet.panel_title(left, top - 0.08, title, f"{format_bytes(cost)} each" if cost and cost > 0 else "")
        _entries_below(sheet, left, top + height + 0.3, entries)

    return _Panel(draw)


def _by_state(look: ServerSampleRecord) -> Mapping[str, int]:
    return look.states


def _by_pool(look: ServerSampleRecord) -> Mapping[str, int]:
    return pool_counts(look.pools)


def _most(
    looks: Sequence[ServerSampleRecord],
    by_name: Callable[[ServerSampleRecord], Mapping[str, int]],
) -> list[str]:
    peaks: dict[str, int] = {}
    for look in looks:
        for name, count in by_name(look).items():
            peaks[name] = max(peaks.get(name, 0), count)
    ranked = sorted((name for name, peak in peaks.items() if peak), key=lambda name: (-peaks[name], name))
    return ranked[:_MOST_LINES]


def _entries_below(sheet: Sheet, left: float, top: float, entries: Sequence[tuple[str, str]]) -> None:
    """A legend from the left, of as many entries as the panel is wide."""
    at = left
    for words, colour in entries:
        length = 0.22 + sheet.measure(words, 8.5)
        if at + length > left + _SMALL_WIDTH + 0.1:
            return
        sheet.line((at, top + 0.065), (at + 0.16, top + 0.065), colour=colour, width=2.5)
        sheet.text(at + 0.22, top, words, size=8.5, colour=MUTED)
        at += length + 0.14
