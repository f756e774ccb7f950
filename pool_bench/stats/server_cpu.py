"""How many cores were in use while a run measured: plain calculation from what was seen of its server."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Protocol

from pool_bench.stats.server import CpuUse

# How far a look may be off the window in which the run measured, seconds.
_SLACK_S: Final = 0.3


class Cores(Protocol):
    """Cores that were busy, as in `CpuUse`."""

    @property
    def machine(self) -> float | None: ...
    @property
    def server(self) -> float | None: ...
    @property
    def postmaster(self) -> float | None: ...
    @property
    def server_thread(self) -> float | None: ...
    @property
    def pooler(self) -> float | None: ...
    @property
    def pooler_busiest(self) -> float | None: ...


class Look(Protocol):
    """One look at a server, as in `ServerSample`."""

    @property
    def t(self) -> float: ...
    @property
    def cpu(self) -> Cores | None: ...


def mean_cpu(looks: Sequence[Look], begin_s: float, duration_s: float) -> tuple[CpuUse, float]:
    """Mean use of CPU while a run measured, and over how many seconds of it there were figures.

    Args:
        looks: of the whole watching.
        begin_s: when the run's clock stood at 0, on that of the looks.
        duration_s: how long the run measured.
    """
    parts = [
        (after.t - before.t, after.cpu)
        for before, after in pairwise(looks)
        if after.cpu is not None
        and is_measured(before, begin_s, duration_s)
        and is_measured(after, begin_s, duration_s)
    ]
    return cpu_together(parts), sum(length for length, _ in parts)


def cpu_together(parts: Sequence[tuple[float, Cores]]) -> CpuUse:
    """Mean use of CPU over parts of which each has its length, seconds."""

    def mean(values: Sequence[tuple[float, float | None]]) -> float | None:
        known = [(length, value) for length, value in values if value is not None]
        total = sum(length for length, _ in known)
        return sum(length * value for length, value in known) / total if total else None

    return CpuUse(
        machine=mean([(length, cpu.machine) for length, cpu in parts]),
        server=mean([(length, cpu.server) for length, cpu in parts]),
        postmaster=mean([(length, cpu.postmaster) for length, cpu in parts]),
        server_thread=mean([(length, cpu.server_thread) for length, cpu in parts]),
        pooler=mean([(length, cpu.pooler) for length, cpu in parts]),
        pooler_busiest=mean([(length, cpu.pooler_busiest) for length, cpu in parts]),
    )


def is_measured(look: Look, begin_s: float, duration_s: float) -> bool:
    """Whether a look was taken while the run measured; `begin_s` as in `mean_cpu`."""
    return begin_s - _SLACK_S <= look.t <= begin_s + duration_s + _SLACK_S
