"""A generator process as its parent sees it: started, told what to do, listened to, ended.

`Member` and `Team` are what a run needs of its generators, wherever these are: here, or behind the workers of
a cluster (`load/cluster/`).
"""

import contextlib
import subprocess
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Final, Protocol

from pool_bench.errors import PoolBenchError
from pool_bench.load.messages import Message, Point
from pool_bench.load.spec import Spec
from pool_bench.processes import is_stopped, start_module
from pool_bench.stats.hosts import HostPart

_EXIT_S: Final = 5.0
# What is silent for less is not looked at: it sends once a second.
_SHORT_S: Final = 1.0


class GeneratorError(PoolBenchError):
    """A generator process failed; the message is its own."""


class WorkerLostError(GeneratorError):
    """A generator process is lost with the worker of a cluster that started it."""


class Member(Protocol):
    """One generator of a run.

    Attributes:
        number: which one of its run it is, from 0.
        host: the machine it runs on, "" for this one.
        reached: where it has waited for others.
        over: it has sent its last snapshot, or was lost.
        silent_s: for how long nothing was heard of it, in which it could have spoken, seconds.
        missing: messages of it that did not arrive.
    """

    number: int
    host: str
    reached: set[Point]
    over: bool
    silent_s: float
    missing: int

    @property
    def pid(self) -> int | None:
        """Its process on this machine; None where there is none."""

    @property
    def source(self) -> "Connection[Message, Message] | int":
        """Becomes readable when there is something to receive."""

    def receive(self) -> Message:
        """What it has sent next.

        Raises:
            GeneratorError: it has ended, or cannot be heard any more.
        """

    def tell(self, word: str) -> None:
        """Say something, now; safe from any thread, and when it is gone."""

    def pass_silence(self, seconds: float) -> None:
        """Nothing was heard of it for `seconds` more."""

    def hang_up(self) -> None:
        """Tell it to end itself."""


class Team(Protocol):
    """The generators of one run.

    Attributes:
        members: all of them, in the order of their numbers.
        lead_ns: how far ahead they must be told when all begin, nanoseconds.
        apart: they are on machines of their own, so that even one is told when to begin.
    """

    members: "Sequence[Member]"
    lead_ns: int
    apart: bool

    def start(self) -> None:
        """Start them and tell them what to do.

        Raises:
            GeneratorError: they cannot be started.
        """

    def end(self, *, patient: bool) -> None:
        """Wait for their end where they are `patient`ly to have their say, and see that they are gone."""

    def hosts(self) -> tuple[HostPart, ...]:
        """The machines they ran on; empty where that is this one."""


class Crew(Protocol):
    """Who generates the load of all runs of a command, where it is not this machine."""

    def team(self, spec: Spec) -> Team:
        """The generators of a run that does `spec` in `spec.processes` processes.

        Raises:
            UsageError: there is not something to do for each of them.
        """


class Child:
    """One generator process.

    Args:
        spec: what it is to do.
        number: which one of its run it is, from 0.

    Attributes:
        reached: where it has waited for others.
        over: it has sent its last snapshot, or was lost.
        silent_s: for how long nothing was heard of it, in which it could have spoken, seconds.
        host, missing: as of every member: it is here, and a pipe loses nothing.
    """

    def __init__(self, spec: Spec, number: int) -> None:
        self._spec = spec
        self.number = number
        self.reached: set[Point] = set()
        self.over = False
        self.silent_s = 0.0
        self.host = ""
        self.missing = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._snapshots: Connection[Message, Message] | None = None
        self._control: Connection[Spec | str, str] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def source(self) -> "Connection[Message, Message]":
        """What it sends."""
        assert self._snapshots is not None  # noqa: S101  # only of one that was started
        return self._snapshots

    def receive(self) -> Message:
        """What it has sent next.

        Raises:
            GeneratorError: it has ended.
        """
        try:
            return self.source.recv()
        except (EOFError, OSError):
            raise GeneratorError("the generator process ended without a result") from None

    def receive_bytes(self) -> bytes:
        """The same, pickled as it came; empty at its end."""
        try:
            return self.source.recv_bytes()
        except (EOFError, OSError):
            return b""

    def start(self) -> None:
        """Start it and tell it what to do."""
        snapshots, child_snapshots = Pipe(duplex=False)
        child_control, control = Pipe(duplex=False)
        with child_snapshots, child_control:
            self._process = start_module(
                "pool_bench.load.process", child_snapshots.fileno(), child_control.fileno()
            )
        self._snapshots, self._control = snapshots, control
        # Before anything else may be said; one that is gone already shows by the end of its snapshots.
        with contextlib.suppress(OSError):
            control.send(self._spec)

    def tell(self, word: str) -> None:
        """Say something, now; safe from any thread, and when it is gone."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(word)

    def pass_silence(self, seconds: float) -> None:
        """Nothing was heard of it for `seconds` more; time for which it was stopped does not count."""
        if self.silent_s < _SHORT_S or not is_stopped(self.pid):
            self.silent_s += seconds

    def hang_up(self) -> None:
        """Tell it to end itself: it does, without this pipe."""
        if self._control is not None:
            control, self._control = self._control, None
            control.close()

    def end(self, *, patient: bool) -> None:
        """Wait for its end where it is `patient`ly to have its say, and see that it is gone."""
        if self._process is not None:
            try:
                self._process.wait(_EXIT_S if patient else 0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._snapshots is not None:
            self._snapshots.close()


class Children:
    """The generators of one run on this machine.

    Args:
        parts: what each is to do.

    Attributes:
        members, lead_ns, apart: as of every team.
    """

    # Enough for the last one to hear of it.
    lead_ns: int = 100_000_000
    apart: bool = False

    def __init__(self, parts: tuple[Spec, ...]) -> None:
        self._children = [Child(part, number) for number, part in enumerate(parts)]
        self.members: Sequence[Member] = self._children

    def start(self) -> None:
        """Start them and tell them what to do."""
        for child in self._children:
            child.start()

    def end(self, *, patient: bool) -> None:
        """Wait for their end where they are `patient`ly to have their say, and see that they are gone."""
        for child in self._children:
            child.end(patient=patient)

    def hosts(self) -> tuple[HostPart, ...]:
        """Only this one."""
        return ()
