"""Changes between result files with their intervals: a row for each figure, a line for no change.

Every change is drawn so that better is to the right: throughput by its ratio, latency by the inverse
of its ratio, both on one logarithmic axis; what has no interval is words only.
"""

import math
from collections.abc import Sequence
from typing import Final

from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from pool_bench.compare.change import SMALLEST, Change, Figure, Scale
from pool_bench.compare.comparison import CONFIDENCE, Comparison, Pair
from pool_bench.report.plot.sheet import BLUE, GRID, INK, MARGIN, MUTED, VERMILLION, Sheet, pool_colour
from pool_bench.report.summary.comparison import cells, describe
from pool_bench.report.text import clean

_ROW: Final = 0.26
_HEAD: Final = 0.42
_FOOT: Final = 0.75
_NAMES: Final = 1.15
_VALUES: Final = 2.35
_WORDS: Final = 3.05
# Changes beyond a factor of this are drawn at the edge, with an arrow.
_WIDEST: Final = 4.0
_TICKS: Final = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 0.8, 0.9, 0.95, 0.98, 1, 1.02, 1.05, 1.1, 1.25, 1.5, 2, 3, 4)


def draw_differences(comparisons: Sequence[Comparison]) -> Sheet:
    """Draw all pairs of `comparisons`, in their order."""
    pairs = [(comparison, pair) for comparison in comparisons for pair in comparison.pairs]
    rows = sum(len(pair.figures) for _, pair in pairs)
    notes = sum(len(pair.obstructions) for _, pair in pairs)
    height = MARGIN + 0.64 + _HEAD * len(pairs) + _ROW * (rows + notes) + _FOOT
    sheet = Sheet(10.0, max(height, 2.0))
    base = comparisons[0].base
    several = len(comparisons) > 1
    within = comparisons[0].new is base
    subject = "its own settings" if within else f"{len(comparisons)} others"
    if not within and not several:
        subject = comparisons[0].new.title
    sheet.header(
        f"{clean(base.title)} against ",
        clean(subject),
        f"change with its interval, {CONFIDENCE:.0%} for all figures of a setting together; better is right",
    )
    left, width = MARGIN + _NAMES + _VALUES, sheet.room - _NAMES - _VALUES - _WORDS
    reach = _reach([figure for _, pair in pairs for figure in pair.figures])
    top = sheet.top
    _axis(sheet, left, top, width, sheet.height - top - _FOOT, reach)
    for comparison, pair in pairs:
        name = f"{clean(comparison.new.title)}: " if several else ""
        _pair(sheet, pair, name, left, width, reach)
    return sheet


def _reach(figures: Sequence[Figure]) -> float:
    """How far the axis goes to either side, as a factor."""
    known = [abs(end) for figure in figures for end in _ends(figure) or ()]
    return min(max(math.exp(max(known, default=0.0)) * 1.05, 1.12), _WIDEST)


def _ends(figure: Figure) -> tuple[float, float, float] | None:
    """Low end, change and high end as logarithms, better above zero; None of what has no interval."""
    if figure.quantity.scale is Scale.SHARE or None in (figure.low, figure.change, figure.high):
        return None
    ends = [figure.low, figure.change, figure.high]
    logs = [math.log(max(1 + end, 1e-6)) for end in ends if end is not None]
    low, middle, high = logs if figure.quantity.more_is_better else [-value for value in reversed(logs)]
    return low, middle, high


def _axis(sheet: Sheet, left: float, top: float, width: float, height: float, reach: float) -> None:
    axes = sheet.axes(left, top, width, height)
    axes.set_xlim(-math.log(reach), math.log(reach))
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.patch.set_visible(False)
    ticks = _fitting([tick for tick in _TICKS if 1 / reach <= tick <= reach], width, reach)
    axes.xaxis.set_major_locator(FixedLocator([math.log(tick) for tick in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([_tick(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
    axes.axvspan(-math.log1p(SMALLEST), math.log1p(SMALLEST), color=GRID, linewidth=0)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set_xlabel("times as good (throughput, or 1 / latency)", fontsize=8.5)


def _fitting(ticks: Sequence[float], width: float, reach: float) -> list[float]:
    """Those of `ticks` whose labels keep apart, 1 among them, from the middle outwards."""
    room = 0.42 * 2 * math.log(reach) / width
    kept = [1.0]
    for tick in sorted(ticks, key=lambda tick: (-_roundness(tick), abs(math.log(tick)))):
        if all(abs(math.log(tick / other)) >= room for other in kept):
            kept.append(tick)
    return sorted(kept)


def _roundness(tick: float) -> int:
    return 2 if tick in (1 / 4, 1 / 2, 2, 4) else 1 if tick in (0.9, 1.1, 0.8, 1.25) else 0


def _tick(tick: float) -> str:
    return f"{tick:.2g}x" if tick not in (0.95, 0.98, 1.02, 1.05, 1.25) else f"{tick:g}x"


def _pair(sheet: Sheet, pair: Pair, name: str, left: float, width: float, reach: float) -> None:
    middle = sheet.top + 0.26
    comparable = pair.verdict is not Change.NOT_COMPARABLE
    words = str(pair.verdict)
    room = sheet.room - sheet.measure(words, 9.5, bold=True) - 0.2
    title = sheet.fit(f"{name}{describe(pair)}: ", room, 9.5, bold=True)
    colour = _colour(pair.verdict)
    offset = sheet.measure(f"{title}.", 9.5, bold=True) + 0.03
    if pair.new.is_pool:
        ends = (MARGIN - 0.16, middle), (MARGIN - 0.06, middle)
        sheet.line(*ends, colour=pool_colour(pair.new.driver), width=7)
    head = (
        sheet.text(MARGIN, middle, title, size=9.5, bold=True, vertical="center_baseline"),
        sheet.text(
            MARGIN + offset, middle, words, size=9.5, bold=True, colour=colour, vertical="center_baseline"
        ),
    )
    for text in head:
        # The axis' lines go behind the words.
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    sheet.top += _HEAD
    for obstruction in pair.obstructions:
        note = sheet.fit(obstruction.words, sheet.room - 0.15, 8.5)
        sheet.text(
            MARGIN + 0.15, sheet.top + _ROW / 2, note, size=8.5, colour=VERMILLION, vertical="center_baseline"
        )
        sheet.top += _ROW
    for figure in pair.figures:
        _figure(sheet, figure, left, width, reach, comparable=comparable)
        sheet.top += _ROW


def _figure(
    sheet: Sheet, figure: Figure, left: float, width: float, reach: float, *, comparable: bool
) -> None:
    middle = sheet.top + _ROW / 2
    name, before, after, change, interval, verdict = cells(figure)
    sheet.text(MARGIN + 0.15, middle, name, size=8.5, vertical="center_baseline")
    sheet.text(left - 0.2, middle, f"{before} → {after}", size=8.5, align="right", vertical="center_baseline")
    colour = _colour(figure.verdict) if comparable else MUTED
    shown = f"{change}  ({interval})" if interval != "-" else change
    sheet.text(left + width + 0.15, middle, shown, size=8.5, vertical="center_baseline")
    decided = comparable and figure.verdict in (Change.BETTER, Change.WORSE)
    if decided:
        sheet.text(
            sheet.width - MARGIN, middle, verdict, size=8.5, colour=colour, align="right",
            vertical="center_baseline",
        )  # fmt: skip
    ends = _ends(figure)
    if ends is None:
        return
    limit = math.log(reach)

    def place(value: float) -> float:
        return left + width * (min(max(value, -limit), limit) + limit) / (2 * limit)

    low, centre, high = ends
    sheet.line((place(low), middle), (place(high), middle), colour=colour, width=2.2)
    for end in (low, high):
        if abs(end) <= limit:
            sheet.line((place(end), middle - 0.04), (place(end), middle + 0.04), colour=colour, width=1.4)
    if abs(centre) <= limit:
        sheet.line((place(centre), middle - 0.075), (place(centre), middle + 0.075), colour=colour, width=3.2)


def _colour(verdict: Change) -> str:
    return {Change.BETTER: BLUE, Change.WORSE: VERMILLION}.get(verdict, INK)
