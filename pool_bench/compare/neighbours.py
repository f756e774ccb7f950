"""Whether others than client, server and pooler had the cores while a setting was measured.

What they take comes and goes with them. Inside a run, and in rounds that follow each other, it looks like any
steady level, so no interval over seconds or rounds knows of it: two runs of the same thing then differ by as
much as their neighbours did. Only settings that were measured in turn meet the same ones.
"""

from collections.abc import Sequence
from typing import Final

from pool_bench.results.run import RunRecord

# Shares of this machine's cores from which on it was full, and others had much of it.
_FULL: Final = 0.9
_MUCH: Final = 1 / 3
# How far a look may be off the measured time, seconds.
_SLACK_S: Final = 0.3


def crowded_words(runs: Sequence[RunRecord]) -> str:
    """`other processes used 1.7 of 2 cores, and none was free`; "" where they did not, or nobody looked."""
    worst: tuple[float, int] | None = None
    for run in runs:
        found = _others(run)
        if found is not None and (worst is None or found[0] / found[1] > worst[0] / worst[1]):
            worst = found
    if worst is None:
        return ""
    others, cores = worst
    return f"other processes used {others:.1f} of {cores} core{'s' if cores > 1 else ''}, and none was free"


def _others(run: RunRecord) -> tuple[float, int] | None:
    """What others used on average while `run` measured and how many cores there are, where it was much."""
    side = run.server_side
    if side is None or not side.cores or not run.duration_s:
        return None
    begin = (side.origin_s or 0.0) - _SLACK_S
    looks = [
        look.cpu
        for look in side.timeline
        if look.cpu is not None and begin < look.t <= begin + run.duration_s + 2 * _SLACK_S
    ]
    known = [cpu for cpu in looks if cpu.machine is not None and cpu.server is not None]
    if not known:
        return None
    machine = sum(cpu.machine or 0.0 for cpu in known) / len(known)
    own = sum((cpu.server or 0.0) + (cpu.pooler or 0.0) for cpu in known) / len(known)
    others = machine - own - run.client.cpu_s / run.duration_s
    if machine < _FULL * side.cores or others < _MUCH * side.cores:
        return None
    return others, side.cores
