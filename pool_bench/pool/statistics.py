"""What a pool has done so far, in numbers.

A checkout costs one element of an array; the array is emptied into HDR buckets once it is full or
when somebody asks, so memory does not grow with the number of checkouts.
"""

from array import array
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Final, NamedTuple, Protocol

import numpy as np

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C
from pool_bench.pool.core import PoolCore
from pool_bench.pool.events import EventBus
from pool_bench.pool.health import Health, HealthState
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
        unfit: connections closed because their server is not of the sort any more that is asked for.
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
        recent_utilisation: mean of `utilisation`, by one look a second over the last ten.
        checkout_rate: leases a second, over the last ten seconds; so are the other rates.
        return_rate: leases that ended a second.
        connect_rate: connections opened a second.
        failure_rate: timeouts, refusals, and failed connects, checks and resets a second.
        health: how well the pool does, by the rules of `HealthConfig`.
        health_reason: the rule that makes it degraded or critical, in words; else empty.
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
    unfit: int
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
    recent_utilisation: float
    checkout_rate: float
    return_rate: float
    connect_rate: float
    failure_rate: float
    wait_p50_ms: float | None
    wait_p95_ms: float | None
    wait_p99_ms: float | None
    wait_max_ms: float | None
    wait_total_s: float
    breaker: BreakerState
    health: HealthState
    health_reason: str
    events_dropped: int
    subscriber_faults: int
    uptime_s: float

    @property
    def statistics(self) -> "PoolStatistics":
        """These; pools whose numbers go by other names have them beside those."""
        return self


class Numbers(Protocol):
    """What a pool says of itself, by whatever names."""

    @property
    def statistics(self) -> PoolStatistics:
        """The same by the names that all pools share."""


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
    unfit: int = 0
    created: int = 0


class Checkouts:
    """Checkout latencies and, because each checkout has one, their number.

    Attributes:
        samples: nanoseconds not yet in buckets; the hot path appends to it.
    """

    __slots__ = ("_draining", "_histogram", "samples")

    def __init__(self) -> None:
        self.samples: array[int] = array("q")
        self._histogram = Histogram()
        self._draining = Lock()

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

    @property
    def total_s(self) -> float:
        """Sum of the latencies that are in buckets, seconds."""
        return self._histogram.total_s

    def percentiles_ms(self) -> list[float | None]:
        """p50, p95, p99 and p100, milliseconds."""
        self.drain()
        return self._histogram.percentiles_ms((50.0, 95.0, 99.0, 100.0))


class Totals(NamedTuple):
    """What there has been by some time."""

    checkouts: int
    returns: int
    connects: int
    failures: int

    @classmethod
    def of(cls, checkouts: Checkouts, in_use: int, counters: Counters) -> "Totals":
        """By now."""
        failed = counters.connect_errors + counters.health_check_failures + counters.reset_failures
        return cls(
            checkouts=checkouts.count,
            returns=max(0, checkouts.count - in_use),
            connects=counters.created,
            failures=failed + counters.timeouts + counters.refusals,
        )


class Recent:
    """The last ten seconds, of which one look a second is kept.

    Attributes:
        utilisation: mean of those looks; 0 before the first.
    """

    __slots__ = ("_looks", "_shares", "utilisation")

    def __init__(self, now_ns: int) -> None:
        self._looks: deque[tuple[int, Totals]] = deque([(now_ns, Totals(0, 0, 0, 0))], maxlen=_RATE_SAMPLES)
        self._shares: deque[float] = deque(maxlen=_RATE_SAMPLES - 1)
        self.utilisation = 0.0

    def look(self, totals: Totals, utilisation: float, now_ns: int) -> None:
        """Remember what there is now; once a second or so."""
        self._looks.append((now_ns, totals))
        self._shares.append(utilisation)
        self.utilisation = sum(self._shares) / len(self._shares)

    def rates(self, totals: Totals, now_ns: int) -> tuple[float, float, float, float]:
        """What has come since the oldest look, a second, in the order of `Totals`."""
        then_ns, before = self._looks[0]
        factor = 1e9 / (now_ns - then_ns) if now_ns > then_ns else 0.0
        checkouts, returns, connects, failures = (
            max(0, count - old) * factor for count, old in zip(totals, before, strict=True)
        )
        return checkouts, returns, connects, failures


def take_statistics(
    *,
    name: str,
    state: PoolState,
    config: PoolConfig,
    core: PoolCore[C],
    counters: Counters,
    checkouts: Checkouts,
    recent: Recent,
    breaker: BreakerState,
    health: Health,
    events: EventBus,
    opened_ns: int,
    now_ns: int,
) -> PoolStatistics:
    """Everything in numbers, at `now_ns`."""
    p50, p95, p99, highest = checkouts.percentiles_ms()
    in_use = core.in_use
    totals = Totals.of(checkouts, in_use, counters)
    checkout_rate, return_rate, connect_rate, failure_rate = recent.rates(totals, now_ns)
    return PoolStatistics(
        name=name,
        state=state,
        acquisitions=totals.checkouts,
        releases=totals.returns,
        timeouts=counters.timeouts,
        refusals=counters.refusals,
        cancelled=counters.cancelled,
        connect_errors=counters.connect_errors,
        health_check_failures=counters.health_check_failures,
        reset_failures=counters.reset_failures,
        leaks=counters.leaks,
        unfit=counters.unfit,
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
        recent_utilisation=recent.utilisation,
        checkout_rate=checkout_rate,
        return_rate=return_rate,
        connect_rate=connect_rate,
        failure_rate=failure_rate,
        wait_p50_ms=p50,
        wait_p95_ms=p95,
        wait_p99_ms=p99,
        wait_max_ms=highest,
        wait_total_s=checkouts.total_s,
        breaker=breaker,
        health=health.state,
        health_reason=health.reason,
        events_dropped=events.dropped,
        subscriber_faults=events.faults,
        uptime_s=(now_ns - opened_ns) / 1e9,
    )
