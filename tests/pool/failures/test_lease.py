"""Failure modes of who holds what: P21 to P23, P25 to P27, P32. See `rig` for the measures."""

import asyncio
import logging
import os
import random
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from time import perf_counter_ns

import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.psycopg import PsycopgConnection, PsycopgDriver
from pool_bench.errors import ConnectError, LeaseOverError
from pool_bench.faults import PASS
from pool_bench.pool import ConnectionPool, EventKind, PoolClosedError, PoolConfig, PoolError, PoolEvent
from pool_bench.pool.connections import Connector
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import target
from tests.support.pool_rig import HOLE, LONG_S, SIZE, SLACK_S, Pool, Rig, bounded, pid_of, ticks, usable


@pytest.mark.parametrize("raw", [False, True], ids=["through the pool's protocol", "behind its back"])
@pytest.mark.parametrize(
    ("leave", "look", "clean"),
    [
        ("SET work_mem = '123MB'", "SHOW work_mem", "4MB"),
        ("SET search_path = nowhere", "SHOW search_path", '"$user", public'),
        ("SELECT pg_advisory_lock(21)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
        (
            "BEGIN; SELECT pg_current_xact_id()",
            "SELECT pg_current_xact_id_if_assigned() IS NULL",
            True,
        ),
        ("BEGIN; SELECT 1/0", "SELECT 1", 1),
        ("LISTEN p21", "SELECT count(*) FROM pg_listening_channels()", 0),
        ("CREATE TEMP TABLE p21 (id int); BEGIN; SET LOCAL work_mem = '99MB'", "SHOW work_mem", "4MB"),
    ],
)
async def test_p21_the_next_borrower_finds_nothing_of_the_last(
    rig: Rig, leave: str, look: str, clean: object, raw: bool
) -> None:
    pool = await rig.opened(max_size=1)
    async with pool.acquire(timeout=LONG_S) as connection:
        fails = pytest.raises(Exception, match="division by zero") if "1/0" in leave else nullcontext()
        with fails:
            await (connection.raw.execute(leave) if raw else connection.execute(leave))
    async with pool.acquire(timeout=LONG_S) as connection:
        assert await connection.raw.fetchval(look) == clean


async def test_p21_what_the_session_sql_sets_is_there_for_every_borrower(rig: Rig) -> None:
    pool = await rig.opened(max_size=1, session_sql="SET work_mem = '7MB'")
    for _ in range(3):
        async with pool.acquire(timeout=LONG_S) as connection:
            assert await connection.raw.fetchval("SHOW work_mem") == "7MB"
            await connection.execute("SET work_mem = '123MB'")


@pytest.mark.parametrize("state", ["holding", "querying", "querying in a hole"])
async def test_p22_closing_is_bounded_and_leaves_nobody_waiting_and_nothing_behind(
    rig: Rig, state: str
) -> None:
    # A backend that sleeps is to notice that its client has gone.
    pool = await rig.full(session_sql="SET client_connection_check_interval = '20ms'")
    over, held = asyncio.Event(), asyncio.Barrier(SIZE + 1)
    in_use: list[int] = []

    async def hold() -> None:
        async with pool.acquire(timeout=LONG_S) as connection:
            await held.wait()
            if state == "holding":
                await over.wait()
            else:
                await connection.execute("SELECT pg_sleep(60)")

    async def wait() -> None:
        with pytest.raises(PoolClosedError):
            await pool.acquire(timeout=LONG_S)
        in_use.append(pool.get_stats().in_use)

    holders = [asyncio.create_task(hold()) for _ in range(SIZE)]
    await held.wait()
    waiters = [asyncio.create_task(wait()) for _ in range(2)]
    await ticks(3)
    assert pool.get_stats().waiters == 2
    if state == "querying in a hole":
        rig.proxy.set(HOLE)
    with bounded(0.5):
        await pool.close(timeout=0.5)
    await asyncio.gather(*waiters)
    # They were told at once, while the holders still had their time.
    assert in_use == [SIZE, SIZE]
    with pytest.raises(PoolClosedError):
        await pool.acquire(timeout=LONG_S)
    rig.proxy.set(PASS)
    await rig.assert_backends(0)
    over.set()
    async with asyncio.timeout(SLACK_S):
        await asyncio.gather(*holders, return_exceptions=True)
    await pool.close()


async def test_p22_holders_that_finish_in_time_are_waited_for(rig: Rig) -> None:
    pool = await rig.full()
    finished: list[int] = []

    async def hold(number: int) -> None:
        async with pool.acquire(timeout=LONG_S) as connection:
            await connection.execute("SELECT pg_sleep(0.1)")
            finished.append(number)

    holders = [asyncio.create_task(hold(number)) for number in range(SIZE)]
    await asyncio.sleep(0.03)
    await pool.close(timeout=LONG_S)
    assert sorted(finished) == list(range(SIZE))
    await asyncio.gather(*holders)
    await rig.assert_backends(0)


async def test_p23_a_connection_released_twice_is_not_given_to_two(rig: Rig) -> None:
    pool = await rig.full()
    connection = await pool.acquire(timeout=LONG_S)
    await pool.release(connection)
    with pytest.raises(PoolError):
        await pool.release(connection)
    await _assert_all_different(pool)

    # Nor where it has been lent to another task meanwhile, whose lease it must not end.
    lent, over = asyncio.Event(), asyncio.Event()

    async def borrow() -> None:
        async with pool.acquire(timeout=LONG_S) as borrowed:
            assert borrowed._raw is session
            lent.set()
            await over.wait()

    connection, *others = [await pool.acquire(timeout=LONG_S) for _ in range(SIZE)]
    session = connection._raw
    await pool.release(connection)
    borrower = asyncio.create_task(borrow())
    async with asyncio.timeout(SLACK_S):
        await lent.wait()
    with pytest.raises(PoolError):
        await pool.release(connection)
    assert pool.get_stats().in_use == SIZE
    over.set()
    await borrower
    for other in others:
        await pool.release(other)
    await rig.assert_usable(pool)


async def test_p23_repeated_releases_of_a_used_connection_end_one_lease(rig: Rig) -> None:
    pool = await rig.full()
    connection = await pool.acquire(timeout=LONG_S)
    await connection.execute("SELECT 1")
    await pool.release(connection)
    for _ in range(4):
        # It is being reset now.
        with pytest.raises(PoolError):
            await pool.release(connection)
    await _assert_all_different(pool)
    await rig.assert_usable(pool)


async def test_p23_a_connection_that_is_not_the_pools_is_not_taken(rig: Rig) -> None:
    pool, other = await rig.full(), await rig.opened(max_size=1)
    with pytest.raises(PoolError):
        async with other.acquire(timeout=LONG_S) as stranger:
            await pool.release(stranger)
    assert await usable(pool) == SIZE


async def _assert_all_different(pool: Pool) -> None:
    held = [await pool.acquire(timeout=LONG_S) for _ in range(SIZE)]
    assert len({await pid_of(each) for each in held}) == SIZE
    for each in held:
        await pool.release(each)


async def test_p25_two_tasks_on_one_connection_hear_of_it_and_the_connection_lives(rig: Rig) -> None:
    pool = await rig.full()
    async with pool.acquire(timeout=LONG_S) as connection:
        pid = await pid_of(connection)
        results = await asyncio.gather(
            *(_fetch(connection, number) for number in range(2)), return_exceptions=True
        )
        for number, result in enumerate(results):
            assert result == number or "another operation" in str(result)
        assert any(result == number for number, result in enumerate(results))
        assert await pid_of(connection) == pid
    await rig.assert_usable(pool)
    assert pid in await rig.backends()


async def _fetch(connection: AsyncpgConnection, number: int) -> int:
    answer: int = await connection.raw.fetchval("SELECT $1::int FROM pg_sleep(0.02)", number)
    return answer


AnyConnection = AsyncpgConnection | PsycopgConnection
Make = Callable[[int], Awaitable[ConnectionPool[AnyConnection]]]


@pytest.fixture(params=(AsyncpgDriver, PsycopgDriver), ids=["asyncpg", "psycopg"])
async def of_each(rig: Rig, request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes pools over each driver, which are closed after the test."""
    async with AsyncExitStack() as stack:

        async def make(size: int) -> ConnectionPool[AnyConnection]:
            driver: Connector[AnyConnection] = request.param(
                target(rig.proxy.url(user=EmbeddedPostgres.user))
            )
            config = PoolConfig(min_size=0, max_size=size, reset_timeout=LONG_S, validate_timeout=LONG_S)
            pool: ConnectionPool[AnyConnection] = ConnectionPool(driver, config)
            stack.push_async_callback(pool.close, timeout=1.0)
            await pool.open()
            return pool

        yield make


async def _ask(connection: AnyConnection, sql: str) -> str:
    if isinstance(connection, AsyncpgConnection):
        return str(await connection.raw.fetchval(sql))
    row = await (await connection.raw.execute(sql.encode())).fetchone()
    return str(None if row is None else row[0])


@pytest.mark.parametrize("was_used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize("waits", [False, True], ids=["it was idle", "somebody waits for it"])
async def test_p32_a_connection_that_is_kept_is_of_no_use_to_its_last_holder(
    of_each: Make, waits: bool, was_used: bool
) -> None:
    pool = await of_each(1)
    async with pool.acquire(timeout=LONG_S) as connection:
        backend = await _ask(connection, "SELECT pg_backend_pid()")
    kept = await pool.acquire(timeout=LONG_S)
    if was_used:
        await kept.execute("SELECT 1")
    if waits:
        next_one = asyncio.ensure_future(pool.acquire(timeout=LONG_S))
        await ticks(3)
        await pool.release(kept)
        connection = await next_one
    else:
        await pool.release(kept)
        connection = await pool.acquire(timeout=LONG_S)
    assert await _ask(connection, "SELECT pg_backend_pid()") == backend
    await connection.execute("BEGIN")
    for use in (kept.execute, lambda sql: _ask(kept, sql)):
        with pytest.raises(LeaseOverError, match="its lease is over"):
            await use("SET search_path = elsewhere")
    for end in (kept.close, kept.reset, kept.ping):
        with pytest.raises(LeaseOverError):
            await end()
    with pytest.raises(LeaseOverError):
        kept.terminate()
    with pytest.raises(PoolError):
        await pool.release(kept)
    assert await _ask(connection, "SHOW search_path") == '"$user", public'
    assert await _ask(connection, "SELECT now() < clock_timestamp()") == "True"
    await pool.release(connection)
    async with pool.acquire(timeout=LONG_S) as connection:
        assert await _ask(connection, "SELECT pg_backend_pid()") == backend


async def test_p32_what_is_done_to_an_idle_connection_is_undone_before_it_is_lent(of_each: Make) -> None:
    pool = await of_each(1)
    kept = await pool.acquire(timeout=LONG_S)
    await pool.release(kept)
    await kept.execute("SET work_mem = '123MB'")
    await kept.execute("BEGIN")
    # Nobody has it any more who could be noticed.
    del kept
    async with pool.acquire(timeout=LONG_S) as connection:
        assert not connection.in_transaction()
        assert await _ask(connection, "SHOW work_mem") == "4MB"


@pytest.mark.parametrize("seed", range(5))
async def test_p32_no_schedule_lets_one_that_was_kept_touch_the_next_lease(of_each: Make, seed: int) -> None:
    pool = await of_each(2)
    rng = random.Random(seed)
    kept: list[AnyConnection] = []
    held = 0

    async def borrow(number: int) -> None:
        nonlocal held
        mine = f"{number + 1}MB"
        for _ in range(8):
            async with pool.acquire(timeout=LONG_S) as connection:
                await connection.execute(f"SET work_mem = '{mine}'")
                for _ in range(rng.randrange(3)):
                    await ticks(rng.randrange(5))
                    assert await _ask(connection, "SHOW work_mem") == mine
                    held += 1
                kept.append(connection)
            await ticks(rng.randrange(5))

    async def meddle() -> None:
        while True:
            await ticks(1 + rng.randrange(5))
            if kept:
                # Refused, or done to an idle one, or cut off when that is replaced.
                with suppress(LeaseOverError, ConnectError):
                    await kept.pop(rng.randrange(len(kept))).execute("SET work_mem = '99MB'")

    async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
        meddler = group.create_task(meddle())
        async with asyncio.TaskGroup() as borrowers:
            for number in range(4):
                borrowers.create_task(borrow(number))
        meddler.cancel()
    assert held > 0


async def test_p26_another_event_loop_is_told_at_once(rig: Rig) -> None:
    pool = await rig.full()
    errors: list[BaseException] = []

    def elsewhere() -> None:
        async def use() -> None:
            await pool.acquire(timeout=LONG_S)

        try:
            asyncio.run(use())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    with bounded(0.5):
        thread.start()
        await asyncio.to_thread(thread.join)
    assert isinstance(errors[0], PoolError)
    assert "loop" in str(errors[0])
    await rig.assert_usable(pool)


async def test_p26_a_forked_child_is_told_at_once_and_the_parent_works_on(rig: Rig) -> None:
    pool = await rig.full()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "no error"
        try:

            async def use() -> None:
                await pool.acquire(timeout=LONG_S)

            asyncio.new_event_loop().run_until_complete(use())
        except BaseException as error:
            answer = f"{type(error).__mro__}: {error}"
        finally:
            os.write(writing, answer.encode())
            os._exit(0)
    os.close(writing)
    with bounded(1.0):
        answer = (await asyncio.to_thread(os.read, reading, 65536)).decode()
        await asyncio.to_thread(os.waitpid, child, 0)
    os.close(reading)
    assert "PoolError" in answer, answer
    assert "fork" in answer, answer
    await rig.assert_usable(pool)


@pytest.mark.parametrize("stack", [True, False], ids=["with a stack", "without"])
async def test_p27_a_lease_held_too_long_is_reported_once_with_its_holders_stack(
    rig: Rig, stack: bool, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[PoolEvent] = []
    reported = asyncio.Event()

    async def listen(event: PoolEvent) -> None:
        if event.kind is EventKind.LEAK_DETECTED:
            events.append(event)
            reported.set()

    caplog.set_level(logging.WARNING)
    # Longer than any lease of the one that does not forget, also where the machine stands still for a while.
    threshold_s = 2.5
    pool = await rig.full(leak_threshold=threshold_s, leak_stack=stack)
    unsubscribe = pool.subscribe(listen)
    began_ns = perf_counter_ns()

    async def the_one_that_forgets() -> AsyncpgConnection:
        connection = await pool.acquire(timeout=LONG_S)
        await reported.wait()
        return connection

    async def one_that_does_not() -> None:
        while not reported.is_set():
            async with pool.acquire(timeout=LONG_S) as connection:
                await connection.execute("SELECT pg_sleep(0.04)")

    async with asyncio.timeout(SLACK_S), asyncio.TaskGroup() as group:
        forgotten = group.create_task(the_one_that_forgets())
        group.create_task(one_that_does_not())
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(events) == len(warnings) == pool.get_stats().leaks == 1
    assert events[0].at_ns - began_ns >= threshold_s * 1e9
    told = re.search(r"held for ([\d.]+) s", warnings[0].getMessage())
    assert told is not None
    assert float(told[1]) >= threshold_s
    assert ("the_one_that_forgets" in warnings[0].getMessage()) is stack
    assert "one_that_does_not" not in warnings[0].getMessage()
    await pool.release(forgotten.result())
    unsubscribe()
    await rig.assert_usable(pool)


async def test_p27_a_lease_within_its_time_is_not_reported(rig: Rig) -> None:
    # A third of its time, and enough is left for a machine that stands still for a while.
    threshold_s = 6.0
    pool = await rig.full(leak_threshold=threshold_s)
    async with pool.acquire(timeout=LONG_S):
        await asyncio.sleep(threshold_s / 3)
    await asyncio.sleep(0.1)
    assert pool.get_stats().leaks == 0


async def test_p27_a_killed_connection_is_no_leak(rig: Rig) -> None:
    pool = await rig.full(leak_threshold=2.5)
    async with pool.acquire(timeout=LONG_S) as connection:
        await rig.kill(await pid_of(connection))
        with pytest.raises(ConnectError):
            await connection.execute("SELECT 1")
    await asyncio.sleep(3.0)
    assert pool.get_stats().leaks == 0
