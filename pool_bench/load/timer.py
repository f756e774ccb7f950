"""One timer, precise to microseconds, inside an asyncio event loop.

Event loops wait in whole milliseconds (epoll_wait(2)), so a timer of theirs fires up to a millisecond late.
Where there is timerfd_create(2) the kernel makes a descriptor readable at the nanosecond asked for, for the
price of a system call each time it is set. Spinning until the moment has come would not be better: it uses up
the share of the processor that the operations need (`benchmarks/schedule_error.py` compares them).
"""

import asyncio
import ctypes
import os
import select
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, Protocol

# From <sys/timerfd.h>, <bits/time.h> and <fcntl.h>; perf_counter_ns reads the same clock.
_CLOCK_MONOTONIC: Final = 1
_TFD_TIMER_ABSTIME: Final = 1


class Timer(Protocol):
    """Calls back once at the moment it was last set to."""

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns` of `perf_counter_ns`, at once where that is past, and not when set before."""

    def close(self) -> None:
        """Never fire again; safe to call twice."""


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerFd:
    """A timer of the Linux kernel, watched by the event loop.

    Raises:
        OSError: the kernel gives none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._loop = loop
        self._fire = fire
        self._set_time = libc.timerfd_settime
        self._spec = _TimerSpec()
        self._spec_pointer = ctypes.byref(self._spec)
        loop.add_reader(self._fd, self._on_readable)

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns` of `perf_counter_ns`, at once where that is past, and not when set before."""
        # 0 would switch it off.
        self._spec.value_s, self._spec.value_ns = divmod(max(at_ns, 1), 1_000_000_000)
        self._set_time(self._fd, _TFD_TIMER_ABSTIME, self._spec_pointer, None)

    def _on_readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set anew between the kernel's word and now
        self._fire()

    def close(self) -> None:
        """Never fire again; safe to call twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class LoopTimer:
    """A timer of the event loop, for systems without timerfd: up to a millisecond late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._loop = loop
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at_ns: int) -> None:
        """Fire at `at_ns` of `perf_counter_ns`, at once where that is past, and not when set before."""
        if self._handle is not None:
            self._handle.cancel()
        delay_s = max(at_ns - perf_counter_ns(), 0) / 1e9
        self._handle = self._loop.call_later(delay_s, self._fire)

    def close(self) -> None:
        """Never fire again; safe to call twice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def make_timer(loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> Timer:
    """The most precise timer this system has; it calls `fire` in the event loop."""
    if hasattr(select, "epoll"):
        return TimerFd(loop, fire)
    return LoopTimer(loop, fire)
