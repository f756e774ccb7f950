"""Every contender behind the one protocol, on a real PostgreSQL."""

import asyncio
import importlib.util

import psycopg
import pytest

from pool_bench.contenders import (
    CONTENDER_NAMES,
    ContenderConfig,
    ContenderName,
    ResetMode,
    is_installed,
    make,
)
from pool_bench.contenders.base import Contender, Opens
from pool_bench.errors import UsageError
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget, parse_target

POOLS: tuple[ContenderName, ...] = ("reference", "asyncpg", "psycopg", "sqlalchemy")


def target_of(server: EmbeddedPostgres, application_name: str) -> PostgresTarget:
    """The server, as an application that can be found in its statistics."""
    return parse_target(server.url, env={"PGAPPNAME": application_name}, default_user="postgres")


def backends(server: EmbeddedPostgres, application_name: str) -> int:
    """How many connections of that application the server has."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application_name]
        ).fetchone()
    assert row is not None
    return int(row[0])


async def backends_become(server: EmbeddedPostgres, application_name: str, count: int) -> None:
    """Wait until the server has that many."""
    async with asyncio.timeout(60):
        # The server tells nobody when a backend has gone.
        while await asyncio.to_thread(backends, server, application_name) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", POOLS)
async def test_a_pool_opens_exactly_its_size_and_leaves_nothing(
    name: ContenderName, embedded: EmbeddedPostgres
) -> None:
    app = f"opens-{name}"
    contender = make(name, ContenderConfig(target=target_of(embedded, app), size=3))
    await contender.open()
    try:
        assert (contender.opens.opened, contender.opens.failed, contender.opens.opening) == (3, 0, 0)
        assert contender.size == 3
        assert await asyncio.to_thread(backends, embedded, app) == 3

        async def visit() -> None:
            async with contender.lease() as leased:
                await contender.execute(leased, "SELECT 1")

        await asyncio.gather(*(visit() for _ in range(30)))
        assert contender.opens.opened == 3
    finally:
        await contender.close()
    await backends_become(embedded, app, 0)


async def setting_after_return(contender: Contender[object]) -> str:
    """What a session setting is for the next borrower."""
    async with contender.lease() as leased:
        await contender.execute(leased, "SET work_mem = '123kB'")
    async with contender.lease() as leased:
        try:
            # An error that says the setting: the protocol gives no rows.
            await contender.execute(
                leased, "SELECT 1 / (CASE WHEN current_setting('work_mem') = '123kB' THEN 0 ELSE 1 END)"
            )
        except Exception:
            return "kept"
    return "reset"


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        *((name, "always", "reset") for name in POOLS),
        *((name, "never", "kept") for name in POOLS),
        ("reference", "own", "reset"),
        ("asyncpg", "own", "reset"),
        ("psycopg", "own", "kept"),
        ("sqlalchemy", "own", "kept"),
    ],
)
async def test_what_is_said_of_a_reset_is_what_happens(
    name: ContenderName, mode: ResetMode, expected: str, embedded: EmbeddedPostgres
) -> None:
    config = ContenderConfig(target=target_of(embedded, f"resets-{name}"), size=1, reset=mode)
    contender = make(name, config)
    await contender.open()
    try:
        assert await setting_after_return(contender) == expected
        assert ("1 round trip" in contender.behaviour) is (expected == "reset")
    finally:
        await contender.close()


async def test_without_a_pool_every_lease_is_a_connection_of_its_own(embedded: EmbeddedPostgres) -> None:
    contender = make("naive", ContenderConfig(target=target_of(embedded, "naive"), size=2))
    await contender.open()
    for _ in range(4):
        async with contender.lease() as leased:
            assert contender.size == 1
            await contender.execute(leased, "SELECT 1")
    assert contender.size == 0
    assert contender.opens.opened == 5
    await backends_become(embedded, "naive", 0)


def test_a_contender_whose_package_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_bench.contenders.find_spec", lambda name: None)
    target = parse_target("postgresql://127.0.0.1/db", env={}, default_user="u")
    with pytest.raises(UsageError, match=r"psycopg-pool.*pool-bench\[contenders\]"):
        make("psycopg", ContenderConfig(target=target, size=1))
    assert [name for name in CONTENDER_NAMES if is_installed(name)] == ["reference", "asyncpg", "naive"]
    assert importlib.util.find_spec("asyncpg") is not None
    assert make("asyncpg", ContenderConfig(target=target, size=1)).name == "asyncpg"


async def test_openings_are_counted_however_they_end() -> None:
    opens = Opens()
    gate = asyncio.Event()

    async def attempt() -> None:
        async with opens.count():
            await gate.wait()

    tasks = [asyncio.create_task(attempt()) for _ in range(3)]
    await asyncio.sleep(0)
    assert (opens.opening, opens.opening_peak) == (3, 3)
    tasks[0].cancel()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (opens.opened, opens.failed, opens.opening, opens.opening_peak) == (2, 1, 0, 3)
