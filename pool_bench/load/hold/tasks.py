"""Holds connections of drivers that are made of coroutines (asyncpg, psycopg, surreal).

A task exists only while something is asked of a connection: its connect, a keep-alive, its close,
and for an active one its queries. That an idle one has ended is told by the driver (`watch`).
"""

import asyncio
import random
from collections import deque
from collections.abc import Coroutine
from time import perf_counter_ns
from typing import Any, Final, Protocol, cast

from pool_bench.drivers.base import WatchedConnection, phase_given_up
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.backoff import backoff_s
from pool_bench.load.connect.drivers import connect_phases_of, first_bound_s, make_drivers, prepare, row_of
from pool_bench.load.hold.opening import (
    STEADY_NS,
    HoldLedger,
    KeepaliveRing,
    Opening,
    active_slots,
    spread_targets,
)
from pool_bench.load.spec import HoldSpec
from pool_bench.load.splitting import address_of_connection, address_of_error, splits_of
from pool_bench.units import format_duration

_AFTER_FAILURE_S: Final = 0.1
# After these a connection is of no use, whether its driver has noticed yet or not.
_ENDS: Final = frozenset((FailureKind.SERVER_SHUTDOWN, FailureKind.IDLE_TIMEOUT))
# The same where it is not the server who says so of a query (57014: canceled by statement_timeout).
_ENDS_UNSAID: Final = frozenset(
    (FailureKind.CLOSED, FailureKind.RESET, FailureKind.TIMEOUT, FailureKind.PROTOCOL)
)
# SQLSTATE class 08, connection exceptions: how PgBouncer ends a client.
_CONNECTION_EXCEPTION: Final = "08"


def _ends_connection(error: ConnectError) -> bool:
    if error.kind in _ENDS:
        return True
    said = error.sqlstate is not None and not error.sqlstate.startswith(_CONNECTION_EXCEPTION)
    return error.kind in _ENDS_UNSAID and not said


class _WatchingDriver(Protocol):
    async def connect(self) -> WatchedConnection:
        """Open one connection."""


class _Held:
    """An open connection."""

    __slots__ = ("address", "busy", "connection", "opened_ns")

    def __init__(self, connection: WatchedConnection, opened_ns: int, address: str) -> None:
        self.connection = connection
        self.address = address
        self.opened_ns = opened_ns
        self.busy = False


class TaskHoldLoad:
    """Opens, holds and closes the connections of one `HoldSpec`."""

    def __init__(self, spec: HoldSpec) -> None:
        self._spec = spec
        drivers = make_drivers(spec)
        # Those of all drivers that are asked to hold anything.
        self._drivers = cast("tuple[_WatchingDriver, ...]", drivers)
        self._once = drivers
        self._targets = spread_targets(spec.connections)
        self._active = active_slots(len(self._targets), spec.active)
        self._rng = random.Random(spec.seed)
        self._held: list[_Held | None] = [None] * len(self._targets)
        self._tasks: set[asyncio.Task[object]] = set()
        self._connecting: dict[int, bool] = {}
        self._failures: dict[int, int] = {}
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        self._due: deque[int] = deque()
        self._stopping = False
        self.ledger = HoldLedger(tuple(connect_phases_of(driver) for driver in drivers), splits_of(spec))
        self.opening = Opening(
            spec,
            len(self._targets),
            self._begin_first,
            abandon=self._abandon_opening,
            clock=self.ledger.now_ns,
        )
        self._ring = (
            KeepaliveRing(len(self._targets), spec.keepalive_s, self._keep_alive)
            if spec.keepalive_s and self._targets
            else None
        )

    @property
    def in_flight(self) -> int:
        """Connects under way."""
        return len(self._connecting)

    @property
    def backing_off(self) -> int:
        """Connections that wait before they are replaced."""
        return len(self._waiting) + len(self._due)

    @property
    def hopeless(self) -> bool:
        """True where nothing is held and nothing can come back."""
        return self.opening.over.is_set() and not (self.ledger.held or self.in_flight or self.backing_off)

    async def prepare(self) -> None:
        """Do what is done once for all connections; belongs to no operation."""
        await prepare(self._once)

    async def start(self) -> None:
        """Begin to open."""
        if self._ring is not None:
            self._ring.start()
        self.opening.start()

    def _spawn(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Opening

    def _begin_first(self, slot: int) -> None:
        self._begin(slot, again=False)

    def _begin(self, slot: int, *, again: bool) -> None:
        self._connecting[slot] = again
        self._spawn(self._open(slot, again=again), f"open-{slot}")

    async def _open(self, slot: int, *, again: bool) -> None:
        target = self._targets[slot]
        recorder = self.ledger.replacing if again else self.ledger.opens[target]
        started_ns = perf_counter_ns()
        limit_s = self._spec.connect_timeout_s
        try:
            async with asyncio.timeout(first_bound_s(self._drivers[target], limit_s)):
                connection = await self._drivers[target].connect()
        except ConnectError as error:
            self._not_open(slot, error, started_ns, again=again)
            return
        except TimeoutError:
            limit = format_duration(limit_s)
            late = ConnectError(
                FailureKind.TIMEOUT, Phase.CONNECT, f"not open after {limit} (--connect-timeout)"
            )
            self._not_open(slot, late, started_ns, again=again)
            return
        except asyncio.CancelledError as given_up:
            if not again:
                recorder.unfinished_in(phase_given_up(given_up) or Phase.CONNECT)
            raise
        now_ns = perf_counter_ns()
        if self._connecting.pop(slot, None) is None:
            connection.terminate()  # given up in the meantime
            return
        address = address_of_connection(recorder, connection)
        recorder.ok(row_of(recorder.phases, connection, [started_ns, now_ns, now_ns, now_ns]), address)
        self.ledger.opened(again=again)
        held = self._held[slot] = _Held(connection, now_ns, address)
        connection.watch(lambda error: self._drop(slot, held, error))
        if not again:
            self.opening.ended(opened=True)
        else:
            self._replace_due()
        if self._active[slot] and self._held[slot] is held:
            self._spawn(self._never_rest(slot, held), f"active-{slot}")

    def _not_open(self, slot: int, error: ConnectError, started_ns: int, *, again: bool) -> None:
        if self._connecting.pop(slot, None) is None:
            return  # given up in the meantime, and counted as unfinished
        recorder = self.ledger.replacing if again else self.ledger.opens[self._targets[slot]]
        recorder.failed(error, perf_counter_ns() - started_ns, address_of_error(recorder, error))
        if again:
            self._come_back(slot)
            self._replace_due()
        else:
            self.opening.ended(opened=False)

    # Holding

    def _keep_alive(self, slot: int) -> None:
        held = self._held[slot]
        if held is not None and not held.busy and not self._active[slot]:
            held.busy = True
            self._spawn(self._ask(slot, held, active=False), f"keep-alive-{slot}")

    async def _never_rest(self, slot: int, held: _Held) -> None:
        while self._held[slot] is held and not self._stopping:
            if not await self._ask(slot, held, active=True):
                await asyncio.sleep(_AFTER_FAILURE_S)

    async def _ask(self, slot: int, held: _Held, *, active: bool) -> bool:
        """Run the keep-alive query; returns whether it was answered."""
        started_ns = perf_counter_ns()
        try:
            async with asyncio.timeout(self._spec.connect_timeout_s):
                if self._spec.keepalive_query:
                    await held.connection.execute(self._spec.keepalive_query)
                else:
                    await held.connection.ping()
        except ConnectError as error:
            if _ends_connection(error) or held.connection.is_closed():
                self._drop(slot, held, error)
            elif self._held[slot] is held:
                self.ledger.query_failed(error, perf_counter_ns() - started_ns)
            return False
        except TimeoutError:
            limit = format_duration(self._spec.connect_timeout_s)
            message = f"no answer after {limit} (--connect-timeout)"
            self._drop(slot, held, ConnectError(FailureKind.TIMEOUT, Phase.QUERY, message))
            return False
        finally:
            held.busy = False
        if self._held[slot] is held:
            self.ledger.answered(perf_counter_ns() - started_ns, active=active)
        return True

    def _drop(self, slot: int, held: _Held, error: ConnectError) -> None:
        """A connection has ended; the query it was in, and the driver itself, may both say so."""
        if self._held[slot] is not held or self._stopping:
            return
        self._held[slot] = None
        age_ns = perf_counter_ns() - held.opened_ns
        held.connection.terminate()
        self.ledger.dropped(error, age_ns, self._targets[slot], held.address)
        if self._spec.reconnect:
            if age_ns > STEADY_NS:
                self._failures.pop(slot, None)
            self._come_back(slot)

    def _come_back(self, slot: int) -> None:
        """Replace a connection after a pause that grows with each failure."""
        if self._stopping:
            return
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1
        delay_s = backoff_s(failures, self._rng)
        self._waiting[slot] = asyncio.get_running_loop().call_later(delay_s, self._wake, slot)

    def _wake(self, slot: int) -> None:
        del self._waiting[slot]
        self._due.append(slot)
        self._replace_due()

    def _replace_due(self) -> None:
        while self._due and self.in_flight < self._spec.open_concurrency and not self._stopping:
            self._begin(self._due.popleft(), again=True)

    # Closing

    async def close(self, seconds: float) -> None:
        """Give up what is not open yet, and close everything politely, at most so long; then at once."""
        self._stop()
        held = [one for one in self._held if one is not None]
        now_ns = perf_counter_ns()
        for one in held:
            self.ledger.survived(now_ns - one.opened_ns)
        closing: dict[asyncio.Task[object], _Held] = {}
        try:
            # Queries under way first: a connection closes politely only when nothing is asked of it.
            if self._tasks:
                _, late = await asyncio.wait(list(self._tasks), timeout=seconds / 2)
                await _cancel(late)
            for one in held:
                closing[asyncio.create_task(one.connection.close(), name="close")] = one
            if closing:
                left_s = seconds - (perf_counter_ns() - now_ns) / 1e9
                await asyncio.wait(closing, timeout=max(left_s, 0))
        finally:
            await _cancel({task for task in (*closing, *self._tasks) if not task.done()})
            for one in held:
                one.connection.terminate()
            for task in closing:
                self.ledger.closed(forced=task.cancelled())
            self._held = [None] * len(self._held)

    def _stop(self) -> None:
        self._stopping = True
        self.opening.stop()
        if self._ring is not None:
            self._ring.stop()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._due.clear()
        self._abandon_opening()
        self._connecting.clear()
        for task in self._tasks:
            if task.get_name().startswith("open-"):
                task.cancel()

    def _abandon_opening(self) -> None:
        """Let go of the connects of the first opening that are under way."""
        first = [slot for slot, again in self._connecting.items() if not again]
        for slot in first:
            self.ledger.opens[self._targets[slot]].unfinished(1)
            del self._connecting[slot]
        names = {f"open-{slot}" for slot in first}
        for task in self._tasks:
            if task.get_name() in names:
                task.cancel()


async def _cancel(tasks: "set[asyncio.Task[object]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
