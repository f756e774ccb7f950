"""Whether opening another connection would still be of use by the time it is open.

Where leases are short and connects slow, a queue is served by the connections there are before new ones
are ready. So as many are opened as it takes to serve the queue within the time of one connect, and no
more. Once no lease has ended for as long as a connect takes, the estimate is not to be trusted, and growth
follows demand alone.
"""

# Weight of the newest observation; some ten of them make the average.
_WEIGHT = 0.1


class Growth:
    """Averages of how long leases and connects take, exponentially weighted, nanoseconds.

    Attributes:
        hold_ns: of a lease, None before the first.
        connect_ns: of a connect, None before the first.
        distrust_at_ns: from when on the estimate is not to be trusted, unless another lease ends.
    """

    __slots__ = ("connect_ns", "distrust_at_ns", "hold_ns")

    def __init__(self) -> None:
        self.hold_ns: float | None = None
        self.connect_ns: float | None = None
        self.distrust_at_ns = 0

    def held(self, spent_ns: int, now_ns: int) -> None:
        """A lease has ended."""
        self.distrust_at_ns = now_ns + round(self.connect_ns or 0)
        before = self.hold_ns
        self.hold_ns = float(spent_ns) if before is None else before + _WEIGHT * (spent_ns - before)

    def connected(self, spent_ns: int) -> None:
        """A connect has succeeded."""
        before = self.connect_ns
        self.connect_ns = float(spent_ns) if before is None else before + _WEIGHT * (spent_ns - before)

    def useful(self, waiters: int, connections: int, now_ns: int) -> int:
        """How many connections more than `connections` would serve the queue sooner.

        Args:
            waiters: length of the queue.
            connections: those that are open or being opened.
        """
        if self.hold_ns is None or self.connect_ns is None or now_ns > self.distrust_at_ns:
            return waiters
        return max(0, round(waiters * self.hold_ns / max(self.connect_ns, 1.0) + 0.5) - connections)
