"""One line a second of a run that holds connections, for logs, pipes and CI.

Columns as in `lines.py`: separated by spaces, none holds a space, `-` where there is no figure.
`held`, `failed` and `dropped` are the run so far; rates, latencies and `events` are of the second the
line stands for. `failed` counts first openings only; what failed in reconnects and queries is in
`events`, as `reconnect:KIND=N` and `query:KIND=N`, and `drop:KIND=N` is what was dropped.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, TextIO

from pool_bench.report.live.lines import STAGE_NAMES, LineView, plain_ms, rate_of
from pool_bench.report.summary.hold_words import holding_words
from pool_bench.report.text import format_rate
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.timeline import Timeline
from pool_bench.units import format_duration

Slots = Callable[[], tuple[int, int] | None]
"""Gives the slots in use and the `max_connections` of the server, None while they are not known."""

_COLUMNS: Final = (
    ("elapsed", 8),
    ("stage", 5),
    ("held", 7),
    ("of", 7),
    ("opening", 7),
    ("failed", 7),
    ("dropped", 7),
    ("backoff", 7),
    ("conn/s", 7),
    ("p50_ms", 7),
    ("p99_ms", 7),
    ("ka_p50_ms", 9),
    ("ka_max_ms", 9),
)
_ACTIVE_COLUMNS: Final = (("active_q/s", 10), ("active_p50_ms", 13))
_SLOTS_COLUMN: Final = (("slots", 11),)
_CLIENT_COLUMNS: Final = (("cpu%", 5), ("lag_ms", 7))


@dataclass(slots=True)
class HoldTotals:
    """The run so far.

    Attributes:
        held: connections open now.
        opening: the first opening, over all targets.
        hold: everything else about the connections, without intervals.
        held_when_open: how many were open when opening was over.
        stage: of the last snapshot that was added.
    """

    held: int = 0
    held_when_open: int = 0
    opening: BenchStats = field(default_factory=BenchStats)
    hold: HoldStats = field(default_factory=HoldStats)
    stage: Stage = Stage.OPEN

    def words(self, asked: int) -> str:
        """What came of the opening of `asked` connections, once it is over."""
        return holding_words(asked, self.held_when_open, self.opening, self.hold.gave_up_s)

    def add(self, snapshot: Snapshot) -> bool:
        """Count what happened in `snapshot`; whether opening is over now and was not before."""
        was, self.stage = self.stage, snapshot.stage
        opening_over = was is Stage.OPEN and self.stage is Stage.HOLD
        if opening_over:
            self.held_when_open = self.held
        for stats in snapshot.targets:
            self.opening.merge(replace(stats, intervals=Timeline()))
        if snapshot.hold is not None:
            self.hold.merge(replace(snapshot.hold, intervals=Timeline()))
            self.held += snapshot.hold.held
        return opening_over


@dataclass(frozen=True, slots=True)
class HoldSecond:
    """The figures of one snapshot, all targets together; latencies in milliseconds, None without one.

    Attributes:
        rate: connections opened a second, replacements included.
        connect_p50, connect_p99: of those.
        keepalive_p50, keepalive_max: of keep-alive queries.
        active_rate: queries a second of connections that never rest.
        active_p50, active_p99: of those.
        events: what failed or was dropped, by kind; see the head of this module.
        cpu_percent: of one core.
        lag_ms: worst event-loop lag.
    """

    rate: float
    connect_p50: float | None
    connect_p99: float | None
    keepalive_p50: float | None
    keepalive_max: float | None
    active_rate: float
    active_p50: float | None
    active_p99: float | None
    events: dict[str, int]
    cpu_percent: float
    lag_ms: float | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> "HoldSecond":
        """Read the figures of one snapshot; the snapshot is not changed."""
        hold = snapshot.hold or HoldStats()
        connects, opened = Histogram(), hold.reconnects.ok
        events: dict[str, int] = {}
        for stats in (*snapshot.targets, hold.reconnects):
            connects.merge(stats.latency)
        for stats in snapshot.targets:
            opened += stats.ok
            for kind, count in stats.errors.items():
                events[str(kind)] = events.get(str(kind), 0) + count
        for key, drop in hold.drops.items():
            events[f"drop:{key.kind}"] = events.get(f"drop:{key.kind}", 0) + drop.count
        for kind, count in hold.reconnects.errors.items():
            events[f"reconnect:{kind}"] = count
        for kind, count in hold.query_failures.errors.items():
            events[f"query:{kind}"] = count
        connect_p50, connect_p99 = connects.percentiles_ms((50, 99))
        keepalive_p50, keepalive_max = hold.keepalive.percentiles_ms((50, 100))
        active_p50, active_p99 = hold.active.percentiles_ms((50, 99))
        return cls(
            rate=rate_of(opened, snapshot.seconds),
            connect_p50=connect_p50,
            connect_p99=connect_p99,
            keepalive_p50=keepalive_p50,
            keepalive_max=keepalive_max,
            active_rate=rate_of(hold.active.count, snapshot.seconds),
            active_p50=active_p50,
            active_p99=active_p99,
            events=events,
            cpu_percent=snapshot.client.cpu_share * 100,
            lag_ms=snapshot.client.lag.percentile_ms(100),
        )


def _columns(*, active: bool, slots: bool) -> tuple[tuple[str, int], ...]:
    return (
        *_COLUMNS,
        *(_ACTIVE_COLUMNS if active else ()),
        *(_SLOTS_COLUMN if slots else ()),
        *_CLIENT_COLUMNS,
    )


def hold_header(*, active: bool = False, slots: bool = False) -> str:
    """Names of the columns of `hold_line`.

    Args:
        active: some connections never rest: adds `active_q/s` and `active_p50_ms`.
        slots: the server is watched: adds `slots`.
    """
    columns = _columns(active=active, slots=slots)
    return " ".join([*(name.rjust(width) for name, width in columns), "events"])


def hold_line(
    snapshot: Snapshot,
    totals: HoldTotals,
    *,
    asked: int,
    active: bool = False,
    slots: Slots | None = None,
) -> str:
    """One line for one snapshot.

    Args:
        snapshot: what happened in this second.
        totals: the run so far, this second included.
        asked: connections that were asked for.
        active: as for `hold_header`.
        slots: where the slots in use come from, where the server is watched.

    Returns:
        As many columns as `hold_header` names.
    """
    second = HoldSecond.of(snapshot)
    cells = [
        f"{snapshot.elapsed_s:z.1f}s",
        STAGE_NAMES[snapshot.stage],
        str(totals.held),
        str(asked),
        str(snapshot.in_flight),
        str(totals.opening.failed),
        str(totals.hold.dropped),
        str(snapshot.backing_off),
        format_rate(second.rate).replace(",", ""),
        plain_ms(second.connect_p50),
        plain_ms(second.connect_p99),
        plain_ms(second.keepalive_p50),
        plain_ms(second.keepalive_max),
    ]
    if active:
        cells += [format_rate(second.active_rate).replace(",", ""), plain_ms(second.active_p50)]
    if slots is not None:
        seen = slots()
        cells.append("-" if seen is None else f"{seen[0]}/{seen[1]}")
    cells += [f"{second.cpu_percent:.0f}", plain_ms(second.lag_ms)]
    columns = _columns(active=active, slots=slots is not None)
    cells = [cell.rjust(width) for cell, (_, width) in zip(cells, columns, strict=True)]
    cells.append(",".join(f"{name}={count}" for name, count in second.events.items()) or "-")
    return " ".join(cells)


class HoldLineView(LineView):
    """A `LineView` of a run that holds connections.

    Args:
        stream: where to; the caller keeps it.
        asked: connections that were asked for.
        active: some connections never rest.
        slots: where the server's slots in use come from, None where it is not watched.
    """

    def __init__(
        self, stream: TextIO, *, asked: int, active: bool = False, slots: Slots | None = None
    ) -> None:
        super().__init__(stream)
        self._asked = asked
        self._active = active
        self._slots = slots
        self._totals = HoldTotals()
        self._opening_over = False

    def _begin(self, duration_s: float, warmup_s: float) -> str:
        self._totals = HoldTotals()
        return f"hold for {format_duration(duration_s)}" if duration_s else "hold until stopped"

    def _absorb(self, snapshot: Snapshot) -> None:
        self._opening_over = self._totals.add(snapshot)

    def _header(self, snapshot: Snapshot) -> str:
        return hold_header(active=self._active, slots=self._slots is not None)

    def _lines(self, snapshot: Snapshot) -> Iterable[str]:
        if self._opening_over:
            yield self._totals.words(self._asked)
        yield hold_line(snapshot, self._totals, asked=self._asked, active=self._active, slots=self._slots)
