"""A service with a pool, run in a process of its own: it says what happens, a line for each."""

import asyncio
import json
import signal
import sys
from types import FrameType

from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.pool import (
    ClosablePool,
    ConnectionPool,
    ConnectionPoolManager,
    PoolClosedError,
    PoolConfig,
    shut_down_on,
)
from pool_bench.surreal_pool import SurrealDBConnectionPool
from pool_bench.targets import PostgresTarget, from_url

CLIENTS = 4


def _own_handler(_number: int, _frame: FrameType | None) -> None:
    """What the service had for signals before."""


def _say(text: str) -> None:
    print(text, flush=True)


async def main(url: str, password: str | None, drain_s: float, endless: bool, managed: bool) -> None:
    """Hold leases until told to end, then use them once more; one is held for ever if `endless`."""
    pool: ConnectionPool[AsyncpgConnection] | SurrealDBConnectionPool
    if password is not None:
        credentials = {"username": "root", "password": password}
        pool = SurrealDBConnectionPool(url, credentials, "served", "here", max_connections=CLIENTS)
        await pool.initialize()
    else:
        pool = ConnectionPool(AsyncpgDriver(from_url(url, kind=PostgresTarget)), PoolConfig(max_size=CLIENTS))
        await pool.open()
    closable: ClosablePool = pool
    if managed:
        assert isinstance(pool, ConnectionPool)
        manager = ConnectionPoolManager()
        manager.add(pool)
        closable = manager
    served = 0
    leased = asyncio.Semaphore(0)

    async with shut_down_on(closable, drain_timeout=drain_s, close_timeout=60) as shutdown:

        async def client() -> None:
            nonlocal served
            async with pool.acquire(timeout=60) as conn:
                leased.release()
                await shutdown.requested.wait()
                if isinstance(conn, AsyncpgConnection):
                    await conn.execute("SELECT 1")
                else:
                    await conn.query("RETURN 1")
                served += 1

        async def hold() -> None:
            async with pool.acquire(timeout=60):
                leased.release()
                await asyncio.Event().wait()

        async def latecomer() -> None:
            await shutdown.requested.wait()
            try:
                async with pool.acquire(timeout=600):
                    _say("a latecomer was served")
            except PoolClosedError:
                _say("a latecomer was turned away")

        clients = [asyncio.create_task(client()) for _ in range(CLIENTS - endless)]
        holders = [asyncio.create_task(hold()) for _ in range(endless)]
        late = asyncio.create_task(latecomer())
        for _ in range(CLIENTS):
            await leased.acquire()
        _say("holding")
        await shutdown.requested.wait()
        # Where the time for leases is short, a client may lose its connection within its query.
        await asyncio.gather(*clients, return_exceptions=True)
        _say(f"served {served}")
        await shutdown.done.wait()
        await late
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
        _say(f"drained {shutdown.drained}")
    _say(f"restored {signal.getsignal(signal.SIGTERM) is _own_handler}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _own_handler)
    asyncio.run(main(**json.loads(sys.argv[1])))
