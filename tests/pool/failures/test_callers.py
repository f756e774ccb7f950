"""P29, P30, P33, P36, P37, P40, P41: callers that do what they should not, or all at once."""

import asyncio
import math
import os
import sys
import traceback
from time import perf_counter_ns

import pytest

from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.pool import (
    BreakerConfig,
    ConnectionPool,
    EventKind,
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolEvent,
    PoolExhaustedError,
    PoolState,
    PoolTimeoutError,
)
from pool_bench.pool.context import PoolContext, longest_held
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import target
from tests.support.pool_rig import LONG_S, SIZE, SLACK_S, Rig
from tests.support.simulation import FakeConnection, FakeServer, make_pool, now_s, simulate


async def test_p29_one_acquire_entered_by_two_tasks_loses_no_connection(rig: Rig) -> None:
    pool = await rig.full()
    held = [await pool.acquire() for _ in range(SIZE)]
    lease = pool.acquire(timeout=LONG_S)
    entered = asyncio.Event()

    async def enter() -> None:
        async with lease:
            entered.set()

    async with asyncio.timeout(SLACK_S):
        first = asyncio.create_task(enter())
        # It waits after one turn.
        await asyncio.sleep(0)
        assert pool.get_stats().waiters == 1
        with pytest.raises(PoolError, match="has been entered already"):
            await enter()
        for connection in held:
            await pool.release(connection)
        await first
    assert entered.is_set()
    await rig.assert_usable(pool)


def test_p29_an_acquire_that_failed_may_be_entered_again() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            lease = pool.acquire(timeout=1.0)
            async with pool.acquire():
                with pytest.raises(PoolTimeoutError):
                    await lease.__aenter__()
            async with lease as connection:
                assert connection.number == 1

    simulate(main())


@pytest.mark.parametrize("idle_s", [0.0, 0.6, 20.0])
def test_p30_now_or_never_has_an_idle_connection_however_long_it_was_idle(idle_s: float) -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=2, max_size=2) as pool:
            await asyncio.sleep(idle_s)
            async with pool.acquire(timeout=0) as one, pool.acquire(timeout=0) as other:
                assert one is not other
                began_s = now_s()
                with pytest.raises(PoolTimeoutError, match="within 0 s"):
                    await pool.acquire(timeout=0)
                assert now_s() == began_s

    simulate(main())


def test_p30_now_or_never_opens_nothing_and_waits_no_longer_than_a_validation_may_take() -> None:
    async def main() -> None:
        server = FakeServer(ping_s=math.inf)
        async with make_pool(server, min_size=1, max_size=2, validate_timeout=0.5) as pool:
            await asyncio.sleep(1.0)
            began_s = now_s()
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0)
            assert now_s() - began_s <= 0.51
        empty = make_pool(FakeServer(), min_size=0)
        await empty.open()
        began_s = now_s()
        with pytest.raises(PoolTimeoutError):
            await empty.acquire(timeout=0)
        assert now_s() == began_s
        await empty.close()

    simulate(main())


@pytest.mark.parametrize("timeout", [math.nan, -1.0, -math.inf])
def test_p30_a_timeout_that_is_none_is_one_clear_error(timeout: float) -> None:
    async def main() -> None:
        async with make_pool(FakeServer()) as pool:
            with pytest.raises(ValueError, match="timeout must be 0 seconds or more"):
                pool.acquire(timeout=timeout)
            with pytest.raises(ValueError, match="timeout must be 0 seconds or more"):
                await pool.execute_query("SELECT 1", timeout=timeout)

    simulate(main())


def test_p30_a_timeout_beyond_all_clocks_is_no_limit() -> None:
    timeouts = (math.inf, 1e300, 1e12)

    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            async with pool.acquire():
                waiting = [asyncio.create_task(pool.acquire(timeout=one).__aenter__()) for one in timeouts]
                await asyncio.sleep(1e5)
            for granted in waiting:
                await pool.release(await granted)
            for timeout in timeouts:
                assert await pool.execute_query("SELECT 1", timeout=timeout) == "SELECT 1"

    simulate(main())


class _Turns:
    """Counts the turns of the loop, and how many tasks ended in each."""

    def __init__(self) -> None:
        self.ended = [0]
        self._counting = asyncio.create_task(self._count())

    def note(self) -> None:
        """A task has ended."""
        self.ended[-1] += 1

    async def most(self) -> int:
        """The most that ended in one turn."""
        self._counting.cancel()
        await asyncio.wait([self._counting])
        return max(self.ended)

    async def _count(self) -> None:
        while True:
            self.ended.append(0)
            await asyncio.sleep(0)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each look at all leases found."""
    found: list[str] = []

    def counted(ctx: PoolContext[FakeConnection]) -> str:
        found.append(longest_held(ctx))
        return found[-1]

    monkeypatch.setattr("pool_bench.pool.context.longest_held", counted)
    return found


@pytest.mark.parametrize("size", [1, 100, 1000])
async def test_p33_five_thousand_timeouts_at_once_leave_others_their_turns_and_keep_their_order(
    size: int, looks: list[str]
) -> None:
    async with make_pool(FakeServer(connect_s=0), min_size=size, max_size=size) as pool:
        held = [await pool.acquire() for _ in range(size)]
        ended: list[int] = []
        turns = _Turns()

        async def give_up(number: int) -> None:
            with pytest.raises(PoolTimeoutError, match="held longest by"):
                await pool.acquire(timeout=0.3)
            ended.append(number)
            turns.note()

        began_ns = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for number in range(5000):
                group.create_task(give_up(number))
        took_s = (perf_counter_ns() - began_ns) / 1e9
        # All leases are looked at a hundred times a second at most.
        assert 1 <= len(looks) <= took_s / 0.01 + 1
        assert len(ended) == 5000
        assert ended == sorted(ended)
        assert await turns.most() <= 300
        for connection in held:
            await pool.release(connection)


async def test_p33_refusing_thousands_looks_at_all_leases_a_hundred_times_a_second_at_most(
    looks: list[str],
) -> None:
    async with make_pool(FakeServer(), min_size=0, max_size=1, max_waiters=0) as pool, pool.acquire():
        began_ns = perf_counter_ns()
        for _ in range(2000):
            with pytest.raises(PoolExhaustedError, match="held longest by"):
                await pool.acquire()
        took_s = (perf_counter_ns() - began_ns) / 1e9
        assert 1 <= len(looks) <= took_s / 0.01 + 1


@pytest.mark.parametrize("way", ["close", "breaker"])
async def test_p33_thousands_that_are_turned_away_leave_others_their_turns(way: str) -> None:
    server = FakeServer(down=way == "breaker")
    pool = make_pool(server, min_size=0, max_size=1, breaker=BreakerConfig(failures=1))
    await pool.open()
    turns = _Turns()
    ended: list[int] = []
    held = await pool.acquire() if way == "close" else None

    async def wait(number: int) -> None:
        with pytest.raises(PoolError):
            await pool.acquire(timeout=LONG_S)
        ended.append(number)
        turns.note()

    async with asyncio.TaskGroup() as group:
        for number in range(5000):
            group.create_task(wait(number))
        # The last of them waits after one turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if held is not None:
            closing = group.create_task(pool.close())
            while pool.state is not PoolState.CLOSING:  # noqa: ASYNC110 - some turns of the loop
                await asyncio.sleep(0)
            # Nobody gets what comes back meanwhile.
            await pool.release(held)
            await closing
    assert ended == list(range(5000))
    assert await turns.most() <= 300
    await pool.close()


async def test_p36_a_forked_child_can_neither_lease_nor_close_and_the_parent_works_on(rig: Rig) -> None:
    pool = await rig.full()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = []

        async def in_child() -> None:
            for work in (pool.close(), pool.execute_query("SELECT 1")):
                try:
                    await work
                except PoolError as error:
                    said.append(str(error))

        try:
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.run(in_child())
            os.write(writing, "\n".join(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    await asyncio.to_thread(os.waitpid, child, 0)
    with os.fdopen(reading) as told:
        lines = told.read().splitlines()
    assert len(lines) == 2
    assert all(f"it belongs to process {os.getpid()}; open one after the fork" in line for line in lines)
    await rig.assert_usable(pool)


def test_p40_a_release_by_another_running_task_says_what_to_do_and_by_one_that_follows_is_taken() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1) as pool:
            done = asyncio.Event()
            handed: asyncio.Queue[FakeConnection] = asyncio.Queue()

            async def take() -> None:
                await handed.put(await pool.acquire())
                await done.wait()

            taking = asyncio.create_task(take(), name="the-taker")
            connection = await handed.get()
            with pytest.raises(
                PoolError, match=r"leased to task the-taker, which still runs.*hand on the acq"
            ):
                await pool.release(connection)
            assert pool.get_stats().in_use == 1
            done.set()
            await taking
            await pool.release(connection)
            assert pool.get_stats().in_use == 0

    simulate(main())


@pytest.mark.parametrize("reclaim", [True, False], ids=["reclaimed", "reported"])
def test_p41_a_lease_whose_task_has_ended_is_found_long_before_it_is_late(reclaim: bool) -> None:
    async def main() -> None:
        events: list[PoolEvent] = []
        server = FakeServer()
        async with make_pool(server, max_size=1, leak_threshold=600.0, leak_reclaim=reclaim) as pool:

            async def listen(event: PoolEvent) -> None:
                if event.kind is EventKind.LEAK_DETECTED:
                    events.append(event)

            pool.subscribe(listen)

            async def forget() -> FakeConnection:
                return await pool.acquire()

            connection = await asyncio.create_task(forget(), name="the-forgetful")
            await asyncio.sleep(3)
            assert len(events) == pool.get_stats().leaks == 1
            assert "by task the-forgetful, which has ended without returning it" in events[0].message
            assert pool.get_stats().in_use == (0 if reclaim else 1)
            await pool.release(connection)
            async with pool.acquire(timeout=1.0) as again:
                assert (again is connection) is not reclaim

    simulate(main())


def test_p41_a_lease_that_is_handed_on_in_time_is_no_leak() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), leak_threshold=600.0) as pool:

            async def take() -> FakeConnection:
                return await pool.acquire()

            for _ in range(20):
                await pool.release(await asyncio.create_task(take()))
                await asyncio.sleep(0.2)
            assert pool.get_stats().leaks == 0

    simulate(main())


_UNCLOSED = """
import asyncio, sys
from pool_bench.drivers.asyncpg import AsyncpgDriver
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.targets.postgres import parse_target

async def main():
    target = parse_target(sys.argv[1], env={}, default_user="u")
    pool = ConnectionPool(AsyncpgDriver(target), PoolConfig(min_size=3))
    await pool.open()
    held = await pool.acquire()
    await held.execute("SELECT 1")
    waiting = [asyncio.ensure_future(pool.acquire().__aenter__()) for _ in range(20)]
    while not pool.get_stats().waiters:
        await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
async def test_p37_a_program_that_ends_without_closing_its_pool_says_nothing(rig: Rig, seed: int) -> None:
    url = rig.proxy.url(user=EmbeddedPostgres.user, application_name=rig.name)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _UNCLOSED, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LONG_S):
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (0, b"", b"")
    await rig.assert_backends(0)


def test_p37_those_who_wait_when_the_pool_is_closed_fail_at_once() -> None:
    async def main() -> None:
        pool = make_pool(FakeServer(), max_size=1)
        await pool.open()
        held = await pool.acquire()
        waiting = [asyncio.create_task(pool.acquire().__aenter__()) for _ in range(1000)]
        await asyncio.sleep(0)
        began_s = now_s()
        closing = [asyncio.create_task(pool.close(timeout=5.0)) for _ in range(4)]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, PoolClosedError) for end in ends)
        assert now_s() == began_s
        closing[0].cancel()
        await pool.release(held)
        await asyncio.gather(*closing, return_exceptions=True)
        assert now_s() - began_s < 1.0

    simulate(main())


@pytest.mark.parametrize("closer", ["a holder", "a waiter"])
def test_p37_a_pool_that_one_of_its_callers_closes_is_closed_in_bounded_time(closer: str) -> None:
    async def main() -> None:
        server = FakeServer()
        pool = make_pool(server, max_size=2)
        await pool.open()
        held = [await pool.acquire() for _ in range(2)]
        # It waits for its own lease, or for its own turn, which neither is to end it.
        waiting = [asyncio.create_task(pool.acquire().__aenter__()) for _ in range(3)]
        await asyncio.sleep(0)
        began_s = now_s()
        if closer == "a waiter":
            taken = asyncio.create_task(_close_when_refused(pool))
            await asyncio.sleep(0)
            await pool.close(timeout=5.0)
            await taken
        else:
            await pool.close(timeout=5.0)
        assert now_s() - began_s <= 5.5
        assert all(
            isinstance(end, PoolClosedError) for end in await asyncio.gather(*waiting, return_exceptions=True)
        )
        assert all(connection.is_closed() for connection in (*held, *server.connections))

    simulate(main())


async def _close_when_refused(pool: ConnectionPool[FakeConnection]) -> None:
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    await pool.close(timeout=5.0)


async def test_p37_who_meets_a_closed_pool_is_led_to_its_own_line_and_to_no_password(rig: Rig) -> None:
    word = "rather-hidden"
    url = rig.proxy.url(user=EmbeddedPostgres.user, application_name=rig.name).replace("@", f":{word}@", 1)
    assert word in url
    to = target(url)
    del url
    pool = ConnectionPool(AsyncpgDriver(to), PoolConfig(min_size=1, max_size=1))
    await pool.open(timeout=LONG_S)
    held = await pool.acquire(timeout=LONG_S)

    async def ask_for_one() -> None:
        await pool.acquire(timeout=LONG_S)

    waiting = asyncio.create_task(ask_for_one())
    await asyncio.sleep(0)
    assert pool.get_stats().waiters == 1
    closing = asyncio.create_task(pool.close(timeout=LONG_S))
    (early,) = await asyncio.gather(waiting, return_exceptions=True)
    await pool.release(held)
    await closing
    (late,) = await asyncio.gather(ask_for_one(), return_exceptions=True)
    for error in (early, late):
        assert isinstance(error, PoolClosedError)
        # As tools show it that have the values of variables as well.
        drawn = traceback.TracebackException.from_exception(error, capture_locals=True)
        frames = [frame.name for frame in drawn.stack]
        assert "ask_for_one" in frames
        text = "".join(drawn.format())
        assert "await pool.acquire(timeout=LONG_S)" in text
        assert word not in text
