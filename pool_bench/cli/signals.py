"""Ctrl-C and SIGTERM: the first asks the run to end and be summed up, the second leaves at once.

While leaving, one more ends the process whatever it is doing: what it started (servers, generators) sees
that and ends by itself.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from types import FrameType
from typing import Final, NoReturn

from pool_bench.load.run import StopSwitch

# Of commands that run others: a request to end the inner one is one to end all.
_switches: Final[list[StopSwitch]] = []


class LeaveNow(BaseException):
    """The user has asked twice; servers and processes are still cleaned up on the way out."""


# `timeout` signals its command and then its group, and `uv run` passes on what it gets: one request that
# arrives several times. Who presses Ctrl-C twice means it.
_ECHO_S: Final = 1.0
_EXIT_LEFT: Final = 130
_SHOW_CURSOR: Final = b"\x1b[?25h\n"
_SIGNALS: Final = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


@contextmanager
def stop_on_signals(tell: Callable[[str], None]) -> Iterator[StopSwitch]:
    """A switch that the first signal turns; the second raises `LeaveNow` in the main thread; a third exits.

    Args:
        tell: says in one line what is happening, for the first signal.
    """
    switch = StopSwitch()
    leaving = False
    last_s = -_ECHO_S

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal leaving, last_s
        now_s = monotonic()
        if number != signal.SIGINT and now_s - last_s < _ECHO_S:
            return
        last_s = now_s
        if leaving:
            _exit_now()
        if switch.requested:
            leaving = True
            raise LeaveNow
        for each in _switches:
            each.request()
        tell("stopping: waiting for what is under way (again to leave at once)")

    _switches.append(switch)
    # The request may have come between two of the commands.
    if any(each.requested for each in _switches):
        switch.request()
    # What was ignored when we were started (nohup, a shell's background job) stays ignored.
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield switch
    finally:
        leaving = True
        _switches.remove(switch)
        for number, handler in before.items():
            signal.signal(number, handler)
        switch.close()


def _exit_now() -> NoReturn:
    """End this process here, with the cursor that a live view hides shown again."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is held (Ctrl-S) would block us.
        with suppress(OSError, ValueError):
            if stream.isatty() and select.select([], [stream], [], 0)[1]:
                os.write(stream.fileno(), _SHOW_CURSOR)
                break
    os._exit(_EXIT_LEFT)
