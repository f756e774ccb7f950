"""Use the pool: lease connections, many tasks on few connections, a timeout that says why.

    uv run python examples/using_the_pool.py [URL]

Without a URL it starts the embedded PostgreSQL, and removes it at the end.
"""

import asyncio
import sys

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.pool import ConnectionPool, PoolConfig, PoolTimeoutError
from pool_bench.servers import EmbeddedPostgres
from pool_bench.targets import PostgresTarget, from_url

CONFIG = PoolConfig(
    min_size=2,
    max_size=10,
    acquire_timeout=5.0,
    session_sql="SET application_name = 'example'",
    leak_threshold=30.0,
)


async def use(target: PostgresTarget) -> None:
    """What an application does with a pool."""
    async with ConnectionPool(AsyncpgDriver(target), CONFIG, name="example") as pool:
        # The connection is the driver's; its `raw` is asyncpg's own, with everything asyncpg can do.
        async with pool.acquire(timeout=1.0) as conn:
            print("server:", await conn.raw.fetchval("SHOW server_version"))

        await asyncio.gather(*(work(pool, number) for number in range(1000)))
        stats = pool.get_stats()
        print(f"1,000 tasks were served by {stats.created} connections")
        print(f"waits: p50 {stats.wait_p50_ms} ms, p99 {stats.wait_p99_ms} ms, {stats.timeouts} timeouts")

        # Nobody finds another's settings or transactions.
        async with pool.acquire() as conn:
            await conn.execute("BEGIN; SET LOCAL work_mem = '1GB'")
        async with pool.acquire() as conn:
            print("work_mem:", await conn.raw.fetchval("SHOW work_mem"))

        await pool.drain()
        pool.resume()
        held = [await pool.acquire() for _ in range(10)]
        try:
            await pool.acquire(timeout=0.1)
        except PoolTimeoutError as error:
            print("as expected:", error)
        for conn in held:
            await pool.release(conn)


async def work(pool: ConnectionPool[AsyncpgConnection], number: int) -> None:
    """One request of the application."""
    async with pool.acquire() as conn:
        await conn.raw.fetchval("SELECT $1::int * 2", number)


def run(url: str) -> None:
    """Run against that server."""
    asyncio.run(use(from_url(url, kind=PostgresTarget)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1])
    else:
        with EmbeddedPostgres() as server:
            run(server.url)
