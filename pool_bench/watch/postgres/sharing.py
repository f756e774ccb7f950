"""Whether one connection's transactions meet different sessions, as behind a pooler in transaction mode."""

import asyncio
from typing import TYPE_CHECKING

from pool_bench.drivers.asyncpg import asyncpg_options
from pool_bench.errors import UsageError
from pool_bench.targets.postgres import PostgresTarget

if TYPE_CHECKING:
    import asyncpg

_PID = "SELECT pg_backend_pid()"


async def shares_sessions(target: PostgresTarget, timeout_s: float) -> bool | None:
    """Whether a transaction meets another session where a second connection is inside one of its own.

    Opens two connections and waits for neither longer than `timeout_s` seconds.

    Returns:
        None where it cannot be told: there was no answer, or no second session to be had.
    """
    import asyncpg

    opened: list[asyncpg.Connection] = []
    try:
        options = asyncpg_options(target)
        async with asyncio.timeout(timeout_s):
            for _ in range(2):
                opened.append(await asyncpg.connect(**options, statement_cache_size=0))  # noqa: PERF401
            first, other = opened
            before = await _session(first)
            async with other.transaction():
                await other.fetchval(_PID)
                return await _session(first) != before
    except (TimeoutError, OSError, UsageError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    finally:
        for connection in opened:
            connection.terminate()


async def _session(connection: "asyncpg.Connection") -> int:
    async with connection.transaction():
        pid: int = await connection.fetchval(_PID)
        return pid
