"""How many cores were in use while a run measured: plain calculation from what was seen of its server."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from pool_bench.stats.server import CpuUse, ServerObservation

# How far a look may be off the window in which the run measured, seconds.
_SLACK_S: Final = 0.3


def mean_cpu(side: ServerObservation, duration_s: float) -> tuple[CpuUse, float]:
    """Mean use of CPU while the run measured, and over how many seconds of it there were figures."""
    parts = [
        (after.t - before.t, after.cpu)
        for before, after in pairwise(side.seconds)
        if after.cpu is not None
        and is_measured(side, before.t, duration_s)
        and is_measured(side, after.t, duration_s)
    ]

    def mean(values: Sequence[tuple[float, float | None]]) -> float | None:
        known = [(length, value) for length, value in values if value is not None]
        total = sum(length for length, _ in known)
        return sum(length * value for length, value in known) / total if total else None

    use = CpuUse(
        machine=mean([(length, cpu.machine) for length, cpu in parts]),
        server=mean([(length, cpu.server) for length, cpu in parts]),
        postmaster=mean([(length, cpu.postmaster) for length, cpu in parts]),
        server_thread=mean([(length, cpu.server_thread) for length, cpu in parts]),
        pooler=mean([(length, cpu.pooler) for length, cpu in parts]),
        pooler_busiest=mean([(length, cpu.pooler_busiest) for length, cpu in parts]),
    )
    return use, sum(length for length, _ in parts)


def is_measured(side: ServerObservation, t: float, duration_s: float) -> bool:
    """Whether a look was taken while the run measured; `t` as in `ServerSecond`."""
    begin = side.origin_s or 0.0
    return begin - _SLACK_S <= t <= begin + duration_s + _SLACK_S
