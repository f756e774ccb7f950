"""The view of operations for a terminal: the figures of the last second, a sparkline, and the run so far."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pool_bench.report.buckets import log_bars
from pool_bench.report.live.lines import STAGE_NAMES, Second, Totals, rate_of
from pool_bench.report.live.terminal import (
    SPARK_SECONDS,
    TerminalView,
    client_line,
    failure_table,
    figures,
    text_line,
)
from pool_bench.report.text import bar, clean, ellipsize, format_edge, format_rate, sparkline
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.units import format_duration, format_ms

_HISTOGRAM_ROWS: Final = 8
_FAILURE_ROWS: Final = 5


class OperationTerminalView(TerminalView):
    """A `TerminalView` of operations; `unit` names what is counted a second."""

    def __init__(
        self,
        stream: TextIO,
        *,
        targets: Sequence[str] = (),
        unit: str = "conn/s",
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._unit = unit
        super().__init__(stream, targets=targets, clock=clock, console=console)

    def _begin(self, duration_s: float, warmup_s: float) -> None:
        self._duration_s = duration_s
        self._warmup_s = warmup_s
        self._totals = Totals()
        self._rates: deque[float] = deque(maxlen=SPARK_SECONDS)
        self._latency = Histogram()
        self._failures: dict[str, int] = {}
        self._samples: dict[str, str] = {}

    def _absorb(self, snapshot: Snapshot) -> None:
        self._totals.add(snapshot)
        ok = snapshot.warmup.ok + sum(stats.ok for stats in snapshot.targets)
        self._rates.append(rate_of(ok, snapshot.seconds))
        for stats in snapshot.targets:
            self._latency.merge(stats.latency)
        for stats in (*snapshot.targets, snapshot.warmup):
            for key, failure in stats.failures.items():
                kind = str(key.kind)
                self._failures[kind] = self._failures.get(kind, 0) + failure.count
                self._samples.setdefault(kind, clean(failure.sample))

    def _lines(self, snapshot: Snapshot, width: int) -> list[RenderableType]:
        second = Second.of(snapshot)
        parts: list[RenderableType] = [
            self._progress_line(snapshot, width),
            self._rate_line(second, width, open_loop=snapshot.waiting is not None),
            _latency_line(second),
            self._total_line(snapshot),
            client_line(snapshot, second.lag_ms, "client  "),
        ]
        if len(snapshot.targets) > 1:
            parts.append(self._target_table(snapshot, width))
        if self._failures:
            now = {str(kind): count for kind, count in second.errors.items()}
            parts.append(
                failure_table(self._failures, now, self._samples, width, most=_FAILURE_ROWS, name_width=44)
            )
        if self._latency.count:
            parts.append(self._histogram(width))
        return parts

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

    def _total_line(self, snapshot: Snapshot) -> Text:
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

    def _histogram(self, width: int) -> RenderableType:
        bars = log_bars(self._latency, at_most=_HISTOGRAM_ROWS)
        # The rows of a range wider than the screen: keep the busiest neighbours, and say what is beyond.
        top = max(bucket.count for bucket in bars)
        start = min(
            max(bars.index(next(bucket for bucket in bars if bucket.count == top)) - 2, 0),
            max(len(bars) - 8, 0),
        )
        shown = bars[start : start + _HISTOGRAM_ROWS]
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, pad_edge=False)
        table.add_column(justify="right", no_wrap=True, style="dim")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, style="cyan")
        room = max(min(width - 30, 50), 5)
        for bucket in shown:
            table.add_row(
                f"< {format_edge(bucket.high_ms)}", f"{bucket.count:,}", bar(bucket.count / top, room)
            )
        beyond = self._latency.count - sum(bucket.count for bucket in shown)
        if beyond:
            table.add_row("other", f"{beyond:,}", "")
        return table


def _latency_line(second: Second) -> Text:
    line = text_line(("latency ", "dim"))
    known = (("p50", second.p50), ("p95", second.p95), ("p99", second.p99), ("max", second.max))
    figures(line, known, " ms, this second")
    return line
