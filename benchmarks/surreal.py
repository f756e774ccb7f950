"""What a pool of SurrealDB clients buys and costs, on the embedded engine, in alternating rounds.

- throughput of `RETURN 1` by 100 tasks: the reference pool with 10 connections, one connection that all
  tasks share, and a connection with sign-in for each query. All three lend the official client.
- pair: one task that acquires and releases and does nothing in between: the pool of SurrealDB clients, and
  the reference pool over asyncpg, measured in turn.
- memory: 1,000 idle WebSockets, opened by a generator process of its own, held, and closed.

Prints medians, and ratios of medians.

    uv run python benchmarks/surreal.py
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from statistics import median

import click

from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.locate import embedded_target
from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.contenders.base import Contender
from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.load.generator import loop_factory
from pool_bench.load.runner import Run, StopSwitch
from pool_bench.load.spec import HoldSpec
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool
from pool_bench.targets import Target
from pool_bench.targets_surreal import SurrealTarget, surreal_target

TASKS = 100
SIZE = 10
QUERY = "RETURN 1"
POOLS: tuple[ContenderName, ...] = ("reference", "shared", "naive")
PAIRS = 20_000
# It takes several seconds for its hundred connects.
_NAIVE_EVERY = 5
Acquire = Callable[[], AbstractAsyncContextManager[object]]


async def queries_per_s(contender: Contender[object], seconds: float) -> float:
    """Queries that `TASKS` tasks finish in so many seconds, and in as long as the last ones take."""
    done = 0
    began = time.perf_counter()

    async def ask_again_and_again() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            async with contender.lease() as leased:
                await contender.execute(leased, QUERY)
            done += 1

    await asyncio.gather(*(ask_again_and_again() for _ in range(TASKS)))
    return done / (time.perf_counter() - began)


async def measure_queries(target: SurrealTarget, rounds: int, seconds: float) -> dict[ContenderName, float]:
    """Medians of each contender's rate, queries a second."""
    config = ContenderConfig(target=target, size=SIZE, timeout_s=120.0)
    rates: dict[ContenderName, list[float]] = {name: [] for name in POOLS}
    contenders = {name: make(name, config) for name in POOLS}
    for contender in contenders.values():
        await contender.open()
    try:
        for name in POOLS[:2]:
            await queries_per_s(contenders[name], seconds)
        for round_ in range(rounds):
            for name in POOLS[:2] if round_ % 2 else POOLS[1::-1]:
                rates[name].append(await queries_per_s(contenders[name], seconds))
            if round_ % _NAIVE_EVERY == 0:
                rates["naive"].append(await queries_per_s(contenders["naive"], seconds))
    finally:
        for contender in contenders.values():
            await contender.close()
    return {name: median(found) for name, found in rates.items()}


async def pair_us(acquire: Acquire) -> float:
    """Microseconds for one acquire and release."""
    gc.collect()
    began = time.perf_counter()
    for _ in range(PAIRS):
        async with acquire():
            pass
    return (time.perf_counter() - began) / PAIRS * 1e6


async def measure_pairs(surreal: EmbeddedSurreal, postgres: Target, rounds: int) -> dict[str, float]:
    """Medians of each pool's pair, microseconds."""
    async with AsyncExitStack() as stack:
        credentials = {"username": surreal.user, "password": surreal.password}
        clients = await stack.enter_async_context(
            SurrealDBConnectionPool(
                surreal.url, credentials, "bench", "bench", min_connections=SIZE, max_usage_count=10**9
            )
        )
        plain = await stack.enter_async_context(
            ConnectionPool(AsyncpgDriver(postgres), PoolConfig(min_size=SIZE, max_size=SIZE))
        )
        pools: dict[str, Acquire] = {
            "SurrealDBConnectionPool": clients.acquire,
            "over asyncpg": plain.acquire,
        }
        costs: dict[str, list[float]] = {name: [] for name in pools}
        for _ in range(rounds):
            for name, acquire in pools.items():
                costs[name].append(await pair_us(acquire))
    return {name: median(found) for name, found in costs.items()}


def held_bytes(target: SurrealTarget, connections: int, stop: StopSwitch) -> float:
    """Client memory of each of so many idle connections, bytes.

    Raises:
        RuntimeError: not all of them were held to the end.
    """
    spec = HoldSpec(
        targets=(target,), connections=(connections,), driver="surreal", auth="token", duration_s=3.0
    )
    run = Run(spec, "hold", stop)
    for _ in run.snapshots():
        pass
    hold = run.result.hold
    if hold is None or (hold.opened, hold.dropped) != (connections, 0):
        raise RuntimeError(f"not all of {connections} connections were held to the end: {hold}")
    return (hold.held_rss_bytes - hold.base_rss_bytes) / connections


def run_in_loop(work: Callable[[], Awaitable[dict[str, float]]]) -> dict[str, float]:
    """Run `work` in the event loop that generators have."""

    async def main() -> dict[str, float]:
        return await work()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.option("--rounds", default=15, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="Of each measurement of throughput.")
@click.option("--connections", default=1000, show_default=True, help="Idle connections to hold.")
def main(rounds: int, seconds: float, connections: int) -> None:
    """Measure everything."""
    raise_file_limit(connections, option="--connections")
    stop = StopSwitch()
    with EmbeddedSurreal() as surreal, EmbeddedPostgres() as postgres:
        target = surreal_target(
            surreal.url,
            user=surreal.user,
            password=surreal.password,
            namespace="bench",
            database="bench",
            environ={},
        )
        click.echo(f"{surreal.version} · {TASKS} tasks · {QUERY} · {rounds} rounds of {seconds:g} s")

        async def queries() -> dict[str, float]:
            found = await measure_queries(target, rounds, seconds)
            return {str(name): rate for name, rate in found.items()}

        rates = run_in_loop(queries)
        for name in POOLS:
            connections_used = {"reference": f"{SIZE} connections", "shared": "1 connection"}.get(name, "")
            click.echo(f"  {name:<10}{rates[name]:>10,.0f}/s  {connections_used}")
        click.echo(f"  reference / shared {rates['reference'] / rates['shared']:.2f}")
        click.echo(f"  reference / naive  {rates['reference'] / rates['naive']:,.0f}")

        async def pairs() -> dict[str, float]:
            return await measure_pairs(surreal, embedded_target(postgres, application_name="bench"), rounds)

        click.echo("acquire and release, nothing in between")
        for pool, cost in run_in_loop(pairs).items():
            click.echo(f"  {pool:<24}{cost:>7.2f} us")
        each = median(held_bytes(target, connections, stop) for _ in range(min(rounds, 3)))
        click.echo(f"{connections:,} idle WebSockets: {each / 1024:.1f} KB of client memory each")
    stop.close()


if __name__ == "__main__":
    main()
