"""How many connections more would be of use, and how many to keep warm.

Where leases are short and connects slow, a queue is served by the connections there are before new ones
are ready. So as many are opened as it takes to serve the queue within the time of one connect, and no
more. Once no lease has ended for as long as a connect takes, the estimate is not to be trusted, and growth
follows demand alone.
"""

import math

from pool_bench.pool.config import ScalingConfig

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


class Scaler:
    """Averages the number of connections in use and moves the warm size towards the target.

    The warm size is a floor: demand beyond it opens connections as ever, up to the maximum, and they
    close again when they have been idle for long. It never leaves `lowest` to `highest`.
    """

    __slots__ = ("_config", "_highest", "_lowest", "_samples", "_sum", "_turn_ns", "size")

    def __init__(self, config: ScalingConfig, lowest: int, highest: int, now_ns: int) -> None:
        self._config = config
        self._lowest = max(1, lowest)
        self._highest = highest
        self._turn_ns = now_ns
        self._samples = 0
        self._sum = 0
        self.size = self._lowest

    def sample(self, in_use: int, now_ns: int) -> int | None:
        """Take a look; returns the new warm size where it changes.

        Args:
            in_use: connections leased, and callers that wait for one.
        """
        self._samples += 1
        self._sum += in_use
        config = self._config
        if now_ns - self._turn_ns < config.interval * 1e9:
            return None
        used = self._sum / self._samples
        self._samples = self._sum = 0
        self._turn_ns = now_ns
        utilisation = used / self.size
        step = max(1, math.floor(self.size * config.step))
        ideal = math.ceil(used / config.target - 1e-9)
        if utilisation > config.up:
            wanted = min(self.size + step, max(ideal, self.size + 1))
        elif utilisation < config.down:
            wanted = max(self.size - step, ideal)
        else:
            return None
        wanted = min(self._highest, max(self._lowest, wanted))
        if wanted == self.size:
            return None
        self.size = wanted
        return wanted
