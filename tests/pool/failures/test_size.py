"""Failure modes of a pool's size, and of the order of its waiters: P15 to P20, P24, P28."""

import asyncio
import random
from bisect import bisect_left, insort
from itertools import pairwise

import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection
from pool_bench.faults import PASS, Conditions
from pool_bench.pool import PoolError, PoolTimeoutError
from tests.support.pool_rig import LONG_S, REFUSE, RESET, SIZE, SLACK_S, Pool, Rig, bounded, pid_of


@pytest.mark.parametrize("seed", range(2))
async def test_p15_connections_opened_together_do_not_expire_together(rig: Rig, seed: int) -> None:
    # Ends are spread over 1.6 s, three in a tenth: a halt too short to be seen below adds as many again.
    size, lifetime_s = 50, 4.0
    loop = asyncio.get_running_loop()
    # Those that fell due while everything stood still are replaced together when it goes on.
    for _ in range(4):
        pool = await rig.opened(min_size=size, max_size=size, max_lifetime=lifetime_s, seed=seed)
        await rig.assert_usable(pool, size)
        first = await rig.backends()
        rig.proxy.clear_counts()
        looks = [loop.time()]

        async def replaced(before: set[int] = first, looks: list[float] = looks) -> bool:
            gone = not before & await rig.backends()
            looks.append(loop.time())
            return gone and rig.proxy.counts.accepted >= size

        await rig.until(replaced)
        counts = rig.proxy.counts
        peak, all_of_them = counts.peak_accepts(0.1), len(counts.accepts_ns)
        held_up_s = max(later - earlier for earlier, later in pairwise(looks))
        if peak <= 0.2 * all_of_them or held_up_s < 0.1:
            break
        await pool.close()
    assert peak <= 0.2 * all_of_them


@pytest.mark.parametrize("used", [True, False], ids=["used", "untouched"])
async def test_p16_a_pool_that_is_never_idle_still_ends_its_connections(rig: Rig, used: bool) -> None:
    lifetime_s = 0.4
    # No check, at which its age would show.
    pool = await rig.opened(
        max_size=1, max_lifetime=lifetime_s, health_check_interval=None, validate_after_idle=None
    )
    loop = asyncio.get_running_loop()
    first_seen: dict[AsyncpgConnection, float] = {}
    overdue: set[AsyncpgConnection] = set()
    end = loop.time() + LONG_S
    while len(first_seen) < 4 and loop.time() < end:
        async with pool.acquire(timeout=LONG_S) as connection:
            assert connection not in overdue, "lent again after it had come back past its end"
            # Never idle when the pool looks after what is.
            await (pid_of(connection) if used else asyncio.sleep(0))
            now = loop.time()
            if now - first_seen.setdefault(connection, now) > lifetime_s:
                overdue.add(connection)
    assert len(first_seen) == 4


async def test_p17_a_pool_at_its_least_size_neither_shrinks_nor_churns(rig: Rig) -> None:
    pool = await rig.opened(min_size=SIZE, max_idle=0.2, health_check_interval=0.1)
    await rig.assert_usable(pool)
    pids = await rig.backends()
    assert len(pids) == SIZE
    rig.proxy.clear_counts()
    # Nothing happens, and that is what is waited for: six times the idle limit.
    await asyncio.sleep(1.2)
    assert await rig.backends() == pids
    assert rig.proxy.counts.accepted == 0
    assert pool.get_stats().size == SIZE


@pytest.mark.parametrize("size", [3, 8, 20])
async def test_p18_a_cold_pool_grows_in_no_more_than_three_connects_time(rig: Rig, size: int) -> None:
    rig.proxy.set(Conditions(connect_delay_s=0.2))
    pool = await rig.opened(max_size=size)

    async def take() -> AsyncpgConnection:
        return await pool.acquire(timeout=LONG_S)

    held = await asyncio.gather(*(take() for _ in range(size)))
    # So many at once, always as long as there are any left.
    assert 3 * rig.driver.peak >= size
    assert len(set(map(id, held))) == size
    for connection in held:
        await pool.release(connection)


async def test_p18_short_jobs_do_not_open_all_connections_there_may_be(rig: Rig) -> None:
    loop = asyncio.get_running_loop()
    longest_s = 0.0

    async def job(pool: Pool) -> None:
        nonlocal longest_s
        async with pool.acquire(timeout=LONG_S):
            began = loop.time()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, loop.time() - began)

    # On a machine that stands still, jobs are not short, and more connections are of use.
    for _ in range(4):
        longest_s = 0.0
        rig.proxy.set(PASS)
        rig.driver.attempts_ns.clear()
        pool = await rig.opened(min_size=4, max_size=100)
        rig.proxy.set(Conditions(connect_delay_s=0.2))
        async with asyncio.TaskGroup() as group:
            for _ in range(500):
                group.create_task(job(pool))
        if len(rig.driver.attempts_ns) <= 50 or longest_s < 0.02:
            break
    assert len(rig.driver.attempts_ns) <= 50


async def test_p19_no_later_request_wins(rig: Rig) -> None:
    pool = await rig.full()
    tickets = 0
    granted: list[int] = []
    overtakes: list[int] = []

    async def work() -> None:
        nonlocal tickets
        while tickets < 1500:
            ticket = tickets = tickets + 1
            async with pool.acquire(timeout=LONG_S) as connection:
                # Later tickets granted before this one.
                overtakes.append(len(granted) - bisect_left(granted, ticket))
                insort(granted, ticket)
                await connection.execute("SELECT 1")

    async with asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(work())
    assert len(overtakes) >= 1500
    assert max(overtakes) <= SIZE


async def test_p19_new_arrivals_do_not_jump_the_queue(rig: Rig) -> None:
    pool = await rig.full()
    queued: list[int] = []

    async def take(number: int) -> None:
        # Whoever comes while nobody waits may overtake one that was served but has not woken yet.
        has_to_queue = pool.get_stats().waiters > 0
        async with pool.acquire(timeout=LONG_S) as connection:
            if has_to_queue:
                queued.append(number)
            await connection.execute("SELECT pg_sleep(0.002)")

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(take(number))
        for number in range(30, 180):
            await asyncio.sleep(0.001)
            group.create_task(take(number))
    assert len(queued) > 20
    assert queued == sorted(queued)


async def test_p20_tasks_that_want_two_each_time_out_and_name_the_holders(rig: Rig) -> None:
    pool = await rig.full(leak_threshold=30.0)
    all_hold_one = asyncio.Barrier(SIZE)

    async def want_two() -> None:
        async with pool.acquire(timeout=LONG_S):
            await all_hold_one.wait()
            async with pool.acquire(timeout=0.3):
                pass

    tasks = [asyncio.create_task(want_two(), name=f"nested-{number}") for number in range(SIZE)]
    with bounded(0.3):
        errors = await asyncio.gather(*tasks, return_exceptions=True)
    # The first to give up frees its own connection for one of the others.
    timeouts = [error for error in errors if isinstance(error, PoolTimeoutError)]
    assert timeouts
    assert all(error is None or isinstance(error, PoolTimeoutError) for error in errors)
    first = max(timeouts, key=lambda error: error.in_use)
    assert (first.size, first.in_use) == (SIZE, SIZE)
    for number in range(SIZE):
        assert f"nested-{number}" in str(first)
    await rig.assert_usable(pool)


@pytest.mark.parametrize("outage", [REFUSE, RESET], ids=lambda c: c.mode)
@pytest.mark.parametrize("seed", range(2))
async def test_p24_a_failed_connect_eats_no_permit(rig: Rig, outage: Conditions, seed: int) -> None:
    schedule = random.Random(seed)
    pool = await rig.opened(seed=seed, retry_cap=0.05, connect_timeout=1.0)
    rig.proxy.set(outage)
    rounds = 0
    while rounds < 10 or len(rig.driver.attempts_ns) < 5:
        rounds += 1
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(_fail(pool, schedule.uniform(0.001, 0.08)))
    rig.proxy.set(PASS)
    await rig.assert_usable(pool)


async def _fail(pool: Pool, timeout: float) -> None:
    with pytest.raises(PoolError):
        await pool.acquire(timeout=timeout)


@pytest.mark.parametrize("way", ["expire", "idle limit", "killed"])
async def test_p24_an_evicted_connection_mints_no_permit(rig: Rig, way: str) -> None:
    pool = await rig.opened(max_idle=0.1 if way == "idle limit" else None)
    await rig.assert_usable(pool)
    full = asyncio.Event()
    for _ in range(3):
        before = await rig.backends()
        if way == "expire":
            pool.expire_connections()
        elif way == "killed":
            await rig.kill(*before)
            await rig.all_ended()
        else:

            async def evicted() -> bool:
                return not await rig.backends()

            await rig.until(evicted)
        async with rig.peak_backends() as peak:
            most = 0
            held = 0
            full.clear()

            async def hold() -> None:
                nonlocal most, held
                async with pool.acquire(timeout=LONG_S) as connection:
                    held += 1
                    most = max(most, held)
                    if held == SIZE:
                        full.set()
                    # Short leases would be served by fewer.
                    await full.wait()
                    await connection.execute("SELECT pg_sleep(0.005)")
                    held -= 1

            async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(hold())
        assert most == SIZE
        assert peak[0] <= SIZE
    await rig.assert_usable(pool)


async def test_p28_a_pool_comes_back_to_its_least_size_under_a_trickle(rig: Rig) -> None:
    pool = await rig.opened(min_size=1, max_size=10, max_idle=0.4)
    await rig.assert_usable(pool, 10)
    assert pool.get_stats().size == 10
    async with asyncio.timeout(SLACK_S):
        while pool.get_stats().size > 1:
            async with pool.acquire(timeout=LONG_S) as connection:
                await connection.execute("SELECT 1")
            await asyncio.sleep(0.05)
    await rig.assert_backends(1)
