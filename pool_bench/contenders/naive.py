"""No pool at all: a connection for each query, to show what pooling buys."""

from pool_bench.contenders.base import ContenderConfig
from pool_bench.contenders.visits import Unpooled
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver


class NaiveContender(Unpooled[AsyncpgConnection]):
    """asyncpg connections that serve one query each; nobody waits for anybody."""

    def __init__(self, config: ContenderConfig) -> None:
        import asyncpg

        super().__init__(AsyncpgDriver(config.postgres_target).connect, config.timeout_s)
        self.version: str = asyncpg.__version__
        self.manner = "checkout: connect; return: close; queries: simple protocol"

    async def execute(self, leased: AsyncpgConnection, sql: str) -> None:
        """By the simple protocol."""
        await leased.execute(sql)
