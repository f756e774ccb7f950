"""What a ranking of pools takes: operations that succeed, and rounds enough that chance does not make it.

Pools are called apart where no round of one reaches into those of the other. Two that are alike are so by
chance in 2 of the (2n choose n) orders that n rounds of each can come in, and each pair of pools is one more
chance of that.
"""

from math import comb
from typing import Final

from pool_bench.compare.pools import PoolComparison, PoolRounds

# How often chance alone may set two pools apart.
_CHANCE: Final = 0.05
# The share of failures from which a rate or a latency says nothing of what users would get.
MOST_FAILED: Final = 0.01
# Failing is part of what it shows.
_FAILING: Final = "reconnect"


def rounds_needed(pools: int) -> int:
    """How many rounds of each of so many pools it takes to rank them."""
    pairs = comb(max(pools, 2), 2)
    return next(rounds for rounds in range(2, 100) if pairs * 2 / comb(2 * rounds, rounds) <= _CHANCE)


def failed_share(group: PoolRounds) -> float:
    """Operations that failed, or were due and never begun, of all; 0 to 1."""
    dropped = sum(run.open_loop.dropped for run in group.runs if run.open_loop is not None)
    lost = group.failed + dropped
    return lost / (group.ok + lost) if group.ok + lost else 0.0


def is_ranked(contest: PoolComparison, group: PoolRounds) -> bool:
    """Whether the pool did what it was asked to, so that its figures can be held against those of others."""
    if not group.ok:
        return False
    return contest.scenario == _FAILING or failed_share(group) <= MOST_FAILED


def best(contest: PoolComparison) -> PoolRounds | None:
    """The one with the highest throughput of those that are ranked, None where there is none."""
    ranked = [group for group in contest.groups if is_ranked(contest, group)]
    return max(ranked, key=lambda group: group.throughput.median, default=None)


def left_out(contest: PoolComparison) -> list[str]:
    """Who is not ranked, and why, in sentences."""
    told = []
    for group in contest.groups:
        if group.not_started:
            told.append(f"{group.pool} did not start.")
        elif group.ok and not is_ranked(contest, group):
            told.append(f"{group.pool} is not ranked: {failed_share(group):.1%} of its operations failed.")
    return told
