"""The process of a server of known behaviour: one epoll loop over plain sockets, for every protocol.

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
import ssl
import struct
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Final, TypeAlias

import numpy as np

from pool_bench.errors import Phase
from pool_bench.processes import ignore_interrupts
from pool_bench.servers.scripted.behaviour import Behaviour, Delay, Truth
from pool_bench.servers.scripted.tls import TlsEnd
from pool_bench.stats.histogram import Histogram

Control: TypeAlias = "Connection[int | Truth, str]"

_PROBE_NS: Final = 10_000_000
_VALUES_PER_FILL: Final = 4096
_ACCEPTS_PER_TURN: Final = 64
_RECEIVE_BYTES: Final = 16_384
_SETTLE_NS: Final = 2_000_000_000
_RESET: Final = struct.pack("ii", 1, 0)


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


class Peer:
    """One connection.

    Attributes:
        since_ns: when what it waits for an answer to arrived.
        greeted: whether the protocol has begun; answered: whether a request was answered.
        tls: its end of TLS, None without.
    """

    __slots__ = (
        *("accepted_ns", "answered", "counted", "fd", "greeted", "number", "received", "since_ns", "sock"),
        "tls",
    )

    def __init__(self, sock: socket.socket, number: int, now_ns: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.number = number
        self.accepted_ns = self.since_ns = now_ns
        self.received = b""
        self.greeted = self.answered = False
        self.counted = True
        self.tls: TlsEnd | None = None


_Action = Callable[[Peer, int], None]


class KnownLoop(ABC):
    """Accepts, delays, stalls, refuses, resets and records; what is said, a protocol's own class knows.

    Args:
        behaviour: what to do.
        listener: where connections come in.
        control: whoever wants to know what was done.
        phases: the steps that are recorded.
        refusal: what is said to those for whom there is no room.
    """

    def __init__(
        self,
        behaviour: Behaviour,
        listener: socket.socket,
        control: Control,
        *,
        phases: tuple[Phase, ...],
        refusal: bytes,
    ) -> None:
        self._behaviour = behaviour
        self._listener = listener
        self._listening_fd = listener.fileno()
        self._control = control
        self._rng = random.Random(behaviour.seed)
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        self._epoll.register(control.fileno(), select.EPOLLIN)
        self._peers: dict[int, Peer] = {}
        # Due time, a number that breaks ties, what to do, and for whom.
        self._timers: list[tuple[int, int, _Action, Peer]] = []
        self._ties = count()
        self._probe_ns = perf_counter_ns() + _PROBE_NS
        self._stall_from_ns: int | None = None
        self._asked_ns = 0
        self._open = 0
        self._took_ns = 0
        self._truth = Truth()
        self._began_ns = perf_counter_ns()
        self._began_cpu_s = time.process_time()
        self._refusal = refusal
        self._columns = {phase: _Column() for phase in (Phase.TCP, *phases)}
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

    def _after(self, delay: Delay | None, action: _Action, peer: Peer, now_ns: int) -> None:
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
            took_ns = perf_counter_ns()
            self._take(sock, took_ns)
            if self._stall_from_ns is not None and took_ns >= self._stall_from_ns:
                return
        if pause is not None:
            if self._took_ns:
                self._columns[Phase.TCP].add(now_ns - self._took_ns)
            self._took_ns = now_ns
            self._epoll.unregister(self._listening_fd)
            listening = Peer(self._listener, -1, now_ns)
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
        peer = Peer(sock, truth.accepted, now_ns)
        truth.accepted += 1
        self._open += 1
        most = self._behaviour.max_connections
        peer.counted = most is None or self._open <= most
        if not peer.counted:
            self._open -= 1
        truth.open_peak = max(truth.open_peak, self._open)
        self._peers[peer.fd] = peer
        self._epoll.register(peer.fd, select.EPOLLIN)

    def _read(self, peer: Peer, now_ns: int) -> None:
        try:
            data = peer.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._left(peer, now_ns)
            self._drop(peer)
            return
        if peer.tls is not None or self._begins_tls(peer, data):
            data = self._decrypted(peer, data)
        peer.received += data
        while peer.fd >= 0 and peer.received and self._next(peer, now_ns):
            continue

    def _begins_tls(self, peer: Peer, data: bytes) -> bool:
        """Whether the client begins with TLS unasked; `peer.tls` is its end then."""
        return False

    def _decrypted(self, peer: Peer, data: bytes) -> bytes:
        """What a client says through TLS; one that breaks it is let go of."""
        assert peer.tls is not None  # noqa: S101  # or there would be nothing to decrypt
        try:
            clear = peer.tls.take(data)
        except ssl.SSLError:
            self._truth.abandoned += 1
            self._drop(peer)
            return b""
        self._flush(peer)
        return clear

    @abstractmethod
    def _next(self, peer: Peer, now_ns: int) -> bool:
        """Answer the next message, if it has arrived as a whole."""

    def _left(self, peer: Peer, now_ns: int) -> None:
        """Note that a client has ended its connection."""
        self._truth.abandoned += 1

    def _admits(self, peer: Peer) -> bool:
        """Let the first message of a connection in; False where it was refused or reset instead."""
        share = self._behaviour.reset_share
        if not peer.counted:
            self._truth.refused += 1
            self._send(peer, self._refusal)
        elif int((peer.number + 1) * share) > int(peer.number * share):
            self._truth.resets += 1
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            return True
        self._drop(peer)
        return False

    def _auth_delay(self, peer: Peer) -> Delay | None:
        cold = peer.number < self._behaviour.cold
        return self._behaviour.cold_auth if cold else self._behaviour.auth

    def _serve_out(self, peer: Peer, now_ns: int) -> None:
        """Note that a connection has come to its end as it should."""
        self._columns[Phase.CLOSE].add(now_ns - peer.since_ns)
        self._total.add(now_ns - peer.accepted_ns)
        self._truth.served += 1

    def _send(self, peer: Peer, data: bytes) -> None:
        if peer.tls is not None:
            peer.tls.say(data)
            self._flush(peer)
            return
        self._send_plain(peer, data)

    def _flush(self, peer: Peer) -> None:
        """Send what TLS has to say."""
        if peer.tls is not None and (data := peer.tls.unsent()):
            self._send_plain(peer, data)

    def _send_plain(self, peer: Peer, data: bytes) -> None:
        try:
            peer.sock.send(data)
        except OSError:
            return  # the client has gone, which reading will show

    def _drop(self, peer: Peer) -> None:
        if peer.tls is not None:
            peer.tls.end()
            self._flush(peer)
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


def serve(
    make: Callable[[Behaviour, socket.socket, Control], KnownLoop],
    behaviour: Behaviour,
    control: Control,
    host: str,
    *,
    further: tuple[int, ...] = (),
) -> None:
    """Listen on a free port of `host`, say which, and serve until `control` is closed at the other end.

    Args:
        further: said after the port.
    """
    ignore_interrupts()
    with socket.create_server((host, 0), backlog=behaviour.backlog) as listener:
        listener.setblocking(False)
        control.send(listener.getsockname()[1])
        for number in further:
            control.send(number)
        make(behaviour, listener, control).serve()
    # What is still open ends with the process.
    os._exit(0)
