"""Several pools of one application, opened, watched and closed together."""

import asyncio
from collections.abc import Iterator
from typing import Protocol

from pool_bench.pool.config import PoolConfig
from pool_bench.pool.connections import C, Connector
from pool_bench.pool.errors import PoolError
from pool_bench.pool.pool import ConnectionPool
from pool_bench.pool.statistics import Numbers, PoolState, PoolStatistics


class ManagedPool(Protocol):
    """What the manager needs of a pool, whatever its connections are."""

    name: str

    @property
    def state(self) -> PoolState:
        """What the pool does with callers now."""

    async def open(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Start it."""

    async def close(self, timeout: float | None = None) -> None:
        """End it."""

    async def pause(self) -> None:
        """Lease nothing any more."""

    def resume(self) -> None:
        """Lease again."""

    async def drain(self, timeout: float | None = None) -> bool:
        """Pause, and wait for the leases."""

    def expire_connections(self) -> int:
        """Replace all connections."""

    def get_stats(self) -> Numbers:
        """The pool in numbers."""


class ConnectionPoolManager:
    """Pools by name; `async with` opens all of them, or none, and closes all."""

    def __init__(self) -> None:
        self._pools: dict[str, ManagedPool] = {}

    def create(
        self, name: str, connector: Connector[C], config: PoolConfig | None = None
    ) -> ConnectionPool[C]:
        """Make a pool and manage it.

        Raises:
            PoolError: there is one of that name.
            ValueError: a file that the config names cannot be read.
        """
        pool = ConnectionPool(connector, config, name=name)
        self.add(pool)
        return pool

    def add(self, pool: ManagedPool) -> None:
        """Manage a pool.

        Raises:
            PoolError: there is one of its name.
        """
        if pool.name in self._pools:
            raise PoolError(f"there is a pool named {pool.name} already")
        self._pools[pool.name] = pool

    async def remove(self, name: str, timeout: float | None = None) -> None:
        """Close a pool and forget it.

        Raises:
            KeyError: there is none of that name.
        """
        pool = self._pools[name]
        await pool.close(timeout)
        del self._pools[name]

    def __getitem__(self, name: str) -> ManagedPool:
        return self._pools[name]

    def __iter__(self) -> Iterator[ManagedPool]:
        return iter(tuple(self._pools.values()))

    def __len__(self) -> int:
        return len(self._pools)

    async def open(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Open all pools that are not open yet, side by side.

        Raises:
            PoolError: one could not be opened; then all are closed.
        """
        new = [pool for pool in self if pool.state is PoolState.NEW]
        opened = await asyncio.gather(
            *(pool.open(wait=wait, timeout=timeout) for pool in new), return_exceptions=True
        )
        for outcome in opened:
            if isinstance(outcome, BaseException):
                await self.close(timeout=0)
                raise outcome

    async def close(self, timeout: float | None = None) -> None:
        """Close all pools, side by side."""
        await asyncio.gather(*(pool.close(timeout) for pool in self))

    async def drain(self, timeout: float | None = None) -> bool:
        """Drain all pools that are open, side by side; returns whether all leases have ended."""
        is_over = (PoolState.NEW, PoolState.CLOSING, PoolState.CLOSED)
        is_open = [pool for pool in self if pool.state not in is_over]
        return all(await asyncio.gather(*(pool.drain(timeout) for pool in is_open)))

    def expire_connections(self) -> int:
        """Replace all connections of all pools; returns how many."""
        return sum(pool.expire_connections() for pool in self)

    def get_stats(self) -> dict[str, PoolStatistics]:
        """All pools in numbers, by name."""
        return {pool.name: pool.get_stats().statistics for pool in self}

    async def __aenter__(self) -> "ConnectionPoolManager":
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
