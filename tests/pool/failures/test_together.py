"""Failure modes come together: cancellations, outages, killed backends and expiry, all at random.

Whatever happened, in the end the measures of `rig` hold.
"""

import asyncio
import random

import asyncpg
import pytest

from pool_bench.errors import ConnectError
from pool_bench.faults import PASS, Conditions, Cut
from pool_bench.pool import PoolError
from tests.support.pool_rig import HOLE, REFUSE, RESET, SIZE, Pool, Rig

_EXPECTED = (
    PoolError,
    ConnectError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A query comes between the last words of a backend and its end.
    asyncpg.InternalClientError,
    OSError,
)
_SLOW = Conditions(connect_delay_s=0.03, to_server_delay_s=0.002, to_client_delay_s=0.002)


async def _one_lease(pool: Pool, schedule: random.Random, owners: dict[int, str], name: str) -> None:
    async with pool.acquire(timeout=schedule.uniform(0.01, 0.3)) as connection:
        assert id(connection) not in owners, f"{name} and {owners[id(connection)]} have one connection"
        owners[id(connection)] = name
        try:
            match schedule.randrange(5):
                case 0:
                    await connection.raw.execute("BEGIN; SET work_mem = '1MB'")
                case 1:
                    await connection.execute(f"SELECT pg_sleep({schedule.uniform(0, 0.03)})")
                case 2:
                    await asyncio.sleep(schedule.uniform(0, 0.02))
                case _:
                    assert await connection.raw.fetchval("SHOW work_mem") == "4MB"
        finally:
            del owners[id(connection)]


async def _client(pool: Pool, schedule: random.Random, owners: dict[int, str], end: float) -> None:
    loop = asyncio.get_running_loop()
    count = 0
    while loop.time() < end:
        count += 1
        name = f"{id(schedule):x}-{count}"
        task = asyncio.create_task(_one_lease(pool, schedule, owners, name))
        if schedule.random() < 0.3:
            await asyncio.sleep(schedule.uniform(0, 0.05))
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            error = task.exception()
            assert error is None or isinstance(error, _EXPECTED), repr(error)
        await asyncio.sleep(schedule.uniform(0, 0.01))


async def _trouble(rig: Rig, pool: Pool, schedule: random.Random, end: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < end:
        await asyncio.sleep(schedule.uniform(0.01, 0.1))
        match schedule.randrange(7):
            case 0:
                rig.proxy.set(schedule.choice([REFUSE, RESET, HOLE, _SLOW]))
            case 1 | 2:
                rig.proxy.set(PASS)
            case 3:
                rig.proxy.cut(schedule.choice(list(Cut)))
            case 4 if rig.proxy.links:
                schedule.choice(rig.proxy.links).cut()
            case 5 if pids := sorted(await rig.backends()):
                await rig.witness.execute("SELECT pg_terminate_backend($1)", schedule.choice(pids))
            case _:
                pool.expire_connections()
    # What hangs in a hole has no deadline of its own.
    rig.proxy.set(PASS)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happened_the_pool_is_whole_in_the_end(rig: Rig, seed: int) -> None:
    schedule = random.Random(seed)
    pool = await rig.opened(
        min_size=seed % 2,
        max_lifetime=0.5,
        max_idle=0.2,
        max_uses=20 if seed % 2 else 0,
        connect_timeout=0.6,
        validate_after_idle=(0.0, 0.05, None)[seed % 3],
        validate_timeout=0.1,
        health_check_interval=0.1,
        health_check_timeout=0.1,
        reset_timeout=0.2,
        close_timeout=0.2,
        fail_fast=seed % 4 == 3,
        seed=seed,
    )
    owners: dict[int, str] = {}
    end = asyncio.get_running_loop().time() + 2.0
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            client = random.Random(1000 * seed + number)
            group.create_task(_client(pool, client, owners, end))
        group.create_task(_trouble(rig, pool, schedule, end))
    assert owners == {}
    statistics = pool.get_stats()
    assert (statistics.in_use, statistics.waiters) == (0, 0)
    assert statistics.acquisitions == statistics.releases
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)
    assert statistics.peak_size <= SIZE
    await pool.close()
    await rig.assert_backends(0)
