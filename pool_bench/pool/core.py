"""Who has which connection and who gets the next one: the decisions, without I/O and without a clock.

Idle connections are a stack: what was used last is used first, so that those a burst left behind grow
old at its bottom and can be closed. Waiters are a queue, and nobody overtakes it: while there is one,
every connection that becomes free goes to the first that accepts it.

A connection counts as one from the moment it begins to be opened until its end is over, so the server
sees at most `max_size` of them, beside those that had to be dropped while it still worked for them.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from sys import getrefcount
from typing import Generic

from pool_bench.pool.connections import C
from pool_bench.pool.slots import Slot, SlotState
from pool_bench.pool.waiters import Waiter

# What the pool has been busy with for longer is not counted on any more.
_PATIENCE_NS = 500_000_000
_REMEMBERED = 100


class PoolCore(Generic[C]):
    """Slots, idle stack, waiters and sizes of one pool.

    Attributes:
        slots: all, by the identity of their connection.
        idle: leasable slots, the longest idle first.
        waiters: callers in order of arrival.
        busy: slots the pool is checking or resetting.
        revoked: the slots last taken away from holders who have not returned them yet.
        closing: number of slots on their way out.
        opening: number of connections being opened.
        warm_size: connections to keep.
        paused: nothing is handed out: what is free becomes idle.
    """

    __slots__ = (
        "busy",
        "closing",
        "idle",
        "max_size",
        "opening",
        "paused",
        "peak_size",
        "peak_waiters",
        "revoked",
        "slots",
        "waiters",
        "warm_size",
    )

    def __init__(self, warm_size: int, max_size: int) -> None:
        self.slots: dict[int, Slot[C]] = {}
        self.idle: deque[Slot[C]] = deque()
        self.waiters: OrderedDict[Waiter[C], None] = OrderedDict()
        self.busy: set[Slot[C]] = set()
        self.revoked: deque[Slot[C]] = deque(maxlen=_REMEMBERED)
        self.closing = 0
        self.opening = 0
        self.warm_size = warm_size
        self.max_size = max_size
        self.paused = False
        self.peak_size = 0
        self.peak_waiters = 0

    @property
    def size(self) -> int:
        """Connections, those being opened and closed included."""
        return len(self.slots) + self.opening

    @property
    def in_use(self) -> int:
        """Connections that are leased."""
        return len(self.slots) - len(self.idle) - len(self.busy) - self.closing

    @property
    def live(self) -> int:
        """Connections that are, or will be, of use to somebody."""
        return len(self.slots) - self.closing

    def leased(self) -> Iterator[Slot[C]]:
        """The slots that are leased."""
        return (slot for slot in self.slots.values() if slot.state is SlotState.LEASED)

    def add(self, slot: Slot[C]) -> None:
        """Take in a connection that was just opened; it is busy until it is put."""
        self.slots[id(slot.conn)] = slot
        self.busy.add(slot)

    def renew(self, slot: Slot[C]) -> None:
        """Let no handle of a free connection be of use that somebody has kept."""
        del self.slots[id(slot.conn)]
        slot.renew()
        self.slots[id(slot.conn)] = slot

    def note_size(self) -> None:
        """Remember the greatest size."""
        self.peak_size = max(self.peak_size, self.size)

    def hand_out(self, slot: Slot[C], now_ns: int, *, coldest: bool = False) -> bool:
        """Make a busy or leased slot available; returns whether a waiter took it.

        Args:
            coldest: put it below the other idle ones, because nobody has used it.
        """
        self.busy.discard(slot)
        waiters = self.waiters
        if waiters and not self.paused and getrefcount(slot.conn) > slot.own_references:
            self.renew(slot)
        while waiters and not self.paused:
            waiter, _ = waiters.popitem(last=False)
            if waiter.offer(slot):
                slot.state = SlotState.LEASED
                slot.owner = waiter.task
                slot.stack = waiter.stack
                slot.acquired_ns = now_ns
                slot.uses += 1
                return True
        slot.state = SlotState.IDLE
        slot.owner = None
        slot.stack = None
        if coldest:
            self.idle.appendleft(slot)
        else:
            slot.idle_since_ns = now_ns
            self.idle.append(slot)
        return False

    def occupy(self, slot: Slot[C], now_ns: int) -> None:
        """The pool takes a slot for itself that is leased, or was just taken from the idle ones."""
        if getrefcount(slot.conn) > slot.own_references:
            self.renew(slot)
        slot.state = SlotState.BUSY
        slot.owner = None
        slot.stack = None
        slot.busy_since_ns = now_ns
        self.busy.add(slot)

    def revoke(self, slot: Slot[C]) -> None:
        """Remember that a leased slot is taken away from its holder."""
        slot.revoked = True
        self.revoked.append(slot)

    def was_revoked(self, conn: object) -> bool:
        """Whether `conn` was taken away from its holder."""
        return any(slot.conn is conn for slot in self.revoked)

    def begin_closing(self, slot: Slot[C]) -> None:
        """A slot that is not idle any more is on its way out."""
        self.busy.discard(slot)
        slot.state = SlotState.CLOSING
        slot.owner = None
        slot.stack = None
        self.closing += 1

    def remove(self, slot: Slot[C]) -> None:
        """The connection of a closing slot has ended."""
        slot.state = SlotState.GONE
        self.closing -= 1
        del self.slots[id(slot.conn)]

    def enqueue(self, waiter: Waiter[C]) -> None:
        """Let a caller queue."""
        self.waiters[waiter] = None
        self.peak_waiters = max(self.peak_waiters, len(self.waiters))

    def unmet_demand(self, now_ns: int) -> int:
        """Waiters for whom nothing is under way yet."""
        waiting = len(self.waiters)
        if not waiting or self.paused:
            return 0
        coming = sum(1 for slot in self.busy if now_ns - slot.busy_since_ns < _PATIENCE_NS)
        return max(0, waiting - self.opening - coming)

    @property
    def missing(self) -> int:
        """Connections to open so that there are as many as are to be kept."""
        return self.warm_size - self.live - self.opening

    def is_crowded(self, max_waiters: int) -> bool:
        """Whether so many callers wait for others to return their leases.

        Those for whom a connection can still be opened, or is being checked or reset, do not count.
        """
        coming = self.max_size - self.in_use - self.closing
        return len(self.waiters) >= max_waiters + coming

    def require_validation(self) -> None:
        """One connection turned out to be of no use: none is leased again before it has shown life."""
        for slot in self.slots.values():
            slot.fresh_until_ns = 0
