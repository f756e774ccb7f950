"""What the parts of one pool share."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C, Connector
from pool_bench.pool.core import PoolCore
from pool_bench.pool.events import EventBus, EventKind, PoolEvent
from pool_bench.pool.jobs import Jobs
from pool_bench.pool.statistics import Counters

LOGGER: Final = logging.getLogger("pool_bench.pool")


@dataclass(frozen=True, slots=True)
class PoolContext(Generic[C]):
    """The shared parts of an open pool.

    Attributes:
        loop: the loop it was opened in, and the only one it can be used in.
        clock: nanoseconds, monotonic.
        session: SQL for new connections and after resets.
        schema: SQL for new connections.
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

    def tell(self, kind: EventKind, message: str, connection: int | None = None) -> None:
        """Log an event and queue it for the subscribers."""
        LOGGER.debug("pool %s: %s", self.name, message)
        if self.events.is_heard:
            size = self.core.size
            self.events.publish(PoolEvent(kind, self.name, self.clock(), message, connection, size))
