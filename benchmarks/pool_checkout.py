"""What a checkout costs: the reference pool against a bare deque pool, asyncpg.Pool and psycopg_pool.

All pools hold connections to the embedded PostgreSQL; the contenders are measured in turn, round after
round in changing order, so that a machine that grows slower does so for all. Prints medians of wall time and
of this process's CPU time, which other work on the machine does not lengthen, and the medians of the rounds'
ratios to the deque.

- pair: one task that acquires and releases, and does nothing in between. The reference pool runs with
  its default health checks, leak tracking (stacks off) and statistics; a lease that was not touched is
  not reset. asyncpg.Pool is measured without its reset, which it would send to the server even then,
  and with it.
- tasks: 10,000 tasks on 10 connections without hold, and the same with one turn of the loop as the
  hold, where all but ten of them wait.
- memory: resident size of a process after 100 thousand and after a million more checkouts.

    uv run python benchmarks/pool_checkout.py
"""

import asyncio
import gc
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType

import asyncpg
import click
import psutil
import psycopg_pool

from pool_bench.cli.places.postgres import embedded_target
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget

SIZE = 10
TASKS = 10_000
Acquire = Callable[[], AbstractAsyncContextManager[object]]


class DequePool:
    """As little as a pool can be: connections in a deque, waiters in another; no limits, no figures."""

    def __init__(self, connections: list[AsyncpgConnection]) -> None:
        self.idle = deque(connections)
        self.waiters: deque[asyncio.Future[AsyncpgConnection]] = deque()

    def acquire(self) -> "DequeLease":
        """Lease a connection for an `async with` block."""
        return DequeLease(self)


class DequeLease:
    """One lease of it."""

    __slots__ = ("conn", "pool")

    def __init__(self, pool: DequePool) -> None:
        self.pool = pool
        self.conn: AsyncpgConnection

    async def __aenter__(self) -> AsyncpgConnection:
        pool = self.pool
        if pool.idle and not pool.waiters:
            self.conn = pool.idle.pop()
        else:
            future: asyncio.Future[AsyncpgConnection] = asyncio.get_running_loop().create_future()
            pool.waiters.append(future)
            self.conn = await future
        return self.conn

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pool = self.pool
        while pool.waiters:
            future = pool.waiters.popleft()
            if not future.done():
                future.set_result(self.conn)
                return
        pool.idle.append(self.conn)


async def _no_reset(_connection: object) -> None:
    """What asyncpg.Pool does instead of its reset."""


def reference_config() -> PoolConfig:
    """Defaults but for the size and the leak tracking."""
    return PoolConfig(min_size=SIZE, max_size=SIZE, leak_threshold=60.0, leak_stack=False)


@asynccontextmanager
async def contenders(target: PostgresTarget, url: str) -> AsyncIterator[dict[str, Acquire]]:
    """All pools, open and full."""
    driver = AsyncpgDriver(target)
    async with AsyncExitStack() as stack:
        connections = [await driver.connect() for _ in range(SIZE)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        reference = await stack.enter_async_context(ConnectionPool(driver, reference_config()))
        bare = await stack.enter_async_context(
            asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE, reset=_no_reset)
        )
        full = await stack.enter_async_context(asyncpg.create_pool(url, min_size=SIZE, max_size=SIZE))
        psycopg = await stack.enter_async_context(
            psycopg_pool.AsyncConnectionPool(
                url, min_size=SIZE, max_size=SIZE, max_waiting=0, open=False, kwargs={"autocommit": True}
            )
        )
        await psycopg.wait()
        yield {
            "bare deque": DequePool(connections).acquire,
            "reference": reference.acquire,
            "psycopg_pool": psycopg.connection,
            "asyncpg.Pool, no reset": bare.acquire,
            "asyncpg.Pool": full.acquire,
        }


def clocks() -> tuple[int, int]:
    """Wall time and CPU time, nanoseconds."""
    return time.perf_counter_ns(), time.process_time_ns()


async def pair_us(acquire: Acquire, count: int) -> tuple[float, float]:
    """Microseconds of one uncontended acquire and release, by both clocks."""
    wall_ns, cpu_ns = clocks()
    for _ in range(count):
        async with acquire():
            pass
    ended_ns, ended_cpu_ns = clocks()
    return (ended_ns - wall_ns) / count / 1e3, (ended_cpu_ns - cpu_ns) / count / 1e3


async def tasks_ms(acquire: Acquire, hold: bool) -> tuple[float, float]:
    """Milliseconds to make all tasks and until each has had a connection, by both clocks."""

    async def work() -> None:
        async with acquire():
            if hold:
                await asyncio.sleep(0)

    # Connections that have shown no life for long would be validated first, which is no part of this.
    async with acquire():
        pass
    wall_ns, cpu_ns = clocks()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    ended_ns, ended_cpu_ns = clocks()
    return (ended_ns - wall_ns) / 1e6, (ended_cpu_ns - cpu_ns) / 1e6


async def compare(target: PostgresTarget, url: str, rounds: int) -> None:
    """Measure all contenders and print the tables."""
    async with contenders(target, url) as pools:
        counts = {"bare deque": 50_000, "reference": 50_000, "asyncpg.Pool": 1_000}
        measures: dict[str, Callable[[str], Awaitable[tuple[float, float]]]] = {
            "pair us": lambda name: pair_us(pools[name], counts.get(name, 5_000)),
            "tasks ms": lambda name: tasks_ms(pools[name], hold=False),
            "held tasks ms": lambda name: tasks_ms(pools[name], hold=True),
        }
        samples: dict[str, dict[str, list[tuple[float, float]]]] = {
            measure: {name: [] for name in pools} for measure in measures
        }
        names = list(pools)
        total = rounds * len(names) * len(measures)
        with click.progressbar(length=total, label="measuring", file=sys.stderr) as progress:
            for number in range(rounds):
                for measure, run in measures.items():
                    for name in names if number % 2 == 0 else reversed(names):
                        gc.collect()
                        samples[measure][name].append(await run(name))
                        progress.update(1)
    for measure, of in samples.items():
        print(f"\n{measure:24}{'wall':>10}{'min-max':>18}{'CPU':>10}{'x wall':>9}{'x CPU':>9}")
        for name, taken in of.items():
            walls = [wall for wall, _ in taken]
            row = f"{name:24}{statistics.median(walls):>10,.2f}{f'{min(walls):,.2f}-{max(walls):,.2f}':>18}"
            row += f"{statistics.median(cpu for _, cpu in taken):>10,.2f}"
            for kind in (0, 1):
                bare = of["bare deque"]
                ratio = statistics.median(a[kind] / b[kind] for a, b in zip(taken, bare, strict=True))
                row += f"{ratio:>9.2f}"
            print(row)
    pair = {name: statistics.median(cpu for _, cpu in taken) for name, taken in samples["pair us"].items()}
    rival = min((name for name in pair if "Pool" in name or "pool" in name), key=pair.__getitem__)
    ratio = pair[rival] / pair["reference"]
    print(f"\na pair of the cheapest rival ({rival}) costs {ratio:.1f} x the reference's CPU time")


async def memory(target: PostgresTarget, checkouts: int) -> None:
    """Print how the resident size grows with the number of checkouts."""
    process = psutil.Process()
    async with ConnectionPool(AsyncpgDriver(target), reference_config()) as pool:

        async def check_out(count: int) -> None:
            for number in range(count):
                async with pool.acquire():
                    pass
                if number % 1000 == 0:
                    await asyncio.sleep(0)

        await check_out(100_000)
        gc.collect()
        first = process.memory_info().rss
        await check_out(checkouts)
        gc.collect()
        grown = process.memory_info().rss - first
    print(f"\n{checkouts:,} checkouts: {grown / 1024:+,.0f} KiB resident, {grown / checkouts:.3f} bytes each")


@click.command()
@click.option("--rounds", default=9, show_default=True, help="How often each contender is measured.")
@click.option("--checkouts", default=1_000_000, show_default=True, help="For the growth of memory.")
def main(rounds: int, checkouts: int) -> None:
    """Measure against the embedded PostgreSQL."""
    with EmbeddedPostgres() as server:
        target = embedded_target(server, application_name="pool_checkout")
        asyncio.run(memory(target, checkouts))
        asyncio.run(compare(target, server.url, rounds))


if __name__ == "__main__":
    main()
