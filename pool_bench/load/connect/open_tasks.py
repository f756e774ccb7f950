"""Connect cycles as coroutines that begin when they are due, for drivers that are made of coroutines.

A task for each operation; the schedule and its limits are the `Dispatcher`'s.
"""

import asyncio
from time import perf_counter_ns

from pool_bench.drivers.base import Driver, phase_given_up
from pool_bench.errors import ConnectError, Phase
from pool_bench.load.connect.tasks import cycle, end_tasks
from pool_bench.load.dispatcher import Dispatcher
from pool_bench.load.drivers import prepare
from pool_bench.load.spec import ConnectSpec, OpenLoop
from pool_bench.load.splitting import address_of_error
from pool_bench.load.workload import MeasuredLoad, Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder


class OpenWorkerLoad(MeasuredLoad):
    """Tasks that connect, query if asked to, and close, each begun when it is due."""

    def __init__(
        self, spec: ConnectSpec, open_loop: OpenLoop, drivers: tuple[Driver, ...], recorders: Recorders
    ) -> None:
        self.recorders = recorders
        self._spec = spec
        self._drivers = drivers
        self._dispatcher = Dispatcher(spec, open_loop, recorders, self._begin)
        self._tasks: set[asyncio.Task[None]] = set()
        # By number, not by task: see WorkerLoad.
        self._under_way: dict[int, Recorder] = {}
        self._begun = 0

    @property
    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._under_way)

    @property
    def waiting(self) -> int:
        """Operations that are due and have not begun."""
        return self._dispatcher.waiting

    async def prepare(self) -> None:
        """Do what is done once for all connections; belongs to no operation."""
        await prepare(self._drivers)

    async def start(self) -> None:
        """The schedule begins."""
        self._dispatcher.start(self._dispatcher.dispatch)

    def stop(self) -> None:
        """The schedule ends; what was due and has not begun is dropped."""
        self._dispatcher.stop()

    async def drain(self, seconds: float) -> None:
        """Wait for what is under way, then cancel what is left and count it as unfinished."""
        tasks = list(self._tasks)
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=seconds)
            finally:
                # Also where the wait itself was cancelled.
                await self._give_up(tasks)

    async def _give_up(self, tasks: list[asyncio.Task[None]]) -> None:
        # No longer under way: whatever they still come to is not counted a second time.
        for recorder in self._under_way.values():
            recorder.unfinished(1)
        self._under_way.clear()
        await end_tasks(tasks)

    def _begin(self, target: int, due_ns: int, now_ns: int, recorder: Recorder) -> None:
        self._begun += 1
        self._under_way[self._begun] = recorder
        operation = self._operate(self._begun, self._drivers[target], due_ns, now_ns, recorder)
        task = asyncio.create_task(operation, name=f"operation-{self._begun}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._dispatcher.ended()
        self._dispatcher.dispatch()

    async def _operate(
        self, number: int, driver: Driver, due_ns: int, began_ns: int, recorder: Recorder
    ) -> None:
        """One cycle, recorded unless it is given up meanwhile."""
        row: tuple[int, ...] = ()
        address = UNKNOWN
        try:
            row, address = await cycle(driver, self._spec, recorder, began_ns)
        except ConnectError as error:
            if number in self._under_way:
                recorder.failed(error, perf_counter_ns() - due_ns, address_of_error(recorder, error))
            return
        except asyncio.CancelledError as given_up_here:
            recorder.unfinished_in(phase_given_up(given_up_here) or Phase.CONNECT)
            raise
        finally:
            given_up = self._under_way.pop(number, None) is None
        if not given_up:
            recorder.ok((row[0] + began_ns - due_ns, *row), address)
