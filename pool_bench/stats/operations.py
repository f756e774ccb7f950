"""Where results accumulate: counts, failures by kind, HDR histograms, one interval a second.

Generators record raw nanoseconds and hand on a `BenchStats` delta every second; the parent merges
the deltas. Everything here merges exactly (threads, processes, machines): counts are added,
histograms are added bucket by bucket, and a percentile is only ever read from merged buckets.
Memory depends on the number of histograms and seconds, never on the number of operations.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.stats.addresses import UNKNOWN, AddressRecorder, AddressStats, merge_addresses
from pool_bench.stats.client_time import ClientTime
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.timeline import Timeline, in_a_row, require_unsealed

# A server may send any SQLSTATE and any text; a hostile one must not be able to fill the memory.
_MAX_FAILURE_KEYS: Final = 256
MAX_SAMPLE_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True, order=True)
class FailureKey:
    """What tells failures apart: kind, the phase they happened in, and SQLSTATE ("" without one)."""

    kind: FailureKind
    phase: Phase
    sqlstate: str = ""


def key_among(known: Mapping[FailureKey, object], key: FailureKey) -> FailureKey:
    """What a failure is counted under: beyond 256 sorts a new SQLSTATE is given up, never the count."""
    if key in known or len(known) < _MAX_FAILURE_KEYS:
        return key
    return FailureKey(key.kind, key.phase)


@dataclass(slots=True)
class FailureCount:
    """How often one sort of failure happened, and one message of it for a person."""

    count: int
    sample: str


@dataclass(slots=True)
class Interval:
    """One second (about) of a run.

    Attributes:
        t: end of the interval, seconds since measuring began.
        seconds: its exact length.
        ok, failed: operations that ended in it.
        in_flight: operations under way at its end.
        lag_ms: worst event-loop lag in it, milliseconds.
        cpu_s: client CPU time spent in it, seconds.
        latency: its latency histogram; None once sealed.
        p50, p95, p99, max: milliseconds, set when sealed.
        offered: operations that became due in it, in an open loop.
        dropped: operations given up in it before they were begun.
        late_ms: how late one that could begin was begun, at worst, milliseconds.
        service: its histogram of service times, as `latency`; None in a closed loop.
        service_p50, service_p99: milliseconds, set when sealed.
    """

    t: float
    seconds: float
    ok: int
    failed: int
    in_flight: int
    lag_ms: float
    cpu_s: float
    latency: Histogram | None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    offered: int = 0
    dropped: int = 0
    late_ms: float = 0.0
    service: Histogram | None = None
    service_p50: float | None = None
    service_p99: float | None = None

    def seal(self) -> None:
        """Read the percentiles and let the histograms go, so that a long run stays small."""
        if self.latency is not None:
            self.p50, self.p95, self.p99, self.max = self.latency.percentiles_ms((50, 95, 99, 100))
            self.latency = None
        if self.service is not None:
            self.service_p50, self.service_p99 = self.service.percentiles_ms((50, 99))
            self.service = None

    def merge(self, other: "Interval") -> None:
        """Add the same second of another generator.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        require_unsealed(self, other)
        self.seconds = max(self.seconds, other.seconds)
        self.ok += other.ok
        self.failed += other.failed
        self.in_flight += other.in_flight
        self.lag_ms = max(self.lag_ms, other.lag_ms)
        self.cpu_s += other.cpu_s
        self.offered += other.offered
        self.dropped += other.dropped
        self.late_ms = max(self.late_ms, other.late_ms)
        self.latency = Histogram.merged((self.latency, other.latency))
        if self.service is not None and other.service is not None:
            self.service = Histogram.merged((self.service, other.service))

    @property
    def is_sealed(self) -> bool:
        """Whether its histograms are gone."""
        return self.latency is None

    @property
    def sort(self) -> str:
        """All stretches of measuring are alike."""
        return ""

    def joined(self, later: "Interval") -> "Interval":
        """This stretch and the one after it as one; neither is changed.

        Raises:
            ValueError: one of the two is sealed; percentiles cannot be merged.
        """
        whole = in_a_row(self, later)
        whole.in_flight = later.in_flight
        whole.seconds = self.seconds + later.seconds
        return whole


@dataclass(slots=True)
class BenchStats:
    """Everything counted about operations: one target's, one second's or a whole run's.

    In an open loop `latency` is the response time, from when an operation was due.

    Attributes:
        offered: operations that were due, in an open loop: ok + failed + unfinished + dropped + aside
            in the end.
        dropped: operations that were due and were given up before they were begun.
        service: successes from when they were begun, in an open loop.
        schedule_error: how late this client began what was due and had room, of every operation begun.
        aside: operations that were under way while this client was suspended: they ended, but their times are
            not the target's, so they are in no other figure.
        closed_by_us: operations whose connection the server did not close when it was told that it ends.
        unfinished_in: those of `unfinished` by the step they were at, as far as that is known.
        addresses: all of it by the address that was used, where there may be several; else empty.
    """

    ok: int = 0
    failed: int = 0
    unfinished: int = 0
    latency: Histogram = field(default_factory=Histogram)
    failure_latency: Histogram = field(default_factory=Histogram)
    phases: dict[Phase, Histogram] = field(default_factory=dict)
    failures: dict[FailureKey, FailureCount] = field(default_factory=dict)
    intervals: Timeline[Interval] = field(default_factory=Timeline)
    offered: int = 0
    dropped: int = 0
    service: Histogram = field(default_factory=Histogram)
    schedule_error: Histogram = field(default_factory=Histogram)
    aside: int = 0
    closed_by_us: int = 0
    unfinished_in: dict[Phase, int] = field(default_factory=dict)
    addresses: dict[str, AddressStats] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        """Operations that were begun, however they ended."""
        return self.ok + self.failed + self.unfinished

    @property
    def success_rate(self) -> float | None:
        """Successes over attempts and what was dropped, 0 to 1; None where there was neither."""
        wanted = self.attempts + self.dropped
        return self.ok / wanted if wanted else None

    @property
    def errors(self) -> dict[FailureKind, int]:
        """Failures by kind, most frequent first."""
        counts: dict[FailureKind, int] = {}
        for key, failure in self.failures.items():
            counts[key.kind] = counts.get(key.kind, 0) + failure.count
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def merge(self, other: "BenchStats") -> None:
        """Add all of `other`; intervals that end at the same `t` become one.

        Raises:
            ValueError: two intervals of the same second are to be merged and one is sealed.
        """
        self.ok += other.ok
        self.failed += other.failed
        self.unfinished += other.unfinished
        self.latency.merge(other.latency)
        self.failure_latency.merge(other.failure_latency)
        self.offered += other.offered
        self.dropped += other.dropped
        self.service.merge(other.service)
        self.schedule_error.merge(other.schedule_error)
        self.aside += other.aside
        self.closed_by_us += other.closed_by_us
        for phase, count in other.unfinished_in.items():
            self.unfinished_in[phase] = self.unfinished_in.get(phase, 0) + count
        for phase, histogram in other.phases.items():
            self.phases.setdefault(phase, Histogram()).merge(histogram)
        for key, failure in other.failures.items():
            self.count_failure(key, failure.count, failure.sample)
        if other.addresses:
            merge_addresses(self.addresses, other.addresses)
        self.intervals.merge(other.intervals)

    def count_failure(self, key: FailureKey, count: int, sample: str) -> None:
        """Add failures of one sort, which may come to stand without its SQLSTATE; see `key_among`."""
        key = key_among(self.failures, key)
        known = self.failures.get(key)
        if known is None:
            self.failures[key] = FailureCount(count, sample[:MAX_SAMPLE_CHARACTERS])
        else:
            known.count += count

    @staticmethod
    def merged(parts: Iterable["BenchStats"]) -> "BenchStats":
        """The sum of `parts`, none of which is changed."""
        total = BenchStats()
        for part in parts:
            total.merge(part)
        return total


@dataclass(slots=True)
class ClientUsage:
    """What the generator itself cost, and how late its event loop was.

    Attributes:
        cpu_s: user and system CPU time, seconds.
        wall_s: over how many seconds of wall time.
        rss_bytes: largest resident size seen.
        lag: event-loop lag, as it was at any moment.
        pauses: the garbage collector's runs, each of which holds everything up.
        processes: how many generator processes this adds up.
        time: where its time went, by the kernel's account.
        port_searches: connects for which this machine's kernel searched half of its local ports in vain.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    rss_bytes: int = 0
    lag: Histogram = field(default_factory=Histogram)
    processes: int = 1
    pauses: Histogram = field(default_factory=Histogram)
    time: ClientTime = field(default_factory=ClientTime)
    port_searches: int = 0

    @property
    def cpu_share(self) -> float:
        """CPU time over wall time of one core, 0 to 1 for each process."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0

    @property
    def pause_share(self) -> float:
        """Time spent in the garbage collector over wall time, 0 to 1 for each process."""
        return self.pauses.total_s / self.wall_s if self.wall_s else 0.0

    def merge(self, other: "ClientUsage") -> None:
        """Add a later second of the same generator."""
        self.cpu_s += other.cpu_s
        self.wall_s += other.wall_s
        self.rss_bytes = max(self.rss_bytes, other.rss_bytes)
        self.lag.merge(other.lag)
        self.pauses.merge(other.pauses)
        self.time.merge(other.time)
        self.port_searches += other.port_searches

    @staticmethod
    def together(parts: Iterable["ClientUsage"]) -> "ClientUsage":
        """What generators cost that ran at the same time, none of which is changed."""
        whole = ClientUsage(processes=0)
        for part in parts:
            wall_s = max(whole.wall_s, part.wall_s)
            rss_bytes = whole.rss_bytes + part.rss_bytes
            whole.merge(part)
            whole.wall_s, whole.rss_bytes = wall_s, rss_bytes
            whole.processes += part.processes
        return whole


class Recorder:
    """Takes operations one by one at the cost of an `array.extend`, and fills histograms in bulk.

    Rows are `total_ns` and then one column for each of `phases`, -1 where the operation skipped it. With
    `responses` they are the response time, the service time, and the phases. With `by_address` operations are
    also counted by the address that they ended at.

    Attributes:
        addresses: takes what is known of an address beside the operations that ended there; None without a
            split.
    """

    # Small enough that a fill stalls the event loop for a fifth of a millisecond, most of which is NumPy's
    # fixed cost for each call.
    _ROWS_PER_FILL: Final = 512

    __slots__ = (
        "_columns",
        "_earlier",
        "_errors_ns",
        "_failures_ns",
        "_limit",
        "_now_ns",
        "_phases",
        "_responses",
        "_resumed_ns",
        "_rows",
        "_stats",
        "addresses",
    )

    def __init__(
        self, phases: tuple[Phase, ...], *, responses: bool = False, by_address: bool = False
    ) -> None:
        self._phases = phases
        self._responses = responses
        self._columns = len(phases) + (2 if responses else 1)
        self.addresses = AddressRecorder() if by_address else None
        # Where a row has what addresses before the last one took.
        self._earlier = phases.index(Phase.EARLIER) - len(phases) if Phase.EARLIER in phases else None
        self._limit = self._ROWS_PER_FILL * self._columns
        self._rows = array("q")
        self._failures_ns = array("q")
        self._errors_ns = array("q")
        self._stats = BenchStats()
        self._resumed_ns = 0
        self._now_ns: Callable[[], int] = int

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What a row's columns are."""
        return self._phases

    def set_aside(self, resumed_ns: int, now_ns: Callable[[], int]) -> None:
        """Only count what began before a moment of the clock `now_ns`; safe in a signal handler."""
        self._now_ns, self._resumed_ns = now_ns, resumed_ns

    def _is_aside(self, total_ns: int) -> bool:
        """Whether an operation that has ended now, after that time, saw its client suspended."""
        if self._now_ns() - total_ns >= self._resumed_ns:
            return False
        self._stats.aside += 1
        return True

    def closed_by_us(self) -> None:
        """Count an operation whose connection the server did not close when it was told to."""
        self._stats.closed_by_us += 1

    def ok(self, row: tuple[int, ...], address: str = UNKNOWN) -> None:
        """Record a success by its row, phases in the order of `phases`, as soon as it has ended."""
        if self._resumed_ns and self._is_aside(row[0]):
            return
        rows = self._rows
        rows.extend(row)
        if len(rows) >= self._limit:
            self._fill()
        if self.addresses is not None:
            earlier_ns = 0 if self._earlier is None else max(row[self._earlier], 0)
            self.addresses.ok(address, row[1 if self._responses else 0] - earlier_ns)

    def failed(self, error: ConnectError, total_ns: int, address: str = UNKNOWN) -> None:
        """Record a failure and the time it took to fail, nanoseconds, as soon as it has."""
        if self._resumed_ns and self._is_aside(total_ns):
            return
        stats = self._stats
        stats.failed += 1
        self._failures_ns.append(total_ns)
        if len(self._failures_ns) >= self._ROWS_PER_FILL:
            self._fill_failures()
        stats.count_failure(FailureKey(error.kind, error.phase, error.sqlstate or ""), 1, error.message)
        if self.addresses is not None:
            self.addresses.failed(address, error.kind)

    def unfinished(self, count: int) -> None:
        """Record operations that were given up when the grace period ended."""
        self._stats.unfinished += count
        if self.addresses is not None:
            self.addresses.unfinished(UNKNOWN, count)

    def unfinished_in(self, phase: Phase, address: str = UNKNOWN) -> None:
        """Tell the step, and the address, that one of the `unfinished` was at."""
        stats = self._stats
        if self.addresses is not None and address != UNKNOWN:
            self.addresses.unfinished(UNKNOWN, -1)
            self.addresses.unfinished(address, 1)
        stats.unfinished_in[phase] = stats.unfinished_in.get(phase, 0) + 1

    def offered(self, count: int) -> None:
        """Record operations that have become due."""
        self._stats.offered += count

    def dropped(self, count: int) -> None:
        """Record operations that were due and are given up before they were begun."""
        self._stats.dropped += count

    def begun(self, error_ns: int) -> None:
        """Record how late an operation was begun, nanoseconds."""
        self._errors_ns.append(error_ns)
        if len(self._errors_ns) >= self._ROWS_PER_FILL:
            self._fill_errors()

    def _fill(self) -> None:
        table = np.frombuffer(self._rows, dtype=np.int64).reshape(-1, self._columns)
        stats = self._stats
        stats.ok += len(table)
        stats.latency.record(table[:, 0])
        if self._responses:
            stats.service.record(table[:, 1])
        for column, phase in enumerate(self._phases, self._columns - len(self._phases)):
            values = table[:, column]
            values = values[values >= 0]
            if len(values):
                stats.phases.setdefault(phase, Histogram()).record(values)
        self._rows = array("q")

    def _fill_failures(self) -> None:
        self._stats.failure_latency.record(np.frombuffer(self._failures_ns, dtype=np.int64))
        self._failures_ns = array("q")

    def _fill_errors(self) -> None:
        self._stats.schedule_error.record(np.frombuffer(self._errors_ns, dtype=np.int64))
        self._errors_ns = array("q")

    def take(self) -> BenchStats:
        """Everything recorded since the last call."""
        if self._rows:
            self._fill()
        if self._failures_ns:
            self._fill_failures()
        if self._errors_ns:
            self._fill_errors()
        taken, self._stats = self._stats, BenchStats()
        if self.addresses is not None:
            taken.addresses = self.addresses.take()
        return taken


def errors_by_name(errors: Mapping[FailureKind, int]) -> dict[str, int]:
    """Failure counts with plain string keys, as the result file holds them."""
    return {str(kind): count for kind, count in errors.items()}
