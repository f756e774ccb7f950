"""Compare two pools: the same load on the reference pool and on asyncpg's own, three rounds in turn.

    uv run python examples/comparing_two_pools.py [URL]

Without a URL it starts the embedded PostgreSQL, and removes it at the end. `pool-bench run` does this
for more pools and loads, each in a process of its own; here both run in this one, which is enough to see
who is served in turn and who is not.
"""

import asyncio
import sys
from statistics import median

from pool_bench.cli.places.postgres import embedded_target, find_targets, serve
from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.load.pool.generator import generate_pool
from pool_bench.load.spec import PoolSpec
from pool_bench.stats.runs import Snapshot
from pool_bench.targets.postgres import PostgresTarget

POOLS: tuple[ContenderName, ...] = ("reference", "asyncpg")
CLIENTS, SIZE, ROUNDS = 200, 10, 3


def measure(target: PostgresTarget, pool: ContenderName) -> tuple[float, float, float]:
    """Operations a second, p99 of the wait in milliseconds, share of checkouts that were overtaken."""
    spec = PoolSpec(
        targets=(target,),
        pool=pool,
        scenario="query",
        clients=CLIENTS,
        size=SIZE,
        query="SELECT 1",
        warmup_s=0.3,
        duration_s=1.0,
    )
    snapshots: list[Snapshot] = []
    asyncio.run(generate_pool(spec, snapshots.append, asyncio.Event()))
    # Every snapshot holds what is new since the one before; together they are the whole run.
    total, checkout = snapshots[0].targets[0], snapshots[0].checkout
    assert checkout is not None  # noqa: S101  # runs of pools always have it
    for snapshot in snapshots[1:]:
        total.merge(snapshot.targets[0])
        if snapshot.checkout is not None:
            checkout.merge(snapshot.checkout)
    waits = [histogram for phase, histogram in total.phases.items() if phase == "checkout"]
    wait_ms = waits[0].percentile_ms(99) if waits else None
    return total.ok / spec.duration_s, wait_ms or 0.0, checkout.fairness.overtaken_share or 0.0


def compare(target: PostgresTarget) -> None:
    """Measure both in turn, in changing order, and print medians."""
    figures: dict[ContenderName, list[tuple[float, float, float]]] = {pool: [] for pool in POOLS}
    for round_ in range(ROUNDS):
        for pool in POOLS if round_ % 2 == 0 else reversed(POOLS):
            figures[pool].append(measure(target, pool))
    print(f"{CLIENTS} clients, {SIZE} connections, median of {ROUNDS} rounds")
    for pool, rounds in figures.items():
        rate, wait_ms, overtaken = (median(column) for column in zip(*rounds, strict=True))
        manner = make(pool, ContenderConfig(target=target, size=SIZE)).manner
        print(f"{pool:10} {rate:8,.0f} op/s   wait p99 {wait_ms:7.1f} ms   overtaken {overtaken:4.0%}")
        print(f"{'':10} {manner}")


def main() -> None:
    """Find a server, or start one."""
    place = find_targets(tuple(sys.argv[1:2]), application_name="comparing_two_pools")
    with serve(place, connections=SIZE) as server:
        if server is None:
            compare(place.targets[0])
        else:
            compare(embedded_target(server, application_name="comparing_two_pools"))


if __name__ == "__main__":
    main()
