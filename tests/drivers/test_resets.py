"""P31: a reset leaves nothing of the last user's session, with every driver."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.base import DriverName
from pool_bench.drivers.psycopg import PsycopgDriver
from pool_bench.drivers.wire.driver import WireDriver
from pool_bench.errors import ConnectError
from pool_bench.pool import ConnectionPool, PoolConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.targets.postgres import PostgresTarget
from tests.support.generators import target

DRIVERS: dict[str, Callable[[PostgresTarget], AsyncpgDriver | PsycopgDriver | WireDriver]] = {
    "asyncpg": AsyncpgDriver,
    "psycopg": PsycopgDriver,
    "wire": WireDriver,
}


def _unless(clean: str) -> str:
    """SQL that fails unless that holds."""
    return f"DO $$ BEGIN IF NOT ({clean}) THEN RAISE EXCEPTION 'dirty'; END IF; END $$"


_DIRT = {
    "role": ("SET ROLE pg_monitor", _unless("current_user = session_user")),
    "session authorization": ("SET SESSION AUTHORIZATION bench", _unless("session_user = 'postgres'")),
    "setting": ("SET work_mem = '123MB'", _unless("current_setting('work_mem') = '4MB'")),
    "local setting in an open transaction": (
        "BEGIN; SET LOCAL work_mem = '99MB'",
        _unless("current_setting('work_mem') = '4MB'"),
    ),
    "temporary table": ("CREATE TEMP TABLE dirt (id int)", _unless("to_regclass('pg_temp.dirt') IS NULL")),
    "prepared statement": (
        'PREPARE "Dirt; 1" AS SELECT 1',
        _unless("NOT EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql)"),
    ),
    "prepared in another case": (
        "prepare dirt as select 1",
        _unless("NOT EXISTS (SELECT FROM pg_prepared_statements WHERE from_sql)"),
    ),
    "cursor that outlasts its transaction": (
        "DECLARE dirt CURSOR WITH HOLD FOR SELECT 1",
        _unless("NOT EXISTS (SELECT FROM pg_cursors WHERE is_holdable)"),
    ),
    "channel": ("LISTEN dirt", _unless("NOT EXISTS (SELECT pg_listening_channels())")),
    "advisory lock": (
        "SELECT pg_advisory_lock(31)",
        _unless("NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"),
    ),
    "sequence": (
        "CREATE SEQUENCE IF NOT EXISTS dirt_sequence; SELECT nextval('dirt_sequence')",
        "DO $$ BEGIN PERFORM lastval(); RAISE EXCEPTION 'dirty'; "
        "EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END $$",
    ),
    "open transaction": (
        "BEGIN; SELECT pg_current_xact_id()",
        _unless("pg_current_xact_id_if_assigned() IS NULL"),
    ),
    "failed transaction": ("BEGIN; SELECT 1/0", "SELECT 1"),
    "copy given up": ("COPY (SELECT 1/(5000 - n) FROM generate_series(1, 10000) n) TO STDOUT", "SELECT 1"),
}


@pytest.mark.parametrize("dirt", _DIRT)
@pytest.mark.parametrize("name", DRIVERS)
async def test_p31_the_next_user_finds_nothing_of_the_last(
    embedded: EmbeddedPostgres, name: DriverName, dirt: str
) -> None:
    leave, look = _DIRT[dirt]
    connection = await DRIVERS[name](target(embedded.superuser_url)).connect()
    try:
        for _ in range(2):
            with suppress(ConnectError):
                await connection.execute(leave)
            try:
                await connection.reset()
            except ConnectError:
                # psycopg does not come out of a COPY that was not asked for as one: a pool replaces it.
                assert (name, dirt) == ("psycopg", "copy given up")
                return
            await connection.execute(look)
            await connection.reset()
    finally:
        await connection.close()


@pytest.mark.parametrize("name", DRIVERS)
async def test_p31_what_is_looked_for_is_there_before_the_reset(
    embedded: EmbeddedPostgres, name: DriverName
) -> None:
    for dirt, (leave, look) in _DIRT.items():
        connection = await DRIVERS[name](target(embedded.superuser_url)).connect()
        try:
            if "1/" in leave or dirt == "open transaction":
                continue
            await connection.execute(leave)
            with pytest.raises(ConnectError, match="dirty"):
                await connection.execute(look)
        finally:
            await connection.close()


async def test_p31_a_codec_of_one_borrower_is_not_the_next_ones_and_a_hooks_is_everybodys(
    embedded: EmbeddedPostgres,
) -> None:
    async def hook(connection: AsyncpgConnection) -> None:
        await connection.raw.set_type_codec(
            "int2", schema="pg_catalog", encoder=str, decoder=lambda _: "the hook's"
        )

    config = PoolConfig(min_size=0, max_size=1, on_connect=hook)
    async with ConnectionPool(AsyncpgDriver(target(embedded.url)), config) as pool:
        async with pool.acquire() as connection:
            await connection.raw.set_type_codec(
                "int4", schema="pg_catalog", encoder=str, decoder=lambda _: "the borrower's"
            )
            assert await connection.raw.fetchval("SELECT 1::int4") == "the borrower's"
        async with pool.acquire() as connection:
            assert await connection.raw.fetchval("SELECT 1::int4") == 1
            assert await connection.raw.fetchval("SELECT 1::int2") == "the hook's"
        assert pool.get_stats().created == 1


async def test_p31_a_builtin_codec_and_callbacks_of_one_borrower_are_not_the_next_ones(
    embedded: EmbeddedPostgres,
) -> None:
    heard: list[object] = []
    everybodys: list[object] = []

    async def hook(connection: AsyncpgConnection) -> None:
        connection.raw.add_query_logger(everybodys.append)

    owner = await WireDriver(target(embedded.superuser_url)).connect()
    await owner.execute("CREATE EXTENSION IF NOT EXISTS hstore")
    await owner.close()
    config = PoolConfig(min_size=0, max_size=1, on_connect=hook)
    async with ConnectionPool(AsyncpgDriver(target(embedded.url)), config) as pool:
        async with pool.acquire() as connection:
            await connection.raw.set_builtin_type_codec("hstore", codec_name="pg_contrib.hstore")
            assert await connection.raw.fetchval("SELECT 'a=>1'::hstore") == {"a": "1"}
            connection.raw.add_query_logger(heard.append)
            connection.raw.add_termination_listener(heard.append)
        async with pool.acquire() as connection:
            before = len(heard), len(everybodys)
            assert await connection.raw.fetchval("SELECT 'a=>1'::hstore") == '"a"=>"1"'
            await asyncio.sleep(0)
            assert len(everybodys) > before[1]
        assert pool.get_stats().created == 1
    assert len(heard) == before[0]


async def test_p31_listeners_of_notices_and_channels_are_gone(embedded: EmbeddedPostgres) -> None:
    heard: list[object] = []
    config = PoolConfig(min_size=0, max_size=1)
    async with ConnectionPool(AsyncpgDriver(target(embedded.url)), config) as pool:
        async with pool.acquire() as connection:
            connection.raw.add_log_listener(lambda *said: heard.append(said))
            await connection.raw.add_listener("dirt", lambda *said: heard.append(said))
        async with pool.acquire() as connection:
            await connection.execute("DO $$ BEGIN RAISE NOTICE 'dirt'; END $$; NOTIFY dirt")
            await connection.execute("SELECT 1")
            await asyncio.sleep(0)
        assert pool.get_stats().created == 1
    assert heard == []


async def test_p31_what_asyncpg_itself_has_prepared_survives(embedded: EmbeddedPostgres) -> None:
    connection = await AsyncpgDriver(target(embedded.url)).connect()
    try:
        for _ in range(8):
            assert await connection.raw.fetchval("SELECT $1::int", 5) == 5
            await connection.execute("PREPARE dirt AS SELECT 1")
            await connection.reset()
    finally:
        await connection.close()


async def test_p31_what_psycopg_itself_has_prepared_survives(embedded: EmbeddedPostgres) -> None:
    connection = await PsycopgDriver(target(embedded.url)).connect()
    try:
        for _ in range(8):
            cursor = await connection.raw.execute("SELECT %s::int", (5,))
            assert await cursor.fetchone() == (5,)
            await connection.execute("PREPARE dirt AS SELECT 1")
            await connection.reset()
    finally:
        await connection.close()
