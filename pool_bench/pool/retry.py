"""How long to leave a failing target alone: pauses that grow, and a circuit breaker.

The longest pause doubles from `base` with each failure (full jitter: Brooker, "Exponential Backoff and
Jitter", AWS 2015), but doubling alone makes pauses about as long as the outage has been so far, so that a
restart of 2 s costs up to 2 s more. It stops at a tenth of the time since the first failure, or at 4 `base`
where that is more, and at `cap` for good. With uniform pauses up to L, an attempt follows the end of an
outage after at most L, in the median after (1 - 1/sqrt 2) L = 0.29 L, in the mean after L/3. With the
defaults, base 0.05 s and cap 2 s:

    outage   longest pause   next attempt (median)   attempts until then (mean)
      1 s        0.2 s              0.06 s                  12
      2 s        0.2 s              0.06 s                  22
      5 s        0.5 s              0.15 s                  41
     20 s          2 s              0.6 s                   70
      1 h          2 s              0.6 s                   70 and 1/s

so an outage is prolonged by at most a tenth, or by 0.2 s, and a connect. While pauses are a tenth of the
outage, the number of attempts is logarithmic in its length, 2/0.1 ln(T2/T1) from T1 to T2. Attempts of one
pool come one at a time, at random moments, some ten a second (22 in the worst second of 4,000 simulated
outages), however many callers wait.

The circuit breaker (Nygard, "Release It!", 2007): after some failures in a row nothing is tried for a while,
then one attempt. Neither has a clock: whoever asks says what time it is.
"""

import random
from enum import StrEnum
from typing import Final

from pool_bench.pool.config import BreakerConfig

# Of the time since the first failure.
_SHARE: Final = 0.1
# In `base`.
_AT_LEAST: Final = 4.0


class Backoff:
    """Pauses after failed attempts, and when the next attempt is due.

    Attempts that ran side by side and failed together count as one failure: they say the same.

    Attributes:
        failures: in a row.
        retry_at_ns: when the next attempt is due.
    """

    __slots__ = ("_base_ns", "_cap_ns", "_rng", "_since_ns", "failures", "retry_at_ns")

    def __init__(self, base_s: float, cap_s: float, rng: random.Random) -> None:
        self._base_ns = base_s * 1e9
        self._cap_ns = cap_s * 1e9
        self._rng = rng
        self._since_ns = 0
        self.failures = 0
        self.retry_at_ns = 0

    def failed(self, began_ns: int, now_ns: int) -> None:
        """An attempt that began at `began_ns` has failed."""
        if not self.failures:
            self._since_ns = now_ns
        elif began_ns < self.retry_at_ns:
            return
        self.failures += 1
        doubled_ns = self._base_ns * 2.0 ** min(self.failures - 1, 60)
        enough_ns = max(_AT_LEAST * self._base_ns, _SHARE * (now_ns - self._since_ns))
        longest_ns = min(doubled_ns, enough_ns, self._cap_ns)
        self.retry_at_ns = now_ns + round(self._rng.uniform(0, longest_ns))

    def succeeded(self) -> None:
        """An attempt has succeeded: no pause any more."""
        self.failures = 0
        self.retry_at_ns = 0


class BreakerState(StrEnum):
    """What the breaker lets pass; OFF is no breaker at all."""

    OFF = "off"
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Counts failures in a row; without a config it lets everything pass."""

    __slots__ = ("_config", "_failures", "_probing", "_reopens_at_ns")

    def __init__(self, config: BreakerConfig | None) -> None:
        self._config = config
        self._failures = 0
        self._reopens_at_ns: int | None = None
        self._probing = False

    def state(self, now_ns: int) -> BreakerState:
        """The state at `now_ns`."""
        if self._config is None:
            return BreakerState.OFF
        if self._reopens_at_ns is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_ns < self._reopens_at_ns else BreakerState.HALF_OPEN

    def admits(self, now_ns: int) -> bool:
        """Whether an attempt may begin."""
        if self._reopens_at_ns is None:
            return True
        return now_ns >= self._reopens_at_ns and not self._probing

    @property
    def is_probing(self) -> bool:
        """Whether the one attempt of the half-open state is under way."""
        return self._probing

    @property
    def reopens_at_ns(self) -> int | None:
        """When the next attempt may begin, None while the breaker is closed."""
        return self._reopens_at_ns

    def began(self) -> None:
        """An attempt begins."""
        self._probing = self._reopens_at_ns is not None

    def succeeded(self) -> None:
        """An attempt succeeded: closed."""
        self.reset()

    def failed(self, now_ns: int) -> bool:
        """An attempt failed; returns whether that opened the breaker."""
        self._failures += 1
        if self._config is None:
            return False
        if self._reopens_at_ns is not None and not self._probing:
            return False  # a straggler that began before the breaker opened
        if not self._probing and self._failures < self._config.failures:
            return False
        self._probing = False
        self._reopens_at_ns = now_ns + round(self._config.open_for * 1e9)
        return True

    def reset(self) -> None:
        """Close the breaker, whatever it has seen."""
        self._failures = 0
        self._reopens_at_ns = None
        self._probing = False
