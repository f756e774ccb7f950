"""What the pool does with a connection that nobody has: validate it, reset it, end it.

All of it runs as jobs, but for resets that need no task. A connection that fails in any of this is dropped
without a word, since a polite end would wait for the very server that has let us down; a healthy one that is
only too old or too many is closed politely.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic

from pool_bench.pool.connections import (
    C,
    as_executable,
    is_in_doubt,
    limit_queries,
    terminate,
    transaction_state,
    unfitness,
)
from pool_bench.pool.context import PoolContext
from pool_bench.pool.errors import describe
from pool_bench.pool.events import EventKind
from pool_bench.pool.jobs import Quiescence
from pool_bench.pool.sizing import Growth
from pool_bench.pool.slots import NEVER_NS, Slot, SlotState

# Multiples of the golden ratio spread evenly over an interval however many there are (Weyl), where random
# numbers would cluster.
_GOLDEN: Final = 0.6180339887498949
# Loop clocks are allowed to be this much early.
_EARLY_NS: Final = 1_000_000


class _BegunReset(Generic[C]):
    """A reset that has no task; called when it has ended, which is of no interest once its time was up."""

    __slots__ = ("_recycler", "_slot")

    def __init__(self, recycler: "Recycler[C]", slot: Slot[C]) -> None:
        self._recycler = recycler
        self._slot = slot

    def __call__(self, error: BaseException | None) -> None:
        recycler, slot = self._recycler, self._slot
        if recycler.begun.get(slot) is self:
            del recycler.begun[slot]
            recycler.reset_ended(slot, error)


class Recycler(Generic[C]):
    """Looks after the connections of one pool.

    Args:
        changed: called whenever a connection is gone.

    Attributes:
        closing: the pool is being closed: whatever comes back is ended.
        growth: told how long leases are held.
        begun: the resets under way that have no task, the oldest first.
    """

    __slots__ = (
        "_ask_ns",
        "_changed",
        "_ctx",
        "_is_plain",
        "_max_uses",
        "_policy",
        "_timer",
        "_window_ns",
        "begun",
        "closing",
        "growth",
    )

    def __init__(self, ctx: PoolContext[C], changed: Callable[[], None]) -> None:
        config = ctx.config
        self._ctx = ctx
        self._changed = changed
        self._policy = config.reset_policy
        self._max_uses = config.max_uses or NEVER_NS
        idle_s = config.validate_after_idle
        self._window_ns = None if idle_s is None else round(idle_s * 1e9)
        ask_s = config.health_check_interval
        self._ask_ns = NEVER_NS if ask_s is None else round(ask_s * 1e9)
        self.closing = False
        self.growth = Growth()
        self.begun: dict[Slot[C], _BegunReset[C]] = {}
        # A reset is no more than the connection's own.
        self._is_plain = not ctx.session and config.query_timeout is None
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, conn: C) -> Slot[C]:
        """A slot for a connection that was just opened; it is busy."""
        ctx = self._ctx
        now_ns = ctx.clock()
        ctx.counters.created += 1
        slot = Slot(conn, ctx.counters.created, now_ns)
        lifetime = ctx.config.max_lifetime
        if lifetime is not None:
            spread = (slot.number * _GOLDEN + ctx.rng.random() / 16) % 1.0
            lifetime *= 1.0 - ctx.config.max_lifetime_jitter * spread
            slot.expires_ns = now_ns + round(lifetime * 1e9)
        self.mark_valid(slot, now_ns)
        ctx.core.add(slot)
        return slot

    def mark_valid(self, slot: Slot[C], now_ns: int) -> None:
        """The connection has shown that it works, and is as new."""
        slot.validated_ns = now_ns
        slot.fresh_until_ns = NEVER_NS if self._window_ns is None else now_ns + self._window_ns
        if slot.tracker is not None:
            slot.tracker.touched = False

    def retire_reason(self, slot: Slot[C], now_ns: int) -> str | None:
        """Why the connection should be replaced although it works, None where it should not."""
        if self.closing:
            return "the pool is closed"
        if now_ns >= slot.expires_ns:
            return "it is past its lifetime"
        if slot.uses >= self._max_uses:
            return f"it was leased {slot.uses} times"
        return None

    def take_back(self, slot: Slot[C], now_ns: int) -> None:
        """A leased slot has come back: make it available."""
        self.growth.held(now_ns - slot.acquired_ns, now_ns)
        self.clean(slot, now_ns)

    def clean(self, slot: Slot[C], now_ns: int) -> None:
        """Make a slot available that is not idle any more, by the shortest way that leaves it clean."""
        if slot.is_gone():
            self._fail(slot, EventKind.RESET_FAILED, "it came back closed")
        elif self.closing:
            self.retire(slot, "the pool is closed")
        elif slot.tracker is not None and not slot.tracker.touched:
            if self._ctx.core.waiters and now_ns >= slot.fresh_until_ns:
                self.validate(slot, now_ns, ping=True)
            else:
                self.make_available(slot, now_ns)
        elif self._policy == "always":
            self._reset(slot, now_ns)
        else:
            in_transaction = transaction_state(slot.conn)
            if in_transaction is not False and self._policy == "transaction":
                self._reset(slot, now_ns)
            elif in_transaction:
                self._fail(slot, EventKind.RESET_FAILED, "it came back inside a transaction")
            elif slot.suspect:
                self.validate(slot, now_ns, ping=True)
            else:
                self.mark_valid(slot, now_ns)
                self.make_available(slot, now_ns)

    def make_available(self, slot: Slot[C], now_ns: int, *, coldest: bool = False) -> None:
        """Hand on a clean slot that is not idle, unless it is spent or its server does not fit any more."""
        if slot.may_turn_unfit and self._look_for_another_server(slot, now_ns, coldest=coldest):
            return
        reason = self.retire_reason(slot, now_ns)
        if reason is not None:
            self.retire(slot, reason)
            return
        self._ctx.core.hand_out(slot, now_ns, coldest=coldest)

    def _look_for_another_server(self, slot: Slot[C], now_ns: int, *, coldest: bool) -> bool:
        """Leave a server that does not fit any more, or ask it; False where the slot may be lent."""
        ctx = self._ctx
        if (unfit := unfitness(slot.conn)) is not None:
            # The server said so with its last answer, whoever had asked: all others may have to go, too.
            ctx.counters.unfit += 1
            ctx.core.require_validation()
            self.retire(slot, unfit)
            return True
        # One that is never idle is never due for a check, and not all servers say what they are unasked.
        if is_in_doubt(slot.conn) or now_ns - slot.asked_ns >= self._ask_ns:
            self.validate(slot, now_ns, ping=True, coldest=coldest)
            return True
        return False

    def validate(self, slot: Slot[C], now_ns: int, *, ping: bool, coldest: bool = False) -> None:
        """Find out whether a slot that is not idle any more works, then make it available.

        Args:
            ping: validate for a caller; else the periodic check with its own query and limit.
        """
        ctx, config = self._ctx, self._ctx.config
        if not ping and slot.is_touched:
            # Somebody has kept a handle, and used it while the connection was idle.
            self.clean(slot, now_ns)
            return
        ctx.core.occupy(slot, now_ns)
        conn = slot.conn
        query = None if ping else config.health_check_query

        async def work() -> None:
            self._limit(conn, None)
            if query is None:
                await conn.ping()
            else:
                await as_executable(conn, "health_check_query").execute(query)
                if slot.may_turn_unfit:
                    await conn.ping()
            self._limit(conn, config.query_timeout)

        def done(_result: object, error: BaseException | None) -> None:
            if slot.state is not SlotState.BUSY:
                return
            if error is not None:
                ctx.counters.health_check_failures += 1
                self._fail(slot, EventKind.HEALTH_CHECK_FAILED, f"it failed a check ({describe(error)})")
                return
            ended_ns = ctx.clock()
            slot.asked_ns = ended_ns
            self.mark_valid(slot, ended_ns)
            self.make_available(slot, ended_ns, coldest=coldest)

        limit_s = config.validate_timeout if ping else config.health_check_timeout
        ctx.jobs.start("check", work(), limit_s, done)

    def _reset(self, slot: Slot[C], now_ns: int) -> None:
        ctx = self._ctx
        ctx.core.occupy(slot, now_ns)
        if self._is_plain and slot.begin_reset is not None:
            self.begun[slot] = reset = _BegunReset(self, slot)
            try:
                if slot.begin_reset(slot.conn, reset):
                    if self._timer is None:
                        self._timer = ctx.loop.call_later(ctx.config.reset_timeout, self._expire_begun)
                    return
            except Exception as error:
                reset(error)
                return
            del self.begun[slot]
        conn = slot.conn
        session = ctx.session

        async def work() -> None:
            self._limit(conn, None)
            await conn.reset()
            for sql in session:
                await as_executable(conn, "session_sql").execute(sql)
            self._limit(conn, ctx.config.query_timeout)

        def done(_result: object, error: BaseException | None) -> None:
            self.reset_ended(slot, error)

        ctx.jobs.start("reset", work(), ctx.config.reset_timeout, done)

    def reset_ended(self, slot: Slot[C], error: BaseException | None) -> None:
        """A reset is over, or its time is up."""
        if slot.state is not SlotState.BUSY:
            return
        if error is not None:
            self._fail(slot, EventKind.RESET_FAILED, f"it could not be reset ({describe(error)})")
            return
        ended_ns = self._ctx.clock()
        self.mark_valid(slot, ended_ns)
        self.make_available(slot, ended_ns)

    def _expire_begun(self) -> None:
        """Give up the resets whose time is up; one timer serves all, which have the same limit."""
        self._timer = None
        ctx = self._ctx
        limit_ns = round(ctx.config.reset_timeout * 1e9)
        now_ns = ctx.clock()
        for slot in list(self.begun):
            left_ns = slot.busy_since_ns + limit_ns - now_ns
            if left_ns > _EARLY_NS:
                self._timer = ctx.loop.call_later(left_ns / 1e9, self._expire_begun)
                return
            # Its connection may be lost to an earlier one's end.
            if self.begun.pop(slot, None) is not None:
                self.reset_ended(slot, TimeoutError())

    def _limit(self, conn: C, seconds: float | None) -> None:
        """Bound a borrower's queries; the pool's own round trips have limits of their own."""
        if self._ctx.config.query_timeout is not None:
            limit_queries(conn, seconds)

    def _fail(self, slot: Slot[C], kind: EventKind, why: str) -> None:
        if kind is EventKind.RESET_FAILED:
            self._ctx.counters.reset_failures += 1
        self._ctx.core.require_validation()
        self._ctx.tell(kind, f"connection {slot.number} is replaced: {why}", slot.number)
        self.drop(slot, why)

    def drop(self, slot: Slot[C], why: str) -> None:
        """End a connection that is not idle any more, at once."""
        core = self._ctx.core
        core.begin_closing(slot)
        terminate(slot.conn)
        if slot.is_gone():
            self._gone(slot, why)
        else:
            # Without a way to drop it, its own end has to do.
            self._close(slot, why)

    def retire(self, slot: Slot[C], why: str) -> None:
        """End a connection that is not idle any more, politely."""
        self._ctx.core.begin_closing(slot)
        self._close(slot, why)

    def _close(self, slot: Slot[C], why: str) -> None:
        conn = slot.conn

        async def work() -> None:
            self._limit(conn, None)
            await conn.close()

        def done(_result: object, error: BaseException | None) -> None:
            if slot.state is not SlotState.CLOSING:
                return
            if error is not None:
                terminate(conn)
            self._gone(slot, why)

        self._ctx.jobs.start("close", work(), self._ctx.config.close_timeout, done)

    def _gone(self, slot: Slot[C], why: str) -> None:
        self._ctx.core.remove(slot)
        self._ctx.tell(EventKind.CONNECTION_CLOSED, f"connection {slot.number} is closed: {why}", slot.number)
        self._changed()

    async def end_all(self, timeout_s: float, quiescence: Quiescence) -> None:
        """End all connections as they become free; after `timeout_s` seconds, drop those that are left."""
        core, jobs = self._ctx.core, self._ctx.jobs
        why = "the pool is closed"
        self.closing = True
        jobs.abandon_all("connect")
        try:
            while core.idle:
                self.retire(core.idle.pop(), why)
            await quiescence.wait(timeout_s, lambda: not core.slots)
        finally:
            # Also where the loop is being shut down and does not let us wait.
            for slot in list(core.slots.values()):
                if slot.state is SlotState.LEASED:
                    core.revoke(slot)
                if slot.state is not SlotState.CLOSING:
                    self.drop(slot, why)
            jobs.abandon_all()
            if self._timer is not None:
                self._timer.cancel()
