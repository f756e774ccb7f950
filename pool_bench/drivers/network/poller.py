"""Waiting for many sockets at once, from inside an asyncio event loop.

Registering thousands of sockets a second with asyncio costs more than the sockets do. Where there
is epoll, the sockets go into an epoll instance of their own, and the event loop only watches that
one descriptor. Elsewhere the event loop watches every socket.
"""

import asyncio
import select
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final, Protocol

# What is waited for; READ and WRITE are select.EPOLLIN and EPOLLOUT. MORE is READ where something may have
# been left unread, CONNECT the end of a connect and everything after it.
READ: Final = 1
MORE: Final = READ | 2
WRITE: Final = 4
CONNECT: Final = READ | WRITE
# Of what came: the peer has closed its side, or the connection is none. Nobody but epoll tells.
HUNG_UP: Final = getattr(select, "EPOLLRDHUP", 0) | getattr(select, "EPOLLHUP", 0)

# (file descriptor, when it became ready in perf_counter_ns, what came: READ, WRITE, HUNG_UP as far as known)
Ready = Callable[[int, int, int], None]
Settle = Callable[[], None]

# How long sockets are served before the event loop gets its turn: its timers are late by this much.
_TURN_NS: Final = 1_000_000

_PEER_CLOSED: Final = getattr(select, "EPOLLRDHUP", 0)
_CONNECT: Final = CONNECT | _PEER_CLOSED | getattr(select, "EPOLLET", 0)


class Poller(Protocol):
    """Calls back when a socket is ready for what was asked."""

    def add(self, fd: int, want: int) -> None:
        """Begin to watch a new socket for `READ`, `WRITE` or `CONNECT`."""

    def change(self, fd: int, want: int) -> None:
        """Watch for something else, `READ` or `WRITE`; tells of it, too, where it is there already."""

    def follow(self, fd: int, before: int, want: int) -> int:
        """Watch for what a dial wants after what it wanted before, by which nothing is missed.

        Returns:
            What is watched for now.
        """

    @property
    def forget(self) -> Callable[[int], None] | None:
        """What to call before a watched socket is closed; None where the kernel sees to it."""

    def close(self) -> None:
        """Stop altogether."""


class EpollPoller:
    """An epoll instance inside the event loop's own."""

    forget: Callable[[int], None] | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Ready, settle: Settle) -> None:
        self._loop = loop
        self._ready = ready
        self._settle = settle
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._turn)

    def _turn(self) -> None:
        poll, ready = self._epoll.poll, self._ready
        end_ns = perf_counter_ns() + _TURN_NS
        while True:
            events = poll(0)
            if not events:
                return
            now_ns = perf_counter_ns()
            for fd, mask in events:
                ready(fd, now_ns, mask)
            self._settle()
            if now_ns > end_ns:
                return

    def add(self, fd: int, want: int) -> None:
        """Begin to watch a new socket.

        The end of a connect comes once, and what follows is read until nothing is left: that is told at
        changes only (edge-triggered), so that the same registration does for both.
        """
        self._epoll.register(fd, want | _PEER_CLOSED if want != CONNECT else _CONNECT)

    def change(self, fd: int, want: int) -> None:
        self._epoll.modify(fd, want | _PEER_CLOSED)

    def follow(self, fd: int, before: int, want: int) -> int:
        if before == CONNECT and want == READ:
            return READ
        want = READ if want == MORE else want
        self.change(fd, want)
        return want

    def close(self) -> None:
        """Stop watching and free the epoll instance."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class LoopPoller:
    """The event loop itself, for systems without epoll."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ready: Ready, settle: Settle) -> None:
        self._loop = loop
        self._ready = ready
        self._settle = settle
        self._watched: dict[int, int] = {}
        self.forget: Callable[[int], None] | None = self._forget

    def add(self, fd: int, want: int) -> None:
        self._watched[fd] = want
        if want & WRITE:
            self._loop.add_writer(fd, self._call, fd)
        else:
            self._loop.add_reader(fd, self._call, fd)

    def _call(self, fd: int) -> None:
        self._ready(fd, perf_counter_ns(), 0)
        self._settle()

    def change(self, fd: int, want: int) -> None:
        self._forget(fd)
        self.add(fd, want)

    def follow(self, fd: int, before: int, want: int) -> int:
        want = READ if want == MORE else want
        if want != before:
            self.change(fd, want)
        return want

    def _forget(self, fd: int) -> None:
        want = self._watched.pop(fd, 0)
        if want & WRITE:
            self._loop.remove_writer(fd)
        elif want & READ:
            self._loop.remove_reader(fd)

    def close(self) -> None:
        """Stop altogether."""
        for fd in list(self._watched):
            self._forget(fd)


def make_poller(loop: asyncio.AbstractEventLoop, ready: Ready, settle: Settle) -> Poller:
    """The cheapest poller this system has.

    Args:
        loop: the running event loop.
        ready: called for each socket that is ready for what was asked.
        settle: called when all sockets that were ready together have been served.
    """
    if hasattr(select, "epoll"):
        return EpollPoller(loop, ready, settle)
    return LoopPoller(loop, ready, settle)
