"""Ctrl-C and SIGTERM: the first asks the run to end and be summed up, the second leaves at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Final

from pool_bench.load.runner import StopSwitch


class LeaveNow(BaseException):
    """The user has asked twice; servers and processes are still cleaned up on the way out."""


# `timeout` signals its command and then its group, and `uv run` passes on what it gets: one request that
# arrives several times. Who presses Ctrl-C twice means it.
_ECHO_S: Final = 1.0
_SIGNALS: Final = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


@contextmanager
def stop_on_signals(tell: Callable[[str], None]) -> Iterator[StopSwitch]:
    """A switch that the first signal turns; the second raises `LeaveNow` in the main thread.

    Args:
        tell: says in one line what is happening, for the first signal.
    """
    switch = StopSwitch()
    leaving = False
    asked_s = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal leaving, asked_s
        if leaving:
            return  # already on the way out: nothing may interrupt the cleaning up
        if switch.requested:
            if number != signal.SIGINT and monotonic() - asked_s < _ECHO_S:
                return
            leaving = True
            raise LeaveNow
        asked_s = monotonic()
        switch.request()
        tell("stopping: waiting for what is under way (again to leave at once)")

    # What was ignored when we were started (nohup, a shell's background job) stays ignored.
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield switch
    finally:
        leaving = True
        for number, handler in before.items():
            signal.signal(number, handler)
        switch.close()
