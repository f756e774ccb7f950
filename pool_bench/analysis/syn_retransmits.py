"""Steps that lost connection requests leave in connect latency: plain calculation.

A server whose accept queue is full drops the SYN, or the end of the handshake, without a word. The
client's kernel sends it again after the initial retransmission timeout of 1 s (RFC 6298, 2.1), then
doubles it: a connect takes 1, 3, 7, 15 or 31 s longer than it should. Linux from 6.5 on repeats the
first retransmissions every second (`net.ipv4.tcp_syn_linear_timeouts`, 4): 1, 2, 3, 4, 5, 7, 11, 19, 35 s.
The longer a timer of the kernel is, the later it is: measured were 1.03, 2.05, 3.06, 4.10, 5.11, 7.13, 11.20,
19.38 and 35.51 s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pool_bench.stats.histogram import Histogram

DELAYS_S: Final = (1, 2, 3, 4, 5, 7, 11, 15, 19, 31, 35)
# A repeated SYN goes out on the kernel's timer and is answered within a round trip or a few.
_BEFORE_MS: Final = 5.0
_WINDOW_MS: Final = 150.0
# How late the kernel sends it again, of the time that it waits.
_LATE_SHARE: Final = 0.03
_NEIGHBOURHOOD_MS: Final = 350.0
_FEWEST: Final = 5
# A step stands out sharply; latency that merely reaches a second does not.
_TIMES_BEFORE: Final = 6.0
_TIMES_AFTER: Final = 2.0


@dataclass(frozen=True, slots=True)
class SynStep:
    """`count` connects took about `delay_s` seconds longer than the others."""

    delay_s: int
    count: int


def syn_steps(histogram: Histogram) -> list[SynStep]:
    """The steps that stand out in connect latency, ascending; none where there is no such pattern.

    Args:
        histogram: of the `tcp` phase where it is known, else of whole connects: there the time of the
            other phases is added, and steps are found as long as that is within 150 ms.
    """
    if histogram.count < _FEWEST or histogram.max_ns < (1000 - _BEFORE_MS) * 1e6:
        return []
    steps = []
    for delay_s in DELAYS_S:
        start = delay_s * 1000.0 - _BEFORE_MS
        window = max(_WINDOW_MS, _LATE_SHARE * delay_s * 1000)
        edges = np.array([start - _NEIGHBOURHOOD_MS, start, start + window, start + 2 * window])
        _, before, within, after, _ = (int(count) for count in histogram.binned(edges))
        density = within / window
        stands_out = (
            density >= _TIMES_BEFORE * before / _NEIGHBOURHOOD_MS and density >= _TIMES_AFTER * after / window
        )
        if within >= _FEWEST and stands_out:
            steps.append(SynStep(delay_s, within))
    return steps


def waited_words(steps: Sequence[SynStep]) -> str:
    """`80 connects waited 1 s, 20 waited 3 s`."""
    first, *others = steps
    return ", ".join(
        [
            f"{first.count:,} connects waited {first.delay_s} s",
            *(f"{step.count:,} waited {step.delay_s} s" for step in others),
        ]
    )
