"""How many connections to keep warm, from how busy they were."""

import math

from pool_bench.pool.config import ScalingConfig


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
