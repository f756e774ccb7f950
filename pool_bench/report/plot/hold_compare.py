"""Several runs that held connections in one picture.

At the top a row for each, which is the legend; below it how many were held over time, survival where
any was dropped, and how long connecting took.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from matplotlib.ticker import FuncFormatter, MaxNLocator

from pool_bench.errors import UsageError
from pool_bench.report.plot.compare import Series, common_setting, length_bar, percentile_curves, series_of
from pool_bench.report.plot.hold import held_curve, time_axis
from pool_bench.report.plot.run import target_name
from pool_bench.report.plot.sheet import (
    GRID,
    INK,
    MARGIN,
    MUTED,
    VERMILLION,
    Sheet,
    count_axis,
    format_latency,
)
from pool_bench.report.plot.sweep import LEFT
from pool_bench.report.summary.server import format_bytes
from pool_bench.report.text import format_rate
from pool_bench.results.hold import HoldRecord
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord

_ROW: Final = 0.3
_PANEL: Final = 2.2
_SURVIVAL: Final = 1.7
_HEADS: Final = ("conn/s", "p50", "p99", "dropped", "memory each")


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run that held connections, and the file it is from, reduced to it."""

    result: ResultRecord
    run: RunRecord
    hold: HoldRecord


def only_holds(results: Sequence[ResultRecord]) -> list[HeldRun]:
    """All runs of `results`, each of which held connections.

    Raises:
        UsageError: one did not; the message names a file of either sort.
    """
    held: list[HeldRun] = []
    other = ""
    for result in results:
        for run in result.runs:
            if run.hold is None:
                other = other or result.source
                continue
            name = f"{result.title}, {run.label}" if len(result.runs) > 1 else result.name
            held.append(HeldRun(replace(result, name=name, runs=(run,)), run, run.hold))
    if other:
        raise UsageError(
            f"{held[0].result.source} holds connections and {other} opens and closes them: "
            "such results cannot be compared, plot them one by one"
        )
    return held


def draw_hold_compare(runs: Sequence[HeldRun]) -> Sheet:
    """Draw `runs` over each other, in their order."""
    series = series_of([run.result for run in runs])
    holds = [run.hold for run in runs]
    dropped = any(hold.dropped for hold in holds)
    height = MARGIN + 0.64 + 0.32 + _ROW * len(series) + 0.45 + _PANEL
    height += 0.85 + _SURVIVAL if dropped else 0
    sheet = Sheet(10.0, height + 0.85 + _PANEL + 0.8)
    targets = {target_name(run.result) for run in runs}
    subject = targets.pop() if len(targets) == 1 else f"{len(targets)} targets"
    setting = common_setting(series, unit="connections asked")
    sheet.header(f"{len(runs)} runs of held connections compared: ", subject, setting)
    _rows(sheet, series, holds)
    width = sheet.width - LEFT - MARGIN - 0.1
    top = sheet.top + 0.35
    _held_panel(sheet, series, holds, top, width)
    top += _PANEL + 0.85
    if dropped:
        _survival_panel(sheet, series, holds, top, width)
        top += _SURVIVAL + 0.85
    percentile_curves(sheet, series, top, width, _PANEL, name="Percentiles of connect latency")
    return sheet


def _rows(sheet: Sheet, series: Sequence[Series], holds: Sequence[HoldRecord]) -> None:
    """Swatch, label, bar with the most that were held, and the main figures."""
    label_left, label_room = MARGIN + 0.3, 2.2
    bar_left = label_left + label_room + 0.15
    rights = [sheet.width - MARGIN - offset for offset in (3.25, 2.5, 1.75, 1.05, 0.0)]
    bar_room = rights[0] - 0.65 - bar_left
    sheet.text(bar_left, sheet.top, "held at peak", size=8.5, colour=MUTED)
    for head, right in zip(_HEADS, rights, strict=True):
        sheet.text(right, sheet.top, head, size=8.5, colour=MUTED, align="right")
    sheet.top += 0.22
    highest = max(hold.held_peak for hold in holds) or 1
    most = max(sheet.measure(_held_words(hold), 9, bold=True) for hold in holds)
    for curve, hold in zip(series, holds, strict=True):
        middle = sheet.top + _ROW / 2
        sheet.line(
            (MARGIN, middle), (MARGIN + 0.22, middle), colour=curve.colour, width=2.5, dashes=curve.dashes
        )
        sheet.text(label_left, middle, sheet.fit(curve.label, label_room), vertical="center_baseline")
        length = max(bar_room - most - 0.1, 0.1) * hold.held_peak / highest
        length_bar(sheet, bar_left, middle, length, curve.colour)
        sheet.text(
            bar_left + length + 0.07,
            middle,
            _held_words(hold),
            bold=True,
            colour=INK if hold.held_peak >= hold.asked else VERMILLION,
            vertical="center_baseline",
        )
        each = hold.client_bytes_each
        figures = (
            format_rate(hold.opened / hold.open_s) if hold.open_s else "-",
            format_latency(curve.best.latency_ms.p50),
            format_latency(curve.best.latency_ms.p99),
            f"{hold.dropped:,}",
            "-" if each is None else format_bytes(each),
        )
        for head, words, right in zip(_HEADS, figures, rights, strict=True):
            colour = VERMILLION if head == "dropped" and hold.dropped else INK
            sheet.text(right, middle, words, align="right", vertical="center_baseline", colour=colour)
        sheet.top += _ROW
    sheet.top += 0.1


def _held_words(hold: HoldRecord) -> str:
    if hold.held_peak >= hold.asked:
        return f"{hold.held_peak:,}"
    return f"{hold.held_peak:,} of {hold.asked:,}"


def _held_panel(
    sheet: Sheet, series: Sequence[Series], holds: Sequence[HoldRecord], top: float, width: float
) -> None:
    axes = sheet.axes(LEFT, top, width, _PANEL)
    sheet.panel_title(LEFT, top - 0.1, "Connections", "held, since opening began")
    unit = time_axis(axes, max((second.t for hold in holds for second in hold.timeline[-1:]), default=0.0))
    for curve, hold in zip(series, holds, strict=True):
        times, lows, _ = held_curve(hold.timeline)
        axes.plot(times / unit, lows, curve.dashes, color=curve.colour, linewidth=1.7)
    axes.set_ylim(0, max(max(hold.held_peak for hold in holds), 1) * 1.1)
    count_axis(axes, ticks=5, whole=True)


def _survival_panel(
    sheet: Sheet, series: Sequence[Series], holds: Sequence[HoldRecord], top: float, width: float
) -> None:
    axes = sheet.axes(LEFT, top, width, _SURVIVAL)
    sheet.panel_title(LEFT, top - 0.1, "Survival", "share of connections still open by age")
    unit = time_axis(axes, max((point.age_s for hold in holds for point in hold.survival[-1:]), default=0.0))
    for curve, hold in zip(series, holds, strict=True):
        ages = [point.age_s / unit for point in hold.survival]
        shares = [point.share for point in hold.survival]
        axes.step(ages, shares, where="post", color=curve.colour, linestyle=curve.dashes, linewidth=1.7)
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
