"""What becomes of a connection that was returned: never handed on dirty, broken, or too old."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_bench.pool import ConnectionPool, PoolConfig
from tests.support.simulation import FakeConnection, FakeError, FakeServer, make_pool, now_ns, now_s, simulate


def test_an_untouched_connection_is_idle_at_once_and_a_used_one_after_its_reset() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server) as pool:
            async with pool.acquire() as conn:
                pass
            assert pool.get_stats().idle == 1
            async with pool.acquire() as conn:
                await conn.execute("SET a")
            assert (pool.get_stats().idle, pool.get_stats().busy) == (0, 1)
            async with pool.acquire() as again:
                assert again is conn
                assert not again.settings
            assert conn.done.count("reset") == 1
            assert not conn.touched

    simulate(main())


class OpaqueConnection:
    """A connection with the least that is asked for: it cannot tell whether it was used."""

    def __init__(self) -> None:
        self.resets = 0
        self.closed = False

    async def ping(self) -> None:
        """Answer."""

    async def reset(self) -> None:
        """Count."""
        self.resets += 1

    async def close(self) -> None:
        """End."""
        self.closed = True

    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.closed


class OpaqueConnector:
    """Opens them."""

    async def connect(self) -> OpaqueConnection:
        """Open one."""
        return OpaqueConnection()


def test_a_connection_that_cannot_tell_is_reset_after_every_lease() -> None:
    async def main() -> None:
        pool = ConnectionPool(OpaqueConnector(), PoolConfig(max_size=1), clock=now_ns)
        async with pool:
            for _ in range(3):
                async with pool.acquire() as conn:
                    pass
            async with pool.acquire():
                assert conn.resets == 3
        assert conn.closed

    simulate(main())


@pytest.mark.parametrize("policy", ["always", "transaction", True])
def test_no_policy_but_never_hands_on_a_transaction(policy: str | bool) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, reset_on_return=policy) as pool:
            async with pool.acquire() as conn:
                await conn.execute("BEGIN")
            async with pool.acquire() as again:
                assert again is conn
                assert not again.transaction

    simulate(main())


@pytest.mark.parametrize("policy", ["never", False])
def test_without_resets_a_connection_inside_a_transaction_is_replaced(policy: str | bool) -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, reset_on_return=policy) as pool:
            async with pool.acquire() as conn:
                await conn.execute("SET a")
            async with pool.acquire() as again:
                assert again is conn
                assert again.settings
                await conn.execute("BEGIN")
            async with pool.acquire() as other:
                assert other is not conn
            assert conn.closed
            assert "reset" not in conn.done

    simulate(main())


def test_the_transaction_policy_leaves_settings_and_saves_the_reset() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=1, reset_on_return="transaction") as pool:
            async with pool.acquire() as conn:
                await conn.execute("SET a")
            assert pool.get_stats().idle == 1
            async with pool.acquire() as again:
                assert again.settings == {"SET a"}
            assert "reset" not in conn.done

    simulate(main())


@pytest.mark.parametrize("policy", ["transaction", "never"])
def test_a_use_that_ended_with_an_exception_is_checked_where_no_reset_would(policy: str) -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1, reset_on_return=policy) as pool:

            async def use() -> None:
                async with pool.acquire() as conn:
                    await conn.execute("SELECT 1")
                    conn.dead = True
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await use()
            async with pool.acquire() as other:
                assert other is not server.connections[0]
            assert server.connections[0].closed

    simulate(main())


def _break(conn: FakeConnection) -> None:
    conn.closed = True


def _kill(conn: FakeConnection) -> None:
    conn.dead = True


def _silence(conn: FakeConnection) -> None:
    conn.server.reset_s = float("inf")


@pytest.mark.parametrize("harm", [_break, _kill, _silence])
def test_a_broken_connection_is_replaced_and_counted(harm: Callable[[FakeConnection], None]) -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, min_size=3, max_size=3, reset_timeout=2) as pool:
            for _ in range(9):
                conn = await pool.acquire(timeout=3)
                await conn.execute("SELECT 1")
                harm(conn)
                await pool.release(conn)
            await asyncio.sleep(5)
            server.reset_s = 0.001
            held = [await pool.acquire(timeout=3) for _ in range(3)]
            for one in held:
                await one.ping()
                await pool.release(one)
            stats = pool.get_stats()
            assert stats.reset_failures == 9
            assert (stats.created, stats.closed) == (12, 9)

    simulate(main())


def test_a_reset_goes_on_when_the_task_that_returned_is_cancelled_at_any_turn() -> None:
    async def main(turns: int) -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1) as pool:

            async def use() -> None:
                async with pool.acquire() as conn:
                    await conn.execute("BEGIN")

            task = asyncio.create_task(use())
            for _ in range(turns):
                if not task.done():
                    task.cancel()  # again and again, as a cancel scope does
                await asyncio.sleep(0)
            await asyncio.wait([task])
            async with pool.acquire(timeout=3) as conn:
                assert not conn.transaction
            assert len(server.open) == 1

    for turns in range(12):
        simulate(main(turns))


def test_a_reset_that_ignores_its_cancellation_holds_nobody_up() -> None:
    class Stubborn(FakeConnection):
        async def reset(self) -> None:
            for _ in range(20):
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    continue

    class Server(FakeServer):
        async def connect(self) -> FakeConnection:
            connection = Stubborn(self, len(self.connections))
            self.connections.append(connection)
            return connection

    async def main() -> None:
        server = Server()
        async with make_pool(server, max_size=1, reset_timeout=0.5) as pool:
            async with pool.acquire() as conn:
                await conn.execute("SELECT 1")
            started = now_s()
            async with pool.acquire(timeout=3) as other:
                assert other is not conn
            assert now_s() - started < 0.6
            await asyncio.sleep(30)

    simulate(main())


def test_session_sql_is_there_on_every_lease_and_the_schema_once(tmp_path: Path) -> None:
    (tmp_path / "session.sql").write_text("SET ours")
    (tmp_path / "schema.sql").write_text("CREATE TABLE IF NOT EXISTS t ()")

    async def main() -> None:
        files = {"session_file": tmp_path / "session.sql", "schema_file": tmp_path / "schema.sql"}
        async with make_pool(FakeServer(), max_size=1, session_sql="SET mine", **files) as pool:
            for _ in range(3):
                async with pool.acquire() as conn:
                    assert conn.settings == {"SET ours", "SET mine"}
                    await conn.execute("SET other")
        assert conn.done[:3] == ["CREATE TABLE IF NOT EXISTS t ()", "SET ours", "SET mine"]
        assert [conn.done.count(sql) for sql in conn.done[:3]] == [1, 4, 4]

    simulate(main())


def test_on_connect_runs_once_for_each_connection_and_its_failure_is_a_failed_connect() -> None:
    async def main() -> None:
        server = FakeServer()
        seen: list[FakeConnection] = []

        async def greet(conn: FakeConnection) -> None:
            seen.append(conn)
            if len(seen) == 2:
                raise FakeError("not this one")

        async with make_pool(server, min_size=2, max_size=2, on_connect=greet) as pool:
            assert len(seen) == 3
            assert seen[1].closed
            assert pool.get_stats().connect_errors == 1
            async with pool.acquire(), pool.acquire():
                assert len(seen) == 3

    simulate(main())


def test_a_connection_is_replaced_after_so_many_uses() -> None:
    async def main() -> None:
        server = FakeServer()
        async with make_pool(server, max_size=1, max_uses=3) as pool:
            used = []
            for _ in range(7):
                async with pool.acquire() as conn:
                    used.append(conn.number)
        assert used == [1, 1, 1, 2, 2, 2, 3]

    simulate(main())


class _Begun(FakeConnection):
    """Begins its resets without a task; the test ends them."""

    ended: Callable[[BaseException | None], None] | None = None
    needs_task = False

    def begin_reset(self, ended: Callable[[BaseException | None], None]) -> bool:
        if self.needs_task:
            return False
        self.ended = ended
        return True


class _Beginners(FakeServer):
    async def connect(self) -> FakeConnection:
        connection = _Begun(self, len(self.connections))
        self.connections.append(connection)
        return connection


def test_each_reset_without_a_task_has_its_own_limit_though_one_timer_serves_all() -> None:
    async def main() -> None:
        async with make_pool(_Beginners(), min_size=3, max_size=3, reset_timeout=0.5) as pool:
            leases = [pool.acquire() for _ in range(3)]
            conns = [await lease.__aenter__() for lease in leases]
            started = now_s()
            for lease, conn in zip(leases, conns, strict=True):
                await conn.execute("SELECT 1")
                await lease.__aexit__(None, None, None)
                await asyncio.sleep(0.2)
            first, second, third = (conn for conn in conns if isinstance(conn, _Begun))
            assert second.ended is not None
            second.ended(None)
            async with pool.acquire(timeout=0) as conn:
                assert conn is second
            while not (first.is_closed() and third.is_closed()):
                expected_s = 0.9 if first.is_closed() else 0.5
                assert now_s() - started < expected_s + 0.01
                await asyncio.sleep(0.01)
            assert pool.get_stats().reset_failures == 2
            for late in (first, third):
                assert late.ended is not None
                late.ended(None)
            assert pool.get_stats().reset_failures == 2
            assert not second.is_closed()

    simulate(main())


def test_a_reset_without_a_task_that_fails_costs_the_connection_and_one_that_cannot_has_a_task() -> None:
    async def main() -> None:
        server = _Beginners()
        async with make_pool(server, max_size=1) as pool:
            async with pool.acquire() as conn:
                await conn.execute("SET mine")
            assert isinstance(conn, _Begun)
            assert conn.ended is not None
            conn.ended(OSError("gone"))
            async with pool.acquire(timeout=3) as other:
                assert other is not conn
                assert isinstance(other, _Begun)
                other.needs_task = True
                await other.execute("SET mine")
            async with pool.acquire(timeout=3) as again:
                assert again is other
                assert not again.settings
            assert pool.get_stats().reset_failures == 1

    simulate(main())
