"""The demonstration of `monitor` against SurrealDB, with what can be seen of the server beside the pool.

A connection of its own makes a round trip at every look. The rest is the kernel's word, of a server on this
machine; SurrealDB has nothing that could be asked for it.
"""

import asyncio
import contextlib
from time import perf_counter_ns
from typing import Final

from pool_bench.cli.commands.monitor import FETCH_S, greeted, show_pool
from pool_bench.cli.limits import raise_file_limit
from pool_bench.cli.options.monitor import MonitorOptions
from pool_bench.cli.options.types import EXIT_FAILED
from pool_bench.cli.places.surreal import SurrealPlace, SurrealSite
from pool_bench.cli.status import notify
from pool_bench.drivers.surreal.driver import SurrealConnection, SurrealDriver
from pool_bench.errors import ConnectError
from pool_bench.load.run import StopSwitch
from pool_bench.report.live.pool_monitor import ServerLook
from pool_bench.surreal_pool.pool import PooledClient, SurrealClientConnector
from pool_bench.watch.surreal.sampler import SurrealSampler

_QUERY: Final = "RETURN 1"
# Not at the server: SLEEP is for root users only.
_HOLD_S: Final = 0.005


def demonstrate(place: SurrealPlace, tool: str, options: MonitorOptions, stop: StopSwitch) -> int:
    """Show a pool of our own against `place`, and its server; see `monitor`.

    Raises:
        UsageError: the options do not go together with a pool.
    """
    place.check_pool()
    place.check_ca_file()
    raise_file_limit(options.size, option="--size")
    with place.serve(tool=tool, connections=options.size) as site:
        if not greeted(site, options, stop):
            return EXIT_FAILED
        return asyncio.run(_show(site, options, stop))


async def _show(site: SurrealSite, options: MonitorOptions, stop: StopSwitch) -> int:
    target, server = site.targets[0], SurrealLookout(site)
    try:
        connector = SurrealClientConnector(target)
        return await show_pool(connector, _ask, options, stop, target=target, server=server)
    finally:
        await server.close()


async def _ask(client: PooledClient) -> None:
    await client.execute(_QUERY)
    await asyncio.sleep(_HOLD_S)


class SurrealLookout:
    """Looks at a SurrealDB.

    Args:
        site: the place with its server.

    Attributes:
        trouble: why the last round trip failed, "" where it did not.
    """

    def __init__(self, site: SurrealSite) -> None:
        self._driver = SurrealDriver(site.targets[0], auth=site.auth, connect_timeout_s=FETCH_S)
        self._sampler = SurrealSampler(site.targets, site.pid)
        self._connection: SurrealConnection | None = None
        self._began_ns = perf_counter_ns()
        self._said = 0
        self.trouble = ""

    async def look(self) -> ServerLook:
        """What there is to be seen now; why the rest cannot be is said once."""
        ping_ms = await self._ping()
        # Beside the loop: reading the kernel's tables takes milliseconds on a busy machine.
        await asyncio.to_thread(self._sampler.sample, (perf_counter_ns() - self._began_ns) / 1e9, "during")
        side = self._sampler.side
        for note in side.notes[self._said :]:
            notify(note)
        self._said = len(side.notes)
        second = side.seconds[-1]
        memory = side.memory.pop("during", None)
        return ServerLook(
            ping_ms=ping_ms,
            connections=sum(second.states.values()) if second.states else None,
            cores=None if second.cpu is None else second.cpu.server,
            memory_mb=None if memory is None else memory.total_bytes / 1e6,
        )

    async def _ping(self) -> float | None:
        """How long a round trip takes, milliseconds; None where there is no answer in time."""
        try:
            async with asyncio.timeout(FETCH_S):
                if self._connection is None:
                    self._connection = await self._driver.connect()
                began_ns = perf_counter_ns()
                await self._connection.ping()
        except TimeoutError:
            self._lose(f"no answer to a ping within {FETCH_S:g} s")
            return None
        except ConnectError as error:
            self._lose(f"a ping failed: {error}")
            return None
        self.trouble = ""
        return (perf_counter_ns() - began_ns) / 1e6

    def _lose(self, trouble: str) -> None:
        self.trouble = trouble
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection that asked."""
        if self._connection is not None:
            with contextlib.suppress(ConnectError, TimeoutError):
                async with asyncio.timeout(FETCH_S):
                    await self._connection.close()
