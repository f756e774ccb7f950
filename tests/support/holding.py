"""Runs `generate` inside the test, lets the test act on what is held, and looks for what is left."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import psutil
import psycopg
import pytest
import uvloop

from pool_bench.drivers.network.poller import LoopPoller
from pool_bench.errors import FailureKind, Phase
from pool_bench.load import dialer
from pool_bench.load.generator import generate
from pool_bench.load.spec import HoldSpec
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats
from pool_bench.stats.runs import Snapshot, Stage
from tests.support.generators import (
    MARGIN_S,
    LoopName,
    PollerName,
    client_sockets,
    go_far,
    nothing_left,
    open_fds,
    target,
)

APPLICATION = "held"

Sort = tuple[FailureKind, Phase, str]


def held_url(server: EmbeddedPostgres, user: str = EmbeddedPostgres.user) -> str:
    """A server's URL whose backends can be told from others."""
    url = server.url.replace(f"//{server.user}@", f"//{user}@")
    return f"{url}&application_name={APPLICATION}"


def hold_spec(*urls: str, **changes: object) -> HoldSpec:
    """Five connections to each URL, held until stopped, without keep-alives."""
    given: dict[str, object] = {
        "targets": tuple(target(url) for url in urls),
        "connections": (5,) * len(urls),
        "duration_s": 0.0,
        "connect_timeout_s": 60.0,
        "tick_s": 0.05,
        "seed": 1,
    }
    return HoldSpec(**(given | changes))  # type: ignore[arg-type]  # checked by HoldSpec


@dataclass(slots=True)
class Held:
    """A run under way, and what came of it."""

    stop: asyncio.Event
    changed: asyncio.Event
    snapshots: list[Snapshot] = field(default_factory=list)
    stats: HoldStats = field(default_factory=HoldStats)
    targets: list[BenchStats] = field(default_factory=list)
    stage: Stage = Stage.OPEN
    elapsed_s: float = 0.0

    @property
    def opening(self) -> BenchStats:
        """The first opening, all targets together."""
        return BenchStats.merged(self.targets)

    @property
    def failures(self) -> dict[Sort, int]:
        """Sorts of failures of the first opening."""
        return _sorts(self.opening)

    @property
    def drops(self) -> dict[Sort, int]:
        """Sorts of drops."""
        return {(key.kind, key.phase, key.sqlstate): drop.count for key, drop in self.stats.drops.items()}

    @property
    def query_failures(self) -> dict[Sort, int]:
        """Sorts of queries that failed on connections that stayed open."""
        return _sorts(self.stats.query_failures)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Opened, opened again, dropped, closed."""
        stats = self.stats
        return stats.opened, stats.reopened, stats.dropped, stats.closed

    async def until(self, condition: Callable[["Held"], bool]) -> None:
        """Wait, for a bounded time, until a snapshot has made the condition true."""
        try:
            async with asyncio.timeout(MARGIN_S):
                while not condition(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"never came: {self.counts} {self.drops} {self.failures}") from None

    async def until_held(self, count: int) -> None:
        """Wait until so many are held, and opening is over."""
        await self.until(lambda held: held.stage is Stage.HOLD and held.stats.held == count)


def _sorts(stats: BenchStats) -> dict[Sort, int]:
    return {(key.kind, key.phase, key.sqlstate): failure.count for key, failure in stats.failures.items()}


During = Callable[[Held], Awaitable[None]]


def hold(
    spec: HoldSpec,
    during: During | None = None,
    *,
    loop: LoopName = "uvloop",
    poller: PollerName = "epoll",
) -> Held:
    """Run `spec` to its end in an event loop of its own; checks that its sums are right and nothing is left.

    Args:
        during: runs beside it; the run is told to stop when that has returned.
    """
    held: Held | None = None
    ports = [host.port for one in spec.postgres_targets for host in one.hosts if not host.is_unix]

    async def main() -> Held:
        nonlocal held
        now = held = Held(asyncio.Event(), asyncio.Event(), targets=[BenchStats() for _ in spec.targets])

        def send(snapshot: Snapshot) -> None:
            assert snapshot.hold is not None
            now.snapshots.append(snapshot)
            now.stats.merge(snapshot.hold)
            for stats, delta in zip(now.targets, snapshot.targets, strict=True):
                stats.merge(replace(delta))
            now.stage = snapshot.stage
            now.changed.set()

        async def beside() -> None:
            try:
                if during is not None:
                    await during(now)
            finally:
                if during is not None:
                    now.stop.set()

        begin = time.monotonic()
        async with asyncio.TaskGroup() as both:
            both.create_task(beside())
            await generate(spec, send, now.stop)
            now.elapsed_s = time.monotonic() - begin
        # Closed transports end in a later turn of the loop.
        for _ in range(5):
            await asyncio.sleep(0)
        left = client_sockets(ports)
        assert left == [], [(fd, open_fds().get(fd)) for fd in left]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return now

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with pytest.MonkeyPatch.context() as patch:
        if poller == "loop":
            patch.setattr(dialer, "make_poller", LoopPoller)
        if poller == "far":
            go_far(patch)
        with nothing_left(), asyncio.Runner(loop_factory=factory) as runner:
            outcome = runner.run(main())
    check_sums(outcome, spec)
    return outcome


def check_sums(held: Held, spec: HoldSpec) -> None:
    """Assert that nothing was lost and nothing counted twice."""
    stats, opening, last = held.stats, held.opening, held.snapshots[-1]
    assert [snapshot.final for snapshot in held.snapshots].index(True) == len(held.snapshots) - 1
    assert last.stage is Stage.DONE
    assert last.in_flight == last.backing_off == 0
    assert opening.attempts <= spec.concurrency
    assert stats.opened == opening.ok == opening.latency.count
    assert stats.reopened == stats.reconnects.ok
    assert stats.held == 0
    assert stats.forced <= stats.closed == stats.survivors.total
    assert stats.dropped_ages().total == stats.dropped
    held_now = 0
    for interval in stats.intervals:
        held_now += interval.opened - interval.dropped - interval.closed
        assert 0 <= interval.held == held_now <= interval.held_peak <= spec.concurrency
    assert sum(interval.opened for interval in stats.intervals) == stats.opened + stats.reopened
    assert sum(interval.dropped for interval in stats.intervals) == stats.dropped
    assert sum(interval.closed for interval in stats.intervals) == stats.closed
    answered = [(i.keepalive.count, i.active.count) for i in stats.intervals if i.keepalive and i.active]
    assert sum(count for count, _ in answered) == stats.keepalive.count
    assert sum(count for _, count in answered) == stats.active.count


def ask(server: EmbeddedPostgres, sql: str) -> list[tuple[object, ...]]:
    """The rows of one question of the superuser's, on a connection of its own."""
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        return list(connection.execute(sql.encode()).fetchall())


def backends(server: EmbeddedPostgres) -> list[int]:
    """The processes that serve what is held, as the server lists them."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY backend_start"
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        return [int(pid) for (pid,) in connection.execute(query, [APPLICATION])]


def await_backends(server: EmbeddedPostgres, count: int) -> list[int]:
    """Wait, for a bounded time, until the server has so many: its processes end after the sockets do."""
    deadline = time.monotonic() + MARGIN_S
    while len(found := backends(server)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def await_no_backends(server: EmbeddedPostgres) -> None:
    """Wait, for a bounded time, until the server has none left."""
    await_backends(server, 0)


def terminate(server: EmbeddedPostgres, pids: list[int]) -> None:
    """End backends as an administrator does."""
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) pid", [pids])


def kill_backend(pid: int) -> None:
    """End one backend as a crash does."""
    psutil.Process(pid).kill()
