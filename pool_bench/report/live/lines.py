"""One line a second, for logs, pipes and CI.

Columns are separated by spaces and none holds a space, so `awk '{print $3}'` is the rate in every
line of every run. Rate and percentiles are those of the second the line stands for, the warm-up's
operations included while it lasts; `ok` and `failed` add up measured operations only, so that the
last line agrees with the summary.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TextIO

from pool_bench.errors import FailureKind
from pool_bench.report.text import clean, format_rate
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.units import format_duration

STAGE_NAMES: Final = {
    Stage.WARMUP: "warm-up",
    Stage.MEASURE: "measure",
    Stage.GRACE: "grace",
    Stage.OPEN: "open",
    Stage.HOLD: "hold",
    Stage.CLOSE: "close",
    Stage.DONE: "done",
}
_COLUMNS: Final = (
    ("elapsed", 8),
    ("stage", 8),
    ("conn/s", 8),
    ("ok", 10),
    ("failed", 8),
    ("in_flight", 9),
    ("backoff", 7),
    ("p50_ms", 8),
    ("p95_ms", 8),
    ("p99_ms", 8),
    ("max_ms", 8),
    ("cpu%", 5),
    ("lag_ms", 7),
)


# Only in an open loop.
_OPEN_COLUMNS: Final = (("due/s", 8), ("waiting", 8), ("dropped", 8))


@dataclass(slots=True)
class Second:
    """The figures of one snapshot, all targets together.

    Attributes:
        rate: successes a second, those of the warm-up included.
        p50, p95, p99, max: milliseconds, None where nothing succeeded.
        errors: failures by kind, the warm-up's included.
        cpu_percent: of one core; more than 100 with several processes.
        lag_ms: worst event-loop lag.
        offered: operations that became due a second, those of the warm-up included.
    """

    rate: float
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    errors: dict[FailureKind, int]
    cpu_percent: float
    lag_ms: float | None
    offered: float = 0.0

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Second":
        """Read the figures of one snapshot; the snapshot is not changed."""
        everything = BenchStats()
        for part in (*snapshot.targets, snapshot.warmup):
            # Not `merge`: intervals of several targets are of no use here and cost a histogram each.
            everything.ok += part.ok
            everything.offered += part.offered
            everything.latency.merge(part.latency)
            for key, failure in part.failures.items():
                everything.failures.setdefault(key, type(failure)(0, failure.sample)).count += failure.count
        p50, p95, p99, top = everything.latency.percentiles_ms((50, 95, 99, 100))
        return cls(
            rate=rate_of(everything.ok, snapshot.seconds),
            p50=p50,
            p95=p95,
            p99=p99,
            max=top,
            errors=everything.errors,
            cpu_percent=snapshot.client.cpu_share * 100,
            lag_ms=snapshot.client.lag.percentile_ms(100),
            offered=rate_of(everything.offered, snapshot.seconds),
        )


@dataclass(slots=True)
class Totals:
    """Measured operations of the run so far."""

    ok: int = 0
    failed: int = 0
    dropped: int = 0
    per_target_failed: list[int] = field(default_factory=list)

    def add(self, snapshot: Snapshot) -> None:
        """Count what ended in `snapshot`."""
        for index, stats in enumerate(snapshot.targets):
            self.ok += stats.ok
            self.failed += stats.failed
            self.dropped += stats.dropped
            while len(self.per_target_failed) <= index:
                self.per_target_failed.append(0)
            self.per_target_failed[index] += stats.failed


def rate_of(count: int, seconds: float) -> float:
    """`count` per second; 0 where no time has passed."""
    return count / seconds if seconds > 0 else 0.0


def header_line(targets: int = 1, *, unit: str = "conn/s", open_loop: bool = False) -> str:
    """Names of the columns of `snapshot_line`; `conn/s_by_target` only where there are several."""
    columns = (*_COLUMNS, *_OPEN_COLUMNS) if open_loop else _COLUMNS
    names = [(unit if name == "conn/s" else name).rjust(width) for name, width in columns]
    if targets > 1:
        names.append("conn/s_by_target")
    return " ".join([*names, "failures"])


def snapshot_line(snapshot: Snapshot, totals: Totals) -> str:
    """One line for one snapshot.

    Args:
        snapshot: what happened in this second.
        totals: the run so far, this second included.

    Returns:
        As many columns as `header_line` names for such snapshots, `-` where there is no figure.
    """
    second = Second.of(snapshot)
    cells = [
        f"{snapshot.elapsed_s:z.1f}s",
        STAGE_NAMES[snapshot.stage],
        format_rate(second.rate).replace(",", ""),
        str(totals.ok),
        str(totals.failed),
        str(snapshot.in_flight),
        str(snapshot.backing_off),
        plain_ms(second.p50),
        plain_ms(second.p95),
        plain_ms(second.p99),
        plain_ms(second.max),
        f"{second.cpu_percent:.0f}",
        plain_ms(second.lag_ms),
    ]
    columns: tuple[tuple[str, int], ...] = _COLUMNS
    if snapshot.waiting is not None:
        columns = (*_COLUMNS, *_OPEN_COLUMNS)
        cells += [
            format_rate(second.offered).replace(",", ""),
            str(snapshot.waiting),
            str(totals.dropped),
        ]
    cells = [cell.rjust(width) for cell, (_, width) in zip(cells, columns, strict=True)]
    if len(snapshot.targets) > 1:
        rates = (
            format_rate(rate_of(stats.ok, snapshot.seconds)).replace(",", "") for stats in snapshot.targets
        )
        cells.append(",".join(rates).rjust(len("conn/s_by_target")))
    cells.append(",".join(f"{kind}={count}" for kind, count in second.errors.items()) or "-")
    return " ".join(cells)


def plain_ms(milliseconds: float | None) -> str:
    """Three significant digits and no thousands separators: these lines are read by programs too."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:#.3g}"


class LineView(ABC):
    """A `LiveView` that writes lines to a stream, mostly one a second; which ones, its kinds say."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._header_due = True

    @abstractmethod
    def _begin(self, duration_s: float, warmup_s: float) -> str:
        """Forget the run before; how long the next one lasts, in words."""

    @abstractmethod
    def _absorb(self, snapshot: Snapshot) -> None:
        """Count what happened in `snapshot`."""

    @abstractmethod
    def _header(self, snapshot: Snapshot) -> str:
        """Names of the columns."""

    @abstractmethod
    def _lines(self, snapshot: Snapshot) -> Iterable[str]:
        """What is to be said of `snapshot`, which has been absorbed."""

    def begin_run(self, label: str, index: int, total: int, duration_s: float, warmup_s: float) -> None:
        """Announce the run numbered `index` (from 1) of `total`; `duration_s` 0 means until stopped."""
        self._header_due = True
        position = f"run {index}/{total}: " if total > 1 else ""
        self._write(f"{position}{clean(label)} ({self._begin(duration_s, warmup_s)})")

    def update(self, snapshot: Snapshot) -> None:
        """Write what one snapshot shows."""
        self._absorb(snapshot)
        if self._header_due:
            self._write(self._header(snapshot))
            self._header_due = False
        for line in self._lines(snapshot):
            self._write(line)

    def end_run(self, *, last: bool = True) -> None:  # noqa: B027 - the same in all kinds
        """Nothing to do: every line is already out."""

    def message(self, text: str) -> None:
        """Write a line that is not a measurement."""
        self._write(clean(text))

    def close(self) -> None:  # noqa: B027 - the same in all kinds
        """Nothing to do: the stream belongs to the caller."""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class OperationLineView(LineView):
    """A `LineView` of operations; `unit` names what is counted a second."""

    def __init__(self, stream: TextIO, *, unit: str = "conn/s") -> None:
        super().__init__(stream)
        self._unit = unit
        self._totals = Totals()

    def _begin(self, duration_s: float, warmup_s: float) -> str:
        self._totals = Totals()
        length = format_duration(duration_s) if duration_s else "until stopped"
        return f"{length}, warm-up {format_duration(warmup_s)}" if warmup_s else length

    def _absorb(self, snapshot: Snapshot) -> None:
        self._totals.add(snapshot)

    def _header(self, snapshot: Snapshot) -> str:
        return header_line(len(snapshot.targets), unit=self._unit, open_loop=snapshot.waiting is not None)

    def _lines(self, snapshot: Snapshot) -> Iterable[str]:
        yield snapshot_line(snapshot, self._totals)
