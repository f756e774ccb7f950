"""Holds connections of the `wire` driver, thousands in one process, without a coroutine for any.

A connection is opened by a `Dial` and then reduced to a `_Held`: a socket and a few numbers, some
hundred bytes. An idle one has no timer, task or protocol state; the epoll instance tells when its
server says or ends something, which is when a `pgwire.Connection` is made for it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from operator import attrgetter
from time import perf_counter_ns
from typing import Final

from pool_bench.drivers.network.failures import server_error, socket_failure
from pool_bench.drivers.network.poller import READ, WRITE
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.plan import WirePlan
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.dialer import Dialer, DialerSettings, Slot
from pool_bench.load.drivers import connect_phases
from pool_bench.load.hold.load import AFTER_FAILURE_S, HoldLoad
from pool_bench.load.spec import HoldSpec
from pool_bench.load.splitting import address_of
from pool_bench.pgwire import NEED_DATA, Connection, RemoteProtocolError
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.state import State

_RECEIVE_BYTES: Final = 8192
# Connections closed before other sockets, and the clock, get their turn.
_CLOSED_PER_TURN: Final = 256
_TERMINATE: Final = ev.Terminate().encoded


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


class OpeningSlot(Slot):
    """A connect under way, for the connection of that number; `again` where it replaces a dropped one."""

    __slots__ = ("again", "number")

    def __init__(self, number: int, *, again: bool) -> None:
        super().__init__()
        self.number = number
        self.again = again


class WireHoldLoad(HoldLoad):
    """Opens, holds and closes the connections of one `HoldSpec`."""

    def __init__(
        self, spec: HoldSpec, plans: tuple[WirePlan, ...], resident_bytes: Callable[[], int]
    ) -> None:
        phases = tuple(connect_phases(plan.phases) for plan in plans)
        super().__init__(spec, phases, resident_bytes)
        self._query = ev.Query(spec.keepalive_query)
        settings = DialerSettings(
            at_once=spec.open_concurrency,
            timeout_s=spec.connect_timeout_s,
            overdue="not open",
            stop_at_ready=True,
        )
        self._dialer: Dialer[OpeningSlot] = Dialer(
            plans,
            settings,
            self._rng,
            done=self._opened,
            settle=self._reconnects.begin_due,
            ready=self._on_ready,
            swept=self._drop_overdue,
        )
        self._poller = self._dialer.poller
        self._by_fd: dict[int, _Held] = {}
        self._by_slot: list[_Held | None] = [None] * len(self._targets)
        self._asked: dict[int, _Held] = {}
        self._rows = [attrgetter("total_ns", *(f"{phase}_ns" for phase in each)) for each in phases]
        self._closing: set[int] | None = None
        self._all_closed: asyncio.Event = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Connects under way."""
        return len(self._dialer.pending)

    async def start(self) -> None:
        """Begin to open."""
        self._dialer.start()
        await super().start()

    def _begin(self, slot: int, *, again: bool) -> None:
        self._dialer.begin(OpeningSlot(slot, again=again), self._targets[slot], perf_counter_ns())

    def _on_ready(self, fd: int, now_ns: int, events: int) -> None:
        held = self._by_fd.get(fd)
        if held is None:
            self._dialer.on_ready(fd, now_ns, events)
        else:
            self._on_readable(held, now_ns)

    def _opened(self, opening: OpeningSlot, dial: Dial) -> None:
        """A dial has ended: keep the connection, or count why there is none."""
        slot = opening.number
        target = self._targets[slot]
        ledger = self._ledger
        recorder = ledger.replacing if opening.again else ledger.opens[target]
        error = dial.error
        address = address_of(recorder, dial)
        if error is not None:
            recorder.failed(error, dial.total_ns, address)
            if opening.again:
                self._reconnects.failed(slot)
        else:
            # Replacements are counted by the steps of the first target.
            recorder.ok(self._rows[0 if opening.again else target](dial), address)
            ledger.opened(again=opening.again)
            self._keep(slot, dial, opening.want, address)
        if not opening.again:
            self._opening.ended(opened=error is None)

    def _keep(self, slot: int, dial: Dial, want: int, address: str) -> None:
        sock = dial.sock
        assert sock is not None  # noqa: S101  # a dial that is ready has its socket
        now_ns = perf_counter_ns()
        held = self._by_slot[slot] = _Held(slot, sock, now_ns, address)
        self._by_fd[dial.fd] = held
        if want != READ or dial.edge:
            self._poller.change(dial.fd, READ)
        if dial.wire.trailing_data or _pending(sock):
            # It has more to say already, which no poll would show.
            held.wire = dial.wire
            self._process_events(held, now_ns)
            if self._by_slot[slot] is held and _pending(sock):
                self._on_readable(held, now_ns)
        if self._by_slot[slot] is held and self._active[slot]:
            self._ask(held, now_ns)

    def _keep_alive(self, slot: int) -> None:
        held = self._by_slot[slot]
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
            self._poller.change(held.sock.fileno(), WRITE if held.unsent else READ)

    def _on_readable(self, held: _Held, now_ns: int) -> None:
        """A held connection can be read, or written where something is left to send."""
        if self._closing is not None:
            self._on_closing_readable(held)
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
                self._process_events(held, now_ns)
                if self._by_slot[held.slot] is not held or not _pending(held.sock):
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self._lost(held, *socket_failure(error))

    def _process_events(self, held: _Held, now_ns: int) -> None:
        wire = held.wire
        if wire is None:
            return
        try:
            while self._by_slot[held.slot] is held:
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
            self._ledger.query_failed(failure, latency_ns)
            if is_active:
                asyncio.get_running_loop().call_later(AFTER_FAILURE_S, self._resume, held)
            return
        self._ledger.answered(latency_ns, active=is_active)
        if is_active:
            self._ask(held, perf_counter_ns())

    def _resume(self, held: _Held) -> None:
        if self._by_slot[held.slot] is held and not held.sent_ns and self._closing is None:
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
        self._release(held)
        self._ledger.dropped(error, age_ns, self._targets[slot], held.address)
        if self._spec.reconnect:
            self._reconnects.dropped(slot, age_ns)

    def _release(self, held: _Held) -> None:
        """Close the socket and forget it."""
        self._by_slot[held.slot] = None
        self._asked.pop(held.slot, None)
        fd = held.sock.fileno()
        self._by_fd.pop(fd, None)
        if self._poller.forget is not None:
            self._poller.forget(fd)
        held.sock.close()

    def _drop_overdue(self, oldest_ns: int) -> None:
        """End connections that were asked before that and have not answered."""
        while self._asked:
            held = next(iter(self._asked.values()))
            if held.sent_ns > oldest_ns:
                break
            late = f"no answer {self._overdue}"
            self._drop(held, ConnectError(FailureKind.TIMEOUT, Phase.QUERY, late))

    async def _close(self, seconds: float) -> None:
        try:
            self._end_all()
            self._dialer.stop()
            self._unfinished(self._dialer.give_up(list(self._dialer.pending), "the run ended"))
            open_now = [held for held in self._by_slot if held is not None]
            now_ns = perf_counter_ns()
            self._closing = {held.slot for held in open_now}
            for held in open_now:
                self._ledger.survived(now_ns - held.opened_ns)
            async with asyncio.timeout(seconds):
                for index, held in enumerate(open_now):
                    if index % _CLOSED_PER_TURN == _CLOSED_PER_TURN - 1:
                        await asyncio.sleep(0)
                    self._send_terminate(held)
                if self._closing:
                    await self._all_closed.wait()
        except TimeoutError:
            pass
        finally:
            self._end()

    def _abandon_opening(self) -> None:
        first = [slot for slot in self._dialer.pending if not slot.again]
        self._unfinished(self._dialer.give_up(first, "opening was given up"))

    def _unfinished(self, given_up: list[tuple[OpeningSlot, Dial]]) -> None:
        for opening, dial in given_up:
            if not opening.again:
                recorder = self._ledger.opens[self._targets[opening.number]]
                recorder.unfinished(1)
                recorder.unfinished_in(dial.phase, address_of(recorder, dial))

    def _send_terminate(self, held: _Held) -> None:
        """Send Terminate; the server closes first, so that it is done with us when we are with it."""
        if self._by_slot[held.slot] is not held:
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

    def _on_closing_readable(self, held: _Held) -> None:
        try:
            while held.sock.recv(_RECEIVE_BYTES):
                continue
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            pass  # reset: it is gone all the same
        self._closed(held, forced=False)

    def _closed(self, held: _Held, *, forced: bool) -> None:
        self._release(held)
        self._ledger.closed(forced=forced)
        if self._closing is not None:
            self._closing.discard(held.slot)
            if not self._closing:
                self._all_closed.set()

    def _end(self) -> None:
        for held in self._by_slot:
            if held is not None:
                self._closed(held, forced=True)
        self._dialer.close()

    async def close(self) -> None:
        """Watch no sockets any more."""
        self._dialer.close()


def _pending(sock: socket.SocketType) -> bool:
    """Whether decrypted bytes wait inside the TLS object, where no poll sees them."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
