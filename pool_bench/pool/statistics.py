"""What a pool has done so far, in numbers.

A checkout costs one element of an array; the array is emptied into HDR buckets once it is full or
when somebody asks, so memory does not grow with the number of checkouts.
"""

from array import array
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Final

import numpy as np

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C
from pool_bench.pool.core import PoolCore
from pool_bench.pool.events import EventBus
from pool_bench.pool.retry import BreakerState
from pool_bench.stats.histogram import Histogram

# Samples kept before they are put into buckets: 32 KiB.
DRAIN_AT: Final = 4096
_RATE_SAMPLES: Final = 11


class PoolState(StrEnum):
    """What the pool does with callers."""

    NEW = "new"
    """Not opened: they fail."""
    RUNNING = "running"
    PAUSED = "paused"
    """They wait."""
    DRAINING = "draining"
    """They wait, and somebody waits for the leases to end."""
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A look at a pool. Counts are since it was opened.

    Attributes:
        acquisitions: leases granted.
        releases: leases that ended, those taken away from their holders included.
        timeouts: callers that gave up at their limit.
        refusals: callers that failed at once: too many waiters, breaker open, target down.
        cancelled: callers that were cancelled while they waited.
        connect_errors: connects that failed.
        health_check_failures: checks and validations that failed.
        reset_failures: connections that could not be reset, or came back broken.
        leaks: leases reported as held too long.
        created: connections opened.
        closed: connections that are gone again.
        size: connections now, those being opened and closed included.
        idle: connections to be had at once.
        in_use: leased connections.
        opening: connections being opened.
        busy: connections being checked, reset or closed.
        waiters: callers that wait now.
        floor: connections kept whatever the demand; `min_size`, or what scaling made of it.
        utilisation: share of `max_size` that is leased, 0 to 1.
        checkout_rate: leases a second, over the last ten seconds.
        wait_p50_ms: checkout latency from the call to the lease, milliseconds; None before the first.
        wait_total_s: sum of all checkout latencies, seconds.
        events_dropped: events that subscribers were too slow for.
        subscriber_faults: events that subscribers raised at.
        uptime_s: seconds since the pool was opened.
    """

    name: str
    state: PoolState
    acquisitions: int
    releases: int
    timeouts: int
    refusals: int
    cancelled: int
    connect_errors: int
    health_check_failures: int
    reset_failures: int
    leaks: int
    created: int
    closed: int
    peak_size: int
    peak_waiters: int
    min_size: int
    max_size: int
    size: int
    idle: int
    in_use: int
    opening: int
    busy: int
    waiters: int
    floor: int
    utilisation: float
    checkout_rate: float
    wait_p50_ms: float | None
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    wait_max_ms: float | None
    wait_total_s: float
    breaker: BreakerState
    events_dropped: int
    subscriber_faults: int
    uptime_s: float


@dataclass(slots=True)
class Counters:
    """What has to be counted as it happens; the rest follows from sizes."""

    timeouts: int = 0
    refusals: int = 0
    cancelled: int = 0
    connect_errors: int = 0
    health_check_failures: int = 0
    reset_failures: int = 0
    leaks: int = 0
    created: int = 0


class Checkouts:
    """Checkout latencies and, because each checkout has one, their number.

    Attributes:
        samples: nanoseconds not yet in buckets; the hot path appends to it.
    """

    __slots__ = ("_draining", "_histogram", "_marks", "samples")

    def __init__(self, now_ns: int) -> None:
        self.samples: array[int] = array("q")
        self._histogram = Histogram()
        self._draining = Lock()
        self._marks: deque[tuple[int, int]] = deque([(now_ns, 0)], maxlen=_RATE_SAMPLES)

    @property
    def count(self) -> int:
        """Checkouts so far."""
        return self._histogram.count + len(self.samples)

    def drain(self) -> None:
        """Put the samples into buckets; an exporter's thread may do so while the pool's adds more."""
        with self._draining:
            taken = self.samples[:]
            # In place: the hot path holds on to the array.
            del self.samples[: len(taken)]
            self._histogram.record(np.array(taken, dtype=np.int64))

    def mark(self, now_ns: int) -> None:
        """Remember how many there were by now; once a second or so."""
        self._marks.append((now_ns, self.count))

    def rate(self, now_ns: int) -> float:
        """Checkouts a second since the oldest mark."""
        then_ns, count = self._marks[0]
        return (self.count - count) * 1e9 / (now_ns - then_ns) if now_ns > then_ns else 0.0

    @property
    def total_s(self) -> float:
        """Sum of the latencies that are in buckets, seconds."""
        return self._histogram.total_s

    def percentiles_ms(self) -> list[float | None]:
        """p50, p95, p99 and p100, milliseconds."""
        self.drain()
        return self._histogram.percentiles_ms((50.0, 95.0, 99.0, 100.0))


def take_statistics(
    *,
    name: str,
    state: PoolState,
    config: PoolConfig,
    core: PoolCore[C],
    counters: Counters,
    checkouts: Checkouts,
    breaker: BreakerState,
    events: EventBus,
    opened_ns: int,
    now_ns: int,
) -> PoolStatistics:
    """Everything in numbers, at `now_ns`."""
    p50, p95, p99, highest = checkouts.percentiles_ms()
    in_use = core.in_use
    return PoolStatistics(
        name=name,
        state=state,
        acquisitions=checkouts.count,
        releases=max(0, checkouts.count - in_use),
        timeouts=counters.timeouts,
        refusals=counters.refusals,
        cancelled=counters.cancelled,
        connect_errors=counters.connect_errors,
        health_check_failures=counters.health_check_failures,
        reset_failures=counters.reset_failures,
        leaks=counters.leaks,
        created=counters.created,
        closed=counters.created - len(core.slots),
        peak_size=core.peak_size,
        peak_waiters=core.peak_waiters,
        min_size=config.min_size,
        max_size=core.max_size,
        size=core.size,
        idle=len(core.idle),
        in_use=in_use,
        opening=core.opening,
        busy=len(core.busy) + core.closing,
        waiters=len(core.waiters),
        floor=core.warm_size,
        utilisation=in_use / core.max_size,
        checkout_rate=checkouts.rate(now_ns),
        wait_p50_ms=p50,
        wait_p95_ms=p95,
        wait_p99_ms=p99,
        wait_max_ms=highest,
        wait_total_s=checkouts.total_s,
        breaker=breaker,
        events_dropped=events.dropped,
        subscriber_faults=events.faults,
        uptime_s=(now_ns - opened_ns) / 1e9,
    )
