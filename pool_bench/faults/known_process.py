"""The process of a server of known behaviour: one epoll loop over plain sockets.

Delays are precise to the kernel's timer slack, 50 us: epoll_wait counts in whole milliseconds, but select(2)
in microseconds, and an epoll descriptor can be waited for like any other. Arrivals are stamped as epoll
reports them, answers just before they are sent; both ends of a delay are recorded, and so is a timer every
10 ms that shows how late the process itself runs. Recording costs an `array.append`; histograms are filled in
bulk.
"""

import errno
import heapq
import os
import random
import select
import socket
import struct
import time
from array import array
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Final, TypeAlias

import numpy as np

from pool_bench.errors import Phase
from pool_bench.faults.behaviour import Behaviour, Delay, Truth
from pool_bench.histogram import Histogram

Control: TypeAlias = "Connection[int | Truth, str]"

_PROBE_NS: Final = 10_000_000
_VALUES_PER_FILL: Final = 4096
_ACCEPTS_PER_TURN: Final = 64
_RECEIVE_BYTES: Final = 16_384
_SETTLE_NS: Final = 2_000_000_000
_RESET: Final = struct.pack("ii", 1, 0)

_SSL_REQUEST: Final = 80877103
_GSS_REQUEST: Final = 80877104


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _parameters(**values: str) -> bytes:
    return b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in values.items())


_AUTH_OK: Final = _message(b"R", struct.pack("!i", 0))
_READY: Final = _message(b"Z", b"I")
# What asyncpg and libpq want to know before they call a connection ready.
_WELCOME: Final = (
    _parameters(
        server_version="17.0",
        server_encoding="UTF8",
        client_encoding="UTF8",
        standard_conforming_strings="on",
        integer_datetimes="on",
        TimeZone="UTC",
    )
    + _message(b"K", struct.pack("!ii", 4711, 42))
    + _READY
)
_COLUMN: Final = b"?column?\0" + struct.pack("!ihihih", 0, 0, 23, 4, -1, 0)
_RESULT: Final = (
    _message(b"T", struct.pack("!h", 1) + _COLUMN)
    + _message(b"D", struct.pack("!hi", 1, 1) + b"1")
    + _message(b"C", b"SELECT 1\0")
    + _READY
)
_FULL: Final = _message(b"E", b"SFATAL\0VFATAL\0C53300\0Msorry, too many clients already\0\0")


class _Column:
    """Durations on their way into a histogram."""

    __slots__ = ("_values_ns", "histogram")

    def __init__(self) -> None:
        self.histogram = Histogram()
        self._values_ns = array("q")

    def add(self, value_ns: int) -> None:
        self._values_ns.append(value_ns)
        if len(self._values_ns) >= _VALUES_PER_FILL:
            self.fill()

    def fill(self) -> Histogram:
        if self._values_ns:
            self.histogram.record(np.frombuffer(self._values_ns, dtype=np.int64))
            self._values_ns = array("q")
        return self.histogram


class _Peer:
    """One connection; `since_ns` is when what it waits for an answer to arrived."""

    __slots__ = ("accepted_ns", "counted", "fd", "greeted", "number", "received", "since_ns", "sock")

    def __init__(self, sock: socket.socket, number: int, now_ns: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.number = number
        self.accepted_ns = self.since_ns = now_ns
        self.received = b""
        self.greeted = False
        self.counted = True


_Action = Callable[[_Peer, int], None]


class _Server:
    def __init__(self, behaviour: Behaviour, listener: socket.socket, control: Control) -> None:
        self._behaviour = behaviour
        self._listener = listener
        self._listening_fd = listener.fileno()
        self._control = control
        self._rng = random.Random(behaviour.seed)
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._peers: dict[int, _Peer] = {}
        # Due time, a number that breaks ties, what to do, and for whom.
        self._timers: list[tuple[int, int, _Action, _Peer]] = []
        self._ties = count()
        self._probe_ns = perf_counter_ns() + _PROBE_NS
        self._stall_from_ns: int | None = None
        self._asked_ns = 0
        self._open = 0
        self._took_ns = 0
        self._truth = Truth()
        self._began_ns = perf_counter_ns()
        self._began_cpu_s = time.process_time()
        self._columns = {
            phase: _Column() for phase in (Phase.TCP, Phase.AUTH, Phase.READY, Phase.QUERY, Phase.CLOSE)
        }
        self._total, self._late, self._lag = _Column(), _Column(), _Column()

    def serve(self) -> None:
        """Serve until the other end of the control pipe is closed."""
        epoll, timers, peers = self._epoll, self._timers, self._peers
        while True:
            events = epoll.poll(0)
            now_ns = perf_counter_ns()
            if self._stall_from_ns is not None and now_ns >= self._stall_from_ns:
                self._stall()
                continue
            for fd, _ in events:
                peer = peers.get(fd)
                if peer is not None:
                    self._read(peer, now_ns)
                elif fd == self._listening_fd:
                    self._accept(now_ns)
                elif fd == self._control.fileno() and not self._told(now_ns):
                    return
            if timers:
                self._ring()
            if now_ns >= self._probe_ns:
                self._probe(now_ns)
            if self._asked_ns and (self._open == 0 or now_ns - self._asked_ns > _SETTLE_NS):
                self._report()
            if not events:
                self._wait()

    def _wait(self) -> None:
        due_ns = min(self._probe_ns, self._timers[0][0] if self._timers else self._probe_ns)
        if self._stall_from_ns is not None:
            due_ns = min(due_ns, self._stall_from_ns)
        wait_ns = due_ns - perf_counter_ns()
        if wait_ns > 0:
            select.select([self._epoll], [], [], wait_ns / 1e9)

    def _stall(self) -> None:
        stall = self._behaviour.stall
        assert stall is not None  # noqa: S101  # or it would have no beginning
        began_ns = perf_counter_ns()
        end_ns = began_ns + round(stall.for_s * 1e9)
        while (left_ns := end_ns - perf_counter_ns()) > 0:
            time.sleep(left_ns / 1e9)
        self._truth.stall_ns = perf_counter_ns() - began_ns
        self._stall_from_ns = None
        # It did not come too late: nothing was to happen meanwhile.
        self._probe_ns = perf_counter_ns() + _PROBE_NS

    def _probe(self, now_ns: int) -> None:
        self._lag.add(now_ns - self._probe_ns)
        self._probe_ns = now_ns + _PROBE_NS

    def _ring(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= (now_ns := perf_counter_ns()):
            due_ns, _, action, peer = heapq.heappop(timers)
            if peer.fd >= 0:
                self._late.add(now_ns - due_ns)
                action(peer, now_ns)

    def _after(self, delay: Delay | None, action: _Action, peer: _Peer, now_ns: int) -> None:
        if delay is None:
            action(peer, now_ns)
        else:
            heapq.heappush(self._timers, (now_ns + delay.draw(self._rng), next(self._ties), action, peer))

    def _accept(self, now_ns: int) -> None:
        pause = self._behaviour.accept
        for _ in range(_ACCEPTS_PER_TURN if pause is None else 1):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise
                continue  # it was gone before it was taken
            self._take(sock, perf_counter_ns())
        if pause is not None:
            if self._took_ns:
                self._columns[Phase.TCP].add(now_ns - self._took_ns)
            self._took_ns = now_ns
            self._epoll.unregister(self._listening_fd)
            listening = _Peer(self._listener, -1, now_ns)
            self._after(
                pause, lambda *_: self._epoll.register(self._listening_fd, select.EPOLLIN), listening, now_ns
            )

    def _take(self, sock: socket.socket, now_ns: int) -> None:
        sock.setblocking(False)
        if sock.family is not socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        truth, stall = self._truth, self._behaviour.stall
        if stall is not None and truth.accepted == 0:
            self._stall_from_ns = now_ns + round(stall.at_s * 1e9)
        peer = _Peer(sock, truth.accepted, now_ns)
        truth.accepted += 1
        self._open += 1
        most = self._behaviour.max_connections
        peer.counted = most is None or self._open <= most
        if not peer.counted:
            self._open -= 1
        truth.open_peak = max(truth.open_peak, self._open)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, select.EPOLLIN)

    def _read(self, peer: _Peer, now_ns: int) -> None:
        try:
            data = peer.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._truth.abandoned += 1
            self._drop(peer)
            return
        peer.received += data
        while peer.fd >= 0 and peer.received and self._next(peer, now_ns):
            continue

    def _next(self, peer: _Peer, now_ns: int) -> bool:
        """Answer the next message, if it has arrived as a whole."""
        received = peer.received
        head = 1 if peer.greeted else 0
        if len(received) < head + 4:
            return False
        end = head + int.from_bytes(received[head : head + 4], "big")
        if len(received) < max(end, head + 8 if not peer.greeted else 0):
            return False
        peer.received = received[end:]
        peer.since_ns = now_ns
        if not peer.greeted:
            self._greet(peer, int.from_bytes(received[4:8], "big"), now_ns)
        elif received[:1] == b"Q":
            self._after(self._behaviour.query, self._answer, peer, now_ns)
        elif received[:1] == b"X":
            self._after(self._behaviour.close, self._close, peer, now_ns)
        else:
            self._truth.abandoned += 1
            self._drop(peer)
        return True

    def _greet(self, peer: _Peer, code: int, now_ns: int) -> None:
        if code in (_SSL_REQUEST, _GSS_REQUEST):
            self._send(peer, b"N")
            return
        peer.greeted = True
        behaviour, truth = self._behaviour, self._truth
        share = behaviour.reset_share
        if not peer.counted:
            truth.refused += 1
            self._send(peer, _FULL)
            self._drop(peer)
        elif int((peer.number + 1) * share) > int(peer.number * share):
            truth.resets += 1
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._drop(peer)
        else:
            cold = peer.number < behaviour.cold
            self._after(behaviour.cold_auth if cold else behaviour.auth, self._authenticate, peer, now_ns)

    def _authenticate(self, peer: _Peer, now_ns: int) -> None:
        self._columns[Phase.AUTH].add(now_ns - peer.since_ns)
        if self._behaviour.ready is None:
            self._columns[Phase.READY].add(0)
            self._send(peer, _AUTH_OK + _WELCOME)
            return
        peer.since_ns = now_ns
        self._send(peer, _AUTH_OK)
        self._after(self._behaviour.ready, self._make_ready, peer, now_ns)

    def _make_ready(self, peer: _Peer, now_ns: int) -> None:
        self._columns[Phase.READY].add(now_ns - peer.since_ns)
        self._send(peer, _WELCOME)

    def _answer(self, peer: _Peer, now_ns: int) -> None:
        self._truth.queries += 1
        self._columns[Phase.QUERY].add(now_ns - peer.since_ns)
        self._send(peer, _RESULT)

    def _close(self, peer: _Peer, now_ns: int) -> None:
        self._columns[Phase.CLOSE].add(now_ns - peer.since_ns)
        self._total.add(now_ns - peer.accepted_ns)
        self._truth.served += 1
        self._drop(peer)

    def _send(self, peer: _Peer, data: bytes) -> None:
        try:
            peer.sock.send(data)
        except OSError:
            return  # the client has gone, which reading will show

    def _drop(self, peer: _Peer) -> None:
        self._epoll.unregister(peer.fd)
        del self._peers[peer.fd]
        peer.fd = -1
        peer.sock.close()
        if peer.counted:
            self._open -= 1

    def _told(self, now_ns: int) -> bool:
        """Hear what the parent wants; False where it has gone."""
        try:
            self._control.recv()
        except (EOFError, OSError):
            return False
        self._asked_ns = now_ns
        return True

    def _report(self) -> None:
        """Send what has happened since the beginning."""
        self._asked_ns = 0
        truth = self._truth
        truth.phases = {
            phase: column.fill() for phase, column in self._columns.items() if column.fill().count
        }
        truth.total, truth.late, truth.lag = self._total.fill(), self._late.fill(), self._lag.fill()
        truth.cpu_s = time.process_time() - self._began_cpu_s
        truth.wall_s = (perf_counter_ns() - self._began_ns) / 1e9
        self._control.send(truth)


def serve_known(behaviour: Behaviour, control: Control, host: str) -> None:
    """Listen on a free port of `host`, say which, and serve until `control` is closed at the other end."""
    # A Ctrl-C on the terminal reaches every process in its group; the parent decides what it means.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.create_server((host, 0), backlog=behaviour.backlog) as listener:
        listener.setblocking(False)
        control.send(listener.getsockname()[1])
        _Server(behaviour, listener, control).serve()
    # What is still open ends with the process.
    os._exit(0)
