"""Several result files in one picture.

At the top a row for each file, which is the legend and the throughput chart in one; below it
histograms and percentile curves of single runs, or curves against concurrency as soon as one of the
files is a sweep (a single run is then a point).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from pool_bench.report.buckets import choose_edges, counts_between, extent_ms
from pool_bench.report.plot.run import target_name
from pool_bench.report.plot.sheet import (
    GRID,
    INK,
    MARGIN,
    MUTED,
    SERIES_COLOURS,
    VERMILLION,
    Dashes,
    Sheet,
    count_axis,
    format_latency,
    latency_axis,
    widen,
)
from pool_bench.report.plot.sweep import LEFT, concurrency_axis, draw_points, gapped, mark_dead
from pool_bench.report.text import clean, format_percent, format_rate
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord

_ROW: Final = 0.3
_DASHES: Final[tuple[Dashes, ...]] = ("-", "--", ":", "-.")
_PERCENTILE_TICKS: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)
_BARS: Final = 64
# Fills of more than this many histograms hide each other.
_MOST_FILLED: Final = 3


@dataclass(frozen=True, slots=True)
class Series:
    """One file: its label, its look, its runs by concurrency, and the run its row speaks of."""

    label: str
    colour: str
    dashes: Dashes
    result: ResultRecord
    runs: tuple[RunRecord, ...]
    best: RunRecord


def draw_compare(results: Sequence[ResultRecord]) -> Sheet:
    """Draw `results` over each other, in their order."""
    series = series_of(results)
    sweep = any(len(curve.runs) > 1 for curve in series)
    panel = 2.5
    rows = 0.22 + _ROW * len(series)
    sheet = Sheet(10.0, MARGIN + 0.64 + rows + 0.75 + panel + (0.65 if sweep else 0.95) + panel + 0.8)
    targets = {target_name(curve.result) for curve in series}
    subject = targets.pop() if len(targets) == 1 else f"{len(targets)} targets"
    kind = "highest throughput of each sweep" if sweep else "throughput"
    sheet.header(f"{len(series)} results compared: ", subject, common_setting(series))
    _rows(sheet, series, kind, several_levels=sweep)
    top = sheet.top + 0.45
    width = sheet.width - LEFT - MARGIN - 0.1
    if sweep:
        _sweep_panels(sheet, series, top, width, panel)
    else:
        _histograms(sheet, series, top, width, panel)
        percentile_curves(sheet, series, top + panel + 0.95, width, panel)
    return sheet


def series_of(results: Sequence[ResultRecord]) -> list[Series]:
    """A colour, line style and label of its own for each of `results`."""
    titles = [clean(result.title) or "unnamed" for result in results]
    seen = Counter(titles)
    # The same name twice is the usual "before and after": then the time tells them apart.
    labels = [
        f"{title}, {result.started_at:%H:%M:%S}" if seen[title] > 1 else title
        for title, result in zip(titles, results, strict=True)
    ]
    again = Counter(labels)
    found = []
    for index, (label, result) in enumerate(zip(labels, results, strict=True)):
        runs = tuple(sorted(result.runs, key=lambda run: run.concurrency))
        found.append(
            Series(
                label=f"{label} #{index + 1}" if again[label] > 1 else label,
                colour=SERIES_COLOURS[index % len(SERIES_COLOURS)],
                dashes=_DASHES[index // len(SERIES_COLOURS) % len(_DASHES)],
                result=result,
                runs=runs,
                best=max(runs, key=lambda run: run.throughput),
            )
        )
    return found


def common_setting(series: Sequence[Series], *, unit: str = "workers") -> str:
    """What all files have in common, which is what a comparison needs; and when they were made."""
    parts = []
    drivers = {run.driver for curve in series for run in curve.runs}
    parts.append(f"driver {drivers.pop()}" if len(drivers) == 1 else f"drivers {', '.join(sorted(drivers))}")
    levels = {
        run.concurrency if run.hold is None else run.hold.asked for curve in series for run in curve.runs
    }
    if len(levels) == 1:
        parts.append(f"{levels.pop():,} {unit}")
    first, last = (
        min(curve.result.started_at for curve in series),
        max(curve.result.started_at for curve in series),
    )
    parts.append(
        f"{first:%Y-%m-%d %H:%M} UTC"
        if first == last
        else f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    )
    return "  ·  ".join(parts)


def _rows(sheet: Sheet, series: Sequence[Series], kind: str, *, several_levels: bool) -> None:
    """The legend that is a bar chart: swatch, label, bar with its rate, and the main figures."""
    label_left, label_room = MARGIN + 0.3, 2.35
    bar_left = label_left + label_room + 0.15
    heads = ["p50", "p99", "success"] if not several_levels else ["at", "p50", "p99", "success"]
    rights = [sheet.width - MARGIN - 0.85 * back for back in reversed(range(len(heads)))]
    bar_room = rights[0] - 0.75 - bar_left
    sheet.text(bar_left, sheet.top, kind, size=8.5, colour=MUTED)
    for head, right in zip(heads, rights, strict=True):
        sheet.text(right, sheet.top, head, size=8.5, colour=MUTED, align="right")
    sheet.top += 0.22
    highest = max(curve.best.throughput for curve in series) or 1.0
    most = max(sheet.measure(_rate_words(curve.best), 9, bold=True) for curve in series)
    for curve in series:
        middle = sheet.top + _ROW / 2
        best = curve.best
        sheet.line(
            (MARGIN, middle), (MARGIN + 0.22, middle), colour=curve.colour, width=2.5, dashes=curve.dashes
        )
        sheet.text(label_left, middle, sheet.fit(curve.label, label_room), vertical="center_baseline")
        length = (bar_room - most - 0.1) * best.throughput / highest
        length_bar(sheet, bar_left, middle, length, curve.colour)
        sheet.text(
            bar_left + length + (0.07 if best.ok else 0.0),
            middle,
            _rate_words(best),
            bold=best.ok > 0,
            colour=INK if best.ok else VERMILLION,
            vertical="center_baseline",
        )
        figures = [format_latency(best.latency_ms.p50), format_latency(best.latency_ms.p99)]
        figures.append(format_percent(best.success_rate))
        if several_levels:
            figures.insert(0, f"{best.concurrency:,}")
        poor = best.success_rate is not None and best.success_rate < 1
        for position, (words, right) in enumerate(zip(figures, rights, strict=True)):
            colour = VERMILLION if poor and position == len(figures) - 1 else INK
            sheet.text(right, middle, words, align="right", vertical="center_baseline", colour=colour)
        sheet.top += _ROW
    sheet.top += 0.1


def _rate_words(run: RunRecord) -> str:
    if not run.ok:
        return "no success"
    return f"{format_rate(run.throughput)} conn/s{' (client-bound)' if run.client.saturated else ''}"


def length_bar(sheet: Sheet, left: float, middle: float, length: float, colour: str) -> None:
    """A bar of `length` from `left`, its middle so far down; inches."""
    sheet.figure.add_artist(
        Rectangle(
            (left / sheet.width, 1 - (middle + 0.075) / sheet.height),
            length / sheet.width,
            0.15 / sheet.height,
            facecolor=colour,
            linewidth=0,
            transform=sheet.figure.transFigure,
        )
    )


def _nothing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "no success", transform=axes.transAxes, ha="center", va="center", color=VERMILLION)


def _histograms(sheet: Sheet, series: Sequence[Series], top: float, width: float, height: float) -> None:
    sheet.panel_title(LEFT, top - 0.1, "Latency", "share of each result's successes, in the same buckets")
    axes = sheet.axes(LEFT, top, width, height)
    alive = [curve for curve in series if curve.best.ok]
    extent = extent_ms(*(curve.best.histogram for curve in alive))
    if extent is None:
        _nothing(axes)
        return
    edges = choose_edges(*extent, at_most=_BARS)
    highest = 0.0
    for curve in alive:
        shares = counts_between(curve.best.histogram, edges) / curve.best.ok
        highest = max(highest, float(shares.max()))
        if len(alive) <= _MOST_FILLED:
            axes.stairs(shares, edges, fill=True, color=curve.colour, alpha=0.2, linewidth=0)
        axes.stairs(shares, edges, color=curve.colour, linewidth=1.7, linestyle=curve.dashes)
    axes.set_ylim(0, highest * 1.06)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.3g}%"))
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    latency_axis(axes, "x", *widen(*extent), at_most=14)


def percentile_curves(
    sheet: Sheet,
    series: Sequence[Series],
    top: float,
    width: float,
    height: float,
    *,
    name: str = "Percentiles",
) -> None:
    """Latency of each of `series` against how rare it is."""
    sheet.panel_title(LEFT, top - 0.1, name, "thin where fewer than 10 operations are beyond; dot at max")
    axes = sheet.axes(LEFT, top, width, height)
    alive = [curve for curve in series if curve.best.ok]
    if not alive:
        _nothing(axes)
        return
    last = min(max(max(math.log10(curve.best.ok) for curve in alive), 2.0), 4.0)
    known: list[float] = []
    for curve in alive:
        histogram = curve.best.histogram
        end = min(math.log10(histogram.count), last)
        solid_end = min(max(math.log10(histogram.count / 10), 0.0), end)
        for start, stop, thin in ((0.0, solid_end, False), (solid_end, end, True)):
            at = np.linspace(start, stop, max(int((stop - start) * 120), 2))
            values = [value or 0.001 for value in histogram.percentiles_ms((1 - 10.0**-at) * 100)]
            known += values
            axes.plot(
                at,
                values,
                curve.dashes,
                color=curve.colour,
                linewidth=0.9 if thin else 2,
                solid_capstyle="butt",
            )
        if math.log10(histogram.count) <= last:
            axes.plot([end], [histogram.max_ns / 1e6], "o", color=curve.colour, markersize=4, clip_on=False)
            known.append(histogram.max_ns / 1e6)
    axes.set_xlim(0, last * 1.02)
    places = {percentile: -math.log10(1 - percentile / 100) for percentile in _PERCENTILE_TICKS}
    shown = {name: place for name, place in places.items() if place <= last * 1.001}
    axes.xaxis.set_major_locator(FixedLocator(list(shown.values())))
    axes.xaxis.set_major_formatter(FixedFormatter([f"p{name:g}" if name else "min" for name in shown]))
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
    low, high = widen(max(min(known), 0.001), max(known), least_ratio=1.5, margin=1.15)
    latency_axis(axes, "y", low, high, at_most=9)
    axes.set_xlabel(
        "share of operations at least this fast; each step to the right is ten times rarer", fontsize=8.5
    )


def _sweep_panels(sheet: Sheet, series: Sequence[Series], top: float, width: float, height: float) -> None:
    levels = [run.concurrency for curve in series for run in curve.runs]
    upper = sheet.axes(LEFT, top, width, height)
    lower_top = top + height + 0.65
    lower = sheet.axes(LEFT, lower_top, width, height)
    hollow = (
        "; hollow: the client was the bottleneck"
        if any(run.client.saturated for curve in series for run in curve.runs)
        else ""
    )
    dead = any(not run.ok for curve in series for run in curve.runs)
    crosses = "; cross: no success" if dead else ""
    sheet.panel_title(LEFT, top - 0.1, "Throughput", f"connections per second{hollow}{crosses}")
    sheet.panel_title(LEFT, lower_top - 0.1, "Latency", "p50 with a line, shade up to p99")
    for axes in (upper, lower):
        concurrency_axis(axes, levels, width)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("concurrency (workers)", fontsize=9)
    known: list[float] = []
    for curve in series:
        draw_points(
            upper,
            curve.runs,
            gapped(curve.runs, [run.throughput for run in curve.runs]),
            curve.colour,
            dashes=curve.dashes,
        )
        p50, p99 = ([getattr(run.latency_ms, name) for run in curve.runs] for name in ("p50", "p99"))
        middle, high = gapped(curve.runs, p50), gapped(curve.runs, p99)
        known += [value for value in (*middle, *high) if not math.isnan(value)]
        places = [run.concurrency for run in curve.runs]
        lower.fill_between(places, middle, high, color=curve.colour, alpha=0.12, linewidth=0)
        if len(places) == 1:
            lower.vlines(places, middle, high, color=curve.colour, alpha=0.35, linewidth=4)
        draw_points(lower, curve.runs, middle, curve.colour, dashes=curve.dashes)
    upper.set_ylim(0, max(max(curve.best.throughput for curve in series), 1.0) * 1.1)
    count_axis(upper)
    if known:
        latency_axis(lower, "y", *widen(min(known), max(known), least_ratio=4.0, margin=1.25), at_most=9)
    else:
        lower.set_yticks([])
    # One line of crosses for each file that has any, so that none hides another's.
    suffering = [curve for curve in series if any(not run.ok for run in curve.runs)]
    for row, curve in enumerate(suffering):
        levels = [run.concurrency for run in curve.runs if not run.ok]
        mark_dead(upper, levels, curve.colour, foot=0.05 + 0.075 * row, words=False)
