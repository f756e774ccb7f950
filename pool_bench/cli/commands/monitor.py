"""`monitor`: a live pool's figures, once a second.

A pool lives in its application's process, and nobody else can look into it. What can be watched is what
the application shows: the Prometheus metrics of its pools (`--metrics`). Without those, the tool runs a
pool of its own against the target, under a light load, to show what is to be seen (`monitor_postgres.py`,
`monitor_surreal.py`).
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from pool_bench.cli.options.monitor import MonitorOptions
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK
from pool_bench.cli.places.base import Site
from pool_bench.cli.signals import LeaveNow, stop_on_signals
from pool_bench.cli.status import notify
from pool_bench.errors import ConnectError, PoolBenchError, UsageError
from pool_bench.load.run import StopSwitch
from pool_bench.pool import ConnectionPool, EventKind, PoolConfig, PoolError, PoolEvent, PoolStatistics
from pool_bench.pool.connections import C, Connector
from pool_bench.report.live.pool_monitor import (
    MetricsError,
    PoolRow,
    ServerLook,
    header,
    line,
    picture,
    rows_of_metrics,
)
from pool_bench.targets import Target
from pool_bench.targets.postgres import redact

if TYPE_CHECKING:
    from rich.live import Live

FETCH_S: Final = 3.0
_LARGEST_ANSWER: Final = 4 << 20
# Clients of the demonstration: each asks about this often.
_PAUSE_S: Final = 0.05
Read = Callable[[], Awaitable[list[PoolRow]]]


class Server(Protocol):
    """Looks at the server beside a demonstration's pool."""

    @property
    def trouble(self) -> str:
        """What is wrong with it, "" where nothing is."""

    async def look(self) -> ServerLook:
        """What there is to be seen of it now; what cannot be seen is None."""


def monitor(
    options: MonitorOptions, demonstrate: Callable[[MonitorOptions, StopSwitch], int] | None = None
) -> int:
    """Show a pool's figures until the time is up or the user stops it.

    Args:
        demonstrate: shows a pool of our own, where the options name no metrics.

    Returns:
        The exit code: 0, 1 where nothing could be seen, 130 where the user left.

    Raises:
        UsageError: the metrics' URL makes no sense, or their package is missing.
        ServerStartError: the embedded server does not start.
        PoolBenchError: the target cannot be used.
    """
    try:
        with stop_on_signals(notify) as stop:
            if demonstrate is not None and options.metrics is None:
                return demonstrate(options, stop)
            url = checked_url(options.metrics or "")

            async def read() -> list[PoolRow]:
                return rows_of_metrics(await asyncio.to_thread(fetch, url))

            return asyncio.run(_watch(read, options, stop, f"metrics of {redact(url)}"))
    except LeaveNow:
        return EXIT_LEFT


def greeted(site: Site, options: MonitorOptions, stop: StopSwitch) -> bool:
    """Whether the server answers; says what it is, and what is shown.

    Raises:
        PoolBenchError: the target cannot be used.
    """
    if not site.greet(stop, timeout_s=FETCH_S):
        return False
    load = f"with {options.clients:,} clients that ask now and then" if options.clients else "without clients"
    notify(f"a demonstration: a pool of our own, {load}; --metrics URL shows an application's")
    return True


def checked_url(url: str) -> str:
    """`url`, if it is one of the web and its package is there.

    Raises:
        UsageError: it is not.
    """
    from importlib.util import find_spec

    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"--metrics: {redact(url)} is not an http:// or https:// URL")
    if find_spec("prometheus_client") is None:
        raise UsageError("--metrics needs prometheus-client; install pool-bench[metrics]")
    return url


def fetch(url: str) -> str:
    """The text that `url` gives.

    Raises:
        MetricsError: it gives none in time.
    """
    from http.client import HTTPException
    from urllib.request import ProxyHandler, build_opener

    try:
        # The scheme was checked; a proxy of the environment would look for a loopback address at its own.
        with build_opener(ProxyHandler({})).open(url, timeout=FETCH_S) as answer:
            body: bytes = answer.read(_LARGEST_ANSWER)
    except (OSError, HTTPException, ValueError) as error:
        raise MetricsError(f"cannot read {redact(url)}: {_reason(error)}") from error
    return body.decode("utf-8", errors="replace")


def _reason(error: Exception) -> str:
    """Why a URL could not be read, in words."""
    reason = getattr(error, "reason", None) or error
    words = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
    return words[:1].lower() + words[1:]


async def _watch(
    read: Read, options: MonitorOptions, stop: StopSwitch, title: str, trouble: Callable[[], str] = str
) -> int:
    """Show what `read` gives at every look; a look that fails is said, and the next one is taken.

    Args:
        trouble: says what is wrong with the pool that `read` looks at, empty where nothing is.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
        loop.add_reader(stop.fileno(), stopping.set)
    begin = loop.time()
    looks = seen = 0
    with _Screen(title) as screen:
        while not stopping.is_set():
            try:
                screen.show(await read(), trouble())
                seen += 1
            except PoolBenchError as error:
                screen.say(str(error))
                if looks == 0:
                    return EXIT_FAILED
            looks += 1
            due = begin + looks * options.interval_s
            if options.duration_s and due - begin > options.duration_s + 1e-9:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - loop.time())):
                    await stopping.wait()
    return EXIT_OK if seen else EXIT_FAILED


class _Screen:
    """Rows drawn in place on a terminal, or a line for each elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lines = 0
        self._live: Live | None = None
        self._width = 0
        self._rows: Sequence[PoolRow] = ()
        self._trouble = ""

    def __enter__(self) -> "_Screen":
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(highlight=False), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: Sequence[PoolRow], trouble: str) -> None:
        """Show the rows of one look, and what is wrong if something is."""
        self._rows = rows
        if self._live is not None:
            self._draw(self._live, trouble)
            return
        for row in rows:
            if self._lines % 20 == 0:
                print(header(row), flush=True)
            self._lines += 1
            print(line(row), flush=True)
        if trouble and trouble != self._trouble:
            notify(f"error: {trouble}")
        self._trouble = trouble

    def say(self, text: str) -> None:
        """Say why a look failed; what is drawn is that of the last one that did not."""
        if self._live is not None and self._rows:
            self._draw(self._live, text, outdated=True)
        else:
            notify(f"error: {text}")

    def _draw(self, live: "Live", trouble: str, *, outdated: bool = False) -> None:
        width = live.console.width
        if self._width not in (0, width):
            # The terminal has wrapped anew what was drawn, and nobody knows how many lines that makes now.
            live.console.clear()
        self._width = width
        live.update(picture(self._rows, width, self._title, trouble, outdated=outdated), refresh=True)


async def show_pool(
    connector: Connector[C],
    ask: Callable[[C], Awaitable[None]],
    options: MonitorOptions,
    stop: StopSwitch,
    *,
    target: Target,
    server: Server | None = None,
) -> int:
    """Show a pool of our own under a light load.

    Args:
        connector: opens its connections.
        ask: what a client does with one.
        target: where they go, for the title.
        server: looks at the server meanwhile.

    Returns:
        The exit code: 0, 1 where nothing could be seen.
    """
    config = PoolConfig(min_size=1, max_size=options.size, acquire_timeout=FETCH_S)
    pool = ConnectionPool(connector, config, name="demo")
    failure = ""

    async def read() -> list[PoolRow]:
        seen = None if server is None else await server.look()
        return [row_of(pool.get_stats(), seen)]

    async def hear(event: PoolEvent) -> None:
        nonlocal failure
        if event.kind is EventKind.CONNECT_FAILED:
            failure = event.message
        elif event.kind is EventKind.CONNECTION_OPENED:
            failure = ""

    def trouble() -> str:
        return failure or ("" if server is None else server.trouble)

    try:
        pool.subscribe(hear)
        async with pool:
            clients = [asyncio.create_task(_client(pool, ask)) for _ in range(options.clients)]
            try:
                return await _watch(read, options, stop, f"demonstration, at {target}", trouble)
            finally:
                for client in clients:
                    client.cancel()
                await asyncio.gather(*clients, return_exceptions=True)
    except PoolError as error:
        notify(f"error: {error}")
        return EXIT_FAILED


async def _client(pool: ConnectionPool[C], ask: Callable[[C], Awaitable[None]]) -> None:
    rng = random.Random()
    while True:
        await asyncio.sleep(rng.expovariate(1 / _PAUSE_S))
        # What fails is in the figures.
        with contextlib.suppress(PoolError, ConnectError):
            async with pool.acquire() as connection:
                await ask(connection)


def row_of(stats: PoolStatistics, server: ServerLook | None = None) -> PoolRow:
    """A pool's own statistics as a row."""
    return PoolRow(
        name=stats.name,
        state=str(stats.state),
        health=str(stats.health),
        breaker=str(stats.breaker),
        size=stats.size,
        max_size=stats.max_size,
        idle=stats.idle,
        in_use=stats.in_use,
        waiters=stats.waiters,
        utilisation=stats.utilisation,
        rate=stats.checkout_rate,
        wait_p50_ms=stats.wait_p50_ms,
        wait_p95_ms=stats.wait_p95_ms,
        wait_p99_ms=stats.wait_p99_ms,
        acquisitions=stats.acquisitions,
        timeouts=stats.timeouts,
        connect_errors=stats.connect_errors,
        leaks=stats.leaks,
        server=server,
    )
