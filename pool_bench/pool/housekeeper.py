"""What has to be done from time to time: expiry, idle shrink, health, leaks, scaling.

One timer of the loop, no task: everything is decided at once, and what needs I/O becomes a job. It ticks
once a second, sooner where something is due sooner.
"""

import asyncio
from typing import Final, Generic

from pool_bench.pool.connections import C
from pool_bench.pool.context import PoolContext
from pool_bench.pool.events import EventKind
from pool_bench.pool.health import Health, Signs, assess
from pool_bench.pool.opener import Opener
from pool_bench.pool.recycler import Recycler
from pool_bench.pool.sizing import Scaler
from pool_bench.pool.slots import LOGGER, NEVER_NS, Slot, format_stack
from pool_bench.pool.statistics import Checkouts, Recent, Totals

_LONGEST_NS: Final = 1_000_000_000
_SHORTEST_NS: Final = 5_000_000
_FORSAKEN_NS: Final = 1_000_000_000
# Events after which the pool may do better or worse; the rest of what counts is looked at once a second.
_OF_HEALTH: Final = (
    EventKind.CONNECTION_OPENED,
    EventKind.CONNECT_FAILED,
    EventKind.CONNECTION_CLOSED,
    EventKind.BREAKER_OPENED,
)


def _is_forsaken(slot: Slot[C], now_ns: int) -> bool:
    """Whether its holder has ended; not at once, since another task may be about to return it."""
    owner = slot.owner
    return owner is not None and owner.done() and now_ns - slot.acquired_ns >= _FORSAKEN_NS


def _ns(seconds: float | None) -> int:
    return NEVER_NS if seconds is None else round(seconds * 1e9)


class Housekeeper(Generic[C]):
    """The periodic work of one pool.

    Attributes:
        health: how well the pool does, as it was judged last.
    """

    __slots__ = (
        "_checkouts",
        "_ctx",
        "_health_ns",
        "_idle_ns",
        "_leak_ns",
        "_marked_ns",
        "_opener",
        "_period_ns",
        "_recent",
        "_recycler",
        "_scaler",
        "_timer",
        "health",
    )

    def __init__(
        self,
        ctx: PoolContext[C],
        recycler: Recycler[C],
        opener: Opener[C],
        checkouts: Checkouts,
        recent: Recent,
    ) -> None:
        config = ctx.config
        self._ctx = ctx
        self._recycler = recycler
        self._checkouts = checkouts
        self._recent = recent
        self.health = Health()
        self._opener = opener
        self._idle_ns = _ns(config.max_idle)
        self._health_ns = _ns(config.health_check_interval)
        self._leak_ns = _ns(config.leak_threshold)
        now_ns = ctx.clock()
        self._scaler: Scaler | None = None
        if config.scaling is not None:
            self._scaler = Scaler(config.scaling, config.min_size, config.max_size, now_ns)
            ctx.core.warm_size = self._scaler.size
        spans_ns = [self._idle_ns, self._health_ns, self._leak_ns, _ns(config.max_lifetime)]
        spans_ns += [_ns(config.scaling.interval)] if config.scaling is not None else []
        # Short limits are for tests and emergencies; they are kept to a quarter of themselves.
        self._period_ns = max(_SHORTEST_NS, min(_LONGEST_NS, *(span // 4 for span in spans_ns)))
        self._marked_ns = now_ns
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tick now, and from now on."""
        self._ctx.noticed.update(dict.fromkeys(_OF_HEALTH, self.judge_health))
        self._tick()

    def stop(self) -> None:
        """Tick no more."""
        self._ctx.noticed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now_ns = self._ctx.clock()
        try:
            if now_ns - self._marked_ns >= _LONGEST_NS:
                self._marked_ns = now_ns
                core = self._ctx.core
                totals = Totals.of(self._checkouts, core.in_use, self._ctx.counters)
                self._recent.look(totals, core.in_use / core.max_size, now_ns)
                self.judge_health()
            self._scale(now_ns)
            self._look_at_idle(now_ns)
            self._look_at_leases(now_ns)
            self._opener.replenish()
        except Exception:
            LOGGER.exception("pool %s: upkeep failed", self._ctx.name)
        delay_ns = max(_SHORTEST_NS, min(self._period_ns, self._next_due_ns() - now_ns))
        self._timer = self._ctx.loop.call_later(delay_ns / 1e9, self._tick)

    def judge_health(self) -> None:
        """Say how well the pool does, where that has changed."""
        ctx, before = self._ctx, self.health
        signs = Signs(
            breaker=self._opener.breaker.state(ctx.clock()),
            failures=self._opener.failures,
            live=ctx.core.live,
            utilisation=self._recent.utilisation,
        )
        self.health = assess(signs, ctx.config.health)
        if self.health.state is not before.state:
            words = self.health.reason or "nothing is wrong"
            ctx.tell(EventKind.HEALTH_CHANGED, f"{before.state} became {self.health.state}: {words}")

    def _next_due_ns(self) -> int:
        """When the first idle connection is past its lifetime."""
        return min((slot.expires_ns for slot in self._ctx.core.idle), default=NEVER_NS)

    def _look_at_idle(self, now_ns: int) -> None:
        core, recycler = self._ctx.core, self._recycler
        surplus = core.live - core.warm_size
        checks = max(1, len(core.idle) // 4)
        keep: list[Slot[C]] = []
        check: list[Slot[C]] = []
        dead: list[Slot[C]] = []
        retire: list[tuple[Slot[C], str]] = []
        for slot in core.idle:
            if slot.is_gone():
                dead.append(slot)
            elif (reason := recycler.retire_reason(slot, now_ns)) is not None:
                retire.append((slot, reason))
            elif surplus > 0 and now_ns - slot.idle_since_ns >= self._idle_ns:
                surplus -= 1
                retire.append((slot, "it was idle for long"))
            elif len(check) < checks and now_ns - slot.validated_ns >= self._health_ns:
                check.append(slot)
            else:
                keep.append(slot)
        if len(keep) == len(core.idle):
            return
        # In place: others hold on to the deque. It is whole before anything is called that looks at it.
        core.idle.clear()
        core.idle.extend(keep)
        for slot in (*dead, *check, *(slot for slot, _ in retire)):
            core.occupy(slot, now_ns)
        if dead:
            core.require_validation()
        for slot in dead:
            recycler.drop(slot, "it was found closed")
        for slot, reason in retire:
            recycler.retire(slot, reason)
        for slot in check:
            recycler.validate(slot, now_ns, ping=False, coldest=True)

    def _look_at_leases(self, now_ns: int) -> None:
        ctx = self._ctx
        if self._leak_ns == NEVER_NS:
            return
        limit_ns = now_ns - self._leak_ns
        late = [
            slot
            for slot in ctx.core.leased()
            if slot.reported != slot.uses and (slot.acquired_ns <= limit_ns or _is_forsaken(slot, now_ns))
        ]
        for slot in late:
            slot.reported = slot.uses
            ctx.counters.leaks += 1
            held_s = (now_ns - slot.acquired_ns) / 1e9
            holder = slot.owner.get_name() if slot.owner is not None else "unknown"
            message = f"connection {slot.number} has been held for {held_s:.3g} s by task {holder}"
            if slot.owner is not None and slot.owner.done():
                message += ", which has ended without returning it"
            if slot.stack:
                message += f", acquired at:\n{format_stack(slot.stack).rstrip()}"
            LOGGER.warning("pool %s: %s", ctx.name, message)
            ctx.tell(EventKind.LEAK_DETECTED, message, slot.number)
            if ctx.config.leak_reclaim:
                ctx.core.revoke(slot)
                self._recycler.drop(slot, "it was taken back from a holder that kept it for too long")

    def _scale(self, now_ns: int) -> None:
        if self._scaler is None:
            return
        core = self._ctx.core
        before = self._scaler.size
        after = self._scaler.sample(core.in_use + len(core.waiters), now_ns)
        if after is None:
            return
        core.warm_size = after
        self._ctx.tell(EventKind.SCALED, f"{after} connections are kept warm instead of {before}")
        # The coldest go now; they would only go after `max_idle` otherwise.
        for _ in range(min(before - after, core.live - after, len(core.idle))):
            self._recycler.retire(core.idle.popleft(), "fewer are kept warm")
