"""The worker's side: starts generator processes, passes on what they send and what they are told.

A worker under a nanny is daemonic, which `multiprocessing` lets have no children; generators are started with
`subprocess` like everywhere else (`processes.start_module`). What they send is not looked at: bytes go on as
they come, with a number each, so that a gap shows.

Passwords are in what a generator is to do. That comes by `Client.run` and never stands in a task: those are
kept, shown and logged by schedulers. A task only names a run, and one whose order is not here (another worker
in the place of a lost one) does nothing: load is not generated twice.
"""

import os
import pickle
import queue
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from threading import Lock
from time import perf_counter_ns
from typing import Final

from distributed import Worker, get_worker

from pool_bench.load.child import Child
from pool_bench.load.spec import Spec

# How often it is seen whether anybody still wants this.
_GLANCE_S: Final = 0.25
HANG_UP: Final = ""
"""The word after which a generator ends itself."""

_WANTED: Final = ("executing", "long-running")
_WELL: Final = ("running", "paused")


@dataclass(frozen=True, slots=True)
class Relayed:
    """What one generator process has sent, or its end.

    Attributes:
        run: which run.
        host: the machine.
        process: which process of the run, from 0.
        sequence: how many that process had sent before.
        body: a pickled `load.messages.Message`; empty where nothing follows any more.
    """

    run: str
    host: str
    process: int
    sequence: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """What the generators of one worker are to do.

    Attributes:
        run: which run it belongs to.
        topic: of the events by which the generators' messages are passed on.
        host: what the machine is called in them.
        parts: pickled `tuple[tuple[int, Spec], ...]`, the processes by their number; passwords are in it.
    """

    run: str
    topic: str
    host: str
    parts: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """What one generator process has sent: how many messages, its end not counted, and the last of them."""

    messages: int
    last: bytes = field(repr=False)


class _Mission:
    """An order that came, and the words for its generators."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.begun = False
        self._words: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.wake, self._waker = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._waker, False)
        self._closing = Lock()
        self._closed = False

    def say(self, words: Iterable[tuple[int, str]]) -> None:
        for word in words:
            self._words.put(word)
        with self._closing, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._waker, b"!")

    def words(self) -> Iterable[tuple[int, str]]:
        with suppress(BlockingIOError):
            os.read(self.wake, 1 << 16)
        while not self._words.empty():
            yield self._words.get()

    def close(self) -> None:
        with self._closing:
            self._closed = True
            os.close(self.wake)
            os.close(self._waker)


_MISSIONS: Final[dict[str, _Mission]] = {}


def clock() -> int:
    """What this machine's clock says, perf_counter_ns."""
    return perf_counter_ns()


def accept(orders: dict[str, Order], dask_worker: Worker) -> bool:
    """Keep this worker's order, whose task follows; says whether there was one."""
    order = orders.get(dask_worker.contact_address or dask_worker.address)
    if order is not None:
        _MISSIONS[order.run] = _Mission(order)
    return order is not None


def say(run: str, words: tuple[tuple[int, str], ...]) -> None:
    """Tell generators something, each word with the number of its process; who is gone hears nothing."""
    mission = _MISSIONS.get(run)
    if mission is not None:
        mission.say(words)


def forget(run: str) -> None:
    """Drop an order whose task never came."""
    mission = _MISSIONS.get(run)
    if mission is not None and not mission.begun:
        del _MISSIONS[run]
        mission.close()


def launch(run: str) -> dict[int, Sent] | None:
    """The task: generate this worker's part of `run`, from beginning to end.

    Returns:
        What each process has sent, by its number; None where there is no order, or it was begun already.
    """
    mission = _MISSIONS.get(run)
    if mission is None or mission.begun:
        return None
    mission.begun = True
    try:
        return _Launch(mission, get_worker()).run()
    finally:
        del _MISSIONS[run]
        mission.close()


class _Launch:
    """One task under way."""

    def __init__(self, mission: _Mission, worker: Worker) -> None:
        self._mission = mission
        self._worker = worker
        self._key = worker.get_current_task()
        parts: tuple[tuple[int, Spec], ...] = pickle.loads(mission.order.parts)  # noqa: S301 - our client's
        self._children = {number: Child(part, number) for number, part in parts}
        self._sent = {number: Sent(0, b"") for number in self._children}

    def run(self) -> dict[int, Sent]:
        """Start all, and pass on until none has anything to say."""
        _raise_file_limit()
        complete = False
        try:
            for child in self._children.values():
                child.start()
            complete = self._pass_on()
        finally:
            for child in self._children.values():
                child.hang_up()
            for child in self._children.values():
                child.end(patient=complete)
        return self._sent

    def _pass_on(self) -> bool:
        """Until all have ended, or nobody wants this any more; says whether all have ended."""
        live = dict(self._children)
        while live:
            ready = wait([*(child.source for child in live.values()), self._mission.wake], _GLANCE_S)
            for number, word in self._mission.words():
                if word == HANG_UP:
                    self._children[number].hang_up()
                else:
                    self._children[number].tell(word)
            for number, child in list(live.items()):
                if child.source in ready:
                    body = child.receive_bytes()
                    self._relay(number, body)
                    if not body:
                        del live[number]
            if not self._is_wanted():
                return False
        return True

    def _relay(self, number: int, body: bytes) -> None:
        order, sent = self._mission.order, self._sent[number]
        relayed = Relayed(order.run, order.host, number, sent.messages, body)
        self._sent[number] = Sent(sent.messages + bool(body), body or sent.last)
        self._worker.log_event(order.topic, pickle.dumps(relayed))

    def _is_wanted(self) -> bool:
        """Whether the client is there: a scheduler drops the tasks of one that is gone."""
        task = self._worker.state.tasks.get(self._key)
        return self._worker.status.name in _WELL and task is not None and task.state in _WANTED


def _raise_file_limit() -> None:
    """As many open files as are allowed, for the generators, which inherit the limit."""
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
