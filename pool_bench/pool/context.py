"""What the parts of one pool share, and the pool in words."""

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C, Connector
from pool_bench.pool.core import PoolCore
from pool_bench.pool.errors import PoolTimeoutError, describe
from pool_bench.pool.events import EventBus, EventKind, PoolEvent
from pool_bench.pool.jobs import Jobs
from pool_bench.pool.slots import LOGGER
from pool_bench.pool.statistics import Counters

_KEPT_NS: Final = 10_000_000


def longest_held(ctx: "PoolContext[C]") -> str:
    """Who has held connections for longest; looks at every lease there is."""
    now_ns = ctx.clock()
    longest = heapq.nsmallest(3, ctx.core.leased(), key=lambda slot: slot.acquired_ns)
    return ", ".join(
        f"{slot.owner.get_name() if slot.owner else 'unknown'} ({(now_ns - slot.acquired_ns) / 1e9:.3g} s)"
        for slot in longest
    )


class Holders:
    """What `longest_held` says, from memory where it was asked just now: thousands may be told at once."""

    __slots__ = ("_until_ns", "_words")

    def __init__(self) -> None:
        self._words = ""
        self._until_ns = 0

    def of(self, ctx: "PoolContext[C]") -> str:
        """Who holds the pool's connections, as of now or 10 ms ago."""
        now_ns = ctx.clock()
        if now_ns >= self._until_ns:
            self._words = longest_held(ctx)
            self._until_ns = now_ns + _KEPT_NS
        return self._words


@dataclass(frozen=True, slots=True)
class PoolContext(Generic[C]):
    """The shared parts of an open pool.

    Attributes:
        loop: the loop it was opened in, and the only one it can be used in.
        clock: nanoseconds, monotonic.
        session: SQL for new connections and after resets.
        schema: SQL for new connections.
        noticed: what the pool itself does after events of a kind.
    """

    name: str
    connector: Connector[C]
    config: PoolConfig
    core: PoolCore[C]
    jobs: Jobs
    counters: Counters
    events: EventBus
    loop: asyncio.AbstractEventLoop
    clock: Callable[[], int]
    rng: random.Random
    session: tuple[str, ...]
    schema: str | None
    holders: Holders = field(default_factory=Holders)
    noticed: dict[EventKind, Callable[[], None]] = field(default_factory=dict)

    def tell(self, kind: EventKind, message: str, connection: int | None = None) -> None:
        """Log an event and queue it for the subscribers."""
        LOGGER.debug("pool %s: %s", self.name, message)
        if self.events.is_heard:
            size = self.core.size
            self.events.publish(PoolEvent(kind, self.name, self.clock(), message, connection, size))
        notice = self.noticed.get(kind)
        if notice is not None:
            notice()

    def describe(self) -> str:
        """The sizes, and who has held connections for longest."""
        core = self.core
        words = f"size {core.size} of {core.max_size}, {core.in_use} in use, {len(core.waiters)} waiting"
        if core.paused:
            words += "; the pool is paused"
        holders = self.holders.of(self)
        return words + (f"; held longest by {holders}" if holders else "")

    def timeout_error(self, what: str, cause: BaseException | None) -> PoolTimeoutError:
        """The error of a caller whose time is up.

        Args:
            what: did not happen in time.
            cause: the last failed connect.
        """
        core = self.core
        message = f"pool {self.name}: {what}; {self.describe()}"
        if cause is not None:
            message += f"; the last connect failed: {describe(cause)}"
        error = PoolTimeoutError(message, size=core.size, in_use=core.in_use, waiters=len(core.waiters))
        error.__cause__ = cause
        return error
