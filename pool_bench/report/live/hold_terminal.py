"""The view of held connections for a terminal: how many, how they fare, and what was lost."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from pool_bench.report.live.hold_lines import HoldSecond, HoldTotals, Slots
from pool_bench.report.live.terminal import (
    SPARK_SECONDS,
    TerminalView,
    client_line,
    failure_table,
    figures,
    text_line,
)
from pool_bench.report.text import bar, clean, ellipsize, format_rate, sparkline
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.units import format_duration

_FAILURE_ROWS: Final = 6
_STAGES: Final = {
    Stage.OPEN: ("opening", "bold yellow"),
    Stage.HOLD: ("holding", "bold green"),
    Stage.CLOSE: ("closing", "bold yellow"),
}


class HoldTerminalView(TerminalView):
    """A `TerminalView` of a run that holds connections.

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
        self._asked = asked
        self._active = active
        self._slots = slots
        super().__init__(stream, targets=targets, clock=clock, console=console)

    def _begin(self, duration_s: float, warmup_s: float) -> None:
        self._duration_s = duration_s
        self._totals = HoldTotals()
        self._counts: deque[float] = deque(maxlen=SPARK_SECONDS)
        self._opened_s = 0.0
        self._events: dict[str, int] = {}
        self._samples: dict[str, str] = {}
        self._verdict = ""

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

    def _lines(self, snapshot: Snapshot, width: int) -> list[RenderableType]:
        second = HoldSecond.of(snapshot)
        parts: list[RenderableType] = [self._progress_line(snapshot, width)]
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
        parts.append(client_line(snapshot, second.lag_ms, "client   "))
        if self._events:
            parts.append(
                failure_table(
                    self._events, second.events, self._samples, width, most=_FAILURE_ROWS, name_width=54
                )
            )
        return parts

    def _target_words(self) -> str:
        if len(self._targets) > 1:
            return f"{self._targets[0]} and {len(self._targets) - 1} more"
        return "".join(self._targets)

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
        figures(line, (("p50", second.connect_p50), ("p99", second.connect_p99)))
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
        figures(line, (("p50", second.keepalive_p50), ("max", second.keepalive_max)))
        return line

    def _active_line(self, second: HoldSecond) -> Text:
        line = text_line(
            ("active   ", "dim"), (f"{format_rate(second.active_rate):>8}", "bold"), ("/s ", "dim")
        )
        figures(line, (("p50", second.active_p50), ("p99", second.active_p99)))
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


def _rough(seconds: float) -> str:
    """Whole seconds: nobody reads a bar to the tenth."""
    return format_duration(float(round(seconds))) if seconds >= 0.5 else "0s"
