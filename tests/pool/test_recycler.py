"""What the pool does with a connection that nobody has, and what it spares it."""

import asyncio
from dataclasses import dataclass

import pytest

from pool_bench.pool import (
    BreakerConfig,
    ConnectionPool,
    PoolConfig,
    PoolEvent,
    PoolUnavailableError,
)
from tests.support.simulation import FakeConnection, FakeServer, make_pool, now_ns, now_s, simulate


def test_what_was_held_for_long_without_use_is_checked_before_a_waiter_has_it() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1, validate_after_idle=0.5) as pool:
            async with pool.acquire() as held:
                waiter = asyncio.ensure_future(pool.acquire(timeout=5).__aenter__())
                await asyncio.sleep(1)
                held.dead = True
            given = await waiter
            assert given is not held
            assert held.done == ["ping", "terminate"]
            await pool.release(given)

    simulate(main())


@pytest.mark.parametrize("policy", ["never", "transaction"])
def test_what_is_used_all_the_time_is_never_pinged(policy: str) -> None:
    async def main() -> None:
        settings = {"validate_after_idle": 0.5, "health_check_interval": 1.0, "reset_on_return": policy}
        async with make_pool(FakeServer(), max_size=1, **settings) as pool:
            for _ in range(50):
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                await asyncio.sleep(0.1)
            assert conn.done == ["SELECT 1"] * 50

    simulate(main())


def test_validating_and_checking_have_limits_and_words_of_their_own() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = {"validate_timeout": 1.0, "health_check_timeout": 3.0, "health_check_query": "SELECT good"}
        async with make_pool(server, max_size=1, **settings, health_check_interval=4.0) as pool:
            await asyncio.sleep(1)
            async with pool.acquire() as conn:
                pass
            assert conn.done == ["ping"]
            await asyncio.sleep(1)
            server.ping_s = float("inf")
            started = now_s()
            async with pool.acquire(timeout=10) as conn:
                assert now_s() - started == pytest.approx(1.01, abs=0.005)
            server.execute_s = float("inf")
            await asyncio.sleep(6.5)
            # Due after four to five seconds; then it has three.
            assert conn.done == ["SELECT good"]
            assert pool.get_stats().busy == 1
            server.execute_s = 0.001
            await asyncio.sleep(2)
            assert conn.done == ["SELECT good", "terminate"]

    simulate(main())


def test_a_connection_that_comes_back_to_a_closing_pool_is_not_reset() -> None:
    async def main() -> None:
        server = FakeServer(close_s=5)
        pool = make_pool(server, min_size=3, max_size=3)
        await pool.open()
        held = await pool.acquire()
        await held.execute("SET a")
        closing = asyncio.ensure_future(pool.close(timeout=2))
        await asyncio.sleep(1)
        await pool.release(held)
        assert held.done == ["SET a"]
        await closing
        assert held.done == ["SET a", "close", "terminate"]
        stats = pool.get_stats()
        assert (stats.size, stats.idle, stats.in_use, stats.busy, stats.closed) == (0, 0, 0, 0, 3)

    simulate(main())


def test_closing_gives_up_connects_at_once_and_waits_for_leases() -> None:
    async def main() -> None:
        server = FakeServer()
        pool = make_pool(server, max_size=2)
        await pool.open()
        held = await pool.acquire()
        server.connect_s = 100
        waiter = asyncio.ensure_future(pool.acquire().__aenter__())
        await asyncio.sleep(0.1)
        assert server.opening == 1
        closing = asyncio.ensure_future(pool.close(timeout=5))
        await asyncio.wait([waiter])
        assert server.opening == 0
        assert not held.closed
        await pool.release(held)
        await closing

    simulate(main())


class BareConnection:
    """The least that a pool asks for: it cannot be dropped, nor tell whether a transaction is open."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken = False

    async def ping(self) -> None:
        """Answer, or fail."""
        self.done.append("ping")
        if self.broken:
            raise ConnectionResetError

    async def reset(self) -> None:
        """Forget everything."""
        self.done.append("reset")

    async def close(self) -> None:
        """End."""
        self.done.append("close")

    def is_closed(self) -> bool:
        """Whether it has ended."""
        return "close" in self.done


class BareServer:
    """Opens them."""

    async def connect(self) -> BareConnection:
        """Open one."""
        return BareConnection()


def _bare_pool(**settings: object) -> ConnectionPool[BareConnection]:
    config = PoolConfig(**{"max_size": 1, **settings})  # type: ignore[arg-type]  # PoolConfig checks them
    return ConnectionPool(BareServer(), config, clock=now_ns)


@pytest.mark.parametrize(("policy", "resets"), [("always", 3), ("transaction", 3), ("never", 0)])
def test_where_it_cannot_be_known_a_transaction_counts_as_open(policy: str, resets: int) -> None:
    async def main() -> None:
        async with _bare_pool(reset_on_return=policy) as pool:
            for _ in range(3):
                async with pool.acquire() as conn:
                    pass
            async with pool.acquire() as again:
                assert again is conn
                assert conn.done == ["reset"] * resets

    simulate(main())


def test_a_broken_connection_that_cannot_be_dropped_is_closed() -> None:
    async def main() -> None:
        async with _bare_pool(validate_after_idle=0.0) as pool:
            async with pool.acquire() as conn:
                pass
            await asyncio.sleep(1)
            conn.broken = True
            async with pool.acquire() as other:
                assert other is not conn
            assert conn.done[-2:] == ["ping", "close"]

    simulate(main())


class MoodyConnection(FakeConnection):
    """Its driver has a fault that comes and goes."""

    faulty = False

    def is_closed(self) -> bool:
        """Whether it has ended, unless the fault is there."""
        if self.faulty:
            raise ZeroDivisionError
        return super().is_closed()


class MoodyServer(FakeServer):
    """Opens them."""

    async def connect(self) -> FakeConnection:
        """Open one."""
        connection = MoodyConnection(self, len(self.connections))
        self.connections.append(connection)
        return connection


def test_a_connection_that_cannot_say_whether_it_is_closed_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = MoodyServer()
        async with make_pool(server, min_size=1, max_size=1, health_check_interval=2.0) as pool:
            (conn,) = server.connections
            assert isinstance(conn, MoodyConnection)
            conn.faulty = True
            await asyncio.sleep(2)
            assert conn.done[0] == "terminate"
            assert server.open_numbers() == [1]
            assert pool.get_stats().idle == 1

    simulate(main())
    assert "cannot say whether it is closed" in caplog.text


def test_opening_ends_as_soon_as_the_breaker_says_that_the_target_is_down() -> None:
    async def main() -> None:
        server = FakeServer(down=True)
        pool = make_pool(server, min_size=1, breaker=BreakerConfig(failures=2), connect_attempts=9)
        started = now_s()
        with pytest.raises(PoolUnavailableError, match="2 connects in a row"):
            await pool.open()
        assert now_s() - started < 0.1
        assert len(server.attempts) == 2

    simulate(main())


def test_a_limit_of_queries_is_refused_where_connections_cannot_keep_it() -> None:
    async def main() -> None:
        pool = make_pool(FakeServer(), min_size=1, query_timeout=60)
        with pytest.raises(PoolUnavailableError, match="query_timeout needs connections that can bound"):
            await pool.open()

    simulate(main())


@dataclass(eq=False)
class _Choosy(FakeConnection):
    """A connection that learns with each answer of what sort its server is.

    Attributes:
        told: what the server said last.
    """

    told: str | None = None
    may_turn_unfit: bool = True

    async def _ask(self, what: str, seconds: float) -> None:
        await super()._ask(what, seconds)
        assert isinstance(self.server, _FailingOver)
        self.told = "a standby" if self.number <= self.server.demoted else None

    def unfit(self) -> str | None:
        return self.told


@dataclass
class _FailingOver(FakeServer):
    """Opens choosy connections.

    Attributes:
        demoted: those up to this number lead to a server that does not fit any more.
    """

    demoted: int = 0

    async def connect(self) -> FakeConnection:
        made = await super().connect()
        self.connections[-1] = choosy = _Choosy(self, made.number)
        return choosy


def test_where_one_connection_turned_unfit_no_other_is_lent_before_it_was_asked() -> None:
    async def main() -> None:
        server = _FailingOver()
        settings = {"validate_after_idle": None, "health_check_interval": 8.0}
        async with make_pool(server, min_size=4, max_size=4, **settings) as pool:
            closed = asyncio.Event()

            async def hear(event: PoolEvent) -> None:
                if event.message.endswith(" is closed: a standby"):
                    closed.set()

            pool.subscribe(hear)
            async with pool.acquire() as unused:
                server.demoted = 4
                async with asyncio.timeout(20):
                    await closed.wait()
            assert sum(not connection.done for connection in server.connections[:4]) == 3
            held = [await pool.acquire() for _ in range(4)]
            assert unused not in held
            assert min(connection.number for connection in held) > 4
            for connection in held:
                await pool.release(connection)

    simulate(main())


@pytest.mark.parametrize("policy", ["always", "transaction", "never"])
def test_what_turned_unfit_while_it_was_used_is_not_lent_again(policy: str) -> None:
    async def main() -> None:
        server = _FailingOver()
        async with make_pool(server, max_size=1, validate_after_idle=None, reset_on_return=policy) as pool:
            async with pool.acquire() as before:
                server.demoted = 1
                await before.execute("SELECT 1")
            async with pool.acquire() as after:
                assert after is not before
            assert before.done[-1] == "close"

    simulate(main())


def test_what_its_users_own_settings_made_unfit_is_kept() -> None:
    async def main() -> None:
        server = _FailingOver(demoted=1)

        async def read_only(connection: FakeConnection) -> None:
            await connection.execute("SET read_only")

        async with make_pool(server, max_size=1, on_connect=read_only) as pool:
            for _ in range(3):
                async with pool.acquire() as connection:
                    await connection.execute("SELECT 1")
            assert pool.get_stats().closed == 0

    simulate(main())
