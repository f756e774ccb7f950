"""Holds connections of drivers that are made of coroutines (asyncpg, psycopg, surreal).

A task exists only while something is asked of a connection: its connect, a keep-alive, its close,
and for an active one its queries. That an idle one has ended is told by the driver (`watch`).
"""

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any, Final

from pool_bench.drivers.base import WatchedConnection, phase_given_up
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.drivers import WatchingDriver, connect_phases, first_bound_s, prepare, row_of
from pool_bench.load.hold.load import AFTER_FAILURE_S, HoldLoad
from pool_bench.load.spec import HoldSpec
from pool_bench.load.splitting import address_of_connection, address_of_error

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


class _Held:
    """An open connection."""

    __slots__ = ("address", "busy", "connection", "opened_ns")

    def __init__(self, connection: WatchedConnection, opened_ns: int, address: str) -> None:
        self.connection = connection
        self.address = address
        self.opened_ns = opened_ns
        self.busy = False


class TaskHoldLoad(HoldLoad):
    """Opens, holds and closes the connections of one `HoldSpec`."""

    def __init__(
        self, spec: HoldSpec, drivers: tuple[WatchingDriver, ...], resident_bytes: Callable[[], int]
    ) -> None:
        super().__init__(spec, (connect_phases(driver.phases) for driver in drivers), resident_bytes)
        self._drivers = drivers
        self._by_slot: list[_Held | None] = [None] * len(self._targets)
        self._tasks: set[asyncio.Task[object]] = set()
        # Whether each connect under way replaces a connection.
        self._connecting: dict[int, bool] = {}
        self._is_closing = False

    @property
    def in_flight(self) -> int:
        """Connects under way."""
        return len(self._connecting)

    async def prepare(self) -> None:
        """Do what is done once for all connections; belongs to no operation."""
        await prepare(self._drivers)

    def _spawn(self, work: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, slot: int, *, again: bool) -> None:
        self._connecting[slot] = again
        self._spawn(self._open(slot, again=again), f"open-{slot}")

    async def _open(self, slot: int, *, again: bool) -> None:
        target = self._targets[slot]
        recorder = self._ledger.replacing if again else self._ledger.opens[target]
        started_ns = perf_counter_ns()
        limit_s = self._spec.connect_timeout_s
        try:
            async with asyncio.timeout(first_bound_s(self._drivers[target], limit_s)):
                connection = await self._drivers[target].connect()
        except ConnectError as error:
            self._not_open(slot, error, started_ns, again=again)
            return
        except TimeoutError:
            late = ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, f"not open {self._overdue}")
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
        self._ledger.opened(again=again)
        held = self._by_slot[slot] = _Held(connection, now_ns, address)
        connection.watch(lambda error: self._drop(slot, held, error))
        if not again:
            self._opening.ended(opened=True)
        else:
            self._reconnects.begin_due()
        if self._active[slot] and self._by_slot[slot] is held:
            self._spawn(self._run_active(slot, held), f"active-{slot}")

    def _not_open(self, slot: int, error: ConnectError, started_ns: int, *, again: bool) -> None:
        if self._connecting.pop(slot, None) is None:
            return  # given up in the meantime, and counted as unfinished
        recorder = self._ledger.replacing if again else self._ledger.opens[self._targets[slot]]
        recorder.failed(error, perf_counter_ns() - started_ns, address_of_error(recorder, error))
        if again:
            self._reconnects.failed(slot)
            self._reconnects.begin_due()
        else:
            self._opening.ended(opened=False)

    def _keep_alive(self, slot: int) -> None:
        held = self._by_slot[slot]
        if held is not None and not held.busy and not self._active[slot]:
            held.busy = True
            self._spawn(self._ask(slot, held, active=False), f"keep-alive-{slot}")

    async def _run_active(self, slot: int, held: _Held) -> None:
        while self._by_slot[slot] is held and not self._is_closing:
            if not await self._ask(slot, held, active=True):
                await asyncio.sleep(AFTER_FAILURE_S)

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
            elif self._by_slot[slot] is held:
                self._ledger.query_failed(error, perf_counter_ns() - started_ns)
            return False
        except TimeoutError:
            late = ConnectError(FailureKind.TIMEOUT, Phase.QUERY, f"no answer {self._overdue}")
            self._drop(slot, held, late)
            return False
        finally:
            held.busy = False
        if self._by_slot[slot] is held:
            self._ledger.answered(perf_counter_ns() - started_ns, active=active)
        return True

    def _drop(self, slot: int, held: _Held, error: ConnectError) -> None:
        """A connection has ended; the query it was in, and the driver itself, may both say so."""
        if self._by_slot[slot] is not held or self._is_closing:
            return
        self._by_slot[slot] = None
        age_ns = perf_counter_ns() - held.opened_ns
        held.connection.terminate()
        self._ledger.dropped(error, age_ns, self._targets[slot], held.address)
        if self._spec.reconnect:
            self._reconnects.dropped(slot, age_ns)

    async def _close(self, seconds: float) -> None:
        self._is_closing = True
        self._end_all()
        self._give_up_connects()
        open_now = [held for held in self._by_slot if held is not None]
        now_ns = perf_counter_ns()
        for held in open_now:
            self._ledger.survived(now_ns - held.opened_ns)
        closing: dict[asyncio.Task[object], _Held] = {}
        try:
            # Queries under way first: a connection closes politely only when nothing is asked of it.
            if self._tasks:
                _, late = await asyncio.wait(list(self._tasks), timeout=seconds / 2)
                await _cancel(late)
            for held in open_now:
                closing[asyncio.create_task(held.connection.close(), name="close")] = held
            if closing:
                left_s = seconds - (perf_counter_ns() - now_ns) / 1e9
                await asyncio.wait(closing, timeout=max(left_s, 0))
        finally:
            await _cancel({task for task in (*closing, *self._tasks) if not task.done()})
            for held in open_now:
                held.connection.terminate()
            for task in closing:
                self._ledger.closed(forced=task.cancelled())
            self._by_slot = [None] * len(self._by_slot)

    def _give_up_connects(self) -> None:
        self._abandon_opening()
        self._connecting.clear()
        for task in self._tasks:
            if task.get_name().startswith("open-"):
                task.cancel()

    def _abandon_opening(self) -> None:
        """Let go of the connects of the first opening that are under way."""
        first = [slot for slot, again in self._connecting.items() if not again]
        for slot in first:
            self._ledger.opens[self._targets[slot]].unfinished(1)
            del self._connecting[slot]
        names = {f"open-{slot}" for slot in first}
        for task in self._tasks:
            if task.get_name() in names:
                task.cancel()


async def _cancel(tasks: "set[asyncio.Task[object]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
