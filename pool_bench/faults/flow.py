"""One direction of a connection: bytes that have come in, on their way out.

A flow is a queue of what was read and when it is due. It moves whatever may move now and arms one timer for
the rest; there is no task. It reads no further than `_LIMIT` ahead of what was taken at the other end, so a
slow reader, a throttle or a black hole slows the writer down as TCP's own window would.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

# What is read ahead of the other end, in bytes: the window of a delayed line.
_LIMIT: Final = 1024 * 1024
# A throttled line gets its bytes in portions of this length, in seconds, so that they trickle.
_PORTION_S: Final = 0.01


class End(Enum):
    """How a direction ends: by a FIN, or by a RST."""

    EOF = 1
    RESET = 2


class Source(Protocol):
    """Where a flow's bytes come from."""

    def pause(self) -> None:
        """Read no further."""

    def resume(self) -> None:
        """Read on."""


class Sink(Protocol):
    """Where a flow's bytes go."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def end(self, end: End) -> None:
        """Send a FIN or a RST behind them."""


class Flow:
    """What goes from `source` to a sink that may come later.

    Attributes:
        delay_s: latency that is given to what comes in from now on.
        bytes_per_s: throughput, or None.
        held: True while nothing may move.
        full: True while the sink takes no more.
        moved: bytes handed to the sink.
        ended: True once the end has been handed on.
    """

    __slots__ = (
        "_ending",
        "_free_at",
        "_left",
        "_loop",
        "_on_limit",
        "_paused",
        "_queue",
        "_queued",
        "_sink",
        "_source",
        "_timer",
        "bytes_per_s",
        "delay_s",
        "ended",
        "full",
        "held",
        "moved",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, source: Source) -> None:
        self._loop = loop
        self._source = source
        self._sink: Sink | None = None
        self._queue: deque[tuple[float, bytes | End]] = deque()
        self._queued = 0
        self._free_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._ending = False
        self._left: int | None = None
        self._on_limit: Callable[[], None] | None = None
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.held = False
        self.full = False
        self.moved = 0
        self.ended = False

    def open(self, sink: Sink) -> None:
        """Begin to move; what came in before has its way still before it."""
        self._sink = sink
        due = self._loop.time() + self.delay_s
        self._queue = deque((due, item) for _due, item in self._queue)
        self.move()

    def feed(self, data: bytes) -> None:
        """Take in what the source has read."""
        if self.ended:
            return
        self._queued += len(data)
        self._take(data)
        if self._queued >= _LIMIT and not self._paused:
            self._paused = True
            self._source.pause()

    def end(self, end: End) -> None:
        """Take in the end; a second one is ignored."""
        if not self._ending:
            self._ending = True
            self._take(end)

    def limit(self, count: int, reached: Callable[[], None]) -> None:
        """Move `count` more bytes, then call `reached` and move no more."""
        self._left, self._on_limit = count, reached
        self.move()

    def drop(self) -> None:
        """Forget everything: there is no sink any more."""
        self._ending = self.ended = True
        self._queue.clear()
        self._cancel_timer()

    def move(self) -> None:
        """Hand on what is due, and see to it that the rest follows."""
        self._cancel_timer()
        while self._queue and self._sink is not None and not (self.held or self.full or self.ended):
            if self._left == 0:
                self._reach_limit()
                return
            due, item = self._queue[0]
            due = max(due, self._free_at)
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.move)
                return
            self._queue.popleft()
            if isinstance(item, End):
                self.ended = True
                self._sink.end(item)
            else:
                self._write(self._sink, due, item)
        if self._left == 0:
            self._reach_limit()

    def _take(self, item: bytes | End) -> None:
        self._queue.append((self._loop.time() + self.delay_s, item))
        self.move()

    def _write(self, sink: Sink, due: float, data: bytes) -> None:
        portion = len(data)
        if self.bytes_per_s is not None:
            portion = min(portion, max(1, int(self.bytes_per_s * _PORTION_S)))
        if self._left is not None:
            portion = min(portion, self._left)
            self._left -= portion
        if self.bytes_per_s is not None:
            self._free_at = self._loop.time() + portion / self.bytes_per_s
        if portion < len(data):
            self._queue.appendleft((due, data[portion:]))
            data = data[:portion]
        self._queued -= portion
        self.moved += portion
        sink.write(data)
        if self._paused and self._queued < _LIMIT // 2:
            self._paused = False
            self._source.resume()

    def _reach_limit(self) -> None:
        reached, self._on_limit = self._on_limit, None
        if reached is not None:
            reached()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
