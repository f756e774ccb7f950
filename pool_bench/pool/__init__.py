"""A connection pool for asyncio.

    async with ConnectionPool(AsyncpgDriver(target), PoolConfig(max_size=20)) as pool:
        async with pool.acquire(timeout=1.0) as conn:
            await conn.execute("SELECT 1")

`pool.py` says how it works.
"""

from pool_bench.pool.config import BreakerConfig, HealthConfig, PoolConfig, ResetPolicy, ScalingConfig
from pool_bench.pool.connections import Connector, PooledConnection
from pool_bench.pool.errors import (
    CircuitOpenError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    PoolTimeoutError,
    PoolUnavailableError,
)
from pool_bench.pool.events import EventKind, PoolEvent
from pool_bench.pool.health import HealthState
from pool_bench.pool.lease import Lease
from pool_bench.pool.manager import ConnectionPoolManager, ManagedPool
from pool_bench.pool.pool import ConnectionPool
from pool_bench.pool.retry import BreakerState
from pool_bench.pool.shutdown import ClosablePool, Shutdown, shut_down_on
from pool_bench.pool.statistics import PoolState, PoolStatistics

__all__ = [
    "BreakerConfig",
    "BreakerState",
    "CircuitOpenError",
    "ClosablePool",
    "ConnectionPool",
    "ConnectionPoolManager",
    "Connector",
    "EventKind",
    "HealthConfig",
    "HealthState",
    "Lease",
    "ManagedPool",
    "PoolClosedError",
    "PoolConfig",
    "PoolError",
    "PoolEvent",
    "PoolExhaustedError",
    "PoolState",
    "PoolStatistics",
    "PoolTimeoutError",
    "PoolUnavailableError",
    "PooledConnection",
    "ResetPolicy",
    "ScalingConfig",
    "Shutdown",
    "shut_down_on",
]
