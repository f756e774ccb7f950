"""The demonstration of `monitor` against PostgreSQL."""

import asyncio
from typing import Final

from pool_bench.cli.commands.monitor import greeted, show_pool
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.monitor import MonitorOptions
from pool_bench.cli.options.types import EXIT_FAILED
from pool_bench.cli.places.postgres import PostgresPlace
from pool_bench.drivers.asyncpg import AsyncpgConnection, AsyncpgDriver
from pool_bench.drivers.refusals import check_settings
from pool_bench.load.run import StopSwitch

_QUERY: Final = "SELECT pg_sleep(0.005)"


def demonstrate(place: PostgresPlace, tool: str, options: MonitorOptions, stop: StopSwitch) -> int:
    """Show a pool of our own against `place`; see `monitor`.

    Args:
        tool: for the target's application name.
    """
    check_settings("asyncpg", place.targets)
    raise_file_limit(options.size, option="--size")
    with place.serve(tool=tool, connections=options.size) as site:
        if not greeted(site, options, stop):
            return EXIT_FAILED
        target = site.targets[0]

        async def ask(connection: AsyncpgConnection) -> None:
            await connection.execute(_QUERY)

        return asyncio.run(show_pool(AsyncpgDriver(target), ask, options, stop, target=target))
