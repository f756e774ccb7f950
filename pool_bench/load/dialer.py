"""Drives dials of the `wire` driver on one poller, without a coroutine for any.

Whoever has dials made keeps a `Slot` for each, and is called back when one has ended: when it has closed its
connection again, or where dials are to stop at that, when the connection is ready.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Final, Generic, TypeVar

from pool_bench.drivers.network.poller import READ, Ready, make_poller
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import Endpoint, WirePlan, resolve
from pool_bench.drivers.wire.routes import ordered
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.units import format_duration

_MS: Final = 1_000_000
_MOST_RESOLVERS: Final = 64


class Slot:
    """A place for one dial at a time.

    Attributes:
        dial: what is under way in it, None where nothing is.
        target: where that leads, an index of the plans.
    """

    __slots__ = ("attempt", "dial", "lookup", "target", "want")

    def __init__(self) -> None:
        self.dial: Dial | None = None
        self.target = 0
        # What the poller knows: which socket of the dial, and what it waits for.
        self.attempt = 0
        self.want = DONE
        self.lookup: asyncio.Future[tuple[Endpoint, ...]] | None = None


S = TypeVar("S", bound=Slot)


@dataclass(frozen=True, slots=True, kw_only=True)
class DialerSettings:
    """What holds for all dials.

    Attributes:
        at_once: dials under way at once, at most.
        timeout_s: bound on one address, seconds; it is the user's `--connect-timeout`.
        overdue: what is not there after that time, as `no end`.
        stop_at_ready: end dials once they are ready, with their sockets open.
        batch: send what dials have to send only when all sockets that were ready together have been served:
            back to back, with nothing parsed in between, the server is woken once for many messages, which
            saves both sides a good part of the cost of a wake-up for each.
    """

    at_once: int
    timeout_s: float
    overdue: str
    stop_at_ready: bool = False
    batch: bool = False


class Dialer(Generic[S]):
    """Moves dials on as their sockets become ready; made where the event loop runs.

    Args:
        plans: where to and how, for each target.
        settings: what holds for all dials.
        rng: spreads dials over the addresses of a target.
        done: called with each dial that has ended, by itself or with an error; its slot is free by then.
        settle: called after sockets were served: begins what has become due.
        ready: called first with a socket that is ready, where there are others than those of dials.
        swept: called each time it was looked at what takes too long, with when that has begun at the latest
            (perf_counter_ns).

    Attributes:
        poller: watches the sockets.
        pending: the slots whose dials are under way.
    """

    def __init__(
        self,
        plans: tuple[WirePlan, ...],
        settings: DialerSettings,
        rng: random.Random,
        *,
        done: Callable[[S, Dial], None],
        settle: Callable[[], None],
        ready: Ready | None = None,
        swept: Callable[[int], None] = lambda oldest_ns: None,
    ) -> None:
        self._plans = list(plans)
        self._endpoints = [plan.endpoints for plan in plans]
        self._settings = settings
        self._rng = rng
        self._done = done
        self._settle_owner = settle
        self._swept = swept
        self._by_fd: dict[int, S] = {}
        self._outbox: list[Dial] = []
        self._timeout_ns = round(settings.timeout_s * 1e9)
        self._stop_at_ready = settings.stop_at_ready
        self._dial_outbox = self._outbox if settings.batch else None
        # asyncio's own executor has a handful of threads: waiting for one would look like a slow look-up.
        self._resolvers = ThreadPoolExecutor(
            max(1, min(settings.at_once, _MOST_RESOLVERS)), thread_name_prefix="resolver"
        )
        self._loop = asyncio.get_running_loop()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.pending: set[S] = set()
        self.poller = make_poller(self._loop, ready or self.on_ready, self.settle)

    def start(self) -> None:
        """From now on, end dials that take too long."""
        self._sweep()

    async def resolve_all(self) -> None:
        """Look all names up, once for all dials; where that fails every dial does it again, and fails."""
        for index, plan in enumerate(self._plans):
            if plan.endpoints is None:
                try:
                    endpoints = await asyncio.to_thread(resolve, plan)
                except ConnectError:
                    continue
                self._endpoints[index] = endpoints
                self._plans[index] = replace(plan, endpoints=endpoints)

    def begin(self, slot: S, target: int, now_ns: int) -> None:
        """Begin a dial to the target of that index."""
        slot.target = target
        slot.attempt = 0
        dial = slot.dial = Dial(
            self._plans[target],
            now_ns,
            stop_at_ready=self._stop_at_ready,
            before_close=self.poller.forget,
            outbox=self._dial_outbox,
        )
        self.pending.add(slot)
        endpoints = self._endpoints[target]
        if endpoints is None:
            self._resolve(slot, dial)
        else:
            self._go_on(slot, dial, dial.begin(self._ordered(endpoints, target), now_ns))

    def _ordered(self, endpoints: tuple[Endpoint, ...], target: int) -> tuple[Endpoint, ...]:
        return endpoints if len(endpoints) == 1 else ordered(self._plans[target], endpoints, self._rng)

    def _resolve(self, slot: S, dial: Dial) -> None:
        lookup = self._loop.run_in_executor(self._resolvers, resolve, self._plans[slot.target])
        slot.lookup = lookup
        lookup.add_done_callback(lambda ended: self._resolved(slot, dial, ended))

    def _resolved(self, slot: S, dial: Dial, lookup: "asyncio.Future[tuple[Endpoint, ...]]") -> None:
        now_ns = perf_counter_ns()
        if lookup.cancelled():
            return  # given up in the meantime
        slot.lookup = None
        error = lookup.exception()
        if error is None:
            self._go_on(slot, dial, dial.begin(self._ordered(lookup.result(), slot.target), now_ns))
        else:
            reason = error.message if isinstance(error, ConnectError) else str(error)
            dial.abort(FailureKind.DNS, reason, now_ns)
            self._go_on(slot, dial, DONE)
        self.settle()

    def on_ready(self, fd: int, now_ns: int, events: int) -> None:
        """Go on with the dial whose socket is ready."""
        slot = self._by_fd.get(fd)
        if slot is None:
            return  # closed by what was served just before
        dial = slot.dial
        # An earlier socket of the same slot may still be listed under its own number.
        if dial is not None and dial.fd == fd:
            want = dial.step(now_ns, events)
            if want == DONE or want != slot.want or slot.attempt != dial.attempt:
                self._go_on(slot, dial, want)

    def settle(self) -> None:
        """Send what the sockets just served have to send, and have begun what is due."""
        if self._outbox:
            # A dial that fails here takes itself out of the outbox.
            waiting = self._outbox.copy()
            self._outbox.clear()
            for dial in waiting:
                want = dial.flush()
                if want != READ:
                    self._go_on(self._by_fd[dial.fd], dial, want)
        self._settle_owner()

    def _go_on(self, slot: S, dial: Dial, want: int) -> None:
        if want == DONE:
            slot.dial = None
            self.pending.discard(slot)
            if self._stop_at_ready:
                # Its socket has another owner from now on.
                self._by_fd.pop(dial.fd, None)
            self._done(slot, dial)
        elif slot.attempt != dial.attempt:
            slot.attempt = dial.attempt
            slot.want = want
            self._by_fd[dial.fd] = slot
            self.poller.add(dial.fd, want)
        elif slot.want != want:
            slot.want = self.poller.follow(dial.fd, slot.want, want)

    def _sweep(self) -> None:
        """End dials that have taken too long, at each address."""
        now_ns = perf_counter_ns()
        oldest_ns = now_ns - self._timeout_ns
        limit = format_duration(self._settings.timeout_s)
        message = f"{self._settings.overdue} after {limit} (--connect-timeout)"
        for slot in list(self.pending):
            dial = slot.dial
            if dial is None:
                continue
            if dial.since_ns > oldest_ns:
                if dial.phase is Phase.CLOSE:
                    self._go_on(slot, dial, dial.closing_overdue(now_ns))
            elif slot.lookup is None:
                self._go_on(slot, dial, dial.time_up(message, now_ns))
            else:
                self._abort(slot, dial, message)
                self._go_on(slot, dial, DONE)
        self._swept(oldest_ns)
        self.settle()
        pause_ns = min(max(self._timeout_ns // 50, 5 * _MS), 500 * _MS)
        self._sweep_timer = self._loop.call_later(pause_ns / 1e9, self._sweep)

    def give_up(self, slots: Iterable[S], message: str) -> list[tuple[S, Dial]]:
        """End the dials in these slots without a word to `done`; returns them."""
        given_up = []
        for slot in slots:
            dial, slot.dial = slot.dial, None
            if dial is not None:
                given_up.append((slot, dial))
                self._abort(slot, dial, message)
        self.pending.difference_update([slot for slot, _ in given_up])
        return given_up

    def _abort(self, slot: S, dial: Dial, message: str) -> None:
        if slot.lookup is not None:
            # One that still waits for its thread would be in the way of those that come after it.
            slot.lookup.cancel()
            slot.lookup = None
        dial.abort(FailureKind.TIMEOUT, message, perf_counter_ns())

    def stop(self) -> None:
        """End dials that take too long no more."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()

    def close(self) -> None:
        """Watch nothing any more, and let go of the threads that look names up; safe to call twice."""
        self.stop()
        self._resolvers.shutdown(wait=False, cancel_futures=True)
        if not self._closed:
            self._closed = True
            self.poller.close()
