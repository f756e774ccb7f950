"""The picture of pools under load: for each load a band with throughput and waits side by side.

Bars are medians over the rounds, whiskers reach from the lowest to the highest round. Loads that change in
time have their course below: the rounds' median in each stretch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pool_bench.compare.pools import PoolComparison, PoolRounds, group_by_load
from pool_bench.errors import UsageError
from pool_bench.report.plot.pool_timeline import (
    RESTART,
    TIMED,
    WIDTH,
    course_height,
    course_panel,
    recoveries,
    recoveries_height,
)
from pool_bench.report.plot.run import target_name
from pool_bench.report.plot.sheet import (
    FAINT,
    GRID,
    INK,
    MARGIN,
    MUTED,
    TALLEST,
    VERMILLION,
    Dashes,
    Sheet,
    format_latency,
    latency_axis,
    pool_colour,
    widen,
)
from pool_bench.report.text import format_rate
from pool_bench.results.model import ResultRecord
from pool_bench.units import format_duration

_ROW: Final = 0.3
_HEAD: Final = 0.62
_FOOT: Final = 0.62
_NAME: Final = 1.55
_GAP: Final = 0.75
_PERCENTILES: Final = (50.0, 95.0, 99.0)
# A pool from several files has one colour: its dashes, and how full its bars are, tell the files apart.
_DASHES: Final[tuple[Dashes, ...]] = ("-", "--", ":", "-.")
_FULL: Final = (1.0, 0.6, 0.4, 0.25)


@dataclass(frozen=True, slots=True)
class Entry:
    """One group in the picture: its rounds, its label, and which of the files it is from."""

    group: PoolRounds
    label: str
    file: int

    @property
    def colour(self) -> str:
        """Its pool's."""
        return pool_colour(self.group.pool)

    @property
    def dashes(self) -> Dashes:
        """Its file's."""
        return _DASHES[self.file % len(_DASHES)]

    @property
    def fullness(self) -> float:
        """How opaque its bars are, 0 to 1."""
        return _FULL[self.file % len(_FULL)]


Band = tuple[PoolComparison, list[Entry]]


def draw_pools(results: Sequence[ResultRecord]) -> Sheet:
    """Draw all pools of `results`, load by load.

    Raises:
        UsageError: one of the results has runs of something else; names the file.
    """
    for result in results:
        if any(run.checkout is None for run in result.runs):
            raise UsageError(f"{result.source} has runs without a pool: plot such results by themselves")
    bands = _bands(results)
    notes = _notes(bands)
    whole = sum(_height(contest, entries) for contest, entries in bands)
    has_courses = MARGIN + 0.86 + whole <= TALLEST
    if not has_courses:
        whole = sum(_height(*band, has_course=False) for band in bands)
        notes.append(
            "no room for timelines beside this many loads: measure one load alone to see its timeline"
        )
    columns = 1 if MARGIN + 0.86 + whole <= TALLEST else 2
    parts = _columns(bands, columns, has_courses=has_courses)
    tallest = max(sum(_height(*band, has_course=has_courses) for band in part) for part in parts)
    sheet = Sheet(WIDTH * columns, MARGIN + 0.66 + 0.2 * len(notes) + tallest)
    sheet.header("Connection pools under load: ", _subject(results), _setting(results, bands), notes)
    top = sheet.top
    for column, part in enumerate(parts):
        sheet.top = top
        for band in part:
            begin = sheet.top
            _band(sheet, *band, column * WIDTH, has_course=has_courses)
            sheet.top = begin + _height(*band, has_course=has_courses)
    return sheet


def _columns(bands: Sequence[Band], columns: int, *, has_courses: bool) -> list[list[Band]]:
    """The loads in columns of about the same height, one below the other and then the next column."""
    heights = [_height(*band, has_course=has_courses) for band in bands]
    parts: list[list[Band]] = [[] for _ in range(columns)]
    used = 0.0
    for band, height in zip(bands, heights, strict=True):
        # Where its middle is decides.
        parts[min(int((used + height / 2) / sum(heights) * columns), columns - 1)].append(band)
        used += height
    return parts


def _bands(results: Sequence[ResultRecord]) -> list[Band]:
    """Each load with its entries; pools of several files stand below each other."""
    loads: dict[str, tuple[PoolComparison, list[Entry]]] = {}
    for file, result in enumerate(results):
        for contest in group_by_load(result.runs):
            key = f"{contest.label} {contest.clients}"
            _, entries = loads.setdefault(key, (contest, []))
            for group in contest.groups:
                label = group.pool if len(results) == 1 else f"{group.pool}, {result.title}"
                entries.append(Entry(group, label, file))
    return [
        (replace(contest, groups=tuple(entry.group for entry in entries)), entries)
        for contest, entries in loads.values()
    ]


def _height(contest: PoolComparison, entries: Sequence[Entry], *, has_course: bool = True) -> float:
    course = 0.0
    if contest.scenario in TIMED and has_course:
        course = course_height(contest.scenario, entries)
    elif contest.scenario == RESTART:
        course = recoveries_height(entries)
    return _HEAD + _ROW * len(entries) + _FOOT + course


def _subject(results: Sequence[ResultRecord]) -> str:
    targets = {target_name(result) for result in results}
    return targets.pop() if len(targets) == 1 else f"{len(targets)} targets"


def _setting(results: Sequence[ResultRecord], bands: Sequence[tuple[PoolComparison, list[Entry]]]) -> str:
    first = results[0]
    groups = [entry.group for _, entries in bands for entry in entries]
    sizes = dict.fromkeys(group.setting.size_words for group in groups)
    resets = sorted({group.setting.reset for group in groups})
    rounds = max(len(group.runs) for group in groups)
    parts = [
        first.name if len(results) == 1 else "",
        f"size {', '.join(sizes)}",
        f"reset {', '.join(resets)}",
        f"median of {rounds} rounds, whiskers from lowest to highest" if rounds > 1 else "one round",
        f"{first.started_at:%Y-%m-%d %H:%M} UTC",
        " ".join(first.server.get(key, "") for key in ("product", "version")).strip(),
    ]
    return "  ·  ".join(part for part in parts if part)


def _notes(bands: Sequence[tuple[PoolComparison, list[Entry]]]) -> list[str]:
    groups = [entry.group for _, entries in bands for entry in entries]
    failed = sum(group.failed for group in groups)
    return [f"{failed:,} operations failed; they are in none of these figures"] if failed else []


def _band(
    sheet: Sheet, contest: PoolComparison, entries: Sequence[Entry], edge: float, *, has_course: bool
) -> None:
    """One load, `edge` inches from the left: heading, bars, waits, and its course."""
    setting = entries[0].group.setting
    words = f"{contest.who} · {setting.query if setting.query is not None else 'no query'}"
    if setting.hold_s:
        words += f" · hold {format_duration(setting.hold_s)}"
    sheet.text(edge + MARGIN, sheet.top, contest.label, size=11, bold=True)
    offset = sheet.measure(contest.label, 11, bold=True) + 0.15
    room = WIDTH - 2 * MARGIN - offset
    sheet.text(edge + MARGIN + offset, sheet.top + 0.03, sheet.fit(words, room, 9), size=9, colour=MUTED)
    top = sheet.top + _HEAD
    height = _ROW * len(entries)
    width = (WIDTH - 2 * MARGIN - _NAME - _GAP) / 2
    left = edge + MARGIN + _NAME
    sheet.panel_title(left, top - 0.08, "Throughput", "operations per second")
    right = left + width + _GAP
    sheet.panel_title(right, top - 0.08, "Wait for a connection", "p50, p95, p99")
    for row, entry in enumerate(entries):
        middle = top + _ROW * (row + 0.5)
        label = sheet.fit(entry.label, _NAME - 0.15, 9)
        sheet.text(left - 0.1, middle, label, size=9, align="right", vertical="center_baseline")
    _throughput(sheet, sheet.axes(left, top, width, height), entries)
    _waits(sheet.axes(right, top, width, height), entries, right + width - right)
    if contest.scenario in TIMED and has_course:
        course_panel(sheet, entries, top + height + _FOOT, contest.scenario)
    elif contest.scenario == RESTART:
        # What it was measured for.
        recoveries(sheet, entries, top + height + _FOOT - 0.1, edge)


def _rows(axes: Axes, entries: Sequence[Entry]) -> None:
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _throughput(sheet: Sheet, axes: Axes, entries: Sequence[Entry]) -> None:
    top = max(entry.group.throughput.high for entry in entries) or 1.0
    # Room for the figure behind the longest bar.
    axes.set_xlim(0, top * 1.22)
    for row, entry in enumerate(entries):
        rate = entry.group.throughput
        axes.barh(row, rate.median, height=0.62, color=entry.colour, alpha=entry.fullness, zorder=2)
        if len(entry.group.runs) > 1:
            axes.plot([rate.low, rate.high], [row, row], "-", color=INK, linewidth=1.1, zorder=3)
            for end in (rate.low, rate.high):
                axes.plot([end, end], [row - 0.14, row + 0.14], "-", color=INK, linewidth=1.1, zorder=3)
        words = format_rate(rate.median) if entry.group.ok else "no success"
        if entry.group.interrupted:
            words += ", interrupted"
        axes.text(
            rate.high + top * 0.02,
            row,
            words,
            va="center",
            fontsize=8.5,
            color=INK if entry.group.ok else VERMILLION,
        )
    _rows(axes, entries)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8)


def _waits(axes: Axes, entries: Sequence[Entry], width: float) -> None:
    known = {
        row: [
            max(value, 1e-3)
            for value in entry.group.phase("checkout").percentiles_ms(_PERCENTILES)
            if value is not None
        ]
        for row, entry in enumerate(entries)
    }
    values = [value for row in known.values() for value in row]
    _rows(axes, entries)
    if not values:
        axes.set_xticks([])
        return
    low, high = widen(min(values), max(values), least_ratio=4.0, margin=1.4)
    # The last figure stands to the right of its point.
    high *= (high / low) ** 0.16
    latency_axis(axes, "x", low, high, at_most=max(int(width / 0.75), 2))
    axes.tick_params(axis="y", which="both", length=0)
    for row, entry in enumerate(entries):
        points = known[row]
        if not points:
            axes.text(low, row, " no success", va="center", fontsize=8.5, color=VERMILLION)
            continue
        axes.plot([points[0], points[-1]], [row, row], "-", color=FAINT, linewidth=2.5, zorder=2)
        for point, size in zip(points, (6.5, 5.0, 6.5), strict=True):
            hollow = point is points[0]
            axes.plot(
                [point],
                [row],
                "o",
                color=entry.colour,
                markerfacecolor="white" if hollow else entry.colour,
                markeredgewidth=1.5,
                markersize=size,
                zorder=3,
            )
        axes.annotate(
            format_latency(points[-1]),
            (points[-1], row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
