"""The SurrealDB pool on a real engine: queueing, clean sessions, dead sockets, what callers get to see."""

import asyncio
import dataclasses
import inspect
import itertools
import logging
import random
import re
import uuid
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import cbor2
import pytest

from pool_bench.drivers.surreal.client_transport import FastWebSocket
from pool_bench.errors import ConnectError, FailureKind, QueryTimeoutError
from pool_bench.pool import (
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolTimeoutError,
    PoolUnavailableError,
    core,
)
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.surreal_pool.pool import SurrealDBConnectionPool
from tests.support.servers import StartSurreal

STATS = {
    "total_connections_created",
    "total_connections_closed",
    "total_acquisitions",
    "total_releases",
    "acquisition_timeouts",
    "connection_errors",
    "health_check_failures",
    "peak_connections",
    "peak_waiters",
    "current_pool_size",
    "current_available",
    "current_in_use",
    "current_waiters",
}


def make_pool(server: EmbeddedSurreal, **settings: Any) -> SurrealDBConnectionPool:
    """A pool in a namespace of its own."""
    credentials = {"username": server.user, "password": server.password}
    name = f"pool_{uuid.uuid4().hex}"
    return SurrealDBConnectionPool(f"{server.url}/rpc", credentials, name, "here", **settings)


def credentials_of(server: EmbeddedSurreal) -> dict[str, str]:
    """The root user's."""
    return {"username": server.user, "password": server.password}


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that clients ask the server for, in order."""
    seen: list[str] = []
    ask = FastWebSocket._ask

    async def spy(client: FastWebSocket, number: Hashable, message: bytes) -> dict[str, Any]:
        seen.append(cbor2.loads(message)["method"])
        return await ask(client, number, message)

    monkeypatch.setattr(FastWebSocket, "_ask", spy)
    return seen


async def until(ready: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(60):
        while not ready():  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("tasks", "connections"), [(100, 50), (500, 5)])
async def test_more_tasks_than_connections_queue_and_all_get_their_own_answer(
    surreal: EmbeddedSurreal, tasks: int, connections: int
) -> None:
    settings = {"min_connections": 2, "max_connections": connections, "acquisition_timeout": 90.0}
    async with make_pool(surreal, **settings) as pool:

        async def ask(number: int) -> Any:
            async with pool.acquire() as client:
                return await client.query("RETURN $number", {"number": number})

        assert await asyncio.gather(*(ask(number) for number in range(tasks))) == list(range(tasks))
        stats = pool.get_stats()
        assert stats.keys() == STATS
        assert stats["total_acquisitions"] == stats["total_releases"] == tasks
        assert 2 <= stats["peak_connections"] <= connections
        assert stats["current_in_use"] == stats["current_waiters"] == stats["acquisition_timeouts"] == 0
        assert stats["peak_waiters"] >= tasks - connections
    ended = pool.get_stats()
    assert ended["total_connections_closed"] == ended["total_connections_created"]
    assert ended["current_pool_size"] == 0


async def test_initialize_and_close_may_be_called_again_and_a_closed_pool_is_a_runtime_error(
    surreal: EmbeddedSurreal,
) -> None:
    pool = make_pool(surreal, min_connections=2)
    with pytest.raises(RuntimeError):
        await pool.execute_query("RETURN 1")
    await asyncio.gather(pool.initialize(), pool.initialize())
    await pool.initialize()
    assert pool.get_stats()["total_connections_created"] == 2
    assert await pool.execute_query("RETURN $a + 1", {"a": 1}) == 2
    await asyncio.gather(pool.close(), pool.close())
    await pool.close()
    for use in (pool.initialize, lambda: pool.execute_query("RETURN 1"), lambda: pool.acquire()):
        with pytest.raises(RuntimeError, match="closed") as error:
            await use()
        assert isinstance(error.value, PoolClosedError)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_initialize_does_not_succeed_on_a_pool_that_is_closed_meanwhile(
    surreal: EmbeddedSurreal, cancelled: bool
) -> None:
    connecting, never = asyncio.Event(), asyncio.Event()

    async def hang(client: object) -> None:
        connecting.set()
        await never.wait()

    pool = make_pool(surreal, min_connections=1, on_connection_create=hang)
    opening = asyncio.create_task(pool.initialize())
    async with asyncio.timeout(60):
        await connecting.wait()
        closing = asyncio.create_task(pool.close())
        if cancelled:
            opening.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else PoolClosedError):
            await opening
        await closing
    for use in (pool.initialize, pool.acquire):
        with pytest.raises(PoolClosedError, match="it is closed"):
            await use()
    assert pool.get_stats()["current_pool_size"] == 0


async def test_what_failed_attempts_to_open_counted_stays_counted(surreal: EmbeddedSurreal) -> None:
    failures = 6

    def fail_at_first(client: object) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ValueError("this client will not do")

    settings = {"min_connections": 1, "max_connections": 2, "acquisition_timeout": 0.0}
    pool = make_pool(surreal, **settings, connection_retry_delay=0.001, on_connection_create=fail_at_first)
    for attempt in (1, 2):
        with pytest.raises(PoolUnavailableError):
            await pool.initialize()
        stats = pool.get_stats()
        assert stats["connection_errors"] == 3 * attempt
        assert stats["peak_connections"] == 1
        assert stats["current_pool_size"] == stats["current_in_use"] == 0
    async with pool:
        assert await pool.execute_query("RETURN 1") == 1
        stats = pool.get_stats()
        assert stats["connection_errors"] == 6
        assert stats["total_connections_created"] == stats["peak_connections"] == 1
        assert stats["current_pool_size"] == stats["current_available"] == 1
    assert pool.get_stats()["connection_errors"] == 6


async def test_leases_during_an_attempt_to_open_that_fails_are_counted_and_ended(
    surreal: EmbeddedSurreal,
) -> None:
    clients: list[object] = []
    leased = asyncio.Event()

    async def fail_after_the_first(client: object) -> None:
        clients.append(client)
        if 1 < len(clients) < 5:
            await leased.wait()
            raise ValueError("this client will not do")

    # No namespace: two that are the first to select one at the same time may get into each other's way.
    pool = SurrealDBConnectionPool(
        surreal.url,
        credentials_of(surreal),
        min_connections=2,
        max_connections=2,
        connection_retry_delay=0.001,
        on_connection_create=fail_after_the_first,
    )
    opening = asyncio.create_task(pool.initialize())
    await asyncio.sleep(0)
    client = await pool.acquire()
    leased.set()
    with pytest.raises(PoolUnavailableError):
        await opening
    with pytest.raises(ValueError, match="no longer, leased"):
        await pool.release(client)
    async with pool:
        await pool.execute_query("RETURN 1")
        stats = pool.get_stats()
        assert stats["total_connections_created"] == 3
        assert stats["total_connections_closed"] == 1
        assert stats["total_acquisitions"] == stats["total_releases"] == 2
        assert stats["connection_errors"] == 3
        assert stats["current_in_use"] == 0


async def test_initialize_that_fails_after_the_closing_says_that_the_pool_is_closed(
    surreal: EmbeddedSurreal,
) -> None:
    closing: list[asyncio.Task[None]] = []

    def close_and_fail(client: object) -> None:
        closing.append(asyncio.create_task(pool.close()))
        raise ValueError("this client will not do")

    pool = make_pool(
        surreal, min_connections=1, connection_retry_attempts=1, on_connection_create=close_and_fail
    )
    with pytest.raises(PoolClosedError):
        await pool.initialize()
    await asyncio.gather(*closing)
    with pytest.raises(PoolClosedError, match="it is closed"):
        await pool.acquire()


async def test_clients_that_closing_took_back_may_still_be_released_once(
    surreal: EmbeddedSurreal, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer than are taken back here.
    monkeypatch.setattr(core, "_REMEMBERED", 1)
    async with make_pool(surreal, min_connections=1, max_connections=3) as pool:
        clients = [await pool.acquire() for _ in range(3)]
        await pool._pool.close(timeout=0.01)
        await pool.close()
        for client in clients:
            await pool.release(client)
            with pytest.raises(ValueError, match="no longer, leased"):
                await pool.release(client)


async def test_a_pool_that_was_never_opened_can_be_closed(surreal: EmbeddedSurreal) -> None:
    pool = make_pool(surreal)
    await pool.close()
    assert set(pool.get_stats().values()) == {0}


async def test_who_waits_too_long_gets_the_timeout_of_asyncio(surreal: EmbeddedSurreal) -> None:
    settings = {"min_connections": 1, "max_connections": 1, "acquisition_timeout": 0.05}
    async with make_pool(surreal, **settings) as pool, pool.acquire():
        with pytest.raises(asyncio.TimeoutError) as error:
            await pool.acquire()
        assert isinstance(error.value, PoolTimeoutError)
        assert pool.get_stats()["acquisition_timeouts"] == 1


async def test_numbers_may_also_be_awaited(surreal: EmbeddedSurreal) -> None:
    async with make_pool(surreal, min_connections=1) as pool:
        assert await pool.get_stats() == pool.get_stats()


async def test_a_client_can_be_taken_and_given_back_by_hand(surreal: EmbeddedSurreal) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        client = await pool.acquire()
        assert pool.get_stats()["current_in_use"] == 1
        assert await client.query("RETURN 7") == 7
        await pool.release(client)
        assert pool.get_stats()["current_in_use"] == 0
        with pytest.raises(ValueError, match="not, or no longer, leased"):
            await pool.release(client)


async def test_a_client_that_another_task_may_not_give_back_stays_with_its_task(
    surreal: EmbeddedSurreal,
) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        client = await pool.acquire()
        for _ in range(2):
            with pytest.raises(PoolError, match="leased to task"):
                await asyncio.create_task(pool.release(client))
            assert pool.get_stats()["current_in_use"] == 1
        await pool.release(client)
        assert pool.get_stats()["current_in_use"] == 0
        assert await pool.execute_query("RETURN 1") == 1


async def test_a_session_that_was_left_alone_costs_no_request_on_return(
    surreal: EmbeddedSurreal, methods: list[str]
) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        methods.clear()
        for _ in range(5):
            async with pool.acquire() as client:
                await client.query("RETURN 1")
        assert methods.count("query") == 5
        assert not set(methods) - {"query", "version"}


async def test_namespace_database_and_variables_are_restored_without_signing_in_again(
    surreal: EmbeddedSurreal, methods: list[str]
) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        before = await pool.execute_query("RETURN [session::ns(), session::db()]")
        async with pool.acquire() as client:
            methods.clear()
            await client.use("elsewhere", "other")
            await client.let("leftover", 42)
            assert await client.query("RETURN [session::ns(), $leftover]") == ["elsewhere", 42]
        async with pool.acquire() as same:
            assert same is client
            assert await same.query("RETURN [session::ns(), session::db()]") == before
            assert await same.query("RETURN $leftover") is None
        assert "signin" not in methods


async def test_a_changed_sign_in_is_undone_and_only_then_is_the_password_sent_again(
    surreal: EmbeddedSurreal, methods: list[str]
) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        async with pool.acquire() as client:
            methods.clear()
            await client.invalidate()
        async with pool.acquire() as same:
            assert same is client
            assert await same.query("RETURN 1") == 1
        assert methods.count("signin") == 1


async def test_without_reset_what_a_borrower_sets_reaches_the_next(surreal: EmbeddedSurreal) -> None:
    settings = {"min_connections": 1, "max_connections": 1, "reset_on_return": False}
    async with make_pool(surreal, **settings) as pool:
        async with pool.acquire() as client:
            await client.let("kept", 42)
        async with pool.acquire() as client:
            assert await client.query("RETURN $kept") == 42


async def test_a_dead_socket_is_replaced_before_anybody_gets_it(surreal: EmbeddedSurreal) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        async with pool.acquire() as client:
            first = client
        assert isinstance(first, FastWebSocket)
        channel = first._channel
        assert channel is not None
        assert channel.stream._transport is not None
        channel.stream._transport.abort()
        await until(lambda: first.is_lost)
        async with pool.acquire() as client:
            assert client is not first
            assert await client.query("RETURN 1") == 1
        assert pool.get_stats()["total_connections_created"] == 2


async def test_a_restart_of_the_server_is_not_seen_by_who_asks_afterwards(
    start_surreal: StartSurreal,
) -> None:
    server = start_surreal(SurrealConfig(password="restart pencil"))
    async with make_pool(server, min_connections=3, max_connections=3) as pool:
        assert await pool.execute_query("RETURN 1") == 1
        await asyncio.to_thread(server.restart)
        answers = await asyncio.gather(*(pool.execute_query("RETURN 1") for _ in range(20)))
        assert answers == [1] * 20


async def test_a_query_that_is_cut_off_is_an_error_and_is_not_run_again(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig(password="cut pencil"))
    async with make_pool(server, min_connections=2, max_connections=2) as pool:
        cut = asyncio.create_task(pool.execute_query("CREATE hit; SLEEP 5m"))
        async with asyncio.timeout(60), pool.acquire() as witness:
            while True:
                seen = await witness.query_raw("SELECT * FROM hit")
                if seen["result"][0]["status"] == "OK" and seen["result"][0]["result"]:
                    break
                await asyncio.sleep(0.01)
        await asyncio.to_thread(server.restart)
        with pytest.raises(ConnectError) as error:
            await cut
        assert error.value.kind in (FailureKind.CLOSED, FailureKind.SERVER_SHUTDOWN, FailureKind.RESET)
        # The new server keeps nothing of the old one: a second run would be all that it knows of.
        assert await pool.execute_query("DEFINE TABLE IF NOT EXISTS hit; ") is None
        assert await pool.execute_query("SELECT * FROM hit") == []


async def test_a_client_whose_request_was_given_up_is_not_lent_again(surreal: EmbeddedSurreal) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:

        async def give_up() -> None:
            async with pool.acquire() as client:
                await client.query("SLEEP 5m")

        async with pool.acquire() as first:
            pass
        task = asyncio.create_task(give_up())
        await until(lambda: pool.get_stats()["current_in_use"] == 1)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with pool.acquire() as client:
            assert client is not first
            assert await client.query("RETURN 1") == 1


async def test_p45_requests_that_are_given_up_cost_neither_the_client_nor_a_sign_in_nor_an_answer(
    surreal: EmbeddedSurreal, methods: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long a machine stands still.
    monkeypatch.setattr("pool_bench.surreal_pool.pool._DRAIN_S", 60.0)
    async with make_pool(surreal, min_connections=1, max_connections=1, acquisition_timeout=90.0) as pool:
        async with pool.acquire() as first:
            pass

        async def ask(number: int, begun: asyncio.Event) -> None:
            async with pool.acquire() as client:
                begun.set()
                assert await client.query("RETURN $number", {"number": number}) == number

        for number in range(200):
            begun = asyncio.Event()
            task = asyncio.create_task(ask(number, begun))
            await begun.wait()
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            if number % 10 == 0:
                await ask(-number, begun)
        async with pool.acquire() as client:
            assert client is first
        assert pool.get_stats()["total_connections_created"] == 1
        assert methods.count("signin") == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_p45_a_query_beyond_its_limit_leaves_no_answer_to_the_next_user(
    surreal: EmbeddedSurreal, methods: list[str], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("pool_bench.surreal_pool.pool._DRAIN_S", 60.0)
    rng = random.Random(seed)
    async with make_pool(
        surreal, min_connections=1, max_connections=1, acquisition_timeout=90.0, query_timeout=60.0
    ) as pool:
        outcomes = set()
        for number in range(30):
            async with pool.acquire() as client:
                assert await client.query("RETURN $number", {"number": -number}) == -number
                client.query_timeout = rng.uniform(0.0001, 0.01)
                try:
                    query = f"SLEEP {rng.choice(('1us', '5ms', '20ms'))}; RETURN $number"
                    answer = await client.query_raw(query, {"number": number})
                except QueryTimeoutError:
                    outcomes.add("given up")
                else:
                    outcomes.add("answered")
                    assert answer["result"][1]["result"] == number
                client.query_timeout = 60.0
        assert "given up" in outcomes
        assert pool.get_stats()["total_connections_created"] == 1
        assert methods.count("signin") == 1


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_query_without_end_is_given_up_at_its_limit_and_its_client_is_not_lent_while_it_runs(
    surreal: EmbeddedSurreal, scheme: str
) -> None:
    credentials = credentials_of(surreal)
    url = surreal.url if scheme == "ws" else surreal.http_url
    pool = SurrealDBConnectionPool(
        url, credentials, "limited", "here", 1, 1, acquisition_timeout=90.0, query_timeout=0.05
    )
    beyond = r"within 0\.05 s \(query_timeout\), and is waited for no longer"
    async with pool:
        # What the pool itself asks, a sign-in say, has limits of its own.
        with pytest.raises(QueryTimeoutError, match=beyond):
            await pool.execute_query("SLEEP 5m")
        with pytest.raises(TimeoutError, match=beyond):
            async with pool.acquire() as client:
                await client.query("SLEEP 5m")
        async with pool.acquire() as client:
            client.query_timeout = None
            assert await client.query("RETURN 1") == 1
        created = pool.get_stats()["total_connections_created"]
        # Over HTTP each request has a connection, and that of this one has gone.
        assert created == (3 if scheme == "ws" else 1)


async def test_p45_what_a_given_up_request_did_to_the_session_is_undone(surreal: EmbeddedSurreal) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        for _ in range(20):
            begun = asyncio.Event()

            async def change(begun: asyncio.Event) -> None:
                async with pool.acquire() as client:
                    begun.set()
                    await client.query("USE DB elsewhere; LET $mine = 1")

            task = asyncio.create_task(change(begun))
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            async with pool.acquire() as client:
                assert await client.query("RETURN [session::db(), $mine]") == ["here", None]


async def test_p44_a_session_that_expires_is_signed_in_again_after_one_refused_query(
    surreal: EmbeddedSurreal,
) -> None:
    user = f"short_{uuid.uuid4().hex}"
    async with make_pool(surreal, min_connections=0, max_connections=1) as pool:
        await pool.execute_query(
            f"DEFINE USER {user} ON ROOT PASSWORD 'pw' ROLES OWNER DURATION FOR TOKEN 1h, FOR SESSION 1s"
        )
    expiring = SurrealDBConnectionPool(
        f"{surreal.url}/rpc", {"username": user, "password": "pw"}, f"pool_{user}", "here", 0, 1
    )
    said: list[object] = []
    async with expiring:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while loop.time() - began_s < 6.0:
            try:
                said.append(await expiring.execute_query("CREATE hit RETURN VALUE 1"))
            except Exception as error:
                if "The session has expired" not in str(error):
                    raise
                said.append(None)
            await asyncio.sleep(0.1)
        assert expiring.get_stats()["total_connections_created"] == 1
    # By a user whose sessions do not expire.
    root = {"username": surreal.user, "password": surreal.password}
    async with SurrealDBConnectionPool(f"{surreal.url}/rpc", root, f"pool_{user}", "here", 0, 1) as pool:
        hits = await pool.execute_query("RETURN count(SELECT * FROM hit)")
    assert None in said, "no session has expired"
    # What was refused was not executed, and the next one was.
    assert hits == len(said) - said.count(None)
    assert all(one is not None or after is not None for one, after in itertools.pairwise(said))


async def test_a_statement_that_fails_is_the_callers_error_and_costs_no_connection(
    surreal: EmbeddedSurreal,
) -> None:
    async with make_pool(surreal, min_connections=1, max_connections=1) as pool:
        for query in ("THROW 'mine'", "RETURN 1; THROW 'mine'", "RETURN ("):
            with pytest.raises(ConnectError):
                await pool.execute_query(query)
        assert pool.get_stats()["total_connections_created"] == 1


async def test_the_schema_is_there_before_the_first_lease_however_many_define_it(
    surreal: EmbeddedSurreal, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.surql"
    schema.write_text("DEFINE TABLE person SCHEMALESS; DEFINE INDEX by_name ON person FIELDS name UNIQUE;")
    async with make_pool(surreal, min_connections=4, schema_file=schema) as pool:
        assert pool.get_stats()["total_connections_created"] == 4
        await pool.execute_query("CREATE person SET name = 'a'")
        with pytest.raises(ConnectError, match="by_name"):
            await pool.execute_query("CREATE person SET name = 'a'")


async def test_a_wrong_schema_fails_the_opening_and_says_why(
    surreal: EmbeddedSurreal, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.surql"
    schema.write_text("DEFINE NONSENSE")
    settings = {"schema_file": schema, "connection_retry_delay": 0.01}
    with pytest.raises(PoolUnavailableError, match="NONSENSE"):
        await make_pool(surreal, **settings).initialize()
    with pytest.raises(ValueError, match="schema_file"):
        make_pool(surreal, schema_file=tmp_path / "missing")


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_what_on_connection_create_sets_outlasts_a_reset(
    surreal: EmbeddedSurreal, is_coroutine: bool
) -> None:
    seen = []

    async def prepare(client: Any) -> None:
        seen.append(client)
        await client.let("greeting", "hello")

    def note(client: Any) -> None:
        seen.append(client)

    callback = prepare if is_coroutine else note
    settings = {"min_connections": 1, "max_connections": 1, "on_connection_create": callback}
    async with make_pool(surreal, **settings) as pool:
        assert len(seen) == 1
        async with pool.acquire() as client:
            assert client is seen[0]
            await client.let("greeting", "changed")
        if is_coroutine:
            assert await pool.execute_query("RETURN $greeting") == "hello"
        assert pool.get_stats()["total_connections_created"] == 1


async def test_a_client_is_replaced_after_so_many_uses(surreal: EmbeddedSurreal) -> None:
    settings = {"min_connections": 1, "max_connections": 1, "max_usage_count": 3}
    async with make_pool(surreal, **settings) as pool:
        for _ in range(7):
            await pool.execute_query("RETURN 1")
        assert pool.get_stats()["total_connections_created"] == 3


async def test_queries_are_logged_without_their_literals(
    surreal: EmbeddedSurreal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pool_bench.pool.queries")
    async with make_pool(surreal, min_connections=1, log_queries=True) as pool:
        await pool.execute_query("RETURN ['a secret', \"another secret\"]")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "ok in" in line
    assert "secret" not in line
    assert surreal.password not in line


async def test_a_wrong_password_and_a_missing_server_fail_the_opening_without_the_password(
    surreal: EmbeddedSurreal,
) -> None:
    for uri, said in ((surreal.url, "auth"), ("ws://127.0.0.1:1", "refused")):
        credentials = {"username": "root", "password": "pa55word"}
        pool = SurrealDBConnectionPool(uri, credentials, "a", "b", connection_retry_delay=0.01)
        with pytest.raises(PoolUnavailableError, match=said) as error:
            await pool.initialize()
        assert "pa55word" not in str(error.value)
        assert "pa55word" not in repr(pool)
        await pool.close()


async def test_over_http_it_is_a_pool_of_requests_with_the_same_rules(surreal: EmbeddedSurreal) -> None:
    pool = SurrealDBConnectionPool(
        surreal.http_url, credentials_of(surreal), "http_pool", "here", min_connections=1, max_connections=1
    )
    async with pool:
        async with pool.acquire() as client:
            await client.let("leftover", 42)
        assert await pool.execute_query("RETURN [session::ns(), $leftover]") == ["http_pool", None]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"uri": "mysql://h"}, "uri: a SurrealDB URL begins with"),
        ({"uri": "ws://h:port"}, "uri: .* is not a URL"),
        ({"uri": ""}, "uri must not be empty"),
        ({"uri": None}, "uri must be text, not None"),
        ({"uri": "ws://:secret@h", "credentials": None}, "uri: there is no user"),
        ({"credentials": {"password": "secret"}}, "credentials: there is password, but no username"),
        ({"credentials": {"ns": "n", "db": "d"}}, "credentials: there is namespace and database, but no"),
        ({"credentials": {"username": "", "password": "secret"}}, "credentials: username must not be empty"),
        ({"credentials": {"username": "root", "password": 5}}, "credentials: password must be text"),
        ({"credentials": {"user": "root", "pass": None}}, "credentials: pass must be text, not None"),
        ({"credentials": {"user": "root", "pass": b"secret"}}, "credentials: pass must be text"),
        ({"credentials": "root:secret"}, "credentials must be a mapping"),
        ({"on_connection_create": "x"}, "on_connection_create must be a function"),
        ({"schema_file": 5}, "schema_file must be a path"),
        ({"namespace": ""}, "namespace must not be empty"),
        ({"namespace": 5}, "namespace must be text"),
        ({"database": ""}, "database must not be empty"),
        ({"database": ["d"]}, "database must be text"),
        ({"credentials": {"username": "root"}}, "credentials: a username needs a password"),
        ({"credentials": {"user_name": "root", "password": "x"}}, "user_name"),
        ({"credentials": {"username": "u", "password": "x", "namespace": "other"}}, "namespace"),
        ({"namespace": None}, "namespace and database"),
        ({"database": None}, "namespace and database"),
        ({"min_connections": -1}, "min_connections must be"),
        ({"min_connections": 11}, r"max_connections must be at least min_connections \(11\)"),
        ({"max_connections": 0}, "max_connections must be"),
        ({"acquisition_timeout": -1}, "acquisition_timeout must be"),
        ({"max_idle_time": 0}, "max_idle_time must be"),
        ({"max_usage_count": -1}, "max_usage_count must be"),
        ({"connection_timeout": float("inf")}, "connection_timeout must be"),
        ({"connection_retry_attempts": 0}, "connection_retry_attempts must be"),
        ({"connection_retry_delay": 0}, "connection_retry_delay must be"),
        ({"connection_retry_delay": float("inf")}, "connection_retry_delay must be"),
        ({"connection_retry_delay": "soon"}, "connection_retry_delay must be .* not 'soon'"),
        ({"health_check_interval": 0}, "health_check_interval must be"),
        ({"reset_on_return": "sometimes"}, "reset_on_return must be"),
        ({"query_timeout": 0}, "query_timeout must be"),
        ({"scaling": "much"}, "scaling must be"),
        ({"name": ""}, "name must not be empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(changed: dict[str, Any], named: str) -> None:
    settings: dict[str, Any] = {
        "uri": "ws://127.0.0.1:8000",
        "credentials": {"username": "root", "password": "x"},
        "namespace": "n",
        "database": "d",
    }
    with pytest.raises(ValueError, match=named) as error:
        SurrealDBConnectionPool(**(settings | changed))
    message = str(error.value)
    own = set(inspect.signature(SurrealDBConnectionPool).parameters)
    words = set(re.findall(r"\w+", message))
    assert words & own
    assert not words & ({field.name for field in dataclasses.fields(PoolConfig)} - own)
    assert "--" not in message
    assert "SURREAL_" not in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"credentials": None},
        {"credentials": {}},
        {"credentials": None, "uri": "ws://root:x@127.0.0.1:8000"},
        {"credentials": {"password": "x"}, "uri": "ws://root@127.0.0.1:8000"},
        {"credentials": {"user": "root", "pass": ""}},
        {
            "credentials": {"user": "u", "pass": "x", "ns": "n", "db": "d"},
            "namespace": None,
            "database": None,
        },
        {"namespace": None, "database": None},
        {"max_idle_time": None, "health_check_interval": None, "max_usage_count": 0},
    ],
)
def test_settings_that_make_sense_are_taken(changed: dict[str, Any]) -> None:
    settings = {
        "uri": "ws://127.0.0.1:8000",
        "credentials": {"username": "root", "password": "x"},
        "namespace": "n",
        "database": "d",
    }
    pool = SurrealDBConnectionPool(**(settings | changed))
    assert set(pool.get_stats().values()) == {0}
