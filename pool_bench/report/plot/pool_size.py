"""The picture of a sweep of pool sizes: throughput with the law that was fitted, and what waiting costs."""

import math
import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pool_bench.analysis.scalability import Sizing, statement
from pool_bench.compare.pool_sizes import bottlenecks, by_size, sizing_of
from pool_bench.compare.pools import PoolRounds
from pool_bench.report.plot.run import target_name
from pool_bench.report.plot.sheet import (
    INK,
    MARGIN,
    Dashes,
    Sheet,
    count_axis,
    latency_axis,
    pool_colour,
    spread,
    widen,
)
from pool_bench.report.text import format_rate
from pool_bench.results.model import ResultRecord
from pool_bench.units import format_duration

_LEFT: Final = MARGIN + 0.6
_RIGHT: Final = MARGIN + 0.95
_UPPER: Final = 3.0
_LOWER: Final = 1.9
# What fits between the margins in bold type.
_COLUMNS: Final = 112
Sizes = Sequence[tuple[int, PoolRounds]]


def draw_sizes(result: ResultRecord) -> Sheet:
    """Draw the sweep of `result`."""
    groups = by_size(result.runs)
    sizing = sizing_of(groups)
    without = ["Without scipy no law is fitted: install pool-bench[sizing]."]
    sentences = statement(sizing) if sizing is not None else without
    lines = [
        (line, index == 0)
        for index, sentence in enumerate(sentences)
        for line in textwrap.wrap(sentence, _COLUMNS)
    ]
    warning = bottlenecks(groups, sizing) if sizing is not None else ""
    notes = textwrap.wrap(warning, _COLUMNS)
    height = MARGIN + 0.64 + 0.2 * (len(lines) + len(notes)) + 0.5 + _UPPER + 0.75 + _LOWER + 0.8
    sheet = Sheet(9.5, height)
    sheet.header("Throughput by pool size: ", target_name(result), _setting(result, groups), notes)
    sheet.top -= 0.12
    for line, bold in lines:
        sheet.text(MARGIN, sheet.top, line, size=9.5, bold=bold)
        sheet.top += 0.2
    width = sheet.width - _LEFT - _RIGHT
    top = sheet.top + 0.4
    upper = sheet.axes(_LEFT, top, width, _UPPER)
    lower = sheet.axes(_LEFT, top + _UPPER + 0.75, width, _LOWER)
    for axes in (upper, lower):
        _size_axis(axes, [size for size, _ in groups])
    lower.set_xlabel("connections in the pool", fontsize=9)
    detail = "a point for each round, the law, and its 95% interval"
    sheet.panel_title(_LEFT, top - 0.1, "Throughput", detail)
    _throughput(upper, groups, sizing)
    sheet.panel_title(_LEFT, top + _UPPER + 0.63, "Latency", "wait for a connection and query, all rounds")
    _latency(sheet, lower, groups, (_LEFT, top + _UPPER + 0.75, width, _LOWER))
    return sheet


def _setting(result: ResultRecord, groups: Sizes) -> str:
    setting = groups[0][1].setting
    rounds = max(len(group.runs) for _, group in groups)
    parts = [
        result.name,
        f"pool {setting.name}",
        f"{setting.clients:,} clients",
        f"hold {format_duration(setting.hold_s)}" if setting.hold_s else "",
        f"{rounds} round{'s' if rounds > 1 else ''}",
        f"{result.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(result.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def _size_axis(axes: Axes, sizes: Sequence[int]) -> None:
    low, high = widen(min(sizes), max(sizes), least_ratio=2.0, margin=1.12)
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([float(size) for size in sizes]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _throughput(axes: Axes, groups: Sizes, sizing: Sizing | None) -> None:
    top = max(group.throughput.high for _, group in groups) or 1.0
    colour = pool_colour(groups[0][1].pool)
    if sizing is not None and sizing.law is not None:
        whole = np.arange(sizing.sizes[0], sizing.sizes[1] + 1, dtype=np.float64)
        axes.fill_between(whole, sizing.curve_low, sizing.curve_high, color=colour, alpha=0.2, linewidth=0)
        fine = np.geomspace(sizing.sizes[0], sizing.sizes[1], 200)
        axes.plot(fine, sizing.law.at(fine), "-", color=colour, linewidth=1.8, zorder=3)
        if sizing.knee is not None and sizing.knee_low is not None and sizing.knee_high is not None:
            # A single size is a line on a log axis: half a step to either side is its band.
            axes.axvspan(sizing.knee_low - 0.5, sizing.knee_high + 0.5, color=INK, alpha=0.09, linewidth=0)
            axes.axvline(sizing.knee, color=INK, linewidth=1.6, zorder=2)
            words = f"{'law alone: ' if sizing.why_not else ''}{sizing.knee}"
            axes.annotate(
                words,
                (sizing.knee, 0.03),
                xycoords=("data", "axes fraction"),
                xytext=(5, 0),
                textcoords="offset points",
                color=INK,
                fontweight="bold",
                fontsize=9.5,
            )
    for size, group in groups:
        rates = [run.throughput for run in group.runs]
        axes.plot([size] * len(rates), rates, "o", color=INK, markersize=3.5, alpha=0.55, zorder=4)
        axes.annotate(
            format_rate(group.throughput.median),
            (size, group.throughput.high),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    axes.set_ylim(0, top * 1.18)
    count_axis(axes)


def _latency(sheet: Sheet, axes: Axes, groups: Sizes, box: tuple[float, float, float, float]) -> None:
    left, top, width, height = box
    colour = pool_colour(groups[0][1].pool)
    curves: list[tuple[str, Dashes, list[tuple[int, float]]]] = []
    ways: tuple[tuple[str, Dashes, str, float], ...] = (
        ("wait p99", "-", "checkout", 99.0),
        ("query p99", "--", "query", 99.0),
        ("query p50", ":", "query", 50.0),
    )
    for name, dashes, phase, percentile in ways:
        figures = [(size, group.phase(phase).percentile_ms(percentile)) for size, group in groups]
        known = [(size, max(value, 1e-3)) for size, value in figures if value is not None]
        if known:
            curves.append((name, dashes, known))
    values = [value for _, _, points in curves for _, value in points]
    if not values:
        axes.set_yticks([])
        return
    low, high = widen(min(values), max(values), least_ratio=4.0, margin=1.3)
    latency_axis(axes, "y", low, high, at_most=6)
    for _, dashes, points in curves:
        axes.plot(
            [size for size, _ in points],
            [value for _, value in points],
            "o",
            linestyle=dashes,
            color=colour,
            linewidth=1.6,
            markersize=4,
            zorder=3,
        )
    curves.sort(key=lambda curve: -curve[2][-1][1])
    ends = [points[-1][1] for _, _, points in curves]
    wished = [top + height * (1 - math.log(end / low) / math.log(high / low)) for end in ends]
    places = spread(wished, [0.17] * len(curves), top, top + height)
    for (name, _, _), y in zip(curves, places, strict=True):
        sheet.text(left + width + 0.06, y, name, size=9, bold=True, colour=colour, vertical="center")
