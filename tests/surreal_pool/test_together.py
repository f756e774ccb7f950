"""What is made for pools of PostgreSQL does the same for one of SurrealDB: metrics, the manager, scaling."""

import asyncio
import uuid
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.pool import (
    ConnectionPoolManager,
    PoolError,
    PoolState,
    PoolTimeoutError,
    PoolUnavailableError,
    ScalingConfig,
)
from pool_bench.pool.metrics import PoolCollector
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal.server import EmbeddedSurreal
from pool_bench.surreal_pool import SurrealDBConnectionPool
from pool_bench.targets.postgres import parse_target


def make_pool(
    server: EmbeddedSurreal,
    *,
    name: str | None = None,
    least: int = 1,
    most: int = 3,
    scaling: ScalingConfig | None = None,
) -> SurrealDBConnectionPool:
    """A pool in a namespace of its own."""
    return SurrealDBConnectionPool(
        server.url,
        {"username": server.user, "password": server.password},
        f"together_{uuid.uuid4().hex}",
        "here",
        min_connections=least,
        max_connections=most,
        acquisition_timeout=60.0,
        scaling=scaling,
        name=name,
    )


async def until(ready: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(90):
        while not ready():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.02)


async def test_prometheus_gets_the_same_numbers(surreal: EmbeddedSurreal) -> None:
    registry = CollectorRegistry()
    async with make_pool(surreal, name="orders", least=2) as pool:
        registry.register(PoolCollector([pool]))

        def value(metric: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"pool_bench_pool_{metric}", {"pool": "orders", **labels})

        for _ in range(4):
            await pool.execute_query("RETURN 1")
        async with pool.acquire():
            with pytest.raises(PoolTimeoutError):
                async with pool.acquire(), pool.acquire(), pool.acquire(timeout=0):
                    pass
            numbers = pool.get_stats()
            assert value("in_use") == numbers["current_in_use"] == 1
            assert value("acquisitions_total") == numbers["total_acquisitions"] == 7
            assert value("timeouts_total") == numbers["acquisition_timeouts"] == 1
            assert value("checkout_seconds_count") == 7
            assert value("max_size") == 3
            assert value("state", pool_bench_pool_state="running") == 1
            assert value("breaker", pool_bench_pool_breaker="off") == 1
    assert value("state", pool_bench_pool_state="closed") == 1


async def test_a_metric_goes_on_from_what_a_failed_start_counted(surreal: EmbeddedSurreal) -> None:
    registry = CollectorRegistry()
    pool = make_pool(surreal, name="late")
    pool._connector._schema = "THROW 'not yet'"
    registry.register(PoolCollector([pool]))

    def failed() -> float:
        value = registry.get_sample_value("pool_bench_pool_connect_errors_total", {"pool": "late"})
        assert value is not None
        return value

    with pytest.raises(PoolUnavailableError, match="not yet"):
        await pool.initialize()
    before = failed()
    assert before == pool.get_stats()["connection_errors"] > 0
    pool._connector._schema = None
    async with pool:
        assert failed() == before


async def test_a_manager_has_pools_of_both_kinds(
    surreal: EmbeddedSurreal, embedded: EmbeddedPostgres
) -> None:
    manager = ConnectionPoolManager()
    documents = make_pool(surreal, name="documents", least=2)
    manager.add(documents)
    target = parse_target(embedded.url, env={}, default_user="postgres")
    tables = manager.create("tables", AsyncpgDriver(target))
    with pytest.raises(PoolError, match="a pool named documents already"):
        manager.add(make_pool(surreal, name="documents"))
    async with manager:
        async with documents.acquire(), tables.acquire():
            in_use = {name: stats.in_use for name, stats in manager.get_stats().items()}
            assert in_use == {"documents": 1, "tables": 1}
            assert not await manager.drain(timeout=0)
        assert await manager.drain(timeout=60)
        with pytest.raises(PoolTimeoutError, match="the pool is paused"):
            await documents.acquire(timeout=0.1)
        documents.resume()
        created = documents.get_stats()["total_connections_created"]
        assert documents.expire_connections() == created
        await documents.execute_query("RETURN 1")
        await until(lambda: documents.get_stats()["total_connections_closed"] == created)
        await manager.remove("documents")
        assert (documents.state, list(manager)) == (PoolState.CLOSED, [tables])
    assert tables.state is PoolState.CLOSED


async def test_a_manager_opens_no_pool_where_one_of_surrealdb_cannot_be(surreal: EmbeddedSurreal) -> None:
    manager = ConnectionPoolManager()
    good = make_pool(surreal, name="good")
    bad = SurrealDBConnectionPool(surreal.url, {"username": "nobody", "password": "x"}, name="bad")
    manager.add(good)
    manager.add(bad)
    with pytest.raises(PoolUnavailableError):
        await manager.open()
    assert (good.state, bad.state) == (PoolState.CLOSED, PoolState.CLOSED)


async def test_more_clients_are_kept_warm_while_they_are_used(surreal: EmbeddedSurreal) -> None:
    scaling = ScalingConfig(interval=0.2, step=1.0)
    async with make_pool(surreal, least=1, most=8, scaling=scaling) as pool:
        held = [await pool.acquire() for _ in range(4)]
        # Up to 80 % in use is well.
        await until(lambda: pool.get_stats().statistics.floor > 4)
        await until(lambda: pool.get_stats()["current_available"] > 0)
        for client in held:
            await pool.release(client)
        await until(lambda: pool.get_stats().statistics.floor == 1)
        await until(lambda: pool.get_stats()["current_pool_size"] == 1)
