"""What all pictures share: a sheet measured in inches, colours, axes for latencies, labels that keep apart.

Text is measured with the renderer before it is placed, so nothing is cut off and nothing overlaps,
however long a host name is. Importing this imports matplotlib.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from pool_bench.report.text import clean, ellipsize

# Okabe and Ito's palette, told apart by people with any common colour blindness; its yellow is too
# pale for lines on white.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"
SERIES_COLOURS: Final = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, BLACK)
_BROWN: Final = "#7A4F1E"
# A reader knows a pool by its colour, whichever others are in the picture. Vermillion is for failures.
_POOL_COLOURS: Final = {
    "reference": BLUE,
    "asyncpg": ORANGE,
    "psycopg": GREEN,
    "sqlalchemy": PURPLE,
    "naive": SKY,
    "shared": BLACK,
    "purreal": _BROWN,
}
INK, MUTED, FAINT, GRID = "#1f2328", "#656d76", "#c9ced4", "#e9ecef"

# A picture is never larger than a screen, so that it is seen whole; a tall sheet has fewer dots to the inch.
DPI: Final = 150
MOST_PIXELS: Final = (1500, 1000)
# Inches up to which text is read with ease in so many pixels; taller sheets have to leave something out.
TALLEST: Final = 13.5
Dashes = Literal["-", "--", ":", "-."]
MARGIN: Final = 0.35

_STYLE: Final[dict[str, object]] = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    # A `$` in a name or a message is a dollar sign, not mathematics.
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.solid_capstyle": "round",
    # Text stays text in an SVG: it can be searched and copied.
    "svg.fonttype": "none",
    "svg.hashsalt": "pool-bench",
}


def pool_colour(name: str) -> str:
    """The colour of the pool of that name, the same in all pictures."""
    known = _POOL_COLOURS.get(name)
    # A file may name pools that this version does not have.
    return known or SERIES_COLOURS[zlib.crc32(name.encode()) % len(SERIES_COLOURS)]


@contextmanager
def style() -> Iterator[None]:
    """The look of all pictures, for as long as figures are made and saved inside it."""
    # rc_context is typed for literal keys only.
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


@dataclass(slots=True)
class Sheet:
    """A figure in inches from its top left corner, filled from the top down.

    Attributes:
        width, height: inches.
        top: how far down it is filled, inches.
        labels: every text placed by hand, for a test that none overlaps another.
    """

    width: float
    height: float
    figure: Figure = field(init=False)
    top: float = MARGIN
    labels: list[Text] = field(default_factory=list)

    def __post_init__(self) -> None:
        across, down = MOST_PIXELS
        dpi = min(DPI, across / self.width, down / self.height)
        self.figure = Figure(figsize=(self.width, self.height), dpi=dpi, facecolor="white")
        FigureCanvasAgg(self.figure)

    @property
    def room(self) -> float:
        """Width between the margins, inches."""
        return self.width - 2 * MARGIN

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose frame begins at `left`, `top`; inches."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.tick_params(length=3, width=0.8)
        return axes

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 9.0,
        colour: str = INK,
        bold: bool = False,
        align: Literal["left", "center", "right"] = "left",
        vertical: Literal["top", "center", "bottom", "center_baseline"] = "top",
        kept_apart: bool = True,
    ) -> Text:
        """Put `words` at `x`, `y`, inches from the top left."""
        text = self.figure.text(
            x / self.width,
            1 - y / self.height,
            words,
            fontsize=size,
            color=colour,
            fontweight="bold" if bold else "normal",
            ha=align,
            va=vertical,
            linespacing=1.25,
        )
        if kept_apart:
            self.labels.append(text)
        return text

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        *,
        colour: str,
        width: float,
        dashes: Dashes = "-",
    ) -> None:
        """Draw a line between two points in inches from the top left."""
        xs = (start[0] / self.width, end[0] / self.width)
        ys = (1 - start[1] / self.height, 1 - end[1] / self.height)
        self.figure.add_artist(
            Line2D(xs, ys, color=colour, linewidth=width, linestyle=dashes, solid_capstyle="butt")
        )

    def measure(self, words: str, size: float = 9.0, *, bold: bool = False) -> float:
        """Width of `words`, inches."""
        probe = self.figure.text(0, 0, words, fontsize=size, fontweight="bold" if bold else "normal")
        # The canvas is Agg's, which has a renderer at any time.
        width = probe.get_window_extent().width / self.figure.dpi
        probe.remove()
        return float(width)

    def fit(self, words: str, room: float, size: float = 9.0, *, bold: bool = False) -> str:
        """`words` on one line, its middle left out where it is wider than `room` inches."""
        line = clean(words)
        length = len(line)
        while length > 4 and self.measure(line, size, bold=bold) > room:
            # Proportional first guess; then a character at a time.
            length = min(length - 1, int(length * room / self.measure(line, size, bold=bold)) + 1)
            line = ellipsize(clean(words), length)
        return line

    def header(self, title: str, subject: str, subtitle: str, notes: Sequence[str] = ()) -> None:
        """Title, setting, and in a warning colour what the reader must know before the figures.

        Only `subject`, the end of the title, is shortened where the line is too long.
        """
        room = self.room - self.measure(title, 13.5, bold=True)
        self.text(MARGIN, self.top, title + self.fit(subject, room, 13.5, bold=True), size=13.5, bold=True)
        self.top += 0.3
        self.text(MARGIN, self.top, self.fit(subtitle, self.room, 9.5), size=9.5, colour=MUTED)
        self.top += 0.22
        for note in notes:
            self.text(MARGIN, self.top, self.fit(note, self.room, 9.5), size=9.5, colour=VERMILLION)
            self.top += 0.2
        self.top += 0.12

    def stamp(self, ways: Sequence[str]) -> None:
        """A band of a warning colour across the top margin, which no layout uses.

        Args:
            ways: ways to say it, the best first; the first that fits is taken.
        """
        height = 0.26
        self.figure.add_artist(
            Rectangle((0, 1 - height / self.height), 1, height / self.height, color=VERMILLION, linewidth=0)
        )
        fitting = (words for words in ways if self.measure(clean(words), 9.5, bold=True) <= self.room)
        line = self.fit(next(fitting, ways[-1]), self.room, 9.5, bold=True)
        self.text(MARGIN, height / 2, line, size=9.5, bold=True, colour="white", vertical="center_baseline")

    def panel_title(self, left: float, top: float, words: str, detail: str = "") -> None:
        """A small heading above axes, left-aligned with them."""
        self.text(left, top, words, size=9.5, bold=True, vertical="bottom")
        if detail:
            offset = self.measure(words, 9.5, bold=True) + 0.1
            self.text(left + offset, top, detail, size=8.5, colour=MUTED, vertical="bottom")


def spread(centres: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres as close as possible to the wished ones (ascending) so that labels of `sizes` do not touch.

    Isotonic regression on what is left of each centre after the labels before it; the result stays
    between `low` and `high` where there is room for all.
    """
    offsets, used = [], 0.0
    for size in sizes:
        offsets.append(used + size / 2)
        used += size
    blocks: list[tuple[float, int]] = []
    for centre, offset in zip(centres, offsets, strict=True):
        mean, count = centre - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, members = blocks.pop()
            mean = (before * members + mean * count) / (members + count)
            count += members
        blocks.append((mean, count))
    bases = [mean for mean, count in blocks for _ in range(count)]
    return [max(min(base, high - used), low) + offset for base, offset in zip(bases, offsets, strict=True)]


def format_latency(milliseconds: float | None) -> str:
    """A latency with its unit and three significant digits: `850 µs`, `12.0 ms`, `1.20 s`."""
    return "-" if milliseconds is None else _with_unit(milliseconds, "#.3g")


def format_tick(milliseconds: float) -> str:
    """A round latency with its unit and no more digits than it needs: `850 µs`, `12 ms`, `1.2 s`."""
    return _with_unit(milliseconds, ".4g")


def _with_unit(milliseconds: float, digits: str) -> str:
    # By the rounded figure, or 999.9 µs would become `1e+03 µs`.
    rounded = float(f"{milliseconds:.4g}") if milliseconds < 1e6 else round(milliseconds)
    for limit, factor, unit in ((0.9995, 1e3, "µs"), (999.5, 1.0, "ms"), (999_500.0, 1e-3, "s")):
        if rounded < limit:
            return f"{format(rounded * factor, digits).rstrip('.')} {unit}"
    return f"{rounded / 1e3:,.0f} s"


_TICK_STEPS: Final = (
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 2.0, 5.0),
    (1.0, 3.0),
    (1.0,),
)


def latency_ticks(low_ms: float, high_ms: float, at_most: int) -> list[float]:
    """Round latencies between the two ends for an axis with room for `at_most` labels side by side."""
    decades = range(math.floor(math.log10(low_ms)), math.floor(math.log10(high_ms)) + 1)
    candidates = [[step * 10.0**decade for decade in decades for step in steps] for steps in _TICK_STEPS]
    candidates += [[10.0**decade for decade in decades if decade % every == 0] for every in (2, 3, 5)]
    if high_ms / low_ms < 3.5:
        # So narrow that even steps look even on a log axis, and 1-2-5 would leave one tick or none.
        steps = [1, 2, 2.5, 5, 10]
        linear = (
            MaxNLocator(count, steps=steps).tick_values(low_ms, high_ms) for count in range(at_most, 1, -1)
        )
        candidates = [[float(tick) for tick in ticks] for ticks in linear] + candidates
    for ticks in candidates:
        fitting = [tick for tick in ticks if low_ms * 0.9999 <= tick <= high_ms * 1.0001 and tick > 0]
        gaps = [math.log(b / a) for a, b in pairwise(fitting)]
        if fitting and min(gaps, default=math.inf) * at_most >= math.log(high_ms / low_ms):
            return fitting
    return [low_ms]


def latency_axis(
    axes: Axes, which: Literal["x", "y"], low_ms: float, high_ms: float, *, at_most: int
) -> None:
    """Make an axis logarithmic in milliseconds, its ticks written as people say them."""
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(low_ms, high_ms)
    else:
        axes.set_yscale("log")
        axes.set_ylim(low_ms, high_ms)
    ticks = latency_ticks(low_ms, high_ms, at_most)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([format_tick(tick) for tick in ticks]))
    decades = range(math.floor(math.log10(low_ms)), math.floor(math.log10(high_ms)) + 1)
    minor = [step * 10.0**decade for decade in decades for step in range(1, 10)]
    axis.set_minor_locator(NullLocator())
    _minor_ticks(axes, which, [tick for tick in minor if low_ms <= tick <= high_ms and tick not in ticks])
    axis.grid(visible=True, which="major", color=GRID, linewidth=0.8)


def _minor_ticks(axes: Axes, which: Literal["x", "y"], ticks: Sequence[float]) -> None:
    """Ticks without labels, all of them as one line: an object each took a tenth of a picture's time."""
    edge = [0.0] * len(ticks)
    # The figure's own, for the lines of axes are what they show.
    axes.figure.add_artist(
        Line2D(
            ticks if which == "x" else edge,
            edge if which == "x" else ticks,
            transform=axes.get_xaxis_transform() if which == "x" else axes.get_yaxis_transform(),
            linestyle="none",
            # TICKDOWN and TICKLEFT of matplotlib.markers, which the types do not take.
            marker=3 if which == "x" else 0,
            markersize=1.5,
            markeredgewidth=0.6,
            color=FAINT,
            clip_on=False,
        )
    )


def count_axis(axes: Axes, *, ticks: int = 4, whole: bool = False) -> None:
    """A vertical axis from zero for counts and rates, in thousands and millions where they are large."""
    axes.yaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)


def time_ticks(axes: Axes, unit: str, *, at_most: int) -> None:
    """Label a horizontal axis of times whose limits are set: `2 s`, `30 min`.

    Minutes and hours are read in threes and sixes; less than one of them in tenths, fifths or halves.
    """
    low, high = axes.get_xlim()
    steps = [1, 2, 3, 5, 6, 10] if high - low > at_most else [1, 2, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(at_most, steps=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} {unit}"))


def short_count(value: float) -> str:
    """`950`, `1.2k`, `3M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.3g}"


def widen(low: float, high: float, *, least_ratio: float = 1.3, margin: float = 1.06) -> tuple[float, float]:
    """Ends of a log axis around `low` to `high`: a little beyond them, and never a point."""
    low, high = low / margin, high * margin
    ratio = high / low
    if ratio < least_ratio:
        stretch = math.sqrt(least_ratio / ratio)
        low, high = low / stretch, high * stretch
    return low, high
