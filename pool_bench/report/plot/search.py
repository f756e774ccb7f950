"""The picture of a search for the maximum: achieved rate and latency against offered load."""

import math
import textwrap
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pool_bench.report.plot.run import target_name
from pool_bench.report.plot.sheet import (
    BLUE,
    GREEN,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    VERMILLION,
    Sheet,
    count_axis,
    format_latency,
    latency_axis,
    short_count,
    spread,
    widen,
)
from pool_bench.report.text import format_rate
from pool_bench.results.model import ResultRecord, SearchRecord
from pool_bench.results.run import RunRecord
from pool_bench.results.session import SearchStep

_LEFT: Final = MARGIN + 0.6
_RIGHT: Final = MARGIN + 0.7
_PANEL: Final = 2.35
_GAP: Final = 0.65
# Characters that have room on a line of the header.
_LINE: Final = 100
_LIMITS: Final = {
    "server": "limit: the server",
    "client": "limit: the client, not the server",
    "max_rate": "no limit up to --max-rate",
    "interrupted": "interrupted",
}
_LINES: Final = (("p99", ORANGE), ("p95", GREEN), ("p50", BLUE))

_Trials = Sequence[tuple[SearchStep, RunRecord]]


def draw_search(result: ResultRecord, search: SearchRecord) -> Sheet:
    """Draw all trials of `search`, each of which is one of the runs of `result`."""
    steps = sorted(search.steps, key=lambda step: (step.rate, step.run))
    trials = [(step, result.runs[step.run]) for step in steps]
    # Whole, on as many lines as it takes: a reason that is cut is none.
    notes = textwrap.wrap(f"objective: {search.slo}", _LINE)
    if search.why:
        notes += textwrap.wrap(f"{_LIMITS.get(search.limit, search.limit)}: {search.why}", _LINE)
    sheet = Sheet(9.5, MARGIN + 0.64 + 0.2 * len(notes) + 0.35 + 2 * _PANEL + _GAP + 0.75)
    sheet.header(f"{_answer(search)}: ", target_name(result), _setting(result), notes)
    width = sheet.width - _LEFT - _RIGHT
    top = sheet.top + 0.3
    below = top + _PANEL + _GAP
    upper = sheet.axes(_LEFT, top, width, _PANEL)
    lower = sheet.axes(_LEFT, below, width, _PANEL)
    for axes in (upper, lower):
        _rate_axis(axes, [step.rate for step, _ in trials])
        if search.rate is not None:
            axes.axvline(search.rate, color=INK, linewidth=1.0, linestyle=(0, (4, 2.5)), zorder=1)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("offered: operations due per second", fontsize=9)
    sheet.panel_title(_LEFT, top - 0.12, "Achieved", "ok per second; dashed: as much as was offered")
    _achieved(upper, trials)
    detail = "response time, p50, p95 and p99; hollow: an objective was missed"
    sheet.panel_title(_LEFT, below - 0.12, "Latency", detail)
    _latency(sheet, lower, trials, search.latency_limit_ms, (_LEFT, below, width, _PANEL))
    return sheet


def _answer(search: SearchRecord) -> str:
    return "No rate confirmed" if search.rate is None else f"Maximum {format_rate(search.rate)}/s"


def _setting(result: ResultRecord) -> str:
    parts = [
        result.name,
        "latency by offered load",
        f"driver {result.runs[0].driver}",
        f"{result.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(result.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """A logarithmic axis with a tick at 1, 2 and 5 of every decade."""
    low, high = widen(min(rates), max(rates), least_ratio=2.5, margin=1.08)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{short_count(tick)}/s" for tick in shown]))
    axes.xaxis.set_minor_locator(NullLocator())


def _points(axes: Axes, trials: _Trials, values: Sequence[float], colour: str) -> None:
    """A line through the last trial of each rate, and a point for every one, hollow where it missed."""
    rates = [step.rate for step, _ in trials]
    # By rate, and for the same rate in the order of the trials: the last one is what the search went by.
    last = dict(zip(rates, values, strict=True))
    axes.plot(list(last), list(last.values()), color=colour, linewidth=1.6, zorder=3)
    for passed in (True, False):
        chosen = [index for index, (step, _) in enumerate(trials) if step.passed is passed]
        axes.plot(
            [rates[index] for index in chosen],
            [values[index] for index in chosen],
            "o",
            color=colour,
            markerfacecolor=colour if passed else "white",
            markeredgewidth=1.3,
            markersize=5,
            zorder=4,
        )


def _achieved(axes: Axes, trials: _Trials) -> None:
    rates = [step.rate for step, _ in trials]
    achieved = [run.throughput for _, run in trials]
    axes.plot(rates, rates, color=MUTED, linewidth=1.0, linestyle=(0, (3, 2)), zorder=2)
    _points(axes, trials, achieved, BLUE)
    axes.set_ylim(0, max(*rates, *achieved) * 1.12)
    count_axis(axes)


def _latency(
    sheet: Sheet,
    axes: Axes,
    trials: _Trials,
    limit_ms: float | None,
    box: tuple[float, float, float, float],
) -> None:
    left, top, width, height = box
    lines = []
    for name, colour in _LINES:
        found = [getattr(run.latency_ms, name) for _, run in trials]
        lines.append((name, colour, [math.nan if value is None else float(value) for value in found]))
    known = [value for _, _, values in lines for value in values if not math.isnan(value)]
    if not known:
        axes.set_yticks([])
        return
    ends = [*known, *([] if limit_ms is None else [limit_ms])]
    low, high = widen(min(ends), max(ends), least_ratio=4.0, margin=1.25)
    latency_axis(axes, "y", low, high, at_most=9)
    labels = [
        (name, colour, next(value for value in reversed(values) if not math.isnan(value)))
        for name, colour, values in lines
    ]
    if limit_ms is not None:
        axes.axhline(limit_ms, color=VERMILLION, linewidth=1.1, zorder=2)
        labels.append((f"< {format_latency(limit_ms)}", VERMILLION, limit_ms))
    for _, colour, values in lines:
        _points(axes, trials, values, colour)
    labels.sort(key=lambda label: -label[2])
    wished = [top + height * (1 - math.log(end / low) / math.log(high / low)) for _, _, end in labels]
    places = spread(wished, [0.17] * len(labels), top, top + height)
    for (name, colour, _), y in zip(labels, places, strict=True):
        sheet.text(left + width + 0.06, y, name, size=8.5, bold=True, colour=colour, vertical="center")
