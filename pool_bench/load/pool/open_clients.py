"""Clients of a pool who come when they are due, whether or not earlier ones have been served.

A task for each operation; the schedule and its limits are the `Dispatcher`'s. Nobody rests after a failure
and nobody comes twice, so that there is nothing to say of single clients.
"""

import asyncio

from pool_bench.contenders.base import Contender, L
from pool_bench.load.dispatcher import Dispatcher
from pool_bench.load.pool.clients import Due, PoolLoad
from pool_bench.load.spec import OpenLoop, PoolSpec
from pool_bench.stats.checkouts import Fairness
from pool_bench.stats.operations import Recorder


class OpenPoolLoad(PoolLoad[L]):
    """Operations on a pool, each begun when it is due; at most `spec.clients` are in flight."""

    def __init__(self, spec: PoolSpec, open_loop: OpenLoop, contender: Contender[L]) -> None:
        super().__init__(spec, contender)
        self._dispatcher = Dispatcher(spec, open_loop, self.recorders, self._begin)
        # Operations have numbers from a fixed range, each free again once its task has ended.
        self._free = list(range(spec.clients - 1, -1, -1))

    @property
    def waiting(self) -> int:
        """Operations that are due and have not begun."""
        return self._dispatcher.waiting

    async def start(self) -> None:
        """The schedule begins."""
        self._dispatcher.start(self._dispatcher.dispatch)

    def stop(self) -> None:
        """The schedule ends; what was due and has not begun is dropped."""
        self._dispatcher.stop()

    def take_by_client(self) -> Fairness:
        """Nothing: each comes once."""
        return Fairness()

    def _begin(self, target: int, due_ns: int, now_ns: int, recorder: Recorder) -> None:
        del target  # a pool has one
        number = self._free.pop()
        # Here and not in the task, which may be given up before its first turn.
        self._under_way[number] = recorder
        self.at_work = len(self._under_way)
        task = asyncio.create_task(
            self._serve(number, Due(due_ns, now_ns, recorder)), name=f"client-{number}"
        )
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, number))

    async def _serve(self, number: int, due: Due) -> None:
        await self._operate(number, due)

    def _ended(self, task: "asyncio.Task[None]", number: int) -> None:
        self._tasks.discard(task)
        self._free.append(number)
        self.at_work = len(self._under_way)
        self._dispatcher.ended()
        self._dispatcher.dispatch()


def make_load(spec: PoolSpec, contender: Contender[L]) -> PoolLoad[L]:
    """The clients that `spec` describes."""
    if spec.open_loop is None:
        return PoolLoad(spec, contender)
    return OpenPoolLoad(spec, spec.open_loop, contender)
