"""Failure modes of cancellation: P1, P2, P3, P6, P8, P14. See `rig` for the measures."""

import asyncio
import random

import asyncpg
import pytest

from pool_bench.faults import PASS, Conditions
from pool_bench.pool import PoolError
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.pool_rig import LONG_S, SIZE, SLACK_S, Pool, Rig, cancelled, ticks


async def _query(pool: Pool, sql: str = "SELECT 1") -> None:
    async with pool.acquire(timeout=LONG_S) as connection:
        await connection.execute(sql)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("others", [0, 5])
async def test_p01_a_cancelled_acquire_leaks_no_slot(rig: Rig, seed: int, others: int) -> None:
    schedule = random.Random(seed)
    pool = await rig.opened(seed=seed, max_uses=seed)
    for k in range(seed, 120, 3):
        tasks = [asyncio.create_task(_query(pool)) for _ in range(1 + others)]
        await ticks(k)
        victims = [tasks[0], *schedule.sample(tasks[1:], others // 2)]
        for victim in victims:
            victim.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in done if isinstance(each, Exception)]
    await rig.assert_usable(pool)
    await rig.assert_backends(SIZE)
    statistics = pool.get_stats()
    assert statistics.in_use == statistics.waiters == 0
    assert statistics.acquisitions == statistics.releases


@pytest.mark.parametrize(
    ("seed", "connect_timeout"), [(0, 10.0), (1, 10.0), (2, 0.3)], ids=["0", "1", "2 and a timeout"]
)
async def test_p02_an_acquire_cancelled_while_it_connects_orphans_no_socket(
    rig: Rig, seed: int, connect_timeout: float
) -> None:
    schedule = random.Random(seed)
    # One use each, so that there is always something to connect.
    pool = await rig.opened(seed=seed, max_uses=1, connect_timeout=connect_timeout, retry_cap=0.05)
    # Where some are to end by their timeout, both are long, lest a slow connect be taken for one of those.
    connect_s = 0.05 if connect_timeout > 1 else 0.27
    rig.proxy.set(Conditions(connect_delay_s=connect_s))
    for share in schedule.sample(range(2, 91), 15):
        tasks = [asyncio.create_task(_query(pool)) for _ in range(SIZE)]
        await asyncio.sleep(share / 50 * connect_s)
        for task in tasks:
            await cancelled(task)
    assert rig.proxy.counts.accepted > SIZE
    await rig.assert_backends(SIZE)
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)
    await pool.close()
    await rig.assert_backends(0)


@pytest.mark.parametrize("used", [False, True], ids=["untouched", "used"])
async def test_p03_a_cancel_that_was_taken_ends_the_task_as_cancelled(rig: Rig, used: bool) -> None:
    pool = await rig.full()
    never = asyncio.Event()

    async def wait_for_one() -> None:
        async with pool.acquire(timeout=LONG_S):
            await never.wait()

    for round_ in range(400):
        held = [await pool.acquire(timeout=LONG_S) for _ in range(SIZE)]
        # A release with something to reset takes another way; the server takes part, so less often.
        if used and round_ % 8 == 0:
            await held[0].execute("SELECT 1")
        waiter = asyncio.create_task(wait_for_one())
        await ticks(2)
        assert pool.get_stats().waiters == 1
        for connection in held:
            await pool.release(connection)
        await ticks(round_ % 25)
        assert waiter.cancel()
        await asyncio.wait([waiter], timeout=SLACK_S)
        assert waiter.cancelled(), f"after {round_ % 25} ticks: {waiter}"
    await rig.assert_usable(pool)
    assert rig.proxy.counts.accepted == SIZE


async def test_p03_a_timeout_around_an_acquire_ends_it_whatever_is_handed_over_then(rig: Rig) -> None:
    pool = await rig.full()

    async def once(limit_s: float) -> str:
        try:
            async with asyncio.timeout(limit_s):
                async with pool.acquire(timeout=LONG_S):
                    await asyncio.Event().wait()
        except TimeoutError:
            return "timeout"
        return "went on"

    schedule = random.Random(3)
    waiters = [asyncio.create_task(once(schedule.uniform(0.001, 0.2))) for _ in range(300)]
    async with asyncio.timeout(LONG_S):
        assert set(await asyncio.gather(*waiters)) == {"timeout"}
    await rig.assert_usable(pool)


@pytest.mark.parametrize("seed", range(2))
async def test_p06_no_cancelled_read_gives_its_rows_to_someone_else(rig: Rig, seed: int) -> None:
    schedule = random.Random(seed)
    pool = await rig.opened(max_size=1, min_size=1)

    async def sleeper(constant: int) -> None:
        async with pool.acquire(timeout=LONG_S) as connection:
            await connection.raw.fetchval("SELECT $1::int FROM pg_sleep(0.01)", constant)

    answers: list[tuple[int, int]] = []
    for number in range(60):
        task = asyncio.create_task(sleeper(1_000_000 + number))
        await asyncio.sleep(schedule.randrange(120) / 10_000)
        await cancelled(task)
        for query in range(3):
            constant = 10 * number + query
            async with pool.acquire(timeout=LONG_S) as connection:
                answers.append((constant, await connection.raw.fetchval("SELECT $1::int", constant)))
    assert len(answers) == 180
    assert [(mine, theirs) for mine, theirs in answers if mine != theirs] == []
    await rig.assert_usable(pool, 1)


@pytest.mark.parametrize("first_ticks", [0, 1, 2, 3, 5, 8])
async def test_p08_a_cleanup_cancelled_at_every_tick_leaves_no_zombie(rig: Rig, first_ticks: int) -> None:
    table = f"zombies_{first_ticks}"
    await rig.witness.execute(f"CREATE TABLE IF NOT EXISTS {table} AS SELECT 1 AS id")
    await rig.witness.execute(f"ALTER TABLE {table} OWNER TO {EmbeddedPostgres.user}")
    pool = await rig.full()
    holding = asyncio.Event()

    async def hold_a_lock() -> None:
        async with pool.acquire(timeout=LONG_S) as connection:
            await connection.raw.execute("BEGIN")
            await connection.raw.fetch(f"SELECT * FROM {table} FOR UPDATE")  # noqa: S608
            holding.set()
            await connection.raw.fetch("SELECT pg_sleep(90)")

    task = asyncio.create_task(hold_a_lock())
    await holding.wait()
    await ticks(first_ticks)
    async with asyncio.timeout(SLACK_S):
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    async def free() -> bool:
        try:
            await rig.witness.fetch(f"SELECT * FROM {table} FOR UPDATE NOWAIT")  # noqa: S608
        except asyncpg.LockNotAvailableError:
            return False
        stuck = "state LIKE 'idle in transaction%' OR query LIKE '%pg_sleep(90)%' AND state = 'active'"
        sql = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND ({stuck})"  # noqa: S608
        count: int = await rig.witness.fetchval(sql, rig.name)
        return count == 0

    await rig.until(free)
    assert task.cancelled()
    await rig.assert_usable(pool)
    await rig.witness.execute(f"DROP TABLE {table}")


@pytest.mark.parametrize("seed", range(2))
async def test_p14_a_snowball_of_cancelled_queries_exceeds_no_limit_on_the_server(
    rig: Rig, seed: int
) -> None:
    schedule = random.Random(seed)
    # A cancel request that comes before its query has begun is lost, and the query runs to its end; a
    # connection given up before that would leave its backend behind.
    pool = await rig.opened(seed=seed)
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.5

    async def call() -> None:
        while loop.time() < end:
            try:
                async with asyncio.timeout(schedule.uniform(0.015, 0.025)):
                    await _query(pool, "SELECT pg_sleep(1)")
            except (TimeoutError, PoolError):
                continue

    async with rig.peak_backends() as peak, asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(call())
    assert peak[0] <= SIZE
    assert len(rig.driver.attempts_ns) <= 2 * SIZE
    await rig.assert_usable(pool)
