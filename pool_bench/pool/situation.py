"""How a pool looks from outside: in words for messages, in numbers for everybody else."""

import heapq
from typing import Final

from pool_bench.pool.breaker import BreakerState
from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C
from pool_bench.pool.context import PoolContext
from pool_bench.pool.core import PoolCore
from pool_bench.pool.errors import PoolTimeoutError
from pool_bench.pool.events import EventBus
from pool_bench.pool.recycler import describe
from pool_bench.pool.statistics import Checkouts, Counters, PoolState, PoolStatistics

_KEPT_NS: Final = 10_000_000


def longest_held(ctx: PoolContext[C]) -> str:
    """Who has held connections for longest; looks at every lease there is."""
    now_ns = ctx.clock()
    longest = heapq.nsmallest(3, ctx.core.leased(), key=lambda slot: slot.acquired_ns)
    return ", ".join(
        f"{slot.owner.get_name() if slot.owner else 'unknown'} ({(now_ns - slot.acquired_ns) / 1e9:.3g} s)"
        for slot in longest
    )


class Holders:
    """What `longest_held` says, from memory where it was asked just now: thousands may be told at once."""

    __slots__ = ("_said", "_until_ns")

    def __init__(self) -> None:
        self._said = ""
        self._until_ns = 0

    def of(self, ctx: PoolContext[C]) -> str:
        """Who holds the pool's connections, as of now or 10 ms ago."""
        now_ns = ctx.clock()
        if now_ns >= self._until_ns:
            self._said = longest_held(ctx)
            self._until_ns = now_ns + _KEPT_NS
        return self._said


def situation(ctx: PoolContext[C], holders: str) -> str:
    """The sizes, and what `longest_held` said."""
    core = ctx.core
    words = f"size {core.size} of {core.max_size}, {core.in_use} in use, {len(core.waiters)} waiting"
    if not core.handing_out:
        words += "; the pool is paused"
    return words + (f"; held longest by {holders}" if holders else "")


def timeout_error(
    ctx: PoolContext[C], what: str, cause: BaseException | None, holders: str
) -> PoolTimeoutError:
    """The error of a caller whose time is up; `holders` is what `longest_held` said."""
    core = ctx.core
    message = f"pool {ctx.name}: {what}; {situation(ctx, holders)}"
    if cause is not None:
        message += f"; the last connect failed: {describe(cause)}"
    error = PoolTimeoutError(message, size=core.size, in_use=core.in_use, waiters=len(core.waiters))
    error.__cause__ = cause
    return error


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
        floor=core.floor,
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
