"""Watch the SurrealDB pool: its numbers while a load comes and goes, scaling, Prometheus metrics at the end.

    uv run python examples/surreal/watching_clients.py [URL USER PASSWORD]

Without a URL it starts the embedded SurrealDB, and removes it at the end. The metrics need the extra
`metrics`.
"""

import asyncio
import sys

from prometheus_client import CollectorRegistry, generate_latest

from pool_bench.pool import ScalingConfig
from pool_bench.pool.metrics import PoolCollector
from pool_bench.servers import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool


async def watch(pool: SurrealDBConnectionPool) -> None:
    """A line every half second."""
    while True:
        stats = pool.get_stats().statistics
        p99_ms = stats.wait_p99_ms or 0.0
        print(
            f"size {stats.size}  kept warm {stats.floor}  idle {stats.idle}  in use {stats.in_use}  "
            f"waiting {stats.waiters}  wait p99 {p99_ms:.1f} ms"
        )
        await asyncio.sleep(0.5)


async def load(pool: SurrealDBConnectionPool) -> None:
    """Thirty clients with ten queries each, which sleep at the server."""

    async def client() -> None:
        for _ in range(10):
            await pool.execute_query("SLEEP 20ms")

    await asyncio.gather(*(client() for _ in range(30)))


async def run(url: str, user: str, password: str) -> None:
    """Give the pool something to tell."""
    async with SurrealDBConnectionPool(
        url,
        {"username": user, "password": password},
        "example",
        "example",
        min_connections=1,
        max_connections=6,
        acquisition_timeout=60.0,
        scaling=ScalingConfig(interval=0.5, step=1.0),
        name="watched",
    ) as pool:
        watcher = asyncio.create_task(watch(pool))
        print("--- a load comes")
        await load(pool)
        print("--- and has gone")
        await asyncio.sleep(2.0)
        watcher.cancel()
        registry = CollectorRegistry()
        registry.register(PoolCollector([pool]))
        lines = generate_latest(registry).decode().splitlines()
    print("--- metrics")
    print("\n".join(line for line in lines if not line.startswith("#") and "_created" not in line))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(run(*sys.argv[1:4]))
    else:
        with EmbeddedSurreal() as server:
            asyncio.run(run(server.url, server.user, server.password))
