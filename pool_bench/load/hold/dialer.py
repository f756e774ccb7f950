"""The connects under way of held `wire` connections: dials on the poller, each until it is ready."""

import asyncio
import random
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Any, Final

from pool_bench.drivers.network.poller import Poller
from pool_bench.drivers.wire.dial import Dial
from pool_bench.drivers.wire.farewell import DONE
from pool_bench.drivers.wire.plan import Endpoint, WirePlan, resolve
from pool_bench.drivers.wire.routes import ordered
from pool_bench.errors import ConnectError, FailureKind, Phase
from pool_bench.load.spec import HoldSpec

_MOST_RESOLVERS: Final = 64


class Pending:
    """A connect under way, for connection number `slot`; `again` where it replaces a dropped one."""

    __slots__ = ("again", "attempt", "dial", "lookup", "slot", "want")

    def __init__(self, slot: int, dial: Dial, *, again: bool) -> None:
        self.slot = slot
        self.dial = dial
        self.again = again
        self.attempt = 0
        self.want = DONE
        self.lookup: asyncio.Future[tuple[Endpoint, ...]] | None = None


class Dialer:
    """Drives dials until they are ready or have failed.

    Args:
        by_fd: takes what is under way, by file descriptor; shared with what is open.
        done: called with each that has ended, its dial ready or with an error.

    Attributes:
        poller: to be set before the first `begin`.
        pending: connects under way.
    """

    def __init__(
        self,
        spec: HoldSpec,
        plans: tuple[WirePlan, ...],
        rng: random.Random,
        by_fd: MutableMapping[int, Any],
        done: Callable[[Pending], None],
    ) -> None:
        self._spec = spec
        self._plans = plans
        self._rng = rng
        self._by_fd = by_fd
        self._done = done
        self._resolvers: ThreadPoolExecutor | None = None
        self.poller: Poller | None = None
        self.pending: set[Pending] = set()

    def begin(self, slot: int, target: int, *, again: bool) -> None:
        """Begin to connect to the target of that index."""
        poller = self.poller
        assert poller is not None  # noqa: S101  # set before the first use
        plan = self._plans[target]
        now_ns = perf_counter_ns()
        dial = Dial(plan, now_ns, stop_at_ready=True, before_close=poller.forget)
        pending = Pending(slot, dial, again=again)
        self.pending.add(pending)
        if plan.endpoints is None:
            self._resolve(pending, plan)
        else:
            self._go_on(pending, dial.begin(ordered(plan, plan.endpoints, self._rng), now_ns))

    def _resolve(self, pending: Pending, plan: WirePlan) -> None:
        if self._resolvers is None:
            # asyncio's own executor has a handful of threads: waiting for one would look like a slow look-up.
            workers = min(self._spec.open_concurrency, _MOST_RESOLVERS)
            self._resolvers = ThreadPoolExecutor(workers, thread_name_prefix="resolver")
        pending.lookup = asyncio.get_running_loop().run_in_executor(self._resolvers, resolve, plan)
        pending.lookup.add_done_callback(lambda found: self._resolved(pending, plan, found))

    def _resolved(
        self, pending: Pending, plan: WirePlan, found: "asyncio.Future[tuple[Endpoint, ...]]"
    ) -> None:
        if found.cancelled():
            return  # given up in the meantime
        pending.lookup = None
        error, now_ns = found.exception(), perf_counter_ns()
        if error is None:
            self._go_on(pending, pending.dial.begin(ordered(plan, found.result(), self._rng), now_ns))
        else:
            reason = error.message if isinstance(error, ConnectError) else str(error)
            pending.dial.abort(FailureKind.DNS, reason, now_ns)
            self._go_on(pending, DONE)

    def step(self, pending: Pending, fd: int, now_ns: int, events: int) -> None:
        """Go on with one whose socket is ready."""
        # An earlier socket of the same dial may still be listed under its own number.
        if pending in self.pending and pending.dial.fd == fd:
            self._go_on(pending, pending.dial.step(now_ns, events))

    def _go_on(self, pending: Pending, want: int) -> None:
        dial, poller = pending.dial, self.poller
        if want == DONE:
            self.pending.discard(pending)
            self._by_fd.pop(dial.fd, None)
            self._done(pending)
            return
        assert poller is not None  # noqa: S101  # set before the first use
        if pending.attempt != dial.attempt:
            pending.attempt = dial.attempt
            pending.want = want
            self._by_fd[dial.fd] = pending
            poller.add(dial.fd, want)
        elif pending.want != want:
            pending.want = poller.follow(dial.fd, pending.want, want)

    def give_up_older(self, oldest_ns: int, message: str) -> None:
        """End those whose present address was begun with before `oldest_ns`: on to the next, or timed out."""
        for pending in [one for one in self.pending if one.dial.since_ns <= oldest_ns]:
            if pending.lookup is None:
                self._go_on(pending, pending.dial.time_up(message, perf_counter_ns()))
            else:
                self._abort(pending, message)
                self._go_on(pending, DONE)

    def give_up_all(self, message: str, *, but_again: bool = False) -> list[Pending]:
        """End all, or all but those that replace one, without a word to `done`; returns them."""
        given_up = [one for one in self.pending if not (but_again and one.again)]
        for pending in given_up:
            # Its number is gone once its socket is closed.
            self._by_fd.pop(pending.dial.fd, None)
            self._abort(pending, message)
        self.pending.difference_update(given_up)
        return given_up

    def _abort(self, pending: Pending, message: str) -> None:
        if pending.lookup is not None:
            # One that still waits for its thread would be in the way of those that come after it.
            pending.lookup.cancel()
            pending.lookup = None
        pending.dial.abort(FailureKind.TIMEOUT, message, perf_counter_ns())

    def close(self) -> None:
        """Let go of the threads that look names up."""
        if self._resolvers is not None:
            self._resolvers.shutdown(wait=False, cancel_futures=True)


def steps(plan: WirePlan) -> tuple[Phase, ...]:
    """The phases of opening by `plan`."""
    return tuple(phase for phase in plan.phases if phase not in (Phase.QUERY, Phase.CLOSE))
