"""Watch the pool: events as they happen, statistics by the second, Prometheus metrics at the end.

    uv run python examples/watching_the_pool.py [URL]

Without a URL it starts the embedded PostgreSQL, and removes it at the end. A load comes and goes, one
lease is held for too long, and some backends are killed: see what the pool says and does about it. The
metrics need the extra `metrics`.
"""

import asyncio
import os
import sys
from contextlib import suppress

from prometheus_client import CollectorRegistry, generate_latest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.errors import ConnectError
from pool_bench.pool import ConnectionPool, PoolConfig, PoolEvent
from pool_bench.pool.metrics import PoolCollector
from pool_bench.servers import EmbeddedPostgres
from pool_bench.targets import PostgresTarget, from_url

CONFIG = PoolConfig(min_size=2, max_size=8, max_idle=1.0, leak_threshold=0.5, leak_stack=False)
KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'watched'"

Pool = ConnectionPool[AsyncpgConnection]


def show(event: PoolEvent) -> None:
    """Print an event; a subscriber may take its time, the pool does not wait for it."""
    print(f"    {event.kind:18} size {event.size}: {event.message}")


async def watch(pool: Pool) -> None:
    """A line every half second."""
    while True:
        stats = pool.get_stats()
        p99_ms = stats.wait_p99_ms or 0.0
        print(
            f"size {stats.size}  idle {stats.idle}  in use {stats.in_use}  waiting {stats.waiters}  "
            f"{stats.checkout_rate:,.0f} leases/s  wait p99 {p99_ms:.1f} ms"
        )
        await asyncio.sleep(0.5)


async def load(pool: Pool) -> None:
    """Thirty clients with three queries each."""

    async def client() -> None:
        for _ in range(3):
            async with pool.acquire() as conn:
                await conn.execute("SELECT pg_sleep(0.02)")

    await asyncio.gather(*(client() for _ in range(30)))


async def run(target: PostgresTarget) -> None:
    """Give the pool something to tell."""
    pool = ConnectionPool(AsyncpgDriver(target), CONFIG, name="watched")
    pool.subscribe(show)
    async with pool:
        watcher = asyncio.create_task(watch(pool))
        await load(pool)
        print("--- a lease is held for too long")
        async with pool.acquire():
            await asyncio.sleep(1.0)
        print("--- all backends are killed, the killer's own included")
        with suppress(ConnectError):
            await pool.execute_query(KILL)
        await load(pool)
        await asyncio.sleep(2.0)
        watcher.cancel()
        registry = CollectorRegistry()
        registry.register(PoolCollector([pool]))
        lines = generate_latest(registry).decode().splitlines()
    print("--- metrics")
    print("\n".join(line for line in lines if not line.startswith("#") and "_created" not in line))


def watch_at(url: str) -> None:
    """Run against that server, under a name by which our backends are found there."""
    asyncio.run(run(from_url(url, env={**os.environ, "PGAPPNAME": "watched"}, kind=PostgresTarget)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        watch_at(sys.argv[1])
    else:
        with EmbeddedPostgres() as server:
            watch_at(server.url)
