"""What the views for a terminal have in common: when they draw, and the parts that all of them show.

Drawn only inside `update`, at most once a second and without Rich's refresh thread: the generators
have processes of their own, but on a small machine a view that redraws ten times a second would
still take their core. Everything is cut to the terminal's width, never wrapped.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_bench.report.text import clean, ellipsize
from pool_bench.stats.generators import SATURATED_CPU_SHARE, SATURATED_LAG_P99_MS
from pool_bench.stats.runs import Snapshot
from pool_bench.units import format_ms

SPARK_SECONDS: Final = 60
# Snapshots come once a second give or take a timer's jitter; one that is a little early is drawn.
_REDRAW_S: Final = 0.9


class TerminalView(ABC):
    """A `LiveView` drawn in place with Rich; what it shows, its kinds say.

    Args:
        stream: a terminal.
        targets: printable names, in the order of `Snapshot.targets`.
        clock: seconds that only go forward, for the limit of one drawing a second.
        console: draws on this instead of a new console on `stream`.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        targets: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=stream, highlight=False)
        self._targets = [clean(target) for target in targets]
        self._clock = clock
        self._live: Live | None = None
        self._drawn_at = -float("inf")
        self._name = ""
        self._is_last = True
        self._begin(0.0, 0.0)

    @abstractmethod
    def _begin(self, duration_s: float, warmup_s: float) -> None:
        """Forget the run before."""

    @abstractmethod
    def _absorb(self, snapshot: Snapshot) -> None:
        """Count what happened in `snapshot`."""

    @abstractmethod
    def _lines(self, snapshot: Snapshot, width: int) -> list[RenderableType]:
        """The picture below its title, after `snapshot`, which has been absorbed."""

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """Start a fresh picture for the run numbered `index` (from 1) of `total`."""
        self.end_run()
        position = f"run {index}/{total}" if total > 1 else ""
        self._name = " · ".join(part for part in (position, clean(label)) if part)
        self._is_last = index == total
        self._begin(duration_s, warmup_s)
        # Nothing is redirected: what goes to stdout must arrive there even while this draws on stderr.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            # What stands there at the end stays; `end_run` takes it away where another run follows.
            transient=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._drawn_at = -float("inf")

    def update(self, snapshot: Snapshot) -> None:
        """Take in a snapshot, and draw if the last drawing is a second old or this is the last one."""
        self._absorb(snapshot)
        now = self._clock()
        if self._live is None or (now - self._drawn_at < _REDRAW_S and not snapshot.final):
            return
        self._drawn_at = now
        self._live.update(self.render(snapshot), refresh=True)

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The picture after `snapshot`, which `update` has already taken in."""
        width = self._console.width
        title = " · ".join(part for part in (self._name, self._target_words()) if part)
        line = Text(ellipsize(title, width - 1), style="bold", no_wrap=True, overflow="ellipsis")
        return Group(line, *self._lines(snapshot, width))

    def _target_words(self) -> str:
        """What the title says of the targets."""
        return self._targets[0] if len(self._targets) == 1 else ""

    def end_run(self, *, last: bool = True) -> None:
        """Leave the last picture where it is; take it away where another run draws its own."""
        if self._live is not None:
            self._live.transient = not (last or self._is_last)
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        """Print one line above the picture."""
        self._console.print(Text(clean(text)), soft_wrap=True)

    def close(self) -> None:
        """Stop drawing and show the cursor again; safe to call twice."""
        self.end_run()


def text_line(*parts: tuple[str, str]) -> Text:
    """One line that is cut, not wrapped, where the terminal is too narrow."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style=style)
    return line


def figures(line: Text, values: Sequence[tuple[str, float | None]], after: str = " ms") -> None:
    """Add milliseconds by name to `line`."""
    for name, value in values:
        line.append(f" {name} ", style="dim")
        line.append(format_ms(value))
    line.append(after, style="dim")


def client_line(snapshot: Snapshot, lag_ms: float | None, name: str) -> Text:
    """CPU and loop lag of the client, behind `name`; in yellow where it is at a limit."""
    client = snapshot.client
    busy = client.cpu_share > SATURATED_CPU_SHARE * client.processes
    late = lag_ms is not None and lag_ms > SATURATED_LAG_P99_MS
    line = text_line((name, "dim"))
    line.append(f" {client.cpu_share * 100:.0f}%", style="bold yellow" if busy else "")
    line.append(" CPU  loop lag ", style="dim")
    line.append(format_ms(lag_ms), style="bold yellow" if late else "")
    line.append(" ms", style="dim")
    return line


def failure_table(
    counts: Mapping[str, int],
    now: Mapping[str, int],
    samples: Mapping[str, str],
    width: int,
    *,
    most: int,
    name_width: int,
) -> RenderableType:
    """Failures by name, the most frequent first: all of the run, those of this second, and an example.

    Args:
        width: of the terminal.
        most: rows at most; further names are counted.
        name_width: columns that names and counts take.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("failures", no_wrap=True, style="red")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    has_samples = width >= 72
    if has_samples:
        table.add_column("for example", no_wrap=True, overflow="ellipsis", style="dim")
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for name, count in ranked[:most]:
        cells: list[RenderableType] = [Text(name), f"{count:,}", f"{now.get(name, 0):,}"]
        if has_samples:
            cells.append(Text(ellipsize(samples.get(name, ""), width - name_width)))
        table.add_row(*cells)
    hidden = len(ranked) - most
    return table if hidden <= 0 else Group(table, Text(f"and {hidden} more kinds", style="dim"))
