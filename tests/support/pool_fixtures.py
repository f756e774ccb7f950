"""The rig of the failure modes, as a fixture."""

from collections.abc import AsyncIterator

import pytest_asyncio

from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.pool_rig import Rig, rig_for


@pytest_asyncio.fixture
async def rig(embedded: EmbeddedPostgres) -> AsyncIterator[Rig]:
    """A rig in front of the embedded PostgreSQL."""
    async with rig_for(embedded) as made:
        yield made
