"""How long to leave a failing target alone."""

import random


class Backoff:
    """Exponential pauses with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015).

    Attempts that ran side by side and failed together count as one failure: they say the same.
    """

    __slots__ = ("_base_ns", "_cap_ns", "_rng", "failures", "retry_at_ns")

    def __init__(self, base_s: float, cap_s: float, rng: random.Random) -> None:
        self._base_ns = base_s * 1e9
        self._cap_ns = cap_s * 1e9
        self._rng = rng
        self.failures = 0
        self.retry_at_ns = 0

    def failed(self, began_ns: int, now_ns: int) -> None:
        """An attempt that began at `began_ns` has failed."""
        if self.failures and began_ns < self.retry_at_ns:
            return
        self.failures += 1
        longest_ns = min(self._cap_ns, self._base_ns * 2.0 ** min(self.failures - 1, 60))
        self.retry_at_ns = now_ns + round(self._rng.uniform(0, longest_ns))

    def succeeded(self) -> None:
        """An attempt has succeeded: no pause any more."""
        self.failures = 0
        self.retry_at_ns = 0
