"""Compare two pools: the same load on the reference pool and on asyncpg's own, three rounds in turn.

    uv run python examples/comparing_two_pools.py [URL]

Without a URL it starts the embedded PostgreSQL, and removes it at the end. `pool-bench run` does this
for more pools and loads, each in a process of its own and with everything that a benchmark has to look
after; here both run in this one, which is enough to see who is served in turn and who is not.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median, quantiles
from time import perf_counter

import asyncpg

from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers import EmbeddedPostgres
from pool_bench.targets import PostgresTarget, from_url

CLIENTS, SIZE, ROUNDS, SECONDS = 200, 10, 3, 1.0

Lease = Callable[[], AbstractAsyncContextManager[asyncpg.Connection]]


@asynccontextmanager
async def reference(url: str) -> AsyncIterator[Lease]:
    """The pool of this package: first come, first served."""
    driver = AsyncpgDriver(from_url(url, kind=PostgresTarget))
    async with ConnectionPool(driver, PoolConfig(min_size=SIZE, max_size=SIZE)) as pool:

        @asynccontextmanager
        async def lease() -> AsyncIterator[asyncpg.Connection]:
            async with pool.acquire() as connection:
                yield connection.raw

        yield lease


@asynccontextmanager
async def asyncpgs_own(url: str) -> AsyncIterator[Lease]:
    """The pool that comes with asyncpg."""
    async with asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE) as pool:
        yield pool.acquire


POOLS = {"reference": reference, "asyncpg": asyncpgs_own}


@dataclass
class Waits:
    """How long callers waited for a connection, and who came before whom.

    Attributes:
        seconds: one wait each.
        overtaken: callers that were served after somebody who had asked later.
        last: the latest ticket served so far.
    """

    seconds: list[float] = field(default_factory=list)
    overtaken: int = 0
    last: int = -1

    def served(self, ticket: int, waited_s: float) -> None:
        """Note that the caller with that ticket has its connection."""
        self.seconds.append(waited_s)
        self.overtaken += ticket < self.last
        self.last = max(self.last, ticket)


async def measure(name: str, url: str) -> tuple[float, float, float]:
    """Operations a second, p99 of the wait in milliseconds, share of checkouts that were overtaken."""
    waits, tickets = Waits(), count()
    async with POOLS[name](url) as lease:
        end = perf_counter() + SECONDS

        async def client() -> None:
            while (asked := perf_counter()) < end:
                ticket = next(tickets)
                async with lease() as connection:
                    waits.served(ticket, perf_counter() - asked)
                    await connection.fetchval("SELECT 1")

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    operations = len(waits.seconds)
    return operations / SECONDS, quantiles(waits.seconds, n=100)[-1] * 1000, waits.overtaken / operations


def compare(url: str) -> None:
    """Measure both in turn, in changing order, and print medians."""
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in POOLS}
    for round_ in range(ROUNDS):
        for name in POOLS if round_ % 2 == 0 else reversed(POOLS):
            figures[name].append(asyncio.run(measure(name, url)))
    print(f"{CLIENTS} clients, {SIZE} connections, median of {ROUNDS} rounds")
    for name, rounds in figures.items():
        rate, wait_ms, overtaken = (median(column) for column in zip(*rounds, strict=True))
        print(f"{name:10} {rate:8,.0f} op/s   wait p99 {wait_ms:7.1f} ms   overtaken {overtaken:4.0%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        compare(sys.argv[1])
    else:
        with EmbeddedPostgres() as server:
            compare(server.url)
