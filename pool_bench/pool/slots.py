"""One connection's place in the pool, and everything the pool knows about it."""

import asyncio
import logging
import sys
from enum import Enum
from typing import Final, Generic

from pool_bench.pool.connections import C, Tracked, as_tracked
from pool_bench.pool.leaks import Stack

FOR_EVER: Final = sys.maxsize
LOGGER: Final = logging.getLogger("pool_bench.pool")


class SlotState(Enum):
    """Who has the connection."""

    IDLE = "idle"
    LEASED = "leased"
    BUSY = "busy"
    """The pool has it, to check or reset it; it will be of use."""
    CLOSING = "closing"
    """The pool has it, to end it; until then it counts as a connection."""
    GONE = "gone"


class Slot(Generic[C]):
    """One connection; a slot is never used for a second one.

    All times are nanoseconds of the pool's clock.

    Attributes:
        number: counts the pool's connections from 1.
        uses: leases so far; the number of the present one.
        fresh_until_ns: until then the connection may be leased without a check.
        expires_ns: when it is too old.
        proven_ns: when it last showed that it works.
        idle_since_ns: when it was last returned.
        busy_since_ns: when the pool took it.
        owner: the task that has it.
        stack: of the acquire, where stacks are kept.
        reported: the lease that was reported as a leak, by its number.
        revoked: whether it was taken away from its holder, who may still return it.
        suspect: whether its use ended with an exception, possibly in the middle of an exchange.
    """

    __slots__ = (
        "acquired_ns",
        "busy_since_ns",
        "conn",
        "expires_ns",
        "fresh_until_ns",
        "idle_since_ns",
        "is_closed",
        "number",
        "opened_ns",
        "owner",
        "proven_ns",
        "reported",
        "revoked",
        "stack",
        "state",
        "suspect",
        "tracker",
        "uses",
    )

    def __init__(self, conn: C, number: int, now_ns: int) -> None:
        self.conn = conn
        self.number = number
        self.state = SlotState.BUSY
        self.is_closed = conn.is_closed
        self.tracker: Tracked | None = as_tracked(conn)
        self.uses = 0
        self.opened_ns = now_ns
        self.proven_ns = now_ns
        self.fresh_until_ns = 0
        self.expires_ns = FOR_EVER
        self.idle_since_ns = now_ns
        self.busy_since_ns = now_ns
        self.acquired_ns = 0
        self.owner: asyncio.Task[object] | None = None
        self.stack: Stack | None = None
        self.reported = 0
        self.revoked = False
        self.suspect = False

    def is_gone(self) -> bool:
        """Whether the connection is unusable; one whose own word cannot be had is."""
        try:
            return self.is_closed()
        except Exception:
            LOGGER.exception("connection %d cannot say whether it is closed, and counts as it", self.number)
            return True
