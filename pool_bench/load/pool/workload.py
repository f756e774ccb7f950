"""A pool and its clients as a generator drives them: opened, warmed up, measured, closed."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns
from typing import Final

from pool_bench.contenders import ContenderConfig, make, opened_at_first
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.pool.memory import weigh
from pool_bench.load.pool.open_clients import make_load
from pool_bench.load.pool.sockets import open_sockets
from pool_bench.load.resident import make_resident_bytes
from pool_bench.load.spec import PoolSpec
from pool_bench.load.workload import MeasuredLoad, ServerEvents, Stretch, Taken
from pool_bench.stats.checkouts import CheckoutInterval, CheckoutStats

# How long a pool may take to open its connections, and to close them, before it is given up.
_OPEN_S: Final = 30.0
_CLOSE_S: Final = 10.0
# How long after its clients a pool may take to have all back (a reset is a round trip), and after its close
# until its connections are gone (TLS says goodbye, transports end in a later turn of the loop).
_SETTLE_S: Final = 5.0
_LOOK_S: Final = 0.01
# A second pool, opened to be weighed, is given up after this; no caller of it is to time out meanwhile.
_WEIGH_S: Final = 30.0
# What a connection says that had ended before its borrower came to use it, and when that shows.
_DEAD: Final = (FailureKind.RESET, FailureKind.CLOSED, FailureKind.SERVER_SHUTDOWN, FailureKind.IDLE_TIMEOUT)
_MET_IN: Final = (Phase.CHECKOUT, Phase.QUERY)
# Loggers of pools that report what is counted here anyway, and would write it over the live view.
_TALKATIVE: Final = ("asyncio", "asyncpg", "psycopg", "sqlalchemy", "pool_bench")


class PoolWorkload(MeasuredLoad):
    """One pool under one load.

    Args:
        server_events: where it learns of a restart.
    """

    garbage_is_ours = False

    def __init__(self, spec: PoolSpec, server_events: ServerEvents) -> None:
        for name in _TALKATIVE:
            logging.getLogger(name).addHandler(logging.NullHandler())
        self._spec = spec
        self._extra = CheckoutStats(base_rss_bytes=make_resident_bytes()())
        self._config = config = ContenderConfig(
            target=spec.targets[0],
            size=spec.size,
            timeout_s=spec.timeout_s,
            reset=spec.reset,
            prepared=spec.prepared,
            min_size=spec.min_size,
        )
        self._contender = make(spec.pool, config)
        self._extra.version = self._contender.version
        self._extra.behaviour = self._contender.behaviour
        self._clients = make_load(spec, self._contender)
        self.recorders = self._clients.recorders
        server_events.on_event = self._clients.on_server_event
        self._opened = self._open_failed = 0
        # Connections it held while it was open to be asked.
        self._last_size: int | None = None
        self._is_examined = spec.scenario == "stress"
        self._sockets_before: frozenset[int] | None = None

    @property
    def in_flight(self) -> int:
        """Operations under way."""
        return self._clients.in_flight

    @property
    def backing_off(self) -> int:
        """Clients that rest after a failure."""
        return self._clients.resting

    @property
    def waiting(self) -> int | None:
        """Operations that are due and have not begun; None in a closed loop."""
        return self._clients.waiting

    @property
    def recovering(self) -> bool:
        """Whether a restart is not over yet for somebody: it ends with the last one that is back."""
        return self._clients.recovering

    async def prepare(self) -> None:
        """Open the pool.

        Raises:
            ConnectError: it does not open.
        """
        if self._is_examined:
            self._sockets_before = open_sockets()
        began_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(_OPEN_S) as limit:
                await self._contender.open()
        except Exception as error:
            cause = self._contender.as_error(error, Phase.CONNECT)
            if limit.expired():
                cause = ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, f"not open after {_OPEN_S:g} s")
            count = opened_at_first(self._spec.pool, self._spec.min_size or self._spec.size)
            whose = "its connection" if count == 1 else f"its {count:,} connections"
            what = f"the pool {self._spec.pool} did not open {whose}: {cause.message}"
            raise ConnectError(cause.kind, cause.phase, what, sqlstate=cause.sqlstate) from error
        self._extra.open_s = (perf_counter_ns() - began_ns) / 1e9

    async def start(self) -> None:
        """Let the clients begin."""
        await self._clients.start()

    def measure(self) -> None:
        """From now on operations count, and the load takes its shape."""
        super().measure()
        self._clients.measure()

    def stop(self) -> None:
        """Begin no further operation."""
        self._clients.stop()

    async def drain(self, seconds: float) -> None:
        """Wait for the clients, at most so long; then give up what is left as unfinished."""
        try:
            await self._clients.drain(seconds)
        finally:
            self._last_size = self._contender.size
        if self._is_examined:
            self._extra.leaked = await _settled(lambda: self._contender.in_use)

    async def close(self) -> None:
        """Close the pool."""
        began_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(_CLOSE_S) as limit:
                await self._contender.close()
        except Exception as error:
            # It loses its connections with the process, and what was measured before is as good as ever.
            words = f"not closed after {_CLOSE_S:g} s"
            if not limit.expired():
                words = self._contender.as_error(error, Phase.CLOSE).message
            self._extra.close_failure = words
        self._extra.close_s = (perf_counter_ns() - began_ns) / 1e9
        if self._is_examined:
            self._extra.left_open = await _settled(self._count_left_open)
            await self._weigh()

    async def _weigh(self) -> None:
        """Find out what connections and waiters weigh, of a pool that has both."""
        spec = self._spec
        if opened_at_first(spec.pool, spec.size + 1) == 1 or not self._opened:
            return
        config = replace(self._config, timeout_s=2 * _WEIGH_S, min_size=None)
        try:
            async with asyncio.timeout(_WEIGH_S):
                weight = await weigh(make(spec.pool, config), spec.clients)
        except Exception:
            # The server may have gone meanwhile: then it is not known, and that is in the table.
            return
        self._extra.connection_bytes = weight.connection_bytes
        self._extra.waiter_bytes = weight.waiter_bytes

    def _count_left_open(self) -> int | None:
        before, left = self._sockets_before, open_sockets()
        return None if before is None or left is None else len(left - before)

    def take(self, stretch: Stretch) -> Taken:
        """What there was since the last call."""
        taken = super().take(stretch)
        clients, opens = self._clients, self._contender.opens
        size = self._contender.size if self._last_size is None else self._last_size
        fairness, waits = clients.take_grants()
        opened, self._opened = opens.opened - self._opened, opens.opened
        failed, self._open_failed = opens.failed - self._open_failed, opens.failed
        extra, self._extra = self._extra, CheckoutStats()
        extra.fairness.merge(fairness)
        if self._last_size is not None:
            # The last grants are in it by now, and this is the last look.
            extra.fairness.merge(clients.take_by_client())
        if self._is_examined:
            failures = (item for stats in taken.targets for item in stats.failures.items())
            extra.dead_met = sum(
                failure.count for key, failure in failures if key.kind in _DEAD and key.phase in _MET_IN
            )
        extra.opened += opened
        extra.open_failed += failed
        extra.opening_peak = opens.opening_peak
        extra.size_peak = size
        extra.bursts.merge(clients.take_bursts())
        extra.recovery = clients.take_recovery()
        if stretch.is_shown(taken.targets):
            extra.intervals.append(CheckoutInterval(stretch.t, clients.at_work, size, opened, waits))
        taken.checkout = extra
        return taken


async def _settled(count: Callable[[], int | None]) -> int | None:
    """What `count` says once it is 0 or None, or `_SETTLE_S` have passed."""
    deadline_ns = perf_counter_ns() + round(_SETTLE_S * 1e9)
    while (left := count()) and perf_counter_ns() < deadline_ns:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(_LOOK_S)
    return left
