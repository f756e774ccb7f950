"""The view of held connections for a terminal: how many, how they fare, and what was lost.

Drawn as `terminal.py` draws: only inside `update`, at most once a second, without Rich's refresh thread,
every line cut to the terminal's width.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pool_bench.report.live.hold_lines import HoldSecond, HoldTotals, Slots
from pool_bench.report.live.terminal import text_line
from pool_bench.report.text import bar, clean, ellipsize, format_rate, sparkline
from pool_bench.stats.runs import SATURATED_CPU_SHARE, SATURATED_LAG_P99_MS, Snapshot, Stage
from pool_bench.units import format_duration, format_ms

_REDRAW_S: Final = 0.9
_SPARK_SECONDS: Final = 60
_FAILURE_ROWS: Final = 6
_STAGES: Final = {
    Stage.OPEN: ("opening", "bold yellow"),
    Stage.HOLD: ("holding", "bold green"),
    Stage.CLOSE: ("closing", "bold yellow"),
}


class HoldTerminalView:
    """A `LiveView` of a run that holds connections, drawn in place with Rich.

    Args:
        stream: a terminal.
        asked: connections that were asked for.
        targets: printable names, in the order of `Snapshot.targets`.
        active: some connections never rest.
        slots: where the server's slots in use come from, None where it is not watched.
        clock: seconds that only go forward, for the limit of one drawing a second.
        console: draws on this instead of a new console on `stream`.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        asked: int,
        targets: Sequence[str] = (),
        active: bool = False,
        slots: Slots | None = None,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=stream, highlight=False)
        self._asked = asked
        self._targets = [clean(target) for target in targets]
        self._active = active
        self._slots = slots
        self._clock = clock
        self._live: Live | None = None
        self._drawn_at = -float("inf")
        self._begin("", 1, 1, 0.0)

    def _begin(self, label: str, index: int, total: int, duration_s: float) -> None:
        self._label = clean(label)
        self._position = f"run {index}/{total}" if total > 1 else ""
        self._is_last = index == total
        self._duration_s = duration_s
        self._totals = HoldTotals()
        self._counts: deque[float] = deque(maxlen=_SPARK_SECONDS)
        self._opened_s = 0.0
        self._events: dict[str, int] = {}
        self._samples: dict[str, str] = {}
        self._verdict = ""

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """Start a fresh picture for the run numbered `index` (from 1) of `total`."""
        self.end_run()
        self._begin(label, index, total, duration_s)
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
        opening_over = self._totals.add(snapshot)
        self._counts.append(self._totals.held)
        if snapshot.stage is Stage.OPEN:
            self._opened_s = snapshot.elapsed_s
        if opening_over and self._totals.held_when_open < self._asked:
            self._verdict = self._totals.words(self._asked)
        hold = snapshot.hold
        for name, count in HoldSecond.of(snapshot).events.items():
            self._events[name] = self._events.get(name, 0) + count
        for stats in snapshot.targets:
            for key, failure in stats.failures.items():
                self._samples.setdefault(str(key.kind), clean(failure.sample))
        if hold is not None:
            for key, drop in hold.drops.items():
                self._samples.setdefault(f"drop:{key.kind}", clean(drop.sample))
            for name, stats in (("reconnect", hold.reconnects), ("query", hold.query_failures)):
                for key, failure in stats.failures.items():
                    self._samples.setdefault(f"{name}:{key.kind}", clean(failure.sample))

    def render(self, snapshot: Snapshot) -> RenderableType:
        """The picture after `snapshot`, which `update` has already taken in."""
        width = self._console.width
        second = HoldSecond.of(snapshot)
        parts: list[RenderableType] = [self._title_line(width), self._progress_line(snapshot, width)]
        if self._verdict:
            parts.append(text_line((ellipsize(self._verdict, width - 1), "yellow")))
        parts += [self._held_line(width), self._connect_line(second, snapshot)]
        if snapshot.stage is not Stage.OPEN or second.keepalive_p50 is not None:
            parts.append(self._keepalive_line(second))
        if self._active:
            parts.append(self._active_line(second))
        parts.append(self._lost_line(snapshot))
        seen = self._slots() if self._slots is not None else None
        if seen is not None:
            parts.append(self._slots_line(*seen, width=width))
        parts.append(self._client_line(snapshot, second))
        if self._events:
            parts.append(self._event_table(second, width))
        return Group(*parts)

    def _title_line(self, width: int) -> Text:
        if len(self._targets) > 1:
            target = f"{self._targets[0]} and {len(self._targets) - 1} more"
        else:
            target = "".join(self._targets)
        text = " · ".join(part for part in (self._position, self._label, target) if part)
        return Text(ellipsize(text, width - 1), style="bold", no_wrap=True, overflow="ellipsis")

    def _progress_line(self, snapshot: Snapshot, width: int) -> Text:
        stage = snapshot.stage
        name, style = _STAGES.get(stage, ("done", "bold green"))
        line = text_line((f"{name:<9}", style))
        room = max(min(width - 46, 40), 5)
        ended = self._totals.opening.attempts
        if stage is Stage.OPEN:
            line.append(bar(ended / self._asked if self._asked else 0.0, room).ljust(room, "·"), style="cyan")
            line.append(f" {ended:,} of {self._asked:,}")
            rate = ended / snapshot.elapsed_s if snapshot.elapsed_s > 0 else 0.0
            if rate:
                left_s = max(self._asked - ended, 0) / rate
                line.append(f", {format_rate(rate)}/s, {_rough(left_s)} to go")
        elif stage is Stage.HOLD:
            held_s = max(snapshot.elapsed_s - self._opened_s, 0.0)
            if self._duration_s:
                filled = bar(held_s / self._duration_s, room).ljust(room, "·")
                line.append(filled, style="cyan")
                line.append(f" {_rough(held_s)} of {format_duration(self._duration_s)}")
            else:
                line.append(f"{_rough(held_s)}, until Ctrl-C")
        else:
            closed = self._totals.hold.closed
            line.append(f"{closed:,} closed, {self._totals.held:,} left")
        return line

    def _held_line(self, width: int) -> Text:
        short = self._totals.held < self._asked and self._totals.stage is Stage.HOLD
        line = text_line(("held     ", "dim"))
        line.append(f"{self._totals.held:>8,}", style="bold yellow" if short else "bold")
        line.append(f" of {self._asked:,}  ", style="dim")
        line.append(sparkline(list(self._counts), max(width - 24 - len(f"{self._asked:,}"), 0)), style="cyan")
        return line

    def _connect_line(self, second: HoldSecond, snapshot: Snapshot) -> Text:
        line = text_line(("connect  ", "dim"), (f"{format_rate(second.rate):>8}", "bold"), ("/s ", "dim"))
        _figures(line, (("p50", second.connect_p50), ("p99", second.connect_p99)))
        if snapshot.in_flight:
            line.append(f"  {snapshot.in_flight:,}", style="bold")
            line.append(" under way", style="dim")
        return line

    def _keepalive_line(self, second: HoldSecond) -> Text:
        line = text_line(("keepalive", "dim"))
        if second.keepalive_p50 is None:
            line.append("          no answer this second", style="dim")
            return line
        line.append(" " * 12)
        _figures(line, (("p50", second.keepalive_p50), ("max", second.keepalive_max)))
        return line

    def _active_line(self, second: HoldSecond) -> Text:
        line = text_line(
            ("active   ", "dim"), (f"{format_rate(second.active_rate):>8}", "bold"), ("/s ", "dim")
        )
        _figures(line, (("p50", second.active_p50), ("p99", second.active_p99)))
        return line

    def _lost_line(self, snapshot: Snapshot) -> Text:
        hold, failed = self._totals.hold, self._totals.opening.failed
        line = text_line(("lost     ", "dim"))
        for count, words, style in (
            (failed, "not opened", "bold red"),
            (hold.dropped, "dropped", "bold red"),
            (hold.reopened, "replaced", "bold"),
        ):
            line.append(f" {count:,}", style=style if count else "")
            line.append(f" {words} ", style="dim")
        if snapshot.backing_off:
            line.append(f" {snapshot.backing_off:,} backing off", style="yellow")
        return line

    def _slots_line(self, used: int, limit: int, *, width: int) -> Text:
        line = text_line(("server   ", "dim"), (f"{used:>8,}", "bold"))
        line.append(f" of {limit:,} slots  ", style="dim")
        room = max(min(width - 40, 30), 0)
        full = limit > 0 and used >= limit
        line.append(bar(used / limit if limit else 0.0, room), style="yellow" if full else "cyan")
        return line

    def _client_line(self, snapshot: Snapshot, second: HoldSecond) -> Text:
        busy = snapshot.client.cpu_share > SATURATED_CPU_SHARE * snapshot.client.processes
        late = second.lag_ms is not None and second.lag_ms > SATURATED_LAG_P99_MS
        line = text_line(("client   ", "dim"))
        line.append(f" {second.cpu_percent:.0f}%", style="bold yellow" if busy else "")
        line.append(" CPU  loop lag ", style="dim")
        line.append(format_ms(second.lag_ms), style="bold yellow" if late else "")
        line.append(" ms", style="dim")
        return line

    def _event_table(self, second: HoldSecond, width: int) -> RenderableType:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
        table.add_column("failures", no_wrap=True, style="red")
        table.add_column("count", justify="right", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        if width >= 72:
            table.add_column("for example", no_wrap=True, overflow="ellipsis", style="dim")
        ranked = sorted(self._events.items(), key=lambda item: (-item[1], item[0]))
        for name, count in ranked[:_FAILURE_ROWS]:
            cells: list[RenderableType] = [Text(name), f"{count:,}", f"{second.events.get(name, 0):,}"]
            if width >= 72:
                cells.append(Text(ellipsize(self._samples.get(name, ""), width - 54)))
            table.add_row(*cells)
        hidden = len(ranked) - _FAILURE_ROWS
        if hidden <= 0:
            return table
        return Group(table, Text(f"and {hidden} more kinds", style="dim"))


def _rough(seconds: float) -> str:
    """Whole seconds: nobody reads a bar to the tenth."""
    return format_duration(float(round(seconds))) if seconds >= 0.5 else "0s"


def _figures(line: Text, figures: Sequence[tuple[str, float | None]]) -> None:
    for name, value in figures:
        line.append(f" {name} ", style="dim")
        line.append(format_ms(value))
    line.append(" ms", style="dim")
