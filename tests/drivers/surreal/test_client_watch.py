"""Held connections of the official client tell of their end, once, unless it was we who ended them."""

import asyncio

import pytest

from pool_bench.drivers.base import WatchedConnection
from pool_bench.drivers.surreal.client import SurrealClientDriver, check_holdable
from pool_bench.errors import ConnectError, FailureKind, Phase, UsageError
from pool_bench.servers.scripted.server import KnownSurreal
from pool_bench.servers.surreal.server import SurrealConfig
from pool_bench.targets.surreal import surreal_target
from tests.support.servers import StartSurreal


async def test_a_watched_connection_tells_at_once_and_once_that_its_server_has_ended_it(
    start_surreal: StartSurreal,
) -> None:
    server = start_surreal(SurrealConfig(password="watch pencil"))
    target = surreal_target(server.url, user=server.user, password=server.password, environ={})
    driver = SurrealClientDriver(target)
    watched, closed_by_us, cut_by_us = [await driver.connect() for _ in range(3)]
    told: asyncio.Queue[ConnectError] = asyncio.Queue()
    for one in (watched, closed_by_us, cut_by_us):
        one.watch(told.put_nowait)
    await closed_by_us.close()
    cut_by_us.terminate()
    await asyncio.to_thread(server.restart)
    async with asyncio.timeout(60):
        error = await told.get()
    assert error.phase is Phase.HOLD
    assert error.kind in (FailureKind.SERVER_SHUTDOWN, FailureKind.CLOSED)
    assert watched.is_closed()
    late: asyncio.Queue[ConnectError] = asyncio.Queue()
    watched.watch(late.put_nowait)
    async with asyncio.timeout(60):
        await late.get()
    assert told.empty()
    watched.terminate()


async def test_a_server_that_dies_without_a_goodbye_is_told_of_too() -> None:
    told: asyncio.Queue[ConnectError] = asyncio.Queue()
    with KnownSurreal() as server:
        connection: WatchedConnection = await SurrealClientDriver(server.target()).connect()
        connection.watch(told.put_nowait)
        await connection.ping()
        assert told.empty()
    async with asyncio.timeout(60):
        error = await told.get()
    assert (error.kind, error.phase) in {
        (FailureKind.CLOSED, Phase.HOLD),
        (FailureKind.RESET, Phase.HOLD),
    }
    connection.terminate()


def test_over_http_there_is_nothing_to_hold() -> None:
    target = surreal_target("http://127.0.0.1:1", user="u", password="p", environ={})
    with pytest.raises(UsageError, match="opens a connection for each request"):
        check_holdable(target)
