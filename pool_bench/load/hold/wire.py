"""Holds connections of the `wire` driver, thousands in one process, without a coroutine for any.

A connection is opened by a `Dial` and then reduced to a `_Held`: a socket and a few numbers, some
hundred bytes. An idle one has no timer, task or protocol state; the epoll instance tells when its
server says or ends something, which is when a `pgwire.Connection` is made for it.
"""

import asyncio
import random
import socket
import ssl
from collections import deque
from operator import attrgetter
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.network.failures import server_error, socket_failure
from pool_bench.drivers.network.poller import READ, WRITE, Poller, make_poller
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.plan import WirePlan
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.backoff import backoff_s
from pool_bench.load.hold.dialer import Dialer, Pending, steps
from pool_bench.load.hold.opening import (
    STEADY_NS,
    HoldLedger,
    KeepaliveRing,
    Opening,
    active_slots,
    spread_targets,
)
from pool_bench.load.spec import HoldSpec
from pool_bench.load.splitting import address_of, splits_of
from pool_bench.pgwire import NEED_DATA, Connection, RemoteProtocolError
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.state import State
from pool_bench.units import format_duration

_MS: Final = 1_000_000
_RECEIVE_BYTES: Final = 8192
# Connections closed before other sockets, and the clock, get their turn.
_CLOSED_PER_TURN: Final = 256
_TERMINATE: Final = ev.Terminate().encoded
# How long an active connection rests after a query that failed, so that a wrong one is no busy loop.
_AFTER_FAILURE_S: Final = 0.1


class _Held:
    """An open connection: nothing but its socket while nobody asks it anything."""

    __slots__ = ("address", "failure", "notice", "opened_ns", "sent_ns", "slot", "sock", "unsent", "wire")

    def __init__(self, slot: int, sock: socket.SocketType, opened_ns: int, address: str) -> None:
        self.slot = slot
        self.address = address
        self.sock = sock
        self.opened_ns = opened_ns
        # When the query under way was sent, 0 without one.
        self.sent_ns = 0
        self.wire: Connection | None = None
        self.unsent = b""
        # The error of the query under way, whose end is still to come.
        self.failure: ConnectError | None = None
        # The server's last warning: a crash is announced by one, and then the connection just ends.
        self.notice: ConnectError | None = None


class WireHoldLoad:
    """Opens, holds and closes the connections of one `HoldSpec`."""

    def __init__(self, spec: HoldSpec, plans: tuple[WirePlan, ...]) -> None:
        self._spec = spec
        self._plans = plans
        self._targets = spread_targets(spec.connections)
        self._active = active_slots(len(self._targets), spec.active)
        self._rng = random.Random(spec.seed)
        self._query = ev.Query(spec.keepalive_query)
        self._timeout_ns = round(spec.connect_timeout_s * 1e9)
        # What is open or opening, by file descriptor.
        self._by_fd: dict[int, Pending | _Held] = {}
        self._dialer = Dialer(spec, plans, self._rng, self._by_fd, self._opened)
        self._held: list[_Held | None] = [None] * len(self._targets)
        self._asked: dict[int, _Held] = {}
        self._failures: dict[int, int] = {}
        self._waiting: dict[int, asyncio.TimerHandle] = {}
        self._due: deque[int] = deque()
        self._rows = [attrgetter("total_ns", *(f"{p}_ns" for p in steps(plan))) for plan in plans]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Poller | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closing: set[int] | None = None
        self._all_closed: asyncio.Event = asyncio.Event()
        self._stopping = False
        self.ledger = HoldLedger(tuple(steps(plan) for plan in plans), splits_of(spec))
        self.opening = Opening(
            spec,
            len(self._targets),
            self._begin_first,
            abandon=self._abandon_opening,
            clock=self.ledger.now_ns,
        )
        self._ring = (
            KeepaliveRing(len(self._targets), spec.keepalive_s, self._keep_alive)
            if spec.keepalive_s and self._targets
            else None
        )

    @property
    def in_flight(self) -> int:
        """Connects under way."""
        return len(self._dialer.pending)

    @property
    def backing_off(self) -> int:
        """Connections that wait before they are replaced."""
        return len(self._waiting) + len(self._due)

    @property
    def hopeless(self) -> bool:
        """True where nothing is held and nothing can come back."""
        return self.opening.over.is_set() and not (self.ledger.held or self.in_flight or self.backing_off)

    async def start(self) -> None:
        """Begin to open."""
        self._loop = asyncio.get_running_loop()
        self._poller = self._dialer.poller = make_poller(self._loop, self._ready, self._settle)
        self._sweep()
        if self._ring is not None:
            self._ring.start()
        self.opening.start()

    # Opening

    def _begin_first(self, slot: int) -> None:
        self._begin(slot, again=False)

    def _begin(self, slot: int, *, again: bool) -> None:
        self._dialer.begin(slot, self._targets[slot], again=again)

    def _ready(self, fd: int, now_ns: int, events: int) -> None:
        entry = self._by_fd.get(fd)
        if isinstance(entry, _Held):
            self._hear(entry, now_ns)
        elif entry is not None:
            self._dialer.step(entry, fd, now_ns, events)

    def _settle(self) -> None:
        """Begin what has become due while sockets were served."""
        while self._due and self.in_flight < self._spec.open_concurrency and not self._stopping:
            self._begin(self._due.popleft(), again=True)

    def _opened(self, opening: Pending) -> None:
        """A dial has ended: keep the connection, or count why there is none."""
        dial, slot = opening.dial, opening.slot
        target = self._targets[slot]
        ledger = self.ledger
        recorder = ledger.replacing if opening.again else ledger.opens[target]
        error = dial.error
        address = address_of(recorder, dial)
        if error is not None:
            recorder.failed(error, dial.total_ns, address)
            if opening.again:
                self._come_back(slot)
        else:
            # Replacements are counted by the steps of the first target.
            recorder.ok(self._rows[0 if opening.again else target](dial), address)
            ledger.opened(again=opening.again)
            self._keep(slot, dial, opening.want, address)
        if not opening.again:
            self.opening.ended(opened=error is None)

    def _keep(self, slot: int, dial: Dial, want: int, address: str) -> None:
        sock, poller = dial.sock, self._poller
        assert sock is not None  # noqa: S101  # a dial that is ready has its socket
        assert poller is not None  # noqa: S101  # set by start()
        now_ns = perf_counter_ns()
        held = self._held[slot] = _Held(slot, sock, now_ns, address)
        self._by_fd[dial.fd] = held
        if want != READ or dial.edge:
            poller.change(dial.fd, READ)
        if dial.wire.trailing_data or _pending(sock):
            # It has more to say already, which no poll would show.
            held.wire = dial.wire
            self._digest(held, now_ns)
            if self._held[slot] is held and _pending(sock):
                self._hear(held, now_ns)
        if self._held[slot] is held and self._active[slot]:
            self._ask(held, now_ns)

    # Holding

    def _keep_alive(self, slot: int) -> None:
        held = self._held[slot]
        if held is not None and not held.sent_ns and not self._active[slot]:
            self._ask(held, perf_counter_ns())

    def _ask(self, held: _Held, now_ns: int) -> None:
        if held.wire is None:
            held.wire = Connection(reports=False)
            held.wire.state = State.READY
        held.sent_ns = now_ns
        # In the order of sending, so that the first one is the one that has waited longest.
        self._asked[held.slot] = held
        self._send(held, held.wire.send(self._query))

    def _send(self, held: _Held, data: bytes) -> None:
        poller = self._poller
        assert poller is not None  # noqa: S101  # set by start()
        waited = bool(held.unsent)
        try:
            sent = held.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as error:
            self._lost(held, *socket_failure(error))
            return
        held.unsent = data[sent:]
        if held.unsent or waited:
            poller.change(held.sock.fileno(), WRITE if held.unsent else READ)

    def _hear(self, held: _Held, now_ns: int) -> None:
        """A held connection can be read, or written where something is left to send."""
        if self._closing is not None:
            self._hear_end(held)
            return
        if held.unsent:
            self._send(held, held.unsent)
            return
        try:
            while True:
                data = held.sock.recv(_RECEIVE_BYTES)
                if held.wire is None:
                    held.wire = Connection(reports=False)
                    held.wire.state = State.READY
                held.wire.receive_data(data)
                self._digest(held, now_ns)
                if self._held[held.slot] is not held or not _pending(held.sock):
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._lost(held, *socket_failure(error))

    def _digest(self, held: _Held, now_ns: int) -> None:
        wire = held.wire
        if wire is None:
            return
        try:
            while self._held[held.slot] is held:
                match wire.next_event():
                    case event if event is NEED_DATA:
                        break
                    case ev.ReadyForQuery() if held.sent_ns:
                        self._answered(held, now_ns)
                        if not wire.trailing_data:
                            break
                    case ev.ErrorResponse() as event:
                        error = server_error(event, Phase.QUERY if held.sent_ns else Phase.HOLD)
                        if event.severity in ("FATAL", "PANIC") or not held.sent_ns:
                            self._drop(held, error)
                            return
                        held.failure = error
                    case ev.NoticeResponse(fields):
                        held.notice = server_error(ev.ErrorResponse(fields), Phase.HOLD)
                    case ev.ConnectionClosed():
                        self._lost(held, FailureKind.CLOSED, "the server closed the connection")
                        return
        except RemoteProtocolError as error:
            self._lost(held, FailureKind.PROTOCOL, str(error))
            return
        if not held.sent_ns and not wire.trailing_data:
            held.wire = None

    def _answered(self, held: _Held, now_ns: int) -> None:
        latency_ns = now_ns - held.sent_ns
        held.sent_ns = 0
        slot = held.slot
        del self._asked[slot]
        is_active = self._active[slot]
        failure, held.failure, held.notice = held.failure, None, None
        if failure is not None:
            self.ledger.query_failed(failure, latency_ns)
            if is_active and self._loop is not None:
                self._loop.call_later(_AFTER_FAILURE_S, self._resume, held)
            return
        self.ledger.answered(latency_ns, active=is_active)
        if is_active:
            self._ask(held, perf_counter_ns())

    def _resume(self, held: _Held) -> None:
        if self._held[held.slot] is held and not held.sent_ns and self._closing is None:
            self._ask(held, perf_counter_ns())

    def _lost(self, held: _Held, kind: FailureKind, message: str) -> None:
        notice = held.notice
        if notice is not None and notice.kind is FailureKind.SERVER_SHUTDOWN:
            self._drop(held, notice)
        else:
            self._drop(held, ConnectError(kind, Phase.QUERY if held.sent_ns else Phase.HOLD, message))

    def _drop(self, held: _Held, error: ConnectError) -> None:
        now_ns = perf_counter_ns()
        slot, age_ns = held.slot, now_ns - held.opened_ns
        self._let_go(held)
        self.ledger.dropped(error, age_ns, self._targets[slot], held.address)
        if self._spec.reconnect and not self._stopping:
            if age_ns > STEADY_NS:
                self._failures.pop(slot, None)
            self._come_back(slot)

    def _let_go(self, held: _Held) -> None:
        """Close the socket and forget it."""
        self._held[held.slot] = None
        self._asked.pop(held.slot, None)
        fd, poller = held.sock.fileno(), self._poller
        self._by_fd.pop(fd, None)
        if poller is not None and poller.forget is not None:
            poller.forget(fd)
        held.sock.close()

    def _come_back(self, slot: int) -> None:
        """Replace a connection after a pause that grows with each failure."""
        if self._stopping or self._loop is None:
            return
        failures = self._failures[slot] = self._failures.get(slot, 0) + 1
        delay_s = backoff_s(failures, self._rng)
        self._waiting[slot] = self._loop.call_later(delay_s, self._wake, slot)

    def _wake(self, slot: int) -> None:
        del self._waiting[slot]
        self._due.append(slot)
        self._settle()

    def _sweep(self) -> None:
        """End connects and queries that have taken too long."""
        assert self._loop is not None  # noqa: S101  # set by start()
        now_ns = perf_counter_ns()
        oldest_ns = now_ns - self._timeout_ns
        limit = format_duration(self._spec.connect_timeout_s)
        self._dialer.give_up_older(oldest_ns, f"not open after {limit} (--connect-timeout)")
        while self._asked:
            held = next(iter(self._asked.values()))
            if held.sent_ns > oldest_ns:
                break
            late = f"no answer after {limit} (--connect-timeout)"
            self._drop(held, ConnectError(FailureKind.TIMEOUT, Phase.QUERY, late))
        self._settle()
        pause_ns = min(max(self._timeout_ns // 50, 5 * _MS), 500 * _MS)
        self._sweep_timer = self._loop.call_later(pause_ns / 1e9, self._sweep)

    # Closing

    async def close(self, seconds: float) -> None:
        """Give up what is not open yet, and close everything politely, at most so long; then at once."""
        try:
            self._stop()
            held = [one for one in self._held if one is not None]
            now_ns = perf_counter_ns()
            self._closing = {one.slot for one in held}
            for one in held:
                self.ledger.survived(now_ns - one.opened_ns)
            async with asyncio.timeout(seconds):
                for index, one in enumerate(held):
                    if index % _CLOSED_PER_TURN == _CLOSED_PER_TURN - 1:
                        await asyncio.sleep(0)
                    self._say_goodbye(one)
                if self._closing:
                    await self._all_closed.wait()
        except TimeoutError:
            pass
        finally:
            self._end()

    def _stop(self) -> None:
        self._stopping = True
        self.opening.stop()
        if self._ring is not None:
            self._ring.stop()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._due.clear()
        self._unfinished(self._dialer.give_up_all("the run ended"))

    def _abandon_opening(self) -> None:
        self._unfinished(self._dialer.give_up_all("opening was given up", but_again=True))

    def _unfinished(self, given_up: list[Pending]) -> None:
        for opening in given_up:
            if not opening.again:
                recorder = self.ledger.opens[self._targets[opening.slot]]
                recorder.unfinished(1)
                recorder.unfinished_in(opening.dial.phase, address_of(recorder, opening.dial))

    def _say_goodbye(self, held: _Held) -> None:
        """Send Terminate; the server closes first, so that it is done with us when we are with it."""
        if self._held[held.slot] is not held:
            return  # the server was faster
        if held.unsent:
            # Nothing can follow half a message.
            self._closed(held, forced=True)
            return
        try:
            held.sock.send(_TERMINATE)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._closed(held, forced=True)
        except OSError:
            self._closed(held, forced=False)

    def _hear_end(self, held: _Held) -> None:
        try:
            while held.sock.recv(_RECEIVE_BYTES):
                continue
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass  # reset: it is gone all the same
        self._closed(held, forced=False)

    def _closed(self, held: _Held, *, forced: bool) -> None:
        self._let_go(held)
        self.ledger.closed(forced=forced)
        if self._closing is not None:
            self._closing.discard(held.slot)
            if not self._closing:
                self._all_closed.set()

    def _end(self) -> None:
        for held in self._held:
            if held is not None:
                self._closed(held, forced=True)
        self._dialer.close()
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        self._by_fd.clear()


def _pending(sock: socket.SocketType) -> bool:
    """Whether decrypted bytes wait inside the TLS object, where no poll sees them."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
