"""Failure modes of networks and servers: P4, P5, P7, P9 to P13. See `rig` for the measures."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import asyncpg
import pytest

from pool_bench.errors import ConnectError
from pool_bench.faults import PASS, Conditions
from pool_bench.pool import PoolError, PoolTimeoutError, PoolUnavailableError
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from tests.support.pool_rig import (
    HOLE,
    LONG_S,
    REFUSE,
    RESET,
    SIZE,
    SLACK_S,
    Pool,
    Rig,
    bounded,
    cancelled,
    pid_of,
    rig_for,
)

_FAILURES = (PoolError, ConnectError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.mark.parametrize("validate_after_idle", [None, 0.0, 0.2], ids=["never", "always", "after 0.2 s"])
@pytest.mark.parametrize("way", ["wait_for", "timeout"])
async def test_p04_a_deadline_around_a_call_is_kept(
    rig: Rig, validate_after_idle: float | None, way: str
) -> None:
    pool = await rig.full(validate_after_idle=validate_after_idle)
    await asyncio.sleep(0.25)
    rig.proxy.set(HOLE)

    async def work() -> None:
        async with pool.acquire() as connection:
            await connection.execute("SELECT 1")

    async def within_timeout() -> None:
        async with asyncio.timeout(0.5):
            await work()

    with bounded(0.5), pytest.raises(TimeoutError):
        await (asyncio.wait_for(work(), 0.5) if way == "wait_for" else within_timeout())
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


@pytest.mark.parametrize("state", ["idle", "cold", "busy"])
async def test_p05_an_acquire_ends_at_its_timeout_whatever_it_waits_for(rig: Rig, state: str) -> None:
    make = rig.opened if state == "cold" else rig.full
    pool = await make(validate_after_idle=0.0, connect_timeout=LONG_S)
    held = [await pool.acquire() for _ in range(SIZE)] if state == "busy" else []
    for connection in held:
        await connection.execute("SELECT 1")
    rig.proxy.set(HOLE)
    # These have something to reset, and the pool waits for an answer.
    for connection in held:
        await pool.release(connection)
    with bounded(0.5):
        timed_out = await asyncio.gather(*(_timed_out(pool, 0.5) for _ in range(5)))
    assert timed_out == [True] * 5
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


async def _timed_out(pool: Pool, timeout: float) -> bool:
    try:
        connection = await pool.acquire(timeout=timeout)
    except PoolTimeoutError as error:
        return isinstance(error, TimeoutError)
    await pool.release(connection)
    return False


@pytest.mark.parametrize("end", ["cancel", "release"])
async def test_p07_a_release_into_a_hole_is_bounded_and_the_connection_discarded(rig: Rig, end: str) -> None:
    reset_timeout = 3.0
    pool = await rig.full(reset_timeout=reset_timeout, close_timeout=0.4)
    pids: list[int] = []
    asked = asyncio.Event()

    async def work() -> None:
        async with pool.acquire(timeout=LONG_S) as connection:
            pids.append(await pid_of(connection))
            rig.proxy.set(HOLE)
            asked.set()
            if end == "cancel":
                await connection.execute("SELECT pg_sleep(0.1)")

    task = asyncio.create_task(work())
    await asked.wait()
    # Into the query.
    await asyncio.sleep(0.05)
    assert await cancelled(task) is (end == "cancel")
    # Nobody but the pool has waited for the reset.
    assert pool.get_stats().closed == 0

    async def discarded() -> bool:
        return pool.get_stats().closed == 1

    with bounded(reset_timeout):
        await rig.until(discarded)
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)
    assert pids[0] not in await rig.backends()


@pytest.mark.parametrize("use", ["query", "nothing"])
async def test_p09_backends_killed_under_their_holders_do_not_shrink_the_pool(rig: Rig, use: str) -> None:
    pool = await rig.full()
    for _ in range(3):
        held = [await pool.acquire(timeout=LONG_S) for _ in range(SIZE)]
        pids = [await pid_of(connection) for connection in held]
        await rig.kill(*pids)
        for connection in held:
            if use == "query":
                with pytest.raises(ConnectError):
                    await connection.execute("SELECT 1")
            await pool.release(connection)
        await rig.assert_usable(pool)
    statistics = pool.get_stats()
    assert (statistics.created, statistics.closed, statistics.in_use) == (12, 9, 0)


@pytest.mark.parametrize("outage", [REFUSE, RESET, HOLE], ids=lambda c: c.mode)
@pytest.mark.parametrize("fail_fast", [False, True], ids=["patient", "fail_fast"])
async def test_p10_the_pool_comes_back_by_itself_after_an_outage(
    rig: Rig, outage: Conditions, fail_fast: bool
) -> None:
    pool = await rig.full(
        connect_timeout=0.5,
        min_size=SIZE,
        validate_after_idle=0.0,
        validate_timeout=0.5,
        close_timeout=0.5,
        fail_fast=fail_fast,
    )
    rig.proxy.set(outage)
    rig.proxy.cut()
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.0
    failed = 0
    # Longer than a connect may take, and than all pauses between the tries of one acquire.
    while loop.time() < end or failed < 2:
        with bounded(0.2):
            try:
                await _select(pool)
            except _FAILURES:
                failed += 1
        await asyncio.sleep(0.02)
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


@pytest.mark.parametrize("outage", [REFUSE, HOLE], ids=lambda c: c.mode)
async def test_p10_a_pool_started_while_the_database_is_down_works_when_it_is_up(
    rig: Rig, outage: Conditions
) -> None:
    rig.proxy.set(outage)
    with bounded(1.0), pytest.raises(PoolUnavailableError):
        await rig.opened(min_size=2, connect_timeout=0.2)
    pool = rig.pool(min_size=2, connect_timeout=1.0)
    await pool.open(wait=False)
    with pytest.raises(PoolTimeoutError):
        await pool.acquire(timeout=0.5)
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


@pytest.mark.parametrize("validate_after_idle", [None, 0.0], ids=["never", "always"])
async def test_p11_no_idle_connection_that_was_killed_is_handed_out(
    rig: Rig, validate_after_idle: float | None
) -> None:
    pool = await rig.full(validate_after_idle=validate_after_idle)
    await rig.kill(*await rig.backends())
    await rig.all_ended()
    for _ in range(12):
        async with pool.acquire(timeout=LONG_S) as connection:
            await connection.execute("SELECT 1")
    await rig.assert_usable(pool)


async def test_p11_no_idle_connection_that_died_unheard_is_handed_out(rig: Rig) -> None:
    pool = await rig.full(validate_after_idle=0.0, validate_timeout=0.3, close_timeout=0.3)
    # As behind a firewall that forgot them: nobody is told anything, new ones work.
    for link in rig.proxy.links:
        link.apply(HOLE)
    for _ in range(12):
        async with pool.acquire(timeout=LONG_S) as connection:
            await connection.execute("SELECT 1")
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


@pytest.fixture(scope="module")
def old_primary() -> Iterator[EmbeddedPostgres]:
    """A server that is demoted in these tests."""
    with EmbeddedPostgres(PostgresConfig(max_connections=20)) as server:
        yield server


@pytest.mark.parametrize("way", ["lifetime", "expire", "drain"])
async def test_p12_a_demoted_primary_is_left_for_the_new_one(
    old_primary: EmbeddedPostgres, embedded: EmbeddedPostgres, way: str
) -> None:
    loop = asyncio.get_running_loop()
    writes = f"CREATE TABLE IF NOT EXISTS writes (id serial); ALTER TABLE writes OWNER TO {embedded.user}"
    lifetime_s = 1.0
    async with rig_for(old_primary) as rig:
        new = await asyncpg.connect(embedded.url)
        await new.execute(writes)
        await rig.witness.execute(writes)
        pool = await rig.full(max_lifetime=lifetime_s if way == "lifetime" else None)
        await _write(pool)

        rig.proxy.point_at(embedded.host, embedded.port)
        await rig.witness.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await rig.witness.execute("SELECT pg_reload_conf()")

        async def demoted() -> bool:
            return bool(await rig.witness.fetchval("SHOW default_transaction_read_only") == "on")

        try:
            await rig.until(demoted)
            began = loop.time()
            if way == "expire":
                pool.expire_connections()
            elif way == "drain":
                assert await pool.drain(SLACK_S)
                pool.expire_connections()
                pool.resume()
            failed = good = 0
            pause_s = 0.05
            while good < 5 and loop.time() < began + lifetime_s + SLACK_S:
                try:
                    await _write(pool)
                    good += 1
                except ConnectError:
                    # It answers pings as well as ever.
                    failed += 1
                    good = 0
                    await asyncio.sleep(pause_s)
            assert good == 5
            # Connections past their lifetime are not handed out: no slowness makes room for more in it.
            assert failed <= (lifetime_s / pause_s + 1 if way == "lifetime" else 0)
            assert await new.fetchval("SELECT count(*) FROM writes") >= 5
        finally:
            await rig.witness.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await rig.witness.execute("SELECT pg_reload_conf()")
            await new.execute("DROP TABLE writes")
            await new.close()


async def _write(pool: Pool) -> None:
    async with pool.acquire(timeout=LONG_S) as connection:
        await connection.execute("INSERT INTO writes DEFAULT VALUES")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("outage", [REFUSE, RESET], ids=lambda c: c.mode)
async def test_p13_callers_that_retry_make_no_storm_of_connects(
    rig: Rig, outage: Conditions, seed: int
) -> None:
    outage_s = 2.0
    pool = await rig.full(seed=seed, retry_cap=1.0)
    rig.proxy.set(outage)
    rig.proxy.cut()
    rig.proxy.clear_counts()
    rig.driver.attempts_ns.clear()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def call() -> None:
        while loop.time() < began + outage_s or len(rig.driver.attempts_ns) < 5:
            try:
                await _select(pool)
            except _FAILURES:
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(25):
            group.create_task(call())

    attempts = list(rig.driver.attempts_ns)
    assert len(attempts) <= 15 * (loop.time() - began)
    pauses = [(later - earlier) // 1_000_000 for earlier, later in pairwise(attempts)]
    assert len(set(pauses)) > len(pauses) // 2, f"pauses without jitter: {pauses} ms"
    if outage is RESET:

        async def all_accepted() -> bool:
            return rig.proxy.counts.accepted == len(rig.driver.attempts_ns)

        await rig.until(all_accepted)
    assert _peak(attempts, 10_000_000) <= SIZE
    rig.proxy.clear_counts()
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)
    # Nor is there one when the server is back.
    assert rig.proxy.counts.accepted <= SIZE + 1


async def _select(pool: Pool) -> None:
    async with pool.acquire(timeout=0.2) as connection:
        await connection.execute("SELECT 1")


def _peak(times_ns: list[int], window_ns: int) -> int:
    return max(sum(start <= time < start + window_ns for time in times_ns) for start in times_ns)
