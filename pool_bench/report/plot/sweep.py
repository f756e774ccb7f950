"""The picture of a sweep: throughput and latency against concurrency."""

import math
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
    SKY,
    VERMILLION,
    Sheet,
    count_axis,
    latency_axis,
    spread,
    widen,
)
from pool_bench.report.text import format_rate
from pool_bench.results.model import ResultRecord
from pool_bench.results.run import RunRecord
from pool_bench.units import format_duration

LEFT: Final = MARGIN + 0.6
_RIGHT: Final = MARGIN + 0.45
_RATE_LABEL: Final = 0.52


def draw_sweep(result: ResultRecord) -> Sheet:
    """Draw all runs of `result`, whatever order they ran in."""
    runs = sorted(result.runs, key=lambda run: run.concurrency)
    notes = _notes(result, runs)
    panel = 2.35
    sheet = Sheet(9.5, MARGIN + 0.64 + 0.2 * len(notes) + 0.35 + panel + 0.6 + panel + 0.75)
    sheet.header(
        "Throughput and latency by concurrency: ", target_name(result), _setting(result, runs), notes
    )
    width = sheet.width - LEFT - _RIGHT
    top = sheet.top + 0.3
    upper = sheet.axes(LEFT, top, width, panel)
    lower = sheet.axes(LEFT, top + panel + 0.6, width, panel)
    levels = [run.concurrency for run in runs]
    for axes in (upper, lower):
        concurrency_axis(axes, levels, width)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("concurrency (workers)", fontsize=9)
    sheet.panel_title(LEFT, top - 0.12, "Throughput", "connections per second")
    _throughput(upper, runs, width)
    sheet.panel_title(LEFT, top + panel + 0.48, "Latency", "p50, p95 and p99; shade from p50 to p99")
    _latency(sheet, lower, runs, (LEFT, top + panel + 0.6, width, panel))
    for axes in (upper, lower):
        mark_dead(axes, [run.concurrency for run in runs if not run.ok])
    return sheet


def _notes(result: ResultRecord, runs: Sequence[RunRecord]) -> list[str]:
    notes, troubles = [], []
    failed, unfinished = sum(run.failed for run in runs), sum(run.unfinished for run in runs)
    if failed:
        kinds: dict[str, int] = {}
        for run in runs:
            for kind, count in run.errors.items():
                kinds[kind] = kinds.get(kind, 0) + count
        ranked = sorted(kinds.items(), key=lambda item: -item[1])[:4]
        troubles.append(f"{failed:,} failed: {', '.join(f'{count:,} {kind}' for kind, count in ranked)}")
    if unfinished:
        troubles.append(f"{unfinished:,} unfinished")
    if result.interrupted or any(run.interrupted for run in runs):
        troubles.append("interrupted")
    if troubles:
        notes.append(" · ".join(troubles))
    saturated = [f"{run.concurrency:,}" for run in runs if run.client.saturated]
    if saturated:
        notes.append(f"Hollow points: the client was the bottleneck at concurrency {', '.join(saturated)}")
    return notes


def _setting(result: ResultRecord, runs: Sequence[RunRecord]) -> str:
    best = max(runs, key=lambda run: run.throughput)
    parts = [
        result.name,
        f"highest {format_rate(best.throughput)} conn/s at {best.concurrency:,}" if best.ok else "no success",
        f"driver {best.driver}",
        f"{format_duration(max(run.duration_s for run in runs))} each",
        f"{result.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(result.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def concurrency_axis(axes: Axes, levels: Sequence[int], width: float) -> None:
    """A horizontal axis in powers of two whose ticks are the levels there were; `width` in inches."""
    ticks = sorted(set(levels))
    low, high = widen(max(min(ticks), 1), max(ticks), least_ratio=2.0, margin=1.0)
    stretch = (high / low) ** 0.045
    low, high = low / stretch, high * stretch
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    labels, row_ends = [], [-math.inf] * 4
    for tick in ticks:
        at = width * math.log(max(tick, 1) / low) / math.log(high / low)
        half = 0.045 * len(f"{tick:,}") + 0.04
        # 64 and 65 cannot stand side by side: the second goes a line lower.
        row = next((row for row, end in enumerate(row_ends) if end <= at - half), len(row_ends) - 1)
        row_ends[row] = at + half
        labels.append("\n" * row + f"{tick:,}")
    axes.xaxis.set_major_locator(FixedLocator([float(tick) for tick in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.xaxis.set_minor_locator(NullLocator())


def gapped(runs: Sequence[RunRecord], values: Sequence[float | None]) -> list[float]:
    """`values` with NaN where a run had no success: a gap in the line, never a zero."""
    return [
        value if run.ok and value is not None else math.nan for run, value in zip(runs, values, strict=True)
    ]


def draw_points(
    axes: Axes,
    runs: Sequence[RunRecord],
    values: Sequence[float],
    colour: str,
    *,
    dashes: str = "-",
    size: float = 5.5,
) -> None:
    """A line with a point for each level, hollow where the client was the bottleneck."""
    levels = [run.concurrency for run in runs]
    axes.plot(levels, values, dashes, color=colour, linewidth=1.8, zorder=3)
    for hollow in (False, True):
        chosen = [i for i, run in enumerate(runs) if run.client.saturated is hollow]
        axes.plot(
            [levels[i] for i in chosen],
            [values[i] for i in chosen],
            "o",
            color=colour,
            markerfacecolor="white" if hollow else colour,
            markeredgewidth=1.4,
            markersize=size,
            zorder=4,
        )


def mark_dead(
    axes: Axes, levels: Sequence[int], colour: str = VERMILLION, *, foot: float = 0.05, words: bool = True
) -> None:
    """A cross at `foot` (share of the height) for each level in which nothing succeeded."""
    feet = axes.get_xaxis_transform()
    for level in levels:
        axes.plot(
            [level], [foot], "x", color=colour, transform=feet, markersize=7, markeredgewidth=2, zorder=5
        )
        if words:
            axes.text(
                level,
                0.12,
                "no success",
                transform=feet,
                rotation=90,
                ha="center",
                va="bottom",
                color=colour,
                fontsize=8.5,
            )


def _throughput(axes: Axes, runs: Sequence[RunRecord], width: float) -> None:
    rates = gapped(runs, [run.throughput for run in runs])
    draw_points(axes, runs, rates, BLUE)
    best = max(runs, key=lambda run: run.throughput)
    axes.set_ylim(0, (best.throughput or 1.0) * 1.22)
    count_axis(axes)
    if not best.ok:
        axes.set_yticks([])
        return
    low, high = axes.get_xlim()
    taken: list[float] = []
    # The best level first, so that it is never the one that is left out for lack of room.
    for run in sorted(runs, key=lambda run: run is not best):
        at = width * math.log(max(run.concurrency, 1) / low) / math.log(high / low)
        if not run.ok or any(abs(at - other) < _RATE_LABEL for other in taken):
            continue
        taken.append(at)
        axes.annotate(
            format_rate(run.throughput),
            (run.concurrency, run.throughput),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight="bold" if run is best else "normal",
            color=INK if run is best else MUTED,
        )


def _latency(
    sheet: Sheet, axes: Axes, runs: Sequence[RunRecord], box: tuple[float, float, float, float]
) -> None:
    left, top, width, height = box
    lines = [
        (name, colour, gapped(runs, [getattr(run.latency_ms, name) for run in runs]))
        for name, colour in (("p99", ORANGE), ("p95", GREEN), ("p50", BLUE))
    ]
    known = [value for _, _, values in lines for value in values if not math.isnan(value)]
    if not known:
        axes.set_yticks([])
        return
    low, high = widen(min(known), max(known), least_ratio=4.0, margin=1.25)
    latency_axis(axes, "y", low, high, at_most=9)
    axes.fill_between(
        [run.concurrency for run in runs], lines[2][2], lines[0][2], color=SKY, alpha=0.18, linewidth=0
    )
    for _, colour, values in lines:
        draw_points(axes, runs, values, colour, size=4.5)
    # Where the lines end, or last were: top to bottom, as inches grow downwards.
    ends = [next(value for value in reversed(values) if not math.isnan(value)) for _, _, values in lines]
    wished = [top + height * (1 - math.log(end / low) / math.log(high / low)) for end in ends]
    for (name, colour, _), y in zip(lines, spread(wished, [0.17] * 3, top, top + height), strict=True):
        sheet.text(left + width + 0.06, y, name, size=9, bold=True, colour=colour, vertical="center")
