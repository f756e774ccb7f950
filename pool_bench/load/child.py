"""A generator process as its parent sees it: started, told what to do, listened to, ended."""

import contextlib
import subprocess
from multiprocessing.connection import Connection, Pipe
from typing import Final

from pool_bench.load.messages import Message, Point
from pool_bench.load.spec import Spec
from pool_bench.processes import is_stopped, start_module

_EXIT_S: Final = 5.0
# What is silent for less is not looked at: it sends once a second.
_SHORT_S: Final = 1.0


class Child:
    """One generator process.

    Args:
        spec: what it is to do.
        number: which one of its run it is, from 0.

    Attributes:
        reached: where it has waited for others.
        over: it has sent its last snapshot, or was lost.
        silent_s: for how long nothing was heard of it, in which it could have spoken, seconds.
    """

    def __init__(self, spec: Spec, number: int) -> None:
        self._spec = spec
        self.number = number
        self.reached: set[Point] = set()
        self.over = False
        self.silent_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._snapshots: Connection[Message, Message] | None = None
        self._control: Connection[Spec | str, str] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def snapshots(self) -> "Connection[Message, Message]":
        """What it sends."""
        assert self._snapshots is not None  # noqa: S101  # only of one that was started
        return self._snapshots

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
