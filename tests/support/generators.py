"""Runs `generate` inside the test, and looks for what it left behind."""

import asyncio
import gc
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import uvloop

from pool_bench.drivers.network.poller import LoopPoller
from pool_bench.drivers.wire import plan
from pool_bench.drivers.wire.plan import Endpoint
from pool_bench.errors import FailureKind, Phase
from pool_bench.load import dialer, generator
from pool_bench.load.spec import ConnectSpec
from pool_bench.pgwire import Credentials
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.timeline import Timeline
from pool_bench.targets.postgres import Host, PostgresTarget, parse_target

LoopName = Literal["asyncio", "uvloop"]
# "far" is epoll, with every address taken for one of another machine.
PollerName = Literal["epoll", "loop", "far"]
ENGINES: tuple[tuple[LoopName, PollerName], ...] = (
    ("asyncio", "epoll"),
    ("asyncio", "loop"),
    ("asyncio", "far"),
    ("uvloop", "epoll"),
    ("uvloop", "loop"),
    ("uvloop", "far"),
)
# libuv keeps a pipe for signals from its first loop on.
uvloop.new_event_loop().close()

# What a busy machine may add to any bound; what must not be waited for takes a minute.
MARGIN_S = 30.0
# What pytest has is frozen already (`conftest.py`); to unfreeze it would have all of it looked at again.
_QUICK_GC = SimpleNamespace(collect=lambda: gc.collect(0), freeze=lambda: None, unfreeze=lambda: None)


def go_far(patch: pytest.MonkeyPatch) -> None:
    """Take every numeric address for one of another machine: a connect to it does not end at once."""
    near = plan._literal_endpoint

    def far(host: Host, credentials: Credentials) -> Endpoint | None:
        endpoint = near(host, credentials)
        return None if endpoint is None else replace(endpoint, is_near=False)

    patch.setattr(plan, "_literal_endpoint", far)


def target(url: str) -> PostgresTarget:
    """A target from a URL and nothing else."""
    return parse_target(url, env={}, default_user="nobody")


def open_fds() -> dict[int, str]:
    """This process's file descriptors and what they lead to, the watch on a server's process excepted."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names are all that is wanted
        try:
            leads_to = str(Path(f"/proc/self/fd/{name}").readlink())
            if leads_to != "anon_inode:[pidfd]":
                found[int(name)] = leads_to
        except OSError:
            continue  # the one that the listing itself used
    return found


@contextmanager
def nothing_left() -> Iterator[None]:
    """Assert that no file descriptor and no thread is left at the end that was not there before."""
    fds, threads = set(open_fds().items()), set(threading.enumerate())
    yield
    deadline = time.monotonic() + MARGIN_S
    while True:
        left = set(open_fds().items()) - fds
        started = [thread for thread in threading.enumerate() if thread not in threads]
        if not left and not started:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"left behind: {left or ''} {started or ''}")
        time.sleep(0.01)


async def loop_closes_all_but(fds: set[tuple[int, str]]) -> None:
    """Let the loop end transports that are being closed: those of TLS end when the other side has closed."""
    deadline = time.monotonic() + MARGIN_S
    while set(open_fds().items()) - fds and time.monotonic() < deadline:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0.01)


def client_sockets(ports: Iterable[int]) -> list[int]:
    """This process's sockets that are connected to one of `ports`."""
    wanted = set(ports)
    found = []
    for fd, leads_to in open_fds().items():
        if not leads_to.startswith("socket:"):
            continue
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()[1] in wanted:
                    found.append(fd)
        except OSError:
            continue  # closed meanwhile by a thread, or connected to nobody
    return found


@dataclass(slots=True)
class Outcome:
    """What a run gave."""

    snapshots: list[Snapshot] = field(default_factory=list)
    targets: list[BenchStats] = field(default_factory=list)
    warmup: BenchStats = field(default_factory=BenchStats)
    elapsed_s: float = 0.0

    @property
    def total(self) -> BenchStats:
        """All targets together."""
        return BenchStats.merged(self.targets)

    @property
    def failures(self) -> set[tuple[FailureKind, Phase, str]]:
        """Sorts of failures among the measured operations."""
        return {(key.kind, key.phase, key.sqlstate) for key in self.total.failures}

    @property
    def lag_max_ms(self) -> float:
        """The worst event-loop lag."""
        return max(snapshot.client.lag.max_ns for snapshot in self.snapshots) / 1e6


def assert_missed_ticks_are_not_made_up_for(snapshots: list[Snapshot], tick_s: float) -> None:
    """Assert that two neighbours together are a tick long, those at the end of a stage excepted.

    One alone may have next to no length: where the one before it was late until just before the next was due.
    """
    together_s = [one.seconds + following.seconds for one, following in pairwise(snapshots)]
    # What a loop's clock in milliseconds may be off by, at both ends.
    assert min(together_s) >= tick_s - 0.005


def enough(condition: Callable[[list[BenchStats]], bool]) -> Callable[[Snapshot], bool]:
    """Asks for an end as soon as what was measured so far, target by target, is such."""
    targets: list[BenchStats] = []

    def is_enough(snapshot: Snapshot) -> bool:
        if not targets:
            targets.extend(BenchStats() for _ in snapshot.targets)
        for stats, delta in zip(targets, snapshot.targets, strict=True):
            stats.merge(replace(delta, intervals=Timeline()))
        return condition(targets)

    return is_enough


def run(
    spec: ConnectSpec,
    *,
    loop: LoopName = "asyncio",
    poller: PollerName = "epoll",
    stop_when: Callable[[Snapshot], bool] = lambda snapshot: False,
    during: Callable[[asyncio.Event], Awaitable[None]] | None = None,
) -> Outcome:
    """Run `spec` to its end in an event loop of its own; checks that its sums are right and nothing is left.

    Args:
        stop_when: asks for an early end when a snapshot is such.
        during: runs beside it; gets the stop event, which is set at the run's end, too.
    """
    outcome = Outcome(targets=[BenchStats() for _ in spec.targets])
    ports = [host.port for one in spec.postgres_targets for host in one.hosts if not host.is_unix]

    async def main() -> None:
        stop = asyncio.Event()

        def send(snapshot: Snapshot) -> None:
            outcome.snapshots.append(snapshot)
            if stop_when(snapshot):
                stop.set()

        beside = asyncio.ensure_future(during(stop)) if during is not None else None
        begin = time.monotonic()
        await generator.generate(spec, send, stop)
        outcome.elapsed_s = time.monotonic() - begin
        stop.set()
        if beside is not None:
            await beside
        # Closed transports end in a later turn of the loop.
        for _ in range(5):
            await asyncio.sleep(0)
        left = client_sockets(ports)
        assert left == [], [(fd, open_fds().get(fd)) for fd in left]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with pytest.MonkeyPatch.context() as patch:
        if poller == "loop":
            patch.setattr(dialer, "make_poller", LoopPoller)
        if poller == "far":
            go_far(patch)
        patch.setattr(generator, "gc", _QUICK_GC)
        with nothing_left(), asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    for snapshot in outcome.snapshots:
        outcome.warmup.merge(snapshot.warmup)
        for stats, delta in zip(outcome.targets, snapshot.targets, strict=True):
            stats.merge(replace(delta))
    _check_sums(outcome)
    return outcome


def _check_sums(outcome: Outcome) -> None:
    total = outcome.total
    assert outcome.snapshots[-1].final
    assert [snapshot.final for snapshot in outcome.snapshots].count(True) == 1
    assert outcome.snapshots[-1].stage is Stage.DONE
    assert outcome.snapshots[-1].in_flight == 0
    assert total.attempts == total.ok + total.failed + total.unfinished
    assert sum(interval.ok for interval in total.intervals) == total.ok
    assert sum(interval.failed for interval in total.intervals) == total.failed
    assert sum(failure.count for failure in total.failures.values()) == total.failed
    assert total.latency.count == total.ok
    assert total.failure_latency.count == total.failed
    if rows := list(total.addresses.values()):
        assert sum(row.ok for row in rows) == sum(row.latency.count for row in rows) == total.ok
        assert sum(row.failed for row in rows) == total.failed
        assert sum(row.unfinished for row in rows) == total.unfinished
        assert all(sum(row.errors.values()) == row.failed for row in rows)
        assert all(sum(row.passed_over_errors.values()) == row.passed_over for row in rows)
    parts_s = sum(histogram.total_s for histogram in total.phases.values())
    assert parts_s <= total.latency.total_s * (1 + 1e-9) + 1e-9
