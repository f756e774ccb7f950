"""One connection's place in the pool, everything the pool knows about it, and where it was leased.

Nothing is timed for each lease: a lease carries the time of its acquire, and a sweep looks at all.
A stack is kept as code objects and line numbers, which is cheap, and becomes text only in a report.
"""

import asyncio
import linecache
import logging
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from types import CodeType, FrameType
from typing import Final, Generic, Self, TypeAlias

from pool_bench.pool.connections import (
    C,
    Ended,
    Renewable,
    Tracked,
    as_renewable,
    as_tracked,
    may_turn_unfit,
    reset_beginner,
)

NEVER_NS: Final = sys.maxsize
LOGGER: Final = logging.getLogger("pool_bench.pool")

Stack: TypeAlias = tuple[tuple[CodeType, int], ...]

_DEEPEST: Final = 32
_OWN: Final = f"{__name__.rpartition('.')[0]}."
# Counted below, because interpreters differ in what they count.
_own_references = 0
# Below a task's first frame is the loop, and below that whatever started it: no news to anybody.
_LOOP: Final = frozenset({"asyncio.events", "asyncio.base_events", "asyncio.runners"})


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
        validated_ns: when it last showed that it works.
        idle_since_ns: when it was last returned.
        busy_since_ns: when the pool took it.
        owner: the task that has it.
        stack: of the acquire, where stacks are kept.
        reported: the lease that was reported as a leak, by its number.
        begin_reset: begins a reset of the connection without a task, where it can.
        renewable: the connection, where its session can be handed to a new handle.
        may_turn_unfit: whether its server fits, and could cease to.
        asked_ns: when its server was last asked of what sort it is.
        revoked: whether it was taken away from its holder, who may still return it.
        own_references: what `sys.getrefcount(slot.conn)` gives while nobody but this slot has the connection.
        suspect: whether its use ended with an exception, possibly in the middle of an exchange.
    """

    __slots__ = (
        "acquired_ns",
        "asked_ns",
        "begin_reset",
        "busy_since_ns",
        "conn",
        "expires_ns",
        "fresh_until_ns",
        "idle_since_ns",
        "is_closed",
        "may_turn_unfit",
        "number",
        "opened_ns",
        "own_references",
        "owner",
        "renewable",
        "reported",
        "revoked",
        "stack",
        "state",
        "suspect",
        "tracker",
        "uses",
        "validated_ns",
    )

    def __init__(self, conn: C, number: int, now_ns: int) -> None:
        self.conn = conn
        self.number = number
        self.state = SlotState.BUSY
        self.is_closed = conn.is_closed
        self.tracker: Tracked | None = as_tracked(conn)
        self.may_turn_unfit = may_turn_unfit(conn)
        self.begin_reset: Callable[[object, Ended], bool] | None = reset_beginner(conn)
        self.uses = 0
        self.opened_ns = now_ns
        self.asked_ns = now_ns
        self.validated_ns = now_ns
        self.fresh_until_ns = 0
        self.expires_ns = NEVER_NS
        self.idle_since_ns = now_ns
        self.busy_since_ns = now_ns
        self.acquired_ns = 0
        self.owner: asyncio.Task[object] | None = None
        self.stack: Stack | None = None
        self.reported = 0
        self.revoked = False
        self.suspect = False
        self.renewable: Renewable | None = as_renewable(conn)
        self.own_references = NEVER_NS
        if self.renewable is not None:
            self.own_references = _own_references - (self.tracker is None)

    @property
    def is_touched(self) -> bool:
        """Whether the connection was used since it was last clean, as far as it can tell."""
        return self.tracker is not None and self.tracker.touched

    def renew(self) -> None:
        """Make whatever handle of the connection somebody has kept refuse, and take a new one."""
        if self.renewable is None:
            return
        self.renewable = fresh = self.renewable.renewed()
        # It is of the class of the one before it; this is too hot for a cast.
        self.conn = fresh  # type: ignore[assignment]
        self.is_closed = self.conn.is_closed
        if self.tracker is not None:
            self.tracker = fresh  # type: ignore[assignment]

    def is_gone(self) -> bool:
        """Whether the connection is unusable; one whose own word cannot be had is."""
        try:
            return self.is_closed()
        except Exception:
            LOGGER.exception("connection %d cannot say whether it is closed, and counts as it", self.number)
            return True


class _Unshared:
    """A connection that a slot alone has; only its references are looked at."""

    touched = False

    def renewed(self) -> Self:
        return self

    async def ping(self) -> None: ...

    async def reset(self) -> None: ...

    async def close(self) -> None: ...

    def is_closed(self) -> bool:
        return False


def _count_own_references() -> int:
    """What a slot has of its connection (`conn`, `is_closed`, `renewable`, `tracker`), and the look's own."""
    slot = Slot(_Unshared(), 0, 0)
    return sys.getrefcount(slot.conn)


_own_references = _count_own_references()


def capture_stack() -> Stack:
    """The frames of the calling task, innermost first, without the pool's own."""
    frames: list[tuple[CodeType, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(frames) < _DEEPEST:
        module = str(frame.f_globals.get("__name__", ""))
        if module in _LOOP:
            break
        if not module.startswith(_OWN):
            frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return tuple(frames)


def format_stack(stack: Iterable[tuple[CodeType, int]]) -> str:
    """A stack as in a traceback, outermost call first."""
    lines: list[str] = []
    for code, number in stack:
        source = linecache.getline(code.co_filename, number).strip()
        entry = f'  File "{code.co_filename}", line {number}, in {code.co_name}\n'
        lines.append(entry + (f"    {source}\n" if source else ""))
    return "".join(reversed(lines))
