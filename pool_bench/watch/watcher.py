"""A thread of the parent process that looks at the server once a second while a run is under way.

It owns its connections, and everything that can be slow happens in it; the caller only leaves word ("the peak
is now", "stop") and waits, with a limit, where the order matters: nothing of the run may be open before the
first look has been taken, and the last one is taken once everything of the run has gone.

It must never disturb or fail the run. What cannot be seen becomes one line in `ServerObservation.notes`; a
server that is away for a while leaves a gap in `ServerObservation.seconds`, and is looked at again when it is
back.
"""

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from pool_bench.stats.server import ServerObservation
from pool_bench.targets.postgres import PostgresTarget, redact
from pool_bench.targets.surreal import SurrealTarget
from pool_bench.watch.postgres.client import WatchClient
from pool_bench.watch.postgres.sampler import PostgresSampler
from pool_bench.watch.sampler import Sampler, When
from pool_bench.watch.surreal.sampler import SurrealSampler

# How long `start` and `stop` block at most, seconds.
START_WAIT_S: Final = 6.0
STOP_WAIT_S: Final = 12.0
# Of that, for a thread that was told to leave its questions unanswered.
_LEAVE_WAIT_S: Final = 3.0
# How long the server may take to end the backends of closed connections, and how often it is asked.
_GONE_WAIT_S: Final = 5.0
_GONE_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class _Sample:
    """Left for the thread: take this memory sample, then set `taken`."""

    when: When
    taken: threading.Event

    def follow(self, sampler: Sampler, origin: float) -> None:
        sampler.sample(time.monotonic() - origin, self.when)
        self.taken.set()


@dataclass(frozen=True, slots=True)
class _Began:
    """Left for the thread: the run's clock is at 0 then, seconds of the monotonic clock and since 1970."""

    at: float
    wall: float
    expected: bool

    def follow(self, sampler: Sampler, origin: float) -> None:
        sampler.begin(self.at - origin, self.wall, expected=self.expected)


# None: stop.
_Word = _Sample | _Began | None


class Watcher:
    """Watches the server of a run from before its first connection to after its last.

    A context manager: leaving it without `stop` ends the watching at once, with no last look.

    Args:
        sampler: looks at the server.
        leave: once set, what `sampler` is waiting for is to fail.
        interval_s: seconds from look to look.
    """

    def __init__(self, sampler: Sampler, leave: threading.Event, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._leave = leave
        self._sampler = sampler
        self._words: queue.SimpleQueue[_Word] = queue.SimpleQueue()
        self._before_taken = threading.Event()
        self._too_late = False
        # A daemon: libpq may be looking up a name, which nothing can end.
        self._thread = threading.Thread(target=self._run, name="pool-bench-watch", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._leave.set()
        self._words.put(None)
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_WAIT_S)

    def start(self) -> None:
        """Look at the server before the run, and begin to watch it; blocks for 6 s at most.

        A look that takes longer is left out, for it might show connections of the run.
        """
        self._thread.start()
        if not self._before_taken.wait(START_WAIT_S):
            self._too_late = True

    def slots(self) -> tuple[int, int] | None:
        """Slots in use at the last look, and `max_connections`; None while they are not known."""
        side = self._sampler.side
        used = side.seconds[-1].used if side.seconds else None
        return None if used is None or side.max_connections is None else (used, side.max_connections)

    @property
    def side(self) -> ServerObservation:
        """What was seen so far; the thread goes on filling it."""
        return self._sampler.side

    def peak(self, *, wait_s: float = 0.0) -> None:
        """Have the memory sample of the peak taken: all connections are open now.

        Args:
            wait_s: how long to block at most until it has been taken, about a second as a rule. Without
                waiting, connections that are closed soon may be missing from it.
        """
        self._take("peak", wait_s)

    def during(self, *, wait_s: float = 0.0) -> None:
        """Have a memory sample taken: the run is at its work now. `wait_s` as in `peak`."""
        self._take("during", wait_s)

    def _take(self, when: When, wait_s: float) -> None:
        taken = threading.Event()
        self._words.put(_Sample(when, taken))
        if wait_s > 0:
            taken.wait(wait_s)

    def tell_clock(self, began_ns: int, *, expected: bool = False) -> None:
        """Say when the run's own clock was at 0.

        Args:
            began_ns: the moment, perf_counter_ns.
            expected: it will be then at the earliest, for a warm-up is still under way.
        """
        elapsed_s = (time.perf_counter_ns() - began_ns) / 1e9
        self._words.put(_Began(time.monotonic() - elapsed_s, time.time() - elapsed_s, expected))

    def stop(self) -> ServerObservation:
        """Look once more when the run's connections have gone, or after 5 s, and end; blocks 12 s at most.

        Returns:
            What was seen, and what was not and why.
        """
        self._words.put(None)
        if self._thread.ident is not None:
            self._thread.join(STOP_WAIT_S - _LEAVE_WAIT_S)
        if self._thread.is_alive():
            self._sampler.side.note("the server was too slow for a last look")
            self._leave.set()
            self._thread.join(_LEAVE_WAIT_S)
        side = self._sampler.side
        # Copied, lest a thread that is still there change what the caller writes to a file.
        return replace(
            side,
            seconds=list(side.seconds),
            memory=dict(side.memory),
            pooler_memory=dict(side.pooler_memory),
            notes=list(side.notes),
        )

    def _run(self) -> None:
        sampler = self._sampler
        try:
            sampler.sample(0.0, "before")
            if self._too_late:
                sampler.forget_before()
                sampler.side.note("the server did not answer before the run: how it was then is not known")
            origin = time.monotonic()
            self._before_taken.set()
            self._watch(origin)
            self._look_after(origin)
        except Exception as error:
            # Whatever it is, the run goes on.
            sampler.side.note(f"watching the server ended: {redact(f'{type(error).__name__}: {error}')}")
        finally:
            sampler.finish()
            self._before_taken.set()

    def _watch(self, origin: float) -> None:
        due = origin + self._interval_s
        while True:
            try:
                word = self._words.get(timeout=max(due - time.monotonic(), 0))
            except queue.Empty:
                now = time.monotonic()
                self._sampler.sample(now - origin)
                # Looks that a slow server made late are left out, not made up for.
                due += self._interval_s * (1 + max(time.monotonic() - due, 0) // self._interval_s)
                continue
            if word is None:
                return
            word.follow(self._sampler, origin)

    def _look_after(self, origin: float) -> None:
        deadline = time.monotonic() + _GONE_WAIT_S
        while (surplus := self._sampler.surplus(time.monotonic() - origin)) and not self._leave.is_set():
            if time.monotonic() > deadline:
                self._sampler.side.note(
                    f"{surplus} more client connections than before the run, {_GONE_WAIT_S:g} s after its end"
                )
                break
            self._leave.wait(_GONE_POLL_S)
        self._sampler.sample(time.monotonic() - origin, "after")


def watch_postgres(
    targets: Sequence[PostgresTarget],
    admin: PostgresTarget | None = None,
    local_pid: int | None = None,
    interval_s: float = 1.0,
    *,
    setup_log: Path | None = None,
    find_console: bool = False,
    wanted: int = 0,
) -> Watcher:
    """A watcher of a PostgreSQL, not started yet.

    Args:
        targets: the targets of the run; the server of the first one is watched. May be empty.
        admin: PgBouncer's console, if there is one to ask; any database of it.
        local_pid: the postmaster, where it was started by us; None has it found on this machine.
        interval_s: seconds from look to look.
        setup_log: the server's log, where it is one that `postgres/setup_log.py` can read.
        find_console: where the target turns out to be a pooler, try whether it has a console for us.
        wanted: connections that the run opens at most; a server without a slot beside them is left alone.
    """
    leave = threading.Event()
    sampler = PostgresSampler(
        targets,
        admin,
        local_pid,
        lambda target: WatchClient(target, leave),
        setup_log=setup_log,
        find_console=find_console,
        wanted=wanted,
    )
    return Watcher(sampler, leave, interval_s)


def watch_surreal(
    targets: Sequence[SurrealTarget], local_pid: int | None = None, interval_s: float = 1.0
) -> Watcher:
    """A watcher of a SurrealDB, not started yet.

    Args:
        targets: the targets of the run; the server of the first one is watched.
        local_pid: its process, where it was started by us; None has it found on this machine.
        interval_s: seconds from look to look.
    """
    return Watcher(SurrealSampler(targets, local_pid), threading.Event(), interval_s)
