"""Watching the server of a run that opens and closes connections: whether, what, and from when to when."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pool_bench.cli.places.base import AnyServer
from pool_bench.cli.session import BenchSession
from pool_bench.cli.walls import KnownLimits, WallWatch
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.run import Run
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import SurrealTarget
from pool_bench.watch.machine.limits import LimitsReader
from pool_bench.watch.surreal.process import is_here
from pool_bench.watch.watcher import Watcher, watch_postgres, watch_surreal


@dataclass(frozen=True, slots=True)
class Watching:
    """What to watch during every run.

    Attributes:
        targets: the targets, all of one sort; the server of the first one is watched.
        admin: PgBouncer's console, where the user named one.
        pid: the embedded server's process, PostgreSQL's postmaster; None where it is another's.
        setup_log: the embedded PostgreSQL's log.
        find_console: where the target turns out to be a pooler, try whether it has a console for us.
    """

    targets: tuple[Target, ...]
    admin: PostgresTarget | None = None
    pid: int | None = None
    setup_log: Path | None = None
    find_console: bool = True

    def watcher(self, wanted: int) -> Watcher:
        """The watcher of one run, which opens `wanted` connections at most."""
        surreal = [target for target in self.targets if isinstance(target, SurrealTarget)]
        if surreal:
            return watch_surreal(surreal, self.pid)
        return watch_postgres(
            [target for target in self.targets if isinstance(target, PostgresTarget)],
            self.admin,
            self.pid,
            setup_log=self.setup_log,
            find_console=self.find_console,
            wanted=wanted,
        )


def is_wanted(watch: bool | None, admin: PostgresTarget | None, targets: Sequence[Target]) -> bool:
    """Whether to watch; `targets` is empty for the embedded server.

    Args:
        watch: what the user said, None where nothing. A server elsewhere is asked questions only if the user
            wants it; one on this machine, always.

    Raises:
        UsageError: the user named a console and wants no watching.
    """
    if watch is False and admin is not None:
        raise UsageError("--pgbouncer-admin and --no-watch exclude each other")
    return watch if watch is not None else admin is not None or all(map(_is_here, targets))


def _is_here(target: Target) -> bool:
    if isinstance(target, SurrealTarget):
        return is_here(target)
    for host in target.hosts:
        name = host.address or host.name
        # A path is a Unix socket's directory, `@` begins an abstract one.
        if name.startswith(("/", "@")) or name == "localhost":
            continue
        try:
            if not ipaddress.ip_address(name.partition("%")[0]).is_loopback:
                return False
        except ValueError:
            return False
    return True


def watch_for(
    server: AnyServer | None, targets: tuple[Target, ...], admin: PostgresTarget | None = None
) -> Watching:
    """What to watch: `server` where we started it, else what `targets` lead to."""
    if server is None:
        return Watching(targets, admin)
    log = server.kept.log if isinstance(server, EmbeddedPostgres) else None
    return Watching(targets, admin, server.pid, log)


def follow_watched(
    work: BenchSession, run: Run, watching: Watching | None, targets: Sequence[Target]
) -> None:
    """Measure and show `run`, watching the server at `targets` from before it to after it.

    Raises:
        GeneratorError: the generator failed; what it had measured until then is kept.
        UsageError: the run could not begin.
    """
    reader = LimitsReader(targets)
    if watching is None:
        work.follow(run, WallWatch(run, reader, KnownLimits(), None, work.message).saw)
        return
    with watching.watcher(run.result.concurrency) as watcher:
        walls = WallWatch(run, reader, KnownLimits(), watcher, work.message)
        clock_told: Stage | None = None
        sampled = False

        def saw(snapshot: Snapshot) -> None:
            nonlocal clock_told, sampled
            walls.saw(snapshot)
            # A warm-up ends a little later than it was to, so that is told once more.
            if clock_told is None or (clock_told is Stage.WARMUP and snapshot.stage is not Stage.WARMUP):
                clock_told = snapshot.stage
                watcher.tell_clock(snapshot.began_ns, expected=snapshot.stage is Stage.WARMUP)
            if not sampled and snapshot.stage is Stage.MEASURE:
                sampled = True
                watcher.during()

        watcher.start()
        try:
            work.follow(run, saw)
        except PoolBenchError:
            run.result.server_side = watcher.stop()
            raise
        run.result.server_side = watcher.stop()
