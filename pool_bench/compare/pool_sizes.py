"""A sweep of pool sizes: its rounds by size, and what they allow to be said."""

from collections.abc import Sequence
from importlib.util import find_spec

from pool_bench.analysis.scalability import Measured, Sizing, recommend
from pool_bench.compare.pools import PoolRounds
from pool_bench.results.run import RunRecord

# What a run of such a sweep says its scenario is.
SIZE: str = "size"


def by_size(runs: Sequence[RunRecord]) -> list[tuple[int, PoolRounds]]:
    """Runs of a sweep sorted by size, the rounds of each together; other runs are left out."""
    sizes: dict[int, list[RunRecord]] = {}
    for run in runs:
        setting = run.pool_setting
        if setting is not None and setting.scenario == SIZE:
            sizes.setdefault(setting.size, []).append(run)
    return [(size, PoolRounds(tuple(rounds))) for size, rounds in sorted(sizes.items())]


def sizing_of(groups: Sequence[tuple[int, PoolRounds]]) -> Sizing | None:
    """What the rounds allow to be said; None without scipy."""
    if find_spec("scipy") is None:
        return None
    return recommend([Measured(size, run.throughput) for size, group in groups for run in group.runs])


def bottlenecks(groups: Sequence[tuple[int, PoolRounds]], sizing: Sizing) -> str:
    """`limit: this client ...` where it, and not the server, may have made the knee; "" where it did not."""
    if sizing.knee is None:
        return ""
    busy = [size for size, group in groups if any(run.client.saturated for run in group.runs)]
    if not busy or min(busy) > (sizing.knee_high or sizing.knee):
        return ""
    above = [size for size, _ in groups if size >= busy[0]]
    where = f"from size {busy[0]} on" if busy == above else f"at size {', '.join(map(str, busy))}"
    return (
        f"limit: this client {where}, so the knee may be this process's, which has one core, and not the "
        "server's: an application of several processes would find another"
    )
