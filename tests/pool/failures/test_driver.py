"""P34, P35, P38, P39, P42: hooks, subscribers, drivers and servers that do not do as they should."""

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import Final

import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection
from pool_bench.drivers.asyncpg_session import Session
from pool_bench.pool import ConnectionPool, PoolConfig, PoolEvent
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.pool_rig import LONG_S, SIZE, SLACK_S, Rig
from tests.support.simulation import FakeConnection, FakeError, FakeServer, make_pool, now_ns, simulate


async def test_p34_a_hook_that_swallows_its_cancellation_costs_no_backend_and_no_place(rig: Rig) -> None:
    hooked: list[AsyncpgConnection] = []
    released = asyncio.Event()

    async def hook(connection: AsyncpgConnection) -> None:
        hooked.append(connection)
        if len(hooked) <= 6:
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                await released.wait()

    config = PoolConfig(
        min_size=0,
        max_size=SIZE,
        connect_timeout=2.0,
        on_connect=hook,
        retry_base=0.01,
        retry_cap=0.02,
        seed=0,
    )
    pool = ConnectionPool(rig.driver, config, name=rig.name)
    await pool.open()
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(rig.proxy.links))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(LONG_S):
            connections = [await pool.acquire(timeout=LONG_S) for _ in range(SIZE)]
        assert all(not connection.is_closed() for connection in connections)
        assert len(hooked) >= 6 + SIZE
        # The proxy needs a moment to notice that a connection was dropped.
        assert most <= SIZE + 2
        await rig.assert_backends(SIZE)
        for connection in connections:
            await pool.release(connection)
    finally:
        watching.cancel()
        released.set()
        await pool.close()
    await rig.assert_backends(0)


def test_p34_a_connection_whose_hook_is_not_heeded_is_dropped_when_its_time_is_up() -> None:
    async def main() -> None:
        server = FakeServer()

        async def hook(_connection: FakeConnection) -> None:
            try:
                await asyncio.sleep(math.inf)
            except asyncio.CancelledError:
                await asyncio.sleep(50)

        pool = make_pool(server, min_size=0, max_size=2, connect_timeout=1.0, on_connect=hook)
        await pool.open()
        waiting = asyncio.create_task(pool.acquire(timeout=20.0).__aenter__())
        most = 0
        while not waiting.done():
            most = max(most, len(server.open) + server.opening)
            await asyncio.sleep(0.005)
        assert isinstance(waiting.exception(), TimeoutError)
        assert most <= 2
        await pool.close()
        assert not server.open
        await asyncio.sleep(60)

    simulate(main())


@pytest.mark.parametrize("times", [1, 6])
def test_p35_a_hook_that_raises_some_times_delays_and_loses_nothing(times: int) -> None:
    async def main() -> None:
        server = FakeServer()
        raised = 0

        async def hook(_connection: FakeConnection) -> None:
            nonlocal raised
            if raised < times:
                raised += 1
                raise ValueError("not yet")

        async with make_pool(server, min_size=0, max_size=3, on_connect=hook) as pool:
            held = [await pool.acquire() for _ in range(3)]
            assert len(set(map(id, held))) == 3
            assert raised == times
            assert len(server.open) == 3
            # Each time one alone was tried, after a pause.
            pauses = [
                after - before for before, after in zip(server.attempts, server.attempts[1:], strict=False)
            ]
            assert len(server.attempts) == times + 3
            assert all(pause >= 0.01 for pause in pauses[: times - 1])
            for connection in held:
                await pool.release(connection)

    simulate(main())


@pytest.mark.parametrize(
    "fault", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), ValueError()]
)
async def test_p38_a_subscriber_in_a_thread_that_raises_anything_hears_the_rest_and_so_do_others(
    fault: BaseException,
) -> None:
    one: list[str] = []
    other: list[str] = []
    heard = asyncio.Event()
    loop = asyncio.get_running_loop()

    def raising(event: PoolEvent) -> None:
        one.append(event.message)
        raise fault

    def listening(event: PoolEvent) -> None:
        other.append(event.message)
        if event.message.endswith("the pool is closed") or "is closed" in event.message:
            loop.call_soon_threadsafe(heard.set)

    pool = ConnectionPool(FakeServer(), PoolConfig(min_size=2, max_size=2), name="test", clock=now_ns)
    pool.subscribe(raising)
    pool.subscribe(listening)
    await pool.open()
    await pool.close()
    async with asyncio.timeout(SLACK_S):
        await heard.wait()
        while pool.get_stats().subscriber_faults < len(other):  # noqa: ASYNC110 - another thread's
            await asyncio.sleep(0.01)
    assert one[: len(other)] == other
    assert len(other) > 3


def test_p38_a_coroutine_that_ends_the_program_ends_it_and_is_told_the_rest_where_it_does_not() -> None:
    heard: list[str] = []

    async def listen(event: PoolEvent) -> None:
        heard.append(event.message)
        if len(heard) == 2:
            raise SystemExit(3)

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        pool = ConnectionPool(FakeServer(), PoolConfig(min_size=2, max_size=2))
        pool.subscribe(listen)
        opening = loop.create_task(pool.open())
        with pytest.raises(SystemExit):
            loop.run_until_complete(opening)
        loop.run_until_complete(opening)
        loop.run_until_complete(pool.close())
    assert pool.get_stats().subscriber_faults == 1
    assert "the pool is closed" in heard
    assert len(heard) == len(set(heard))


POLICIES: Final = ("always", "transaction", "never")


@dataclass(eq=False)
class FaultyConnection(FakeConnection):
    """Raises once, at the `at`-th call of one of its methods; the server's, not each connection's."""

    def _raise_in_turn(self, method: str) -> None:
        server = self.server
        assert isinstance(server, FaultyServer)
        if method == server.method:
            server.calls += 1
            if server.calls == server.at:
                raise FakeError(f"{method}: a fault of the driver's")

    async def ping(self) -> None:
        """Answer, or raise."""
        self._raise_in_turn("ping")
        await super().ping()

    async def reset(self) -> None:
        """Forget everything, or raise."""
        self._raise_in_turn("reset")
        await super().reset()

    async def close(self) -> None:
        """End, or raise."""
        self._raise_in_turn("close")
        await super().close()

    async def execute(self, sql: str) -> str:
        """Answer with the query, or raise."""
        self._raise_in_turn("execute")
        return await super().execute(sql)

    def terminate(self) -> None:
        """End at once, or raise."""
        self._raise_in_turn("terminate")
        super().terminate()

    def is_closed(self) -> bool:
        """Whether it has ended, or raise."""
        self._raise_in_turn("is_closed")
        return super().is_closed()

    def in_transaction(self) -> bool:
        """Whether a transaction is open, or raise."""
        self._raise_in_turn("in_transaction")
        return super().in_transaction()


@dataclass
class FaultyServer(FakeServer):
    """Opens them."""

    method: str = ""
    at: int = 0
    calls: int = field(default=0)

    async def connect(self) -> FakeConnection:
        """Open one, or raise."""
        await super().connect()
        self.connections[-1] = FaultyConnection(self, len(self.attempts))
        if self.method == "connect":
            self.calls += 1
            if self.calls == self.at:
                self.connections.pop()
                raise FakeError("connect: a fault of the driver's")
        return self.connections[-1]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(
    ("method", "policy"),
    [
        *itertools.product(("connect", "ping", "close", "terminate", "is_closed", "execute"), POLICIES),
        *itertools.product(("reset",), ("always", "transaction")),
        *itertools.product(("in_transaction",), ("transaction", "never")),
    ],
)
def test_p39_a_method_of_the_driver_that_raises_once_costs_no_place_and_only_its_caller(
    method: str, at: int, policy: str
) -> None:
    async def main() -> None:
        server = FaultyServer(method=method, at=at)
        pool = make_pool(
            server,
            min_size=1,
            max_size=2,
            reset_on_return=policy,
            session_sql="SET a",
            max_lifetime=5.0,
            max_idle=2.0,
            health_check_interval=1.0,
            retry_base=0.01,
        )
        await pool.open()
        wrong = 0
        for turn in range(16):
            try:
                async with pool.acquire(timeout=5.0) as one, pool.acquire(timeout=5.0) as other:
                    assert one is not other
                    one.dead = turn % 4 == 1
                    await one.execute("BEGIN" if turn % 3 == 0 else "SELECT 1")
            except FakeError:
                wrong += 1
            await asyncio.sleep(0.7)
            if turn % 5 == 4:
                pool.expire_connections()
        assert wrong <= 4 + (method == "execute")
        stats = pool.get_stats()
        assert (stats.in_use, stats.waiters) == (0, 0)
        assert stats.size <= 2
        await pool.close()
        assert pool.get_stats().size == 0
        assert server.calls >= at, "the fault was never met"

    simulate(main())


async def test_p42_a_pool_whose_server_gives_it_fewer_works_with_those_and_grows_when_it_may(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    role = EmbeddedPostgres.user
    await rig.witness.execute(f"ALTER ROLE {role} CONNECTION LIMIT 2")
    try:
        pool = await rig.opened(max_size=5, retry_base=0.05)
        served: set[Session] = set()

        async def call() -> None:
            async with pool.acquire(timeout=LONG_S) as connection:
                served.add(connection.raw)
                await connection.execute("SELECT pg_sleep(0.2)")

        async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(call())
        stats = pool.get_stats()
        assert len(served) == 2
        assert stats.timeouts == stats.refusals == 0
        assert stats.connect_errors > 0
        # Two seconds, and a pause that doubles from 50 ms to 250 ms.
        assert len(rig.driver.attempts_ns) <= 2 + 5 + 60
        said = [record for record in caplog.records if "works with 2 of 5" in record.getMessage()]
        assert len(said) == 1
        assert "too many connections for role" in said[0].getMessage()
    finally:
        await rig.witness.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    await rig.assert_usable(pool, 5)
