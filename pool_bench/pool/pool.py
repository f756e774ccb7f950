"""The pool: callers come here, and everything else happens elsewhere.

- A caller either gets an idle connection that has shown life recently, at once and without a task, a
  future or a timer; or it queues, and awaits one future until its deadline.
- All I/O (connect, validate, reset, close) is done by jobs of the pool, so cancelling a caller at any
  point interrupts none of it. A job that ends well puts its connection up; the first waiter that accepts
  it has it.
- Returning a connection never waits. One that was not touched is idle again; any other is reset first, or
  replaced, by a job.

`core.py` decides, `opener.py` opens, `recycler.py` validates, resets and ends, `housekeeper.py` comes by once
a second.
"""

import asyncio
import math
import os
import random
from asyncio import current_task, get_running_loop
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, Generic, NoReturn

from pool_bench.pool.config import PoolConfig, read_session
from pool_bench.pool.connections import C, Connector
from pool_bench.pool.context import PoolContext
from pool_bench.pool.core import PoolCore
from pool_bench.pool.errors import PoolClosedError, PoolError, PoolExhaustedError
from pool_bench.pool.events import EventBus, EventKind, Subscriber
from pool_bench.pool.health import Health
from pool_bench.pool.housekeeper import Housekeeper
from pool_bench.pool.jobs import Jobs, Quiescence
from pool_bench.pool.lease import Lease
from pool_bench.pool.opener import Opener
from pool_bench.pool.query_log import run_query
from pool_bench.pool.recycler import Recycler
from pool_bench.pool.retry import BreakerState
from pool_bench.pool.slots import NEVER_NS, Slot, SlotState, capture_stack
from pool_bench.pool.statistics import (
    DRAIN_AT,
    Checkouts,
    Counters,
    PoolState,
    PoolStatistics,
    Recent,
    take_statistics,
)
from pool_bench.pool.waiters import AT_ONCE, Deadlines, Waiter

_LEASED: Final = SlotState.LEASED
# What is still under way when the time for closing is up gets this long to notice.
_LAST_CALL_S: Final = 1.0
# A limit of more seconds, some three centuries, is none.
_NO_LIMIT_S: Final = NEVER_NS / 1e9


class ConnectionPool(Generic[C]):
    """Lends connections to tasks of one event loop, each to one task at a time.

    Args:
        connector: opens the connections.
        config: the settings.
        name: for messages, events and metrics.
        clock: nanoseconds, monotonic.

    Raises:
        ValueError: a file that the config names cannot be read.
    """

    def __init__(
        self,
        connector: Connector[C],
        config: PoolConfig | None = None,
        *,
        name: str = "pool",
        clock: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self.name = name
        self.config = config if config is not None else PoolConfig()
        self._connector = connector
        self._session, self._schema = read_session(self.config)
        self._core: PoolCore[C] = PoolCore(self.config.min_size, self.config.max_size)
        self._counters = Counters()
        self._events = EventBus()
        self._opened_ns = clock()
        self._checkouts = Checkouts()
        self._recent = Recent(self._opened_ns)
        self._state = PoolState.NEW
        # What leases work on: views of the above, and what they ask of the pool each time.
        self._running = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = self._core.idle
        self._renew: Callable[[Slot[C]], None] = self._core.renew
        self._waiters = self._core.waiters
        self._samples = self._checkouts.samples
        self._clock = clock
        self._max_uses = self.config.max_uses or NEVER_NS
        self._keeps_stacks = self.config.leak_threshold is not None and self.config.leak_stack
        # Made by `open`, for the loop that the pool will live in.
        self._pid = os.getpid()
        self._ctx: PoolContext[C]
        self._recycler: Recycler[C]
        self._opener: Opener[C]
        self._housekeeper: Housekeeper[C]
        self._deadlines: Deadlines[C]
        self._quiescence = Quiescence()
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        core = self._core
        return (
            f"<ConnectionPool {self.name!r} {self._state}: size {core.size} of {core.max_size}, "
            f"{core.in_use} in use, {len(core.waiters)} waiting>"
        )

    @property
    def state(self) -> PoolState:
        """What the pool does with callers now."""
        return self._state

    # Opening and closing

    async def open(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Start the pool in the running loop, and wait until `min_size` connections are open.

        Args:
            wait: False returns at once; the connections are opened in the background, and again and
                again while the target is down.
            timeout: seconds to wait; None for the config's `acquire_timeout`.

        Raises:
            PoolClosedError: it was opened before.
            PoolUnavailableError: `connect_attempts` connects in a row failed; the pool is closed again.
            PoolTimeoutError: the connections were not there in time; the pool is closed again.
        """
        if self._state is not PoolState.NEW:
            raise PoolClosedError(f"pool {self.name}: it was opened already, and opens only once")
        loop = get_running_loop()
        self._loop = loop
        self._pid = os.getpid()
        self._opened_ns = self._clock()
        self._ctx = PoolContext(
            name=self.name,
            connector=self._connector,
            config=self.config,
            core=self._core,
            jobs=Jobs(loop, self.name),
            counters=self._counters,
            events=self._events,
            loop=loop,
            clock=self._clock,
            rng=random.Random(self.config.seed),
            session=self._session,
            schema=self._schema,
        )
        self._recycler = Recycler(self._ctx, self._changed)
        self._opener = Opener(self._ctx, self._recycler)
        parts = (self._recycler, self._opener, self._checkouts, self._recent)
        self._housekeeper = Housekeeper(self._ctx, *parts)
        self._deadlines = Deadlines(loop, self._clock, self._time_out, self._core.waiters.__len__)
        self._set_state(PoolState.RUNNING)
        self._housekeeper.start()
        if wait:
            try:
                await self._warm_up(self.config.acquire_timeout if timeout is None else timeout)
            except BaseException:
                await self.close(timeout=0)
                raise

    async def _warm_up(self, timeout_s: float) -> None:
        opener = self._opener
        try:
            async with asyncio.timeout(None if timeout_s == math.inf else timeout_s):
                await opener.wait_for_min_size()
        except TimeoutError:
            what = f"{self._core.live} of {self.config.min_size} connections were open after {timeout_s:g} s"
            raise self._ctx.timeout_error(what, opener.last_error) from opener.last_error

    async def close(self, timeout: float | None = None) -> None:
        """Turn waiters away, let leases end, end all connections; safe to call again and at any time.

        Args:
            timeout: seconds until leases are revoked and everything is dropped; None for the config's
                `close_timeout`. A holder that returns a revoked lease is not bothered with an error.
        """
        if self._loop is None:
            self._state = PoolState.CLOSED
            return
        if self._state is PoolState.CLOSED:
            return
        self._check_loop()
        if self._closing is None:
            limit_s = self.config.close_timeout if timeout is None else max(0.0, timeout)
            self._closing = self._loop.create_task(self._close(limit_s), name=f"{self.name}:close-pool")
        await asyncio.shield(self._closing)

    async def _close(self, timeout_s: float) -> None:
        self._set_state(PoolState.CLOSING)
        self._recycler.closing = True
        self._opener.stop()
        self._housekeeper.stop()
        self._deadlines.stop()
        try:
            # In their order, and some in each turn of the loop: others want theirs, too.
            while self._core.waiters:
                self._turn_away(AT_ONCE)
                await asyncio.sleep(0)
        finally:
            self._turn_away(len(self._core.waiters))
            await self._end(timeout_s)

    def _turn_away(self, most: int) -> None:
        waiters = self._core.waiters
        for _ in range(min(most, len(waiters))):
            waiter, _ = waiters.popitem(last=False)
            waiter.fail(PoolClosedError(f"pool {self.name}: it was closed while this caller waited"))

    async def _end(self, timeout_s: float) -> None:
        try:
            await self._recycler.end_all(timeout_s, self._quiescence)
        finally:
            self._set_state(PoolState.CLOSED)
        await self._ctx.jobs.settled(_LAST_CALL_S)
        await self._events.stop(_LAST_CALL_S)

    async def __aenter__(self) -> "ConnectionPool[C]":
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # Leasing

    def acquire(self, timeout: float | None = None) -> Lease[C]:
        """Lease a connection: `async with pool.acquire() as conn`, or `conn = await pool.acquire()`.

        Args:
            timeout: seconds for everything: waiting, connecting, validating, resetting. None for the
                config's `acquire_timeout`; 0 for now or never: an idle connection that has to be validated
                is, within the config's `validate_timeout`, but none is opened or waited for.

        Raises:
            ValueError: the timeout is negative or no number.

        Raises (when awaited or entered):
            PoolTimeoutError: no connection came in time; the last failed connect is its cause.
            PoolExhaustedError: too many callers wait.
            PoolClosedError: the pool is not open, or is closed meanwhile.
            CircuitOpenError: the circuit breaker is open and no connection is left.
            PoolUnavailableError: the target is down and no connection is left (`fail_fast`).
            PoolError: another event loop or process is using the pool.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 seconds or more, not {timeout!r}")
        return Lease(self, timeout)

    async def release(self, conn: C) -> None:
        """Give back what `await pool.acquire()` gave; does not wait.

        Raises:
            PoolError: it is not leased, or another task, still running, has it. A lease that the pool
                has revoked may be returned.
        """
        self._check_loop()
        slot = self._core.slots.get(id(conn))
        if slot is None or slot.conn is not conn:
            if self._core.was_revoked(conn):
                return
            raise PoolError(f"pool {self.name}: that connection is not, or no longer, the pool's")
        task = current_task()
        if slot.owner is not None and slot.owner is not task and not slot.owner.done():
            raise PoolError(
                f"pool {self.name}: connection {slot.number} is leased to task {slot.owner.get_name()}, "
                f"which still runs; was it released twice? A lease ends in the task that took it, or "
                f"anywhere once that has ended: to hand work on, hand on the acquire()"
            )
        self._release(slot, slot.uses, suspect=False)

    async def _acquire_slow(self, timeout: float | None) -> Slot[C]:
        """Queue for a connection, or say why that is of no use."""
        began_ns = self._clock()
        self._check_usable()
        core = self._core
        config = self.config
        if config.max_waiters is not None and core.is_crowded(config.max_waiters):
            what = f"{len(core.waiters)} callers are waiting already (max_waiters)"
            self._refuse(PoolExhaustedError(f"pool {self.name}: {what}; {self._ctx.describe()}"))
        refusal = self._opener.refusal(began_ns)
        if refusal is not None:
            refusal.__cause__ = self._opener.last_error
            self._refuse(refusal)
        timeout_s = config.acquire_timeout if timeout is None else timeout
        deadline_ns = NEVER_NS if timeout_s >= _NO_LIMIT_S else began_ns + round(timeout_s * 1e9)
        stack = capture_stack() if self._keeps_stacks else None
        future: asyncio.Future[None] = self._ctx.loop.create_future()
        waiter: Waiter[C] = Waiter(future, current_task(), began_ns, timeout_s, deadline_ns, stack)
        core.enqueue(waiter)
        busy = len(core.busy)
        if core.idle or core.size < core.max_size:
            self._opener.replenish()
        if not future.done():
            if timeout_s <= 0 and len(core.busy) > busy:
                # What was idle is being validated for this caller.
                waiter.deadline_ns = began_ns + round(config.validate_timeout * 1e9)
                self._deadlines.add(waiter, began_ns)
            elif timeout_s <= 0:
                self._time_out([waiter])
            elif deadline_ns != NEVER_NS:
                self._deadlines.add(waiter, began_ns)
        try:
            await future
        except asyncio.CancelledError:
            self._counters.cancelled += 1
            core.waiters.pop(waiter, None)
            if waiter.slot is not None:
                # Handed over in the very turn of the loop in which the caller was cancelled.
                self._release(waiter.slot, waiter.slot.uses, suspect=False)
            raise
        if waiter.error is not None:
            raise waiter.error
        slot = waiter.slot
        assert slot is not None  # noqa: S101  # a waiter has either
        self._samples.append(self._clock() - began_ns)
        if len(self._samples) >= DRAIN_AT:
            self._drain_samples()
        return slot

    def _drain_samples(self) -> None:
        """Put the latencies into buckets."""
        self._checkouts.drain()

    def _release(self, slot: Slot[C], number: int, *, suspect: bool) -> None:
        """End a lease."""
        if slot.state is not _LEASED or slot.uses != number:
            if slot.revoked:
                return
            raise PoolError(f"pool {self.name}: connection {slot.number} was released already")
        slot.suspect = suspect
        self._recycler.take_back(slot, self._clock())
        if self._quiescence:
            self._quiescence.notify()

    async def execute_query(self, sql: str, timeout: float | None = None) -> object:
        """Lease a connection, run `sql` on it, give it back; logs it where the config says so.

        Args:
            timeout: seconds for all of it; None for the config's `acquire_timeout`.

        Returns:
            What the connection's `execute` returns.

        Raises:
            PoolError: no connection could be leased; see `acquire`.
            TimeoutError: the query did not end in time.
        """
        timeout_s = self.config.acquire_timeout if timeout is None else timeout
        return await run_query(self.name, self.config, self.acquire(timeout_s), sql, timeout_s)

    # Operation

    async def pause(self) -> None:
        """Lease nothing any more: callers wait, up to their limits, until `resume`.

        Raises:
            PoolClosedError: the pool is not open.
        """
        self._check_usable()
        self._core.paused = True
        self._set_state(PoolState.PAUSED)

    def resume(self) -> None:
        """Serve callers again, those that wait first.

        Raises:
            PoolClosedError: the pool is not open.
        """
        self._check_usable()
        self._core.paused = False
        self._set_state(PoolState.RUNNING)
        self._opener.replenish()

    async def drain(self, timeout: float | None = None) -> bool:
        """Pause, and wait until all leases have ended; the pool stays paused until `resume`.

        Args:
            timeout: seconds to wait, None for as long as it takes.

        Returns:
            Whether all leases have ended.

        Raises:
            PoolClosedError: the pool is not open.
        """
        await self.pause()
        self._set_state(PoolState.DRAINING)
        if self._core.in_use:
            await self._quiescence.wait(timeout, lambda: self._core.in_use == 0)
        if self._state is PoolState.DRAINING:
            self._set_state(PoolState.PAUSED)
        return self._core.in_use == 0

    def expire_connections(self) -> int:
        """Replace every connection, idle ones now, others when they come back; returns how many.

        For a failover: a connection to a demoted primary answers pings, and fails every write.

        Raises:
            PoolClosedError: the pool is not open.
        """
        self._check_usable()
        for slot in self._core.slots.values():
            slot.expires_ns = 0
        count = self._core.live
        while self._idle:
            self._recycler.retire(self._idle.pop(), "all connections are being replaced")
        self._opener.replenish()
        return count

    def reset_breaker(self) -> None:
        """Close the circuit breaker and forget past failures.

        Raises:
            PoolClosedError: the pool is not open.
        """
        self._check_usable()
        self._opener.reset_breaker()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call `callback` with each `PoolEvent` from now on.

        A coroutine function is awaited in the loop, in a task of its own; any other function is called
        in a thread of its own.

        Returns:
            A function that ends the subscription.
        """
        return self._events.subscribe(callback)

    def get_stats(self) -> PoolStatistics:
        """The pool in numbers, now."""
        is_open = self._loop is not None
        breaker = self._opener.breaker.state(self._clock()) if is_open else BreakerState.OFF
        return take_statistics(
            name=self.name,
            state=self._state,
            config=self.config,
            core=self._core,
            counters=self._counters,
            checkouts=self._checkouts,
            recent=self._recent,
            breaker=breaker,
            health=self._housekeeper.health if is_open else Health(),
            events=self._events,
            opened_ns=self._opened_ns,
            now_ns=self._clock(),
        )

    # What the parts call

    def _changed(self) -> None:
        self._opener.replenish()
        if self._quiescence:
            self._quiescence.notify()

    def _set_state(self, state: PoolState) -> None:
        self._running = state is PoolState.RUNNING
        if state is not self._state:
            self._state = state
            self._ctx.tell(EventKind.STATE_CHANGED, f"the pool is {state}")

    def _time_out(self, late: list[Waiter[C]]) -> None:
        for waiter in late:
            self._core.waiters.pop(waiter, None)
            self._counters.timeouts += 1
            what = f"no connection within {waiter.timeout_s:g} s"
            error = self._ctx.timeout_error(what, self._opener.last_error)
            self._ctx.tell(EventKind.ACQUIRE_TIMED_OUT, str(error))
            waiter.fail(error)

    def _refuse(self, error: PoolError) -> NoReturn:
        self._counters.refusals += 1
        self._ctx.tell(EventKind.ACQUIRE_REFUSED, str(error))
        raise error

    def _check_usable(self) -> None:
        self._check_loop()
        if self._state in (PoolState.CLOSING, PoolState.CLOSED):
            raise PoolClosedError(f"pool {self.name}: it is {self._state}")

    def _check_loop(self) -> None:
        if self._loop is None:
            raise PoolClosedError(f"pool {self.name}: it is not open")
        if get_running_loop() is not self._loop:
            if self._pid != os.getpid():
                whose = f"process {self._pid}; open one after the fork"
            else:
                whose = "another event loop"
            raise PoolError(f"pool {self.name}: it belongs to {whose}")
