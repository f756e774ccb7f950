"""What a pool of SurrealDB clients buys and costs, on the embedded engine, in alternating rounds.

- throughput of queries by 100 tasks: the reference pool with 10 connections, one connection of the official
  client that all tasks share, and one that is carried as the pool's are; of the smallest query also with a
  connection and sign-in for each. Client, server and engine share this machine's cores. The smallest query
  also against the server of known behaviour, which answers at once: what is left there is the client.
- pair: one task that acquires and releases and does nothing in between: the pool of SurrealDB clients, and
  the reference pool over asyncpg, measured in turn.
- memory: 1,000 idle WebSockets, opened by a generator process of its own, held, and closed.

Prints medians, and ratios of medians.

    uv run python benchmarks/surreal.py
"""

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from statistics import median
from typing import TypeVar, cast

import click

from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.places.postgres import embedded_target
from pool_bench.contenders import ContenderConfig, make
from pool_bench.contenders.base import Contender
from pool_bench.contenders.surreal import SharedSurreal
from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.load.process import loop_factory
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import HoldSpec
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.scripted.server import ScriptedSurreal
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.surreal_pool.pool import SurrealDBConnectionPool
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import SurrealTarget, surreal_target

TASKS = 100
SIZE = 10
PERSONS = 100
# A query that does nothing, one that reads a record, and one that reads ten.
QUERIES = ("RETURN 1", "SELECT * FROM person:7", "SELECT * FROM person:10..20")
NAIVE = "connect for each query"
PAIRS = 20_000
_FIELDS = "name = 'person' + <string>$n, age = $n, email = 'a@example.org'"
# It takes several seconds for its hundred connects.
_NAIVE_EVERY = 5
Result = TypeVar("Result")
Acquire = Callable[[], AbstractAsyncContextManager[object]]


async def queries_per_s(contender: Contender[object], query: str, seconds: float) -> float:
    """Queries that `TASKS` tasks finish in so many seconds, and in as long as the last ones take."""
    done = 0
    began = time.perf_counter()

    async def ask_again_and_again() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            async with contender.lease() as leased:
                await contender.execute(leased, query)
            done += 1

    await asyncio.gather(*(ask_again_and_again() for _ in range(TASKS)))
    return done / (time.perf_counter() - began)


async def measure_queries(
    target: SurrealTarget, queries: tuple[str, ...], rounds: int, seconds: float
) -> None:
    """Print each contender's median rate of each query, queries a second."""
    config = ContenderConfig(target=target, size=SIZE, timeout_s=120.0)
    contenders: dict[str, Contender[object]] = {
        "pool": make("reference", config),
        "shared": make("shared", config),
        "shared, as carried in the pool": cast("Contender[object]", SharedSurreal(config, direct=True)),
        NAIVE: make("naive", config),
    }
    async with AsyncExitStack() as stack:
        for contender in contenders.values():
            await contender.open()
            stack.push_async_callback(contender.close)
        async with contenders["pool"].lease() as leased:
            make_persons = f"FOR $n IN 0..{PERSONS} {{ CREATE type::record('person', $n) SET {_FIELDS} }}"
            await contenders["pool"].execute(leased, make_persons)
        for query in queries:
            if query != QUERIES[0]:
                contenders.pop(NAIVE, None)
            rates = await alternate(contenders, query, rounds, seconds)
            click.echo(f"  {query}")
            for name, rate in rates.items():
                click.echo(f"    {name:<32}{rate:>10,.0f}/s   pool / this {rates['pool'] / rate:>7.2f}")


async def alternate(
    contenders: dict[str, Contender[object]], query: str, rounds: int, seconds: float
) -> dict[str, float]:
    """Medians of each contender's rate, queries a second, of rounds in turn, each in another order."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name, contender in contenders.items():
        if name != NAIVE:
            await queries_per_s(contender, query, seconds)
    for round_ in range(rounds):
        order = list(contenders)[:: -1 if round_ % 2 else 1]
        for name in order:
            if name != NAIVE or round_ % _NAIVE_EVERY == 0:
                rates[name].append(await queries_per_s(contenders[name], query, seconds))
    return {name: median(found) for name, found in rates.items()}


async def pair_us(acquire: Acquire) -> float:
    """Microseconds for one acquire and release."""
    gc.collect()
    began = time.perf_counter()
    for _ in range(PAIRS):
        async with acquire():
            pass
    return (time.perf_counter() - began) / PAIRS * 1e6


async def measure_pairs(surreal: EmbeddedSurreal, postgres: PostgresTarget, rounds: int) -> dict[str, float]:
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


def run_in_loop(work: Callable[[], Coroutine[object, object, Result]]) -> Result:
    """Run `work` in the event loop that generators have."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work())


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
        click.echo(
            f"{surreal.version} · {TASKS} tasks, {SIZE} pooled connections, {rounds} rounds of {seconds:g} s"
        )
        run_in_loop(lambda: measure_queries(target, QUERIES, rounds, seconds))
        with ScriptedSurreal() as known:
            click.echo("a server that answers at once")
            run_in_loop(lambda: measure_queries(known.target(), QUERIES[:1], rounds, seconds))
        postgres_target = embedded_target(postgres, application_name="bench")
        pairs = run_in_loop(lambda: measure_pairs(surreal, postgres_target, rounds))
        click.echo("acquire and release, nothing in between")
        for pool, cost in pairs.items():
            click.echo(f"  {pool:<24}{cost:>7.2f} us")
        each = median(held_bytes(target, connections, stop) for _ in range(min(rounds, 3)))
        click.echo(f"{connections:,} idle WebSockets: {each / 1024:.1f} KB of client memory each")
    stop.close()


if __name__ == "__main__":
    main()
