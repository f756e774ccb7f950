"""Where connections come from: opens them as they are wanted, and leaves a failing target alone.

Growth follows demand: as many connects are begun as there are waiters for whom nothing is under way, at
most so many at once. After a failure there is one attempt at a time, after a pause that grows; the first
that succeeds lifts that, and what is missing is opened side by side. It is a timer that tries again: a
caller who comes meanwhile waits for it and brings no attempt forward, however many come. Callers fail fast
(by breaker or config) only where no connection is left that could come back to them: a pool that merely
cannot grow still serves.
"""

import asyncio
from itertools import islice
from typing import Generic

from pool_bench.pool.connections import C, as_executable, limit_queries, settle, terminate
from pool_bench.pool.context import PoolContext
from pool_bench.pool.errors import CircuitOpenError, PoolError, PoolUnavailableError, describe
from pool_bench.pool.events import EventKind
from pool_bench.pool.recycler import Recycler
from pool_bench.pool.retry import Backoff, CircuitBreaker
from pool_bench.pool.slots import LOGGER
from pool_bench.pool.waiters import AT_ONCE

_AFTER_INTERRUPT_NS = 10_000_000


class Opener(Generic[C]):
    """Opens the connections of one pool.

    Attributes:
        last_error: of the connects, None once one has succeeded.
        breaker: the circuit breaker.
        growth: whether it would be of use to open more.
    """

    __slots__ = (
        "_again",
        "_backoff",
        "_ctx",
        "_has_said_few",
        "_listeners",
        "_recycler",
        "_replenishing",
        "_stopped",
        "_timer",
        "_timer_ns",
        "_wanted",
        "breaker",
        "growth",
        "last_error",
    )

    def __init__(self, ctx: PoolContext[C], recycler: Recycler[C]) -> None:
        config = ctx.config
        self._ctx = ctx
        self._recycler = recycler
        self._backoff = Backoff(config.retry_base, config.retry_cap, ctx.rng)
        self.breaker = CircuitBreaker(config.breaker)
        self.growth = recycler.growth
        self.last_error: BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        # A caller was turned away while the target was down: keep looking whether it is back.
        self._wanted = False
        self._listeners: list[asyncio.Future[None]] = []
        self._replenishing = False
        self._again = False
        self._stopped = False
        self._has_said_few = False

    @property
    def failures(self) -> int:
        """Connects in a row that failed."""
        return self._backoff.failures

    @property
    def is_down(self) -> bool:
        """Whether the target counts as down."""
        return self._backoff.failures >= self._ctx.config.connect_attempts

    def refusal(self, now_ns: int) -> PoolError | None:
        """Why a caller that finds nothing idle should not even wait, None where it should."""
        if self._ctx.core.live or self.last_error is None:
            return None
        reopens_ns = self.breaker.reopens_at_ns
        if reopens_ns is not None:
            if now_ns >= reopens_ns and not self.breaker.is_probing:
                return None
            return CircuitOpenError(self._breaker_message(now_ns))
        if self._ctx.config.fail_fast and self.is_down:
            self._wanted = True
            self.replenish()
            return PoolUnavailableError(self._down_message())
        return None

    def _breaker_message(self, now_ns: int) -> str:
        reopens_ns = self.breaker.reopens_at_ns or now_ns
        left_s = max(0, reopens_ns - now_ns) / 1e9
        return (
            f"pool {self._ctx.name}: the circuit breaker is open, the next attempt is due in {left_s:.1f} s; "
            f"last failure: {self._last_words()}"
        )

    def _down_message(self) -> str:
        return (
            f"pool {self._ctx.name}: no connection can be opened, {self._backoff.failures} connects in a row "
            f"have failed; the last: {self._last_words()}"
        )

    def _last_words(self) -> str:
        return describe(self.last_error) if self.last_error is not None else "none"

    def replenish(self) -> None:
        """Begin what is wanted and allowed now; call it whenever demand or supply has changed."""
        # What is begun can end within the call, and asks for the next: a loop, so that nothing nests.
        self._again = True
        if self._replenishing:
            return
        if self._ctx.jobs.interrupted:
            # If the loop is being shut down, this timer never fires.
            self._ctx.jobs.interrupted = False
            self._schedule(self._ctx.clock() + _AFTER_INTERRUPT_NS, self._ctx.clock())
            return
        self._replenishing = True
        try:
            while self._again and not self._stopped:
                self._again = False
                now_ns = self._ctx.clock()
                self._serve_from_idle(now_ns)
                self._open_wanted(now_ns)
        finally:
            self._replenishing = False

    def _serve_from_idle(self, now_ns: int) -> None:
        core, recycler = self._ctx.core, self._recycler
        while core.waiters and core.idle and not core.paused:
            slot = core.idle[-1]
            if slot.is_gone():
                recycler.drop(core.idle.pop(), "it was found closed")
            elif (reason := recycler.retire_reason(slot, now_ns)) is not None:
                recycler.retire(core.idle.pop(), reason)
            elif slot.is_touched:
                # Somebody has kept a handle, and used it while the connection was idle.
                recycler.clean(core.idle.pop(), now_ns)
            elif now_ns < slot.fresh_until_ns:
                core.hand_out(core.idle.pop(), now_ns)
            elif core.unmet_demand(now_ns):
                recycler.validate(core.idle.pop(), now_ns, ping=True)
            else:
                return

    def _open_wanted(self, now_ns: int) -> None:
        core = self._ctx.core
        wanted = max(core.missing, self._demand(now_ns), 1 if self._wanted else 0)
        wanted = min(wanted, core.max_size - core.size)
        if self.last_error is not None:
            # One attempt at a time until one succeeds.
            wanted = min(wanted, 1 - core.opening)
        if wanted <= 0:
            return
        if self.last_error is not None:
            due_ns = max(self._backoff.retry_at_ns, self.breaker.reopens_at_ns or 0)
            if due_ns > now_ns:
                self._schedule(due_ns, now_ns)
                return
            if not self.breaker.admits(now_ns):
                return
        for _ in range(min(wanted, self._ctx.config.openings_at_once - core.opening)):
            self._open_one(now_ns)
        core.note_size()

    def _demand(self, now_ns: int) -> int:
        """Connections that waiters could do with."""
        core = self._ctx.core
        unmet = core.unmet_demand(now_ns)
        if not unmet or not core.live:
            return unmet
        useful = self.growth.useful(len(core.waiters), core.live + core.opening, now_ns)
        if useful < unmet and core.size < core.max_size:
            self._schedule(self.growth.distrust_at_ns + 1_000_000, now_ns)
        return min(unmet, useful)

    def _schedule(self, due_ns: int, now_ns: int) -> None:
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = self._ctx.loop.call_later(max(0, due_ns - now_ns) / 1e9, self._due)

    def _due(self) -> None:
        self._timer = None
        self.replenish()

    def _open_one(self, now_ns: int) -> None:
        ctx = self._ctx
        ctx.core.opening += 1
        self.breaker.began()

        # What there is of it before it is ready: a hook that does not heed its cancellation keeps its task,
        # but not the connection.
        begun: list[C] = []

        def done(conn: C | None, error: BaseException | None) -> None:
            ctx.core.opening -= 1
            if conn is not None:
                self.growth.connected(ctx.clock() - now_ns)
                self._opened(conn)
            elif error is not None:
                for unfinished in begun:
                    terminate(unfinished)
                self._failed(error, now_ns)

        ctx.jobs.start("connect", self._establish(begun), ctx.config.connect_timeout, done, late=terminate)

    async def _establish(self, begun: list[C]) -> C:
        """Open a connection, which goes into `begun`, and make it ready for use."""
        ctx = self._ctx
        conn = await ctx.connector.connect()
        begun.append(conn)
        try:
            for sql in (*((ctx.schema,) if ctx.schema else ()), *ctx.session):
                await as_executable(conn, "session or schema SQL").execute(sql)
            if ctx.config.on_connect is not None:
                await ctx.config.on_connect(conn)
            if ctx.config.query_timeout is not None:
                limit_queries(conn, ctx.config.query_timeout)
            settle(conn)
        except BaseException:
            terminate(conn)
            raise
        return conn

    def _opened(self, conn: C) -> None:
        ctx = self._ctx
        if self._stopped:
            terminate(conn)
            return
        self._wanted = False
        self._has_said_few = False
        self.last_error = None
        self._backoff.succeeded()
        if self.breaker.reopens_at_ns is not None:
            ctx.tell(EventKind.BREAKER_CLOSED, "the circuit breaker is closed: a connect succeeded")
        self.breaker.succeeded()
        slot = self._recycler.admit(conn)
        ctx.core.note_size()
        ctx.tell(EventKind.CONNECTION_OPENED, f"connection {slot.number} is open", slot.number)
        self._recycler.make_available(slot, ctx.clock())
        self._notify()
        self.replenish()

    def _failed(self, error: BaseException, began_ns: int) -> None:
        ctx = self._ctx
        if self._stopped:
            return
        now_ns = ctx.clock()
        ctx.counters.connect_errors += 1
        self.last_error = error
        self._backoff.failed(began_ns, now_ns)
        opened = self.breaker.failed(now_ns)
        ctx.tell(EventKind.CONNECT_FAILED, f"a connect failed: {describe(error)}")
        if opened:
            ctx.tell(EventKind.BREAKER_OPENED, self._breaker_message(now_ns))
        if ctx.core.live and not self._has_said_few and not isinstance(error, asyncio.CancelledError):
            self._has_said_few = True
            few = f"works with {ctx.core.live} of {ctx.core.max_size} connections and goes on trying for more"
            LOGGER.warning("pool %s: %s; a connect failed: %s", ctx.name, few, describe(error))
        self.fail_waiters(now_ns)
        self._notify()
        self.replenish()

    def fail_waiters(self, now_ns: int) -> None:
        """Turn waiters away where there is nothing to wait for."""
        core = self._ctx.core
        if core.live or not core.waiters or core.paused:
            return
        error: PoolError
        for waiter in list(islice(core.waiters, AT_ONCE)):
            if self.breaker.reopens_at_ns is not None:
                error = CircuitOpenError(self._breaker_message(now_ns))
            elif self._ctx.config.fail_fast and self.is_down:
                error = PoolUnavailableError(self._down_message())
            else:
                return
            error.__cause__ = self.last_error
            del core.waiters[waiter]
            self._ctx.counters.refusals += 1
            waiter.fail(error)
        if core.waiters:
            # Those who came meanwhile as well: what holds for the first holds for the last.
            self._ctx.loop.call_soon(self._fail_more)

    def _fail_more(self) -> None:
        if not self._stopped:
            self.fail_waiters(self._ctx.clock())

    def _notify(self) -> None:
        for listener in self._listeners:
            if not listener.done():
                listener.set_result(None)
        self._listeners.clear()

    async def wait_for_min_size(self) -> None:
        """Wait until `min_size` connections are open.

        Raises:
            PoolUnavailableError: the target is down.
        """
        while self._ctx.core.live < self._ctx.config.min_size and not self._stopped:
            if self.is_down or self.breaker.reopens_at_ns is not None:
                raise PoolUnavailableError(self._down_message()) from self.last_error
            listener = self._ctx.loop.create_future()
            self._listeners.append(listener)
            await listener

    def reset_breaker(self) -> None:
        """Close the breaker and try again at once."""
        if self.breaker.reopens_at_ns is not None:
            self._ctx.tell(EventKind.BREAKER_CLOSED, "the circuit breaker is closed by hand")
        self.breaker.reset()
        self._backoff.succeeded()
        self.replenish()

    def stop(self) -> None:
        """Open nothing any more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._notify()
