"""How long a worker leaves a failing target alone."""

import random
from typing import Final

_FIRST_S: Final = 0.010
_LONGEST_S: Final = 1.0


def backoff_s(failures: int, rng: random.Random) -> float:
    """Seconds to wait after `failures` failures in a row (one or more).

    Exponential with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015): a random
    share of 10 ms, doubled with each failure up to 1 s, so that workers that failed together do not
    come back together, and a target that recovers is found again within a second.
    """
    return rng.uniform(0, min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures - 1, 30)))
