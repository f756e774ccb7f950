"""What must hold under any schedule: thousands of random cancellations, failures and kills.

Every schedule comes from a seed, and runs in simulated time: a caller that nobody wakes is found at once,
because nothing is left that could happen.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.pool import ConnectionPool, PoolError
from tests.support.simulation import FakeConnection, FakeError, FakeServer, make_pool, now_s, simulate


@dataclass
class Tally:
    """What the tasks of a schedule saw."""

    leased: int = 0
    cancelled: int = 0
    timed_out: int = 0
    failed: int = 0
    order: list[int] = field(default_factory=list)


async def _all_usable(pool: ConnectionPool[FakeConnection], size: int) -> None:
    """All `size` connections can be held at once, and all work."""
    # Without validation a connection that was killed idle is only found out by its use.
    for conn in [await pool.acquire(timeout=30) for _ in range(size)]:
        with suppress(FakeError):
            await conn.ping()
        await pool.release(conn)
    async with asyncio.timeout(60):
        held = [await pool.acquire(timeout=30) for _ in range(size)]
    assert len({id(conn) for conn in held}) == size
    for conn in held:
        await conn.ping()
        assert not conn.settings
        assert not conn.transaction
        await pool.release(conn)


async def _worker(pool: ConnectionPool[FakeConnection], rng: random.Random, tally: Tally) -> None:
    me = object()
    try:
        async with pool.acquire(timeout=rng.choice((0, 0.003, 0.05, 5.0))) as conn:
            assert conn.holder is None, "two owners"
            conn.holder = me
            assert not conn.settings, "somebody else's settings"
            assert not conn.transaction, "somebody else's transaction"
            try:
                tally.leased += 1
                for _ in range(rng.randrange(4)):
                    await conn.execute(rng.choice(("SELECT 1", "BEGIN", "COMMIT", "SET a", "SET b")))
                    if rng.random() < 0.1:
                        await asyncio.sleep(rng.random() * 0.02)
            finally:
                assert conn.holder is me
                conn.holder = None
    except asyncio.CancelledError:
        tally.cancelled += 1
        raise
    except PoolError:
        tally.timed_out += 1
    except FakeError:
        tally.failed += 1


@pytest.mark.parametrize("seed", range(40))
def test_no_schedule_breaks_the_pool(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randrange(1, 8)

    async def main() -> None:
        server = FakeServer(
            connect_s=rng.choice((0, 0.001, 0.03)),
            reset_s=rng.choice((0, 0.001, 0.01)),
            close_s=rng.choice((0, 0.01)),
        )

        def fail_some(_number: int) -> None:
            if rng.random() < 0.2:
                raise FakeError("no")

        server.on_connect = fail_some
        tally = Tally()
        pool = make_pool(
            server,
            min_size=0,
            max_size=size,
            max_uses=rng.choice((0, 7)),
            max_lifetime=rng.choice((None, 0.2)),
            max_idle=rng.choice((None, 0.05)),
            validate_after_idle=rng.choice((0.0, 0.01, None)),
            health_check_interval=rng.choice((0.02, None)),
            connecting_limit=rng.choice((None, 1)),
            retry_base=0.001,
            retry_cap=0.01,
            seed=seed,
        )
        async with pool:
            tasks: list[asyncio.Task[None]] = []
            running: list[asyncio.Task[None]] = []
            for _ in range(1000):
                new = [asyncio.create_task(_worker(pool, rng, tally)) for _ in range(rng.randrange(4))]
                tasks += new
                running = [task for task in running if not task.done()] + new
                for task in rng.sample(running, min(len(running), rng.randrange(3))):
                    task.cancel()
                if server.open and rng.random() < 0.03:
                    victim = rng.choice(server.open)
                    victim.dead = True
                    victim.closed = rng.random() < 0.5
                if rng.random() < 0.02:
                    await pool.pause()
                elif rng.random() < 0.5 and pool.state == "paused":
                    pool.resume()
                if rng.random() < 0.01:
                    pool.expire_connections()
                await asyncio.sleep(rng.choice((0, 0, 0.0005, 0.004)))
                assert len(server.open) + server.opening <= size
            pool.resume()
            await asyncio.wait(tasks)
            for task in tasks:
                assert task.cancelled() or task.exception() is None
            server.on_connect = lambda _number: None
            await _all_usable(pool, size)
            stats = pool.get_stats()
            assert (stats.in_use, stats.waiters) == (0, 0)
            assert server.peak <= size
        assert tally.leased > 50
        assert tally.cancelled > 50
        assert not server.open

    simulate(main())


@pytest.mark.parametrize("ticks", range(40))
@pytest.mark.parametrize("held", [False, True])
def test_cancelling_after_any_number_of_turns_loses_no_connection(ticks: int, held: bool) -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0, ping_s=0, reset_s=0, execute_s=0, close_s=0)
        async with make_pool(server, min_size=0, max_size=3, validate_after_idle=0.0) as pool:

            async def use() -> None:
                async with pool.acquire(timeout=5) as conn:
                    await conn.execute("BEGIN")
                    await conn.execute("SET a")

            holders = [await pool.acquire() for _ in range(3)] if held else []
            tasks = [asyncio.create_task(use()) for _ in range(5)]
            if holders:
                await asyncio.sleep(0)
                for conn in holders:
                    await pool.release(conn)
            for _ in range(ticks):
                await asyncio.sleep(0)
            for task in tasks:
                cancelling = task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() is cancelling, "a cancellation was swallowed"
            await _all_usable(pool, 3)
            assert server.peak <= 3

    simulate(main())


def test_a_cancelled_waiter_passes_on_what_it_was_just_given() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            conn = await pool.acquire()
            first = asyncio.ensure_future(pool.acquire().__aenter__())
            second = asyncio.ensure_future(pool.acquire().__aenter__())
            await asyncio.sleep(0)
            await pool.release(conn)
            assert first.cancel()
            assert await second is conn
            assert first.cancelled()
            await asyncio.create_task(asyncio.sleep(0))
            await pool.release(conn)
            assert pool.get_stats().cancelled == 1
            await _all_usable(pool, 1)

    simulate(main())


def test_a_connect_outlives_the_caller_who_asked_for_it() -> None:
    async def main() -> None:
        server = FakeServer(connect_s=0.05)
        async with make_pool(server, min_size=0, max_size=3) as pool:
            for k in range(2, 90, 3):
                task = asyncio.ensure_future(pool.acquire().__aenter__())
                await asyncio.sleep(k / 1000)
                if not task.cancel():
                    await pool.release(task.result())
                await asyncio.wait([task])
            await asyncio.sleep(1)
            assert len(server.attempts) == len(server.connections) <= 3
            await _all_usable(pool, 3)

    simulate(main())


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_waiters_are_served_in_the_order_in_which_they_came(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 4), label="size")
    holds = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=30), label="holds in ms")
    gaps = data.draw(st.lists(st.integers(0, 10), min_size=len(holds), max_size=len(holds)), label="gaps")
    fates = data.draw(
        st.lists(
            st.sampled_from(["stay", "stay", "cancel", "time out"]), min_size=len(holds), max_size=len(holds)
        )
    )

    async def main() -> None:
        served: dict[int, float] = {}
        async with make_pool(FakeServer(), min_size=size, max_size=size) as pool:

            async def work(number: int) -> None:
                limit = 0.005 if fates[number] == "time out" else 60
                try:
                    async with pool.acquire(timeout=limit):
                        served[number] = now_s()
                        await asyncio.sleep(holds[number] / 1000)
                except TimeoutError:
                    assert fates[number] == "time out"

            tasks, timers = [], []
            for number, gap in enumerate(gaps):
                tasks.append(asyncio.create_task(work(number)))
                if fates[number] == "cancel":
                    timers.append(asyncio.get_running_loop().call_later(gap / 500, tasks[-1].cancel))
                await asyncio.sleep(gap / 1000)
            await asyncio.wait(tasks)
            for timer in timers:
                timer.cancel()
            # One that was granted its connection in the same instant may run before one that was granted
            # its own a turn earlier.
            times = [served[number] for number in sorted(served)]
            assert times == sorted(times)
            assert {n for n, fate in enumerate(fates) if fate == "stay"} <= set(served)
            await _all_usable(pool, size)

    simulate(main())


def test_no_client_of_a_busy_pool_is_overtaken() -> None:
    async def main() -> None:
        tickets: list[int] = []
        granted: list[int] = []
        async with make_pool(FakeServer(), min_size=3, max_size=3) as pool:

            async def client() -> None:
                while now_s() < end:
                    ticket = len(tickets)
                    tickets.append(ticket)
                    async with pool.acquire() as conn:
                        granted.append(ticket)
                        await conn.execute("SELECT 1")

            end = now_s() + 2
            await asyncio.gather(*(client() for _ in range(60)))
        assert len(granted) > 1000
        assert granted == sorted(granted)

    simulate(main())
