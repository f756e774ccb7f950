"""A service that gets a signal while its clients hold leases, in a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import psycopg
import pytest

from pool_bench.pool import ConnectionPool, ConnectionPoolManager, shut_down_on
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal.server import EmbeddedSurreal
from tests.support.commands import environment
from tests.support.serving import CLIENTS
from tests.support.simulation import FakeConnection, FakeServer, make_pool, simulate

# No test waits for it.
FOREVER_S = 3600.0
ALL_WENT_WELL = {f"served {CLIENTS}", "a latecomer was turned away", "drained True", "restored True"}


@contextmanager
def serving(
    url: str, drain_s: float, *, password: str | None = None, endless: bool = False, managed: bool = False
) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """The service, and what it says; all its leases are held when it is given."""
    settings = {"url": url, "password": password, "drain_s": drain_s, "endless": endless, "managed": managed}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.serving", json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "holding\n"
            yield child, child.stdout
        finally:
            child.kill()


def _named(server: EmbeddedPostgres, name: str) -> str:
    return f"{server.url}&application_name={name}"


def _wait_for_no_backend(server: EmbeddedPostgres, name: str) -> None:
    """A backend is listed until it has read that its client is gone."""
    with psycopg.connect(server.superuser_url, autocommit=True) as admin:
        count = "SELECT count(*), pg_sleep(0.01) FROM pg_stat_activity WHERE application_name = %s"
        for _ in range(2000):
            if admin.execute(count, [name]).fetchall()[0][0] == 0:
                return
    pytest.fail("backends are left")


@pytest.mark.parametrize(
    ("managed", "number"), [(False, signal.SIGTERM), (True, signal.SIGINT)], ids=["pool", "manager"]
)
def test_a_signal_lets_all_leases_end_and_leaves_no_backend(
    embedded: EmbeddedPostgres, managed: bool, number: signal.Signals
) -> None:
    name = f"shutdown-{number.name}-{managed}"
    with serving(_named(embedded, name), FOREVER_S, managed=managed) as (child, said):
        child.send_signal(number)
        rest = said.read().splitlines()
        assert child.wait() == 0
    assert set(rest) == ALL_WENT_WELL
    _wait_for_no_backend(embedded, name)


def test_a_lease_that_never_ends_does_not_keep_the_service_from_ending(embedded: EmbeddedPostgres) -> None:
    name = "shutdown-bounded"
    with serving(_named(embedded, name), 0.05, endless=True) as (child, said):
        child.send_signal(signal.SIGTERM)
        rest = said.read().splitlines()
        assert child.wait() == 0
    assert {"a latecomer was turned away", "drained False", "restored True"} <= set(rest)
    _wait_for_no_backend(embedded, name)


def test_a_second_signal_waits_for_nobody(embedded: EmbeddedPostgres) -> None:
    name = "shutdown-hurried"
    with serving(_named(embedded, name), FOREVER_S, endless=True) as (child, said):
        child.send_signal(signal.SIGTERM)
        assert said.readline() == f"served {CLIENTS - 1}\n"
        child.send_signal(signal.SIGTERM)
        rest = said.read().splitlines()
        assert child.wait() == 0
    assert rest == ["a latecomer was turned away", "drained False", "restored True"]
    _wait_for_no_backend(embedded, name)


def test_a_pool_of_surrealdb_clients_goes_the_same_way(surreal: EmbeddedSurreal) -> None:
    with serving(f"{surreal.url}/rpc", FOREVER_S, password=surreal.password) as (child, said):
        child.send_signal(signal.SIGTERM)
        rest = said.read().splitlines()
        assert child.wait() == 0
    assert set(rest) == ALL_WENT_WELL


async def hold(pool: ConnectionPool[FakeConnection]) -> None:
    async with pool.acquire():
        await asyncio.sleep(3)


def test_without_a_signal_the_end_of_the_block_is_the_end_of_the_pool() -> None:
    async def main() -> None:
        server = FakeServer()
        manager = ConnectionPoolManager()
        pool = make_pool(server, max_size=2)
        manager.add(pool)
        await manager.open()
        before = signal.getsignal(signal.SIGTERM)
        async with shut_down_on(manager) as shutdown:
            assert signal.getsignal(signal.SIGTERM) is not before
            client = asyncio.create_task(hold(pool))
            await asyncio.sleep(1)
        assert client.done()
        assert (shutdown.drained, len(server.open)) == (True, 0)
        assert signal.getsignal(signal.SIGTERM) is before

    simulate(main())


def test_a_pool_that_somebody_else_has_closed_is_no_error() -> None:
    async def main() -> None:
        pool = make_pool(FakeServer())
        await pool.open()
        async with shut_down_on(pool) as shutdown:
            await pool.close()
        assert shutdown.drained

    simulate(main())


@pytest.mark.parametrize("name", ["drain_timeout", "close_timeout"])
def test_a_time_that_makes_no_sense_is_refused(name: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=name):
            async with shut_down_on(make_pool(FakeServer()), **{name: -1.0}):  # type: ignore[arg-type]
                pass

    simulate(main())
