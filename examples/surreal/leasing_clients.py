"""Use the SurrealDB pool: lease clients, many tasks on few connections, sessions that come back clean.

    uv run python examples/surreal/leasing_clients.py [URL USER PASSWORD]

Without a URL it starts the embedded SurrealDB, and removes it at the end.
"""

import asyncio
import sys

from pool_bench.pool import PoolTimeoutError
from pool_bench.servers import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool


async def use(url: str, user: str, password: str) -> None:
    """What an application does with a pool."""
    async with SurrealDBConnectionPool(
        url,
        {"username": user, "password": password},
        "example",
        "example",
        min_connections=2,
        max_connections=5,
        acquisition_timeout=60.0,
    ) as pool:
        # The client is the official one, and yours alone until the block ends.
        async with pool.acquire() as client:
            print("server:", await client.version())

        await asyncio.gather(*(work(pool, number) for number in range(500)))
        numbers = pool.get_stats()
        print(f"500 tasks were served by {numbers['total_connections_created']} connections")

        # Nobody finds another's variables.
        async with pool.acquire() as client:
            await client.let("who", "Ada")
        async with pool.acquire() as client:
            print("who:", await client.query("RETURN $who"))

        held = [await pool.acquire() for _ in range(5)]
        try:
            await pool.acquire(timeout=0.1)
        except PoolTimeoutError as error:
            print("as expected:", error)
        for client in held:
            await pool.release(client)


async def work(pool: SurrealDBConnectionPool, number: int) -> None:
    """One request of the application."""
    await pool.execute_query("RETURN $number * 2", {"number": number})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(use(*sys.argv[1:4]))
    else:
        with EmbeddedSurreal() as server:
            asyncio.run(use(server.url, server.user, server.password))
