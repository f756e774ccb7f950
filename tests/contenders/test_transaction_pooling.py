"""P43: pools behind a real PgBouncer that gives each transaction another session."""

import asyncio

import pytest

from pool_bench.contenders import ContenderConfig, ContenderName, make
from pool_bench.errors import ConnectError, Phase
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.watch.postgres.sharing import shares_sessions
from tests.support.commands import run_tool
from tests.support.generators import target
from tests.support.servers import StartPgBouncer

_OPERATIONS = 180
_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def transactions(embedded: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> PgBouncer:
    """A PgBouncer in transaction mode with four connections to the server."""
    return start_pgbouncer(
        PgBouncerConfig(
            backend_port=embedded.port, default_pool_size=4, settings={"pool_mode": "transaction"}
        )
    )


async def _operations(name: ContenderName, url: str, *, prepared: bool) -> list[ConnectError]:
    """Run 180 operations, six at a time; how those ended that failed."""
    contender = make(
        name,
        ContenderConfig(target=target(url), size=6, timeout_s=_PATIENCE_S, reset="never", prepared=prepared),
    )
    failed: list[ConnectError] = []

    async def client() -> None:
        for _ in range(_OPERATIONS // 6):
            try:
                async with contender.lease() as leased:
                    await contender.execute(leased, "SELECT pg_sleep(0.001)")
            except Exception as error:
                failed.append(contender.as_error(error, Phase.QUERY))

    async with asyncio.timeout(_PATIENCE_S):
        await contender.open()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(client())
        finally:
            await contender.close()
    return failed


@pytest.mark.parametrize("name", ["reference", "asyncpg", "psycopg", "naive"])
async def test_p43_with_nothing_prepared_all_operations_succeed(
    transactions: PgBouncer, name: ContenderName
) -> None:
    assert await _operations(name, transactions.url, prepared=False) == []


async def test_p43_what_is_prepared_and_missing_fails_with_what_to_do(transactions: PgBouncer) -> None:
    failed = await _operations("psycopg", transactions.url, prepared=True)
    assert failed
    assert all(error.sqlstate in ("26000", "42P05") for error in failed)
    assert all("gives each transaction another session: --no-prepared" in str(error) for error in failed)


async def test_p43_sessions_that_are_shared_are_seen_and_others_are_not_called_so(
    transactions: PgBouncer, pgbouncer: PgBouncer, embedded: EmbeddedPostgres
) -> None:
    assert await shares_sessions(target(transactions.url), _PATIENCE_S) is True
    for server in (pgbouncer, embedded):
        assert await shares_sessions(target(server.url), _PATIENCE_S) is False
    assert await shares_sessions(target("postgresql://u@127.0.0.1:1/db"), _PATIENCE_S) is None


def test_p43_a_run_warns_beforehand_and_without_prepared_statements_does_not_need_to(
    transactions: PgBouncer,
) -> None:
    load = ("--scenario", "query", "--clients", "12", "--size", "6", "-d", "0.5s", "--warmup", "0.2s")
    run = ("run", "--url", transactions.url, *load, "--rounds", "1", "--no-save")
    warned = run_tool(*run, "--pool", "psycopg", command="pool_bench.__main__")
    assert "warning: each transaction may meet another session" in warned.stderr
    assert "--no-prepared" in warned.stderr
    outcome = run_tool(
        *run, "--pool", "psycopg,reference", "--no-prepared", "-v", command="pool_bench.__main__"
    )
    assert outcome.code == 0, outcome.stderr
    assert "another session" not in outcome.stderr
    assert "nothing prepared" in outcome.stdout


def test_p43_a_pool_that_cannot_do_without_says_so_and_costs_its_own_row(transactions: PgBouncer) -> None:
    load = ("--scenario", "query", "--clients", "4", "--size", "2", "-d", "0.3s", "--warmup", "0s")
    outcome = run_tool(
        *("run", "--url", transactions.url, *load, "--rounds", "1", "--no-save", "--no-prepared"),
        *("--pool", "sqlalchemy,reference"),
        command="pool_bench.__main__",
    )
    assert "sqlalchemy's asyncpg dialect prepares every query" in outcome.stdout + outcome.stderr
    assert "reference" in outcome.stdout
