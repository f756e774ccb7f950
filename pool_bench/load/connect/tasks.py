"""Connect cycles in a closed loop as coroutines, for drivers that are made of coroutines."""

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter_ns

from pool_bench.drivers.base import COARSE_PHASES, Connection, Driver, given_up_in, phase_given_up
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.backoff import backoff_s
from pool_bench.load.drivers import first_bound_s, prepare, row_of
from pool_bench.load.spec import ConnectSpec
from pool_bench.load.splitting import address_of_connection, address_of_error
from pool_bench.load.workload import MeasuredLoad, Recorders
from pool_bench.stats.addresses import UNKNOWN
from pool_bench.stats.operations import Recorder
from pool_bench.units import format_duration


class WorkerLoad(MeasuredLoad):
    """`spec.concurrency` tasks that connect, query if asked to, and close, again and again."""

    def __init__(self, spec: ConnectSpec, drivers: tuple[Driver, ...], recorders: Recorders) -> None:
        self._spec = spec
        self._drivers = drivers
        self.recorders = recorders
        self._rng = random.Random(spec.seed)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        # By the worker's number, not its task: a task in a local variable of its own frames would, once it is
        # cancelled, make a reference cycle that keeps a half-open connection until it is found.
        self._under_way: dict[int, Recorder] = {}
        self._backing_off = 0

    @property
    def in_flight(self) -> int:
        """Operations under way."""
        return len(self._under_way)

    @property
    def backing_off(self) -> int:
        """Workers that leave failing targets alone for now."""
        return self._backing_off

    async def prepare(self) -> None:
        """Do what is done once for all connections; belongs to no operation."""
        await prepare(self._drivers)

    async def start(self) -> None:
        """Set the workers to work."""
        for index in range(self._spec.concurrency):
            self._tasks.append(asyncio.create_task(self._work(index), name=f"worker-{index}"))

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    async def drain(self, seconds: float) -> None:
        """Wait for the workers, then cancel those that are left and count theirs as unfinished."""
        if self._tasks:
            try:
                await asyncio.wait(self._tasks, timeout=seconds)
            finally:
                # Also where the wait itself was cancelled.
                await self._give_up()

    async def _give_up(self) -> None:
        # No longer under way: whatever they still come to is not counted a second time.
        for recorder in self._under_way.values():
            recorder.unfinished(1)
        self._under_way.clear()
        tasks = self._tasks.copy()
        self._tasks.clear()
        await end_tasks(tasks)

    async def _work(self, worker: int) -> None:
        count = len(self._drivers)
        turn = (worker + (self._spec.share.first if self._spec.share else 0)) % count
        failures = [0] * count
        retry_ns = [0] * count
        while not self._stopping.is_set():
            now_ns = perf_counter_ns()
            order = [(turn + step) % count for step in range(count)]
            index = next((i for i in order if retry_ns[i] <= now_ns), -1)
            if index < 0:
                await self._pause((min(retry_ns) - now_ns) / 1e9)
                continue
            turn = (index + 1) % count
            if await self._operate(worker, index):
                failures[index] = 0
            else:
                failures[index] += 1
                delay_s = backoff_s(failures[index], self._rng)
                retry_ns[index] = perf_counter_ns() + round(delay_s * 1e9)

    async def _pause(self, seconds: float) -> None:
        self._backing_off += 1
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
        finally:
            self._backing_off -= 1

    async def _operate(self, worker: int, index: int) -> bool:
        """One cycle; records it and tells whether it succeeded."""
        recorder = self.recorders.current[index]
        self._under_way[worker] = recorder
        started_ns = perf_counter_ns()
        row: tuple[int, ...] = ()
        address = UNKNOWN
        try:
            row, address = await cycle(self._drivers[index], self._spec, recorder, started_ns)
        except ConnectError as error:
            if worker in self._under_way:
                recorder.failed(error, perf_counter_ns() - started_ns, address_of_error(recorder, error))
            return False
        except asyncio.CancelledError as given_up_here:
            recorder.unfinished_in(phase_given_up(given_up_here) or Phase.CONNECT)
            raise
        finally:
            given_up = self._under_way.pop(worker, None) is None
        if not given_up:
            recorder.ok(row, address)
        return True


class _Met:
    """The address that a connection turned out to have, where the recorder wants to know."""

    __slots__ = ("_recorder", "address")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.address = UNKNOWN

    def see(self, connection: Connection) -> None:
        """Look at a connection that is open: of a closed one some drivers have forgotten it."""
        if self._recorder.addresses is not None:
            self.address = address_of_connection(self._recorder, connection)


async def cycle(
    driver: Driver, spec: ConnectSpec, recorder: Recorder, started_ns: int
) -> tuple[tuple[int, ...], str]:
    """Connect, query if asked to, and close, all within the time that `spec` allows.

    Returns:
        What it took since `started_ns`, and each of the recorder's phases; nanoseconds, -1 for one that it
        skipped. And the address, where the recorder wants to know it.

    Raises:
        ConnectError: it failed, or the time was up.
    """
    marks = [started_ns]
    met = _Met(recorder)
    try:
        bound_s = first_bound_s(driver, spec.connect_timeout_s)
        async with asyncio.timeout(bound_s):
            rest_s = spec.connect_timeout_s if bound_s is None else None
            connection = await _connect_and_close(driver, spec.query, marks, rest_s, met)
    except ConnectError as error:
        error.address = met.address or error.address
        raise
    except asyncio.CancelledError as given_up:
        if len(marks) > 1:
            given_up_in(given_up, COARSE_PHASES[min(len(marks) - 1, 2)])
        raise
    except TimeoutError:
        phase = COARSE_PHASES[min(len(marks) - 1, 2)]
        limit = format_duration(spec.connect_timeout_s)
        # Without the cause, whose frames hold the connection.
        message = f"no end after {limit} (--connect-timeout)"
        raise ConnectError(FailureKind.TIMEOUT, phase, message, address=met.address) from None
    return row_of(recorder.phases, connection, marks), met.address


async def _connect_and_close(
    driver: Driver, query: str | None, marks: list[int], rest_s: float | None, met: _Met
) -> Connection:
    """Connect, query, close, the last two within `rest_s`; appends the time after each to `marks`."""
    connection = await driver.connect()
    try:
        marks.append(perf_counter_ns())
        met.see(connection)
        async with asyncio.timeout(rest_s):
            if query:
                await connection.execute(query)
            marks.append(perf_counter_ns())
            await connection.close()
    except BaseException:
        # A polite end could wait for the very server that has just let us down.
        connection.terminate()
        raise
    marks.append(perf_counter_ns())
    return connection


async def end_tasks(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel `tasks` and wait for their end.

    Raises:
        Exception: what one of them failed with.
    """
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
