"""The circuit breaker: after some failures in a row nothing is tried for a while, then one attempt.

Nygard, "Release It!" (2007). It has no clock: whoever asks says what time it is.
"""

from enum import StrEnum

from pool_bench.pool.config import BreakerConfig


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
