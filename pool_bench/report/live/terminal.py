"""The view for a terminal: the figures of the last second, a sparkline, and the run so far.

Drawn only inside `update`, at most once a second and without Rich's refresh thread: the generators
have processes of their own, but on a small machine a view that redraws ten times a second would
still take their core. Everything is cut to the terminal's width, never wrapped.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_bench.errors import FailureKind
from pool_bench.report.buckets import log_bars
from pool_bench.report.live.lines import STAGE_NAMES, Second, Totals, rate_of
from pool_bench.report.text import bar, clean, ellipsize, format_edge, format_rate, sparkline
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import SATURATED_CPU_SHARE, SATURATED_LAG_P99_MS, Snapshot, Stage
from pool_bench.units import format_duration, format_ms

# Snapshots come once a second give or take a timer's jitter; one that is a little early is drawn.
_REDRAW_S: Final = 0.9
_SPARK_SECONDS: Final = 60
_HISTOGRAM_ROWS: Final = 8
_FAILURE_ROWS: Final = 5


class TerminalView:
    """A `LiveView` drawn in place with Rich.

    Args:
        stream: a terminal.
        targets: printable names, in the order of `Snapshot.targets`.
        unit: what is counted a second.
        clock: seconds that only go forward, for the limit of one drawing a second.
        console: draws on this instead of a new console on `stream`.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        targets: Sequence[str] = (),
        unit: str = "conn/s",
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=stream, highlight=False)
        self._targets = [clean(target) for target in targets]
        self._unit = unit
        self._clock = clock
        self._live: Live | None = None
        self._drawn_at = -float("inf")
        self._begin("", 1, 1, 0.0, 0.0)

    def _begin(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        self._label = clean(label)
        self._position = f"run {index}/{total}" if total > 1 else ""
        self._is_last = index == total
        self._duration_s = duration_s
        self._warmup_s = warmup_s
        self._totals = Totals()
        self._rates: deque[float] = deque(maxlen=_SPARK_SECONDS)
        self._latency = Histogram()
        self._failures: dict[FailureKind, int] = {}
        self._samples: dict[FailureKind, str] = {}

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """Start a fresh picture for the run numbered `index` (from 1) of `total`."""
        self.end_run()
        self._begin(label, index, total, duration_s, warmup_s)
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

    def _absorb(self, snapshot: Snapshot) -> None:
        self._totals.add(snapshot)
        ok = snapshot.warmup.ok + sum(stats.ok for stats in snapshot.targets)
        self._rates.append(rate_of(ok, snapshot.seconds))
        for stats in snapshot.targets:
            self._latency.merge(stats.latency)
        for stats in (*snapshot.targets, snapshot.warmup):
            for key, failure in stats.failures.items():
                self._failures[key.kind] = self._failures.get(key.kind, 0) + failure.count
                self._samples.setdefault(key.kind, clean(failure.sample))

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The picture after `snapshot`, which `update` has already taken in."""
        width = self._console.width
        second = Second.of(snapshot)
        parts: list[RenderableType] = [
            self._title_line(width),
            self._progress_line(snapshot, width),
            self._rate_line(second, width, open_loop=snapshot.waiting is not None),
            self._latency_line(second),
            self._client_line(snapshot, second),
        ]
        if len(snapshot.targets) > 1:
            parts.append(self._target_table(snapshot, width))
        if self._failures:
            parts.append(self._failure_lines(second, width))
        if self._latency.count:
            parts.append(self._histogram(width))
        return Group(*parts)

    def _title_line(self, width: int) -> Text:
        target = self._targets[0] if len(self._targets) == 1 else ""
        text = " · ".join(part for part in (self._position, self._label, target) if part)
        return Text(ellipsize(text, width - 1), style="bold", no_wrap=True, overflow="ellipsis")

    def _progress_line(self, snapshot: Snapshot, width: int) -> Text:
        elapsed, stage = snapshot.elapsed_s, snapshot.stage
        if stage is Stage.WARMUP:
            share = 1 + elapsed / self._warmup_s if self._warmup_s else 1.0
            words = f"{format_duration(max(-elapsed, 0.0))} to go"
        elif self._duration_s:
            share = elapsed / self._duration_s
            words = f"{max(elapsed, 0.0):.0f}s of {format_duration(self._duration_s)}"
        else:
            share, words = 0.0, f"{format_duration(max(elapsed, 0.0))}, until Ctrl-C"
        line = text_line(
            (f"{STAGE_NAMES[stage]:<8}", "bold yellow" if stage is not Stage.MEASURE else "bold green")
        )
        room = max(min(width - 12 - len(words), 48), 5)
        if self._duration_s or stage is Stage.WARMUP:
            filled = bar(share, room)
            line.append(filled.ljust(room, "·"), style="cyan")
            line.append(" ")
        line.append(words)
        return line

    def _rate_line(self, second: Second, width: int, *, open_loop: bool) -> Text:
        line = text_line(
            ("rate    ", "dim"), (f"{format_rate(second.rate):>9}", "bold"), (f" {self._unit}  ", "dim")
        )
        if open_loop:
            line.append(f"of {format_rate(second.offered)}/s due  ", style="dim")
        line.append(sparkline(list(self._rates), max(width - 10 - line.cell_len, 0)), style="cyan")
        return line

    def _latency_line(self, second: Second) -> Text:
        line = text_line(("latency ", "dim"))
        for name, value in (
            ("p50", second.p50),
            ("p95", second.p95),
            ("p99", second.p99),
            ("max", second.max),
        ):
            line.append(f" {name} ", style="dim")
            line.append(format_ms(value))
        line.append(" ms, this second", style="dim")
        return line

    def _client_line(self, snapshot: Snapshot, second: Second) -> Text:
        busy = snapshot.client.cpu_share > SATURATED_CPU_SHARE * snapshot.client.processes
        late = second.lag_ms is not None and second.lag_ms > SATURATED_LAG_P99_MS
        line = text_line(("total   ", "dim"), (f" {self._totals.ok:,}", "bold"), (" ok ", "dim"))
        line.append(f" {self._totals.failed:,}", style="bold red" if self._totals.failed else "bold")
        line.append(" failed ", style="dim")
        line.append(f" {snapshot.in_flight:,}", style="bold")
        line.append(" in flight ", style="dim")
        if snapshot.backing_off:
            line.append(f" {snapshot.backing_off:,} backing off ", style="yellow")
        if snapshot.waiting:
            line.append(f" {snapshot.waiting:,} waiting ", style="yellow")
        if self._totals.dropped:
            line.append(f" {self._totals.dropped:,} dropped ", style="bold red")
        line.append("\n")
        line.append("client  ", style="dim")
        line.append(f" {second.cpu_percent:.0f}%", style="bold yellow" if busy else "")
        line.append(" CPU  loop lag ", style="dim")
        line.append(format_ms(second.lag_ms), style="bold yellow" if late else "")
        line.append(" ms", style="dim")
        return line

    def _target_table(self, snapshot: Snapshot, width: int) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=True, header_style="dim", pad_edge=False)
        table.add_column("target", no_wrap=True, overflow="ellipsis")
        for name in ("conn/s", "p50 ms", "p99 ms", "failed"):
            table.add_column(name, justify="right", no_wrap=True)
        for index, stats in enumerate(snapshot.targets):
            name = self._targets[index] if index < len(self._targets) else f"target {index + 1}"
            p50, p99 = stats.latency.percentiles_ms((50, 99))
            failed = self._totals.per_target_failed[index]
            table.add_row(
                Text(ellipsize(name, max(width - 36, 12))),
                format_rate(rate_of(stats.ok, snapshot.seconds)),
                format_ms(p50),
                format_ms(p99),
                Text(f"{failed:,}", style="red" if failed else ""),
            )
        return table

    def _failure_lines(self, second: Second, width: int) -> RenderableType:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("failures", no_wrap=True, style="red")
        table.add_column("count", justify="right", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        if width >= 72:
            table.add_column("for example", no_wrap=True, overflow="ellipsis", style="dim")
        ranked = sorted(self._failures.items(), key=lambda item: (-item[1], item[0]))
        for kind, count in ranked[:_FAILURE_ROWS]:
            cells: list[RenderableType] = [Text(str(kind)), f"{count:,}", f"{second.errors.get(kind, 0):,}"]
            if width >= 72:
                cells.append(Text(ellipsize(self._samples[kind], width - 44)))
            table.add_row(*cells)
        hidden = len(ranked) - _FAILURE_ROWS
        if hidden <= 0:
            return table
        return Group(table, Text(f"and {hidden} more kinds", style="dim"))

    def _histogram(self, width: int) -> RenderableType:
        bars = log_bars(self._latency, at_most=_HISTOGRAM_ROWS)
        # The rows of a range wider than the screen: keep the busiest neighbours, and say what is beyond.
        top = max(one.count for one in bars)
        start = min(
            max(bars.index(next(one for one in bars if one.count == top)) - 2, 0), max(len(bars) - 8, 0)
        )
        shown = bars[start : start + _HISTOGRAM_ROWS]
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
        table.add_column(justify="right", no_wrap=True, style="dim")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, style="cyan")
        room = max(min(width - 30, 50), 5)
        for one in shown:
            table.add_row(f"< {format_edge(one.high_ms)}", f"{one.count:,}", bar(one.count / top, room))
        beyond = self._latency.count - sum(one.count for one in shown)
        if beyond:
            table.add_row("other", f"{beyond:,}", "")
        return table


def text_line(*parts: tuple[str, str]) -> Text:
    """One line that is cut, not wrapped, where the terminal is too narrow."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for text, style in parts:
        line.append(text, style=style)
    return line
