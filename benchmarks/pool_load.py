"""What pools cost under load, and what their waiters cost: the reference pool, asyncpg.Pool, psycopg_pool.

The contenders are measured in turn, round after round in changing order. Prints medians of wall time and of
this process's CPU time, and the median of the rounds' ratios to the reference.

- default: clients that each lease a connection, run `SELECT 1`, and give it back, again and again, on ten
  connections to the embedded PostgreSQL. Each pool does by default what it does after that: the reference and
  asyncpg.Pool reset the session, psycopg_pool sends nothing.
- no reset: the same, and nobody resets.
- timeouts: callers with one deadline on a pool whose thousand connections are all leased; the longest that
  the loop stood still meanwhile. No server: connections that do nothing.
- memory: what Python allocates for a caller that waits, beyond a task that awaits a future. The same.

`pool_checkout.py` has the cost of a checkout alone, `recovery.py` how soon a pool is back after an outage.

    uv run python benchmarks/pool_load.py
"""

import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
import click
import psycopg_pool

from pool_bench.cli.places.postgres import embedded_target
from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.pool import ConnectionPool, PoolConfig, PoolTimeoutError
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget

SIZE: Final = 10
Query = Callable[[], Awaitable[object]]


class Idle:
    """A connection to nowhere."""

    touched = False

    async def ping(self) -> None: ...

    async def reset(self) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...

    def is_closed(self) -> bool:
        return False


class Nowhere:
    """Opens them."""

    async def connect(self) -> Idle:
        """One of them."""
        return Idle()


async def _no_reset(_connection: object) -> None:
    """What asyncpg.Pool does instead of its reset."""


@asynccontextmanager
async def contenders(target: PostgresTarget, url: str, *, resets: bool) -> AsyncIterator[dict[str, Query]]:
    """A query through each of the pools, which are open and full."""
    # A thousand callers wait longer than the usual limit on a machine that has other work.
    policy: dict[str, Any] = {} if resets else {"reset_on_return": "never"}
    config = PoolConfig(min_size=SIZE, max_size=SIZE, acquire_timeout=600.0, **policy)
    async with AsyncExitStack() as stack:
        reference = await stack.enter_async_context(ConnectionPool(AsyncpgDriver(target), config))
        own = None if resets else _no_reset
        plain = await stack.enter_async_context(
            asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE, reset=own)
        )
        psycopg = await stack.enter_async_context(
            psycopg_pool.AsyncConnectionPool(
                url, min_size=SIZE, max_size=SIZE, timeout=600.0, open=False, kwargs={"autocommit": True}
            )
        )
        await psycopg.wait()

        async def by_reference() -> None:
            async with reference.acquire() as connection:
                await connection.raw.execute("SELECT 1")

        async def by_asyncpg() -> None:
            async with plain.acquire() as connection:
                await connection.execute("SELECT 1")

        async def by_psycopg() -> None:
            async with psycopg.connection() as connection:
                await connection.execute("SELECT 1")

        yield {"reference": by_reference, "asyncpg.Pool": by_asyncpg, "psycopg_pool": by_psycopg}


async def run(query: Query, clients: int, each: int) -> tuple[float, float]:
    """Microseconds a query, of wall time and of CPU time."""

    async def client() -> None:
        for _ in range(each):
            await query()

    gc.collect()
    began_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    await asyncio.gather(*(client() for _ in range(clients)))
    queries = clients * each
    wall_us = (time.perf_counter_ns() - began_ns) / queries / 1e3
    return wall_us, (time.process_time_ns() - cpu_ns) / queries / 1e3


async def queries(
    target: PostgresTarget, url: str, *, resets: bool, rounds: int, clients: int, each: int
) -> None:
    """Measure all contenders and print the table."""
    async with contenders(target, url, resets=resets) as pools:
        names = list(pools)
        for query in pools.values():
            await run(query, clients, 1)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        with click.progressbar(length=rounds * len(names), label="measuring", file=sys.stderr) as progress:
            for number in range(rounds):
                for name in names if number % 2 == 0 else reversed(names):
                    taken[name].append(await run(pools[name], clients, each))
                    progress.update(1)
    what = "default resets" if resets else "nobody resets"
    print(f"\n{f'{clients:,} clients, {what}':32}{'wall us':>10}{'CPU us':>10}{'x wall':>9}{'x CPU':>9}")
    for name in names:
        row = f"{name:32}"
        for kind in (0, 1):
            row += f"{statistics.median(one[kind] for one in taken[name]):>10.1f}"
        for kind in (0, 1):
            ratios = [a[kind] / b[kind] for a, b in zip(taken[name], taken["reference"], strict=True)]
            row += f"{statistics.median(ratios):>9.2f}"
        print(row)


async def standstill(size: int, callers: int, timeout_s: float) -> tuple[float, float]:
    """The longest turn of the loop while so many callers time out at once, ms of wall and of CPU time."""
    config = PoolConfig(min_size=size, max_size=size, connecting_limit=size)
    async with ConnectionPool(Nowhere(), config) as pool:
        held = [pool.acquire() for _ in range(size)]
        for lease in held:
            await lease.__aenter__()
        late = 0

        async def call() -> None:
            nonlocal late
            try:
                await pool.acquire(timeout=timeout_s)
            except PoolTimeoutError:
                late += 1

        calls = [asyncio.create_task(call()) for _ in range(callers)]
        await asyncio.sleep(timeout_s / 2)
        gc.collect()
        longest_ns = longest_cpu_ns = 0
        at_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        while late < callers:
            await asyncio.sleep(0)
            now_ns, now_cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            longest_ns = max(longest_ns, now_ns - at_ns)
            longest_cpu_ns = max(longest_cpu_ns, now_cpu_ns - cpu_ns)
            at_ns, cpu_ns = now_ns, now_cpu_ns
        await asyncio.gather(*calls)
        for lease in held:
            await lease.__aexit__(None, None, None)
    return longest_ns / 1e6, longest_cpu_ns / 1e6


async def timeouts(rounds: int, callers: int) -> None:
    """Print the longest standstill for pools of three sizes."""
    for size in (1, 100, 1_000):
        taken = [await standstill(size, callers, 1.0) for _ in range(rounds)]
        wall, cpu = (statistics.median(one[kind] for one in taken) for kind in (0, 1))
        print(f"{callers:,} timeouts at once, size {size:,}: {wall:.1f} ms of wall, {cpu:.1f} ms of CPU time")


async def allocated(call: Callable[[], Awaitable[object]], callers: int) -> float:
    """Bytes for each of so many tasks that have come to wait in `call`."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()

    async def wait() -> None:
        await call()

    tasks = [asyncio.create_task(wait()) for _ in range(callers)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (after - before) / callers


async def memory(callers: int) -> None:
    """Print what a waiter costs beyond its task."""
    loop = asyncio.get_running_loop()

    async def future() -> None:
        await loop.create_future()

    async with ConnectionPool(Nowhere(), PoolConfig(min_size=1, max_size=1)) as pool:

        async def lease() -> None:
            async with pool.acquire():
                pass

        async with pool.acquire():
            bare, waiting = await allocated(future, callers), await allocated(lease, callers)
    print(f"a waiter beyond a task that awaits a future ({bare:,.0f} B): {waiting - bare:,.0f} B")


@click.command()
@click.option("--rounds", default=9, show_default=True, help="How often each contender is measured.")
@click.option("--clients", default=1_000, show_default=True, help="Tasks that query.")
@click.option("--queries", "each", default=5, show_default=True, help="Of each client in a round.")
@click.option("--callers", default=5_000, show_default=True, help="Who time out, or wait, at once.")
def main(rounds: int, clients: int, each: int, callers: int) -> None:
    """Measure against the embedded PostgreSQL."""
    asyncio.run(memory(callers))
    asyncio.run(timeouts(min(rounds, 5), callers))
    with EmbeddedPostgres() as server:
        target = embedded_target(server, application_name="pool_load")
        for resets in (True, False):
            work = queries(target, server.url, resets=resets, rounds=rounds, clients=clients, each=each)
            asyncio.run(work)


if __name__ == "__main__":
    main()
