"""The rig of the failure modes: the reference pool, the fault proxy, PostgreSQL, and a witness beside them.

The witness is a connection of its own, straight to the server: it counts the pool's backends by their
`application_name`, and kills them. *Usable* is how many connections can be held at once within 8 s: less
than the limit of a connect that hangs, and more than a machine needs that stands still for a while. The
limits of the pool's own steps are longer than that, too, except where a test is about them.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from time import perf_counter_ns
from typing import Final, TypeAlias, TypedDict, Unpack

import asyncpg

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.asyncpg_session import Session
from pool_bench.errors import ConnectError
from pool_bench.faults import PASS, Conditions, FaultProxy, Mode
from pool_bench.pool import ConnectionPool, PoolConfig, PoolError
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import target

Pool: TypeAlias = ConnectionPool[AsyncpgConnection]

REFUSE: Final = Conditions(mode=Mode.REFUSE)
RESET: Final = Conditions(mode=Mode.RESET)
HOLE: Final = Conditions(mode=Mode.HOLE)

SIZE: Final = 3
USABLE_WITHIN_S: Final = 8.0
# What a busy machine may add to a bound that the pool keeps; what does not keep it takes 60 s or for ever.
SLACK_S: Final = 20.0
# Of a step that only a defect would keep from its end.
LONG_S: Final = 60.0
# Between two looks at what only the server knows.
_LOOK_EVERY_S: Final = 0.01
_PATIENCE_S: Final = 20.0
_names = itertools.count()


class Settings(TypedDict, total=False):
    """The settings of `PoolConfig` that these tests vary."""

    min_size: int
    max_size: int
    connect_timeout: float
    max_lifetime: float | None
    max_uses: int
    max_idle: float | None
    validate_after_idle: float | None
    validate_timeout: float
    health_check_interval: float | None
    health_check_timeout: float
    reset_timeout: float
    close_timeout: float
    retry_base: float
    retry_cap: float
    fail_fast: bool
    leak_threshold: float | None
    leak_stack: bool
    session_sql: str
    seed: int


class CountingDriver(AsyncpgDriver):
    """An asyncpg driver that remembers its connects.

    Attributes:
        attempts_ns: when it was asked, perf_counter_ns.
        made: the sessions, which outlive the handles that callers get.
        peak: the most connects that were under way at once.
    """

    def __init__(self, url: str) -> None:
        super().__init__(target(url))
        self.attempts_ns: list[int] = []
        self.made: list[Session] = []
        self.peak = 0
        self._under_way = 0

    async def connect(self) -> AsyncpgConnection:
        """Open one connection."""
        self.attempts_ns.append(perf_counter_ns())
        self._under_way += 1
        self.peak = max(self.peak, self._under_way)
        try:
            connection = await super().connect()
        finally:
            self._under_way -= 1
        self.made.append(connection._raw)
        return connection


class Rig:
    """A pool and what surrounds it.

    Attributes:
        proxy: between the pool and its server.
        witness: a connection that does not go through the proxy.
        name: the application name of all the pool's connections.
        driver: opens them.
    """

    def __init__(self, proxy: FaultProxy, witness: "asyncpg.Connection", stack: AsyncExitStack) -> None:
        self.proxy = proxy
        self.witness = witness
        self.name = f"rig-{next(_names)}"
        self.driver = CountingDriver(proxy.url(user=EmbeddedPostgres.user, application_name=self.name))
        self._stack = stack

    def pool(self, **settings: Unpack[Settings]) -> Pool:
        """A pool of at most three that is not opened, and is closed after the test."""
        given: Settings = {
            "min_size": 0,
            "max_size": SIZE,
            "retry_cap": 0.25,
            "validate_timeout": LONG_S,
            "health_check_timeout": LONG_S,
            "reset_timeout": LONG_S,
            "close_timeout": LONG_S,
            "seed": 0,
        }
        given.update(settings)
        pool = ConnectionPool(self.driver, PoolConfig(**given), name=self.name)
        self._stack.push_async_callback(pool.close, timeout=1.0)
        return pool

    async def opened(self, **settings: Unpack[Settings]) -> Pool:
        """The same pool, open."""
        pool = self.pool(**settings)
        await pool.open()
        return pool

    async def full(self, **settings: Unpack[Settings]) -> Pool:
        """The same pool, with all its connections open and idle."""
        pool = await self.opened(**settings)
        await self.assert_usable(pool)

        async def idle() -> bool:
            # What was used is being reset first.
            return pool.get_stats().idle == SIZE

        await self.until(idle)
        return pool

    async def backends(self) -> set[int]:
        """The process numbers of the server's backends that serve the pool."""
        rows = await self.witness.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1", self.name
        )
        return {row["pid"] for row in rows}

    async def until(self, holds: Callable[[], Awaitable[bool]], within_s: float = _PATIENCE_S) -> float:
        """Look until something holds on the server; returns the seconds it took.

        Raises:
            TimeoutError: it did not.
        """
        began_ns = perf_counter_ns()
        async with asyncio.timeout(within_s):
            while True:
                if await holds():
                    return (perf_counter_ns() - began_ns) / 1e9
                await asyncio.sleep(_LOOK_EVERY_S)

    async def assert_backends(self, most: int, within_s: float = _PATIENCE_S) -> None:
        """Assert that the pool comes down to so many backends, and the proxy to so many connections."""

        async def few() -> bool:
            return len(await self.backends()) <= most and len(self.proxy.links) <= most

        try:
            await self.until(few, within_s)
        except TimeoutError:
            found = f"{len(await self.backends())} backends, {len(self.proxy.links)} connections"
            raise AssertionError(f"{found}; at most {most} were expected") from None

    async def kill(self, *pids: int) -> None:
        """Terminate backends, and wait until they have gone."""
        for pid in pids:
            await self.witness.execute("SELECT pg_terminate_backend($1)", pid)

        async def gone() -> bool:
            return not await self.backends() & set(pids)

        await self.until(gone)

    async def all_ended(self) -> None:
        """Wait until the driver has heard of the end of all connections that it ever made."""

        async def heard() -> bool:
            return all(session.is_closed() for session in self.driver.made)

        await self.until(heard)

    async def assert_usable(self, pool: Pool, size: int = SIZE) -> None:
        """Assert that exactly so many connections can be held at once, within 8 s."""
        assert await usable(pool, size) == size
        await self.assert_backends(size)

    @asynccontextmanager
    async def peak_backends(self) -> AsyncIterator[list[int]]:
        """Count backends until the end of the block; the list then holds one entry, the most there were."""
        seen: list[int] = []
        over = asyncio.Event()

        async def look() -> None:
            peak = 0
            while not over.is_set():
                peak = max(peak, len(await self.backends()))
                await asyncio.sleep(_LOOK_EVERY_S)
            seen.append(peak)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            try:
                yield seen
            finally:
                over.set()


async def pid_of(connection: AsyncpgConnection) -> int:
    """The process number of the backend that answers."""
    pid: int = await connection.raw.fetchval("SELECT pg_backend_pid()")
    return pid


async def usable(pool: Pool, size: int = SIZE) -> int:
    """How many connections, of `size` + 1 that are asked for, can be held at once within 8 s."""
    deadline = asyncio.get_running_loop().time() + USABLE_WITHIN_S
    pids: list[int] = []
    full, over = asyncio.Event(), asyncio.Event()

    async def hold(timeout: float) -> None:
        async with pool.acquire(timeout=timeout) as connection:
            pids.append(await pid_of(connection))
            if len(pids) == size:
                full.set()
            await over.wait()

    async def try_to_hold() -> None:
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            try:
                await hold(left)
                return
            except (PoolError, ConnectError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for _ in range(size):
            group.create_task(try_to_hold())
        try:
            async with asyncio.timeout(USABLE_WITHIN_S + SLACK_S):
                await full.wait()
            # One more than there may be.
            with_one_more = group.create_task(_one_more(pool, pids))
            await with_one_more
        except TimeoutError:
            pass
        finally:
            over.set()
    return len(set(pids))


async def _one_more(pool: Pool, pids: list[int]) -> None:
    try:
        async with pool.acquire(timeout=0.02) as connection:
            pids.append(await pid_of(connection))
    except PoolError:
        return


@contextmanager
def bounded(limit_s: float) -> Iterator[None]:
    """Assert that the block takes no longer, what a busy machine adds excepted."""
    began_ns = perf_counter_ns()
    yield
    took_s = (perf_counter_ns() - began_ns) / 1e9
    assert took_s <= limit_s + SLACK_S, f"{took_s:.2f} s instead of {limit_s:.2f} s"


async def ticks(count: int) -> None:
    """Let the event loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(task: "asyncio.Task[object]") -> bool:
    """Cancel a task and wait for its end; whether it ended as cancelled.

    Raises:
        TimeoutError: it goes on.
    """
    task.cancel()
    await asyncio.wait([task], timeout=_PATIENCE_S)
    if not task.done():
        raise TimeoutError("a cancelled task goes on")
    return task.cancelled()


@asynccontextmanager
async def rig_for(server: EmbeddedPostgres) -> AsyncIterator[Rig]:
    """A rig in front of a server; at its end no backend, connection or socket may be left."""
    async with AsyncExitStack() as outer:
        proxy = await outer.enter_async_context(FaultProxy(server.host, server.port))
        witness = await asyncpg.connect(server.superuser_url)
        outer.push_async_callback(witness.close)
        async with AsyncExitStack() as stack:
            rig = Rig(proxy, witness, stack)
            yield rig
            # Pools are closed with whatever the test left of the network; it works again for the check.
        proxy.set(PASS)
        await rig.assert_backends(0)
