"""Watching the server of runs: whether, what, and from when to when."""

from abc import ABC
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pool_bench.cli.places.base import Config, Place, Site
from pool_bench.cli.plan import Plan
from pool_bench.cli.session import BenchSession
from pool_bench.cli.walls import KnownLimits, WallWatch
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.run import Run
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.machine.limits import LimitsReader
from pool_bench.watch.watcher import Watcher


def is_wanted(watch: bool | None, admin: PostgresTarget | None, place: Place) -> bool:
    """Whether to watch.

    Args:
        watch: what the user said, None where nothing. A server elsewhere is asked questions only if the user
            wants it; one on this machine, always.

    Raises:
        UsageError: the user named a console and wants no watching.
    """
    if watch is False and admin is not None:
        raise UsageError("--pgbouncer-admin and --no-watch exclude each other")
    return watch if watch is not None else admin is not None or place.is_here


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedPlan(Plan, ABC):
    """What the user asked for, by a command whose runs are watched each by itself.

    Attributes:
        watch: whether the server is to be watched, None where the user left that to us.
        admin: PgBouncer's administration console, where there is one to ask.
    """

    watch: bool | None = None
    admin: PostgresTarget | None = None

    @property
    def watched(self) -> bool:
        """Whether the server is watched.

        Raises:
            UsageError: the user named a console and wants no watching.
        """
        return is_wanted(self.watch, self.admin, self.place)

    @property
    def watching_config(self) -> Config:
        """The same, for the result file."""
        return {"watch": self.watched, "pgbouncer_admin": None if self.admin is None else str(self.admin)}

    def watcher(
        self, site: Site, targets: tuple[Target, ...], connections: int
    ) -> AbstractContextManager[Watcher | None]:
        """A watcher for a run with up to so many connections to `targets`, or none.

        Only the site's own server is watched, not one that a setting names instead.
        """
        if not self.watched or targets != site.targets:
            return nullcontext()
        return site.watcher(connections, admin=self.admin)


def follow_watched(
    work: BenchSession,
    run: Run,
    watcher: Watcher | None,
    reader: LimitsReader | None = None,
    known: KnownLimits | None = None,
    *,
    saw: Callable[[Snapshot], None] | None = None,
) -> None:
    """Measure and show `run`, its server watched from before it to after it.

    Args:
        watcher: looks at the server, entered already; None where it is not watched.
        reader: reads this machine's limits; None where a wall is not to be named, as connections are the
            pool's to open.
        known: what servers said of theirs.
        saw: called with each snapshot before it is shown.

    Raises:
        GeneratorError: the generator failed; what it had measured until then is kept.
        UsageError: the run could not begin.
    """
    listeners = [] if saw is None else [saw]
    if reader is not None:
        listeners.append(WallWatch(run, reader, known or KnownLimits(), watcher, work.message).saw)
    if watcher is not None:
        listeners.append(_Teller(watcher).saw)

    def tell(snapshot: Snapshot) -> None:
        for listener in listeners:
            listener(snapshot)

    if watcher is None:
        work.follow(run, tell)
        return
    watcher.start()
    try:
        work.follow(run, tell)
    except PoolBenchError:
        run.result.server_side = watcher.stop()
        raise
    run.result.server_side = watcher.stop()


class _Teller:
    """Tells a watcher what stage its run has come to."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._stage: Stage | None = None

    def saw(self, snapshot: Snapshot) -> None:
        """Take in one snapshot."""
        watcher, before, stage = self._watcher, self._stage, snapshot.stage
        self._stage = stage
        # A warm-up ends a little later than it was to, so that is told once more.
        if before is None or (before is Stage.WARMUP and stage is not Stage.WARMUP):
            watcher.tell_clock(snapshot.began_ns, expected=stage is Stage.WARMUP)
        if before is not stage and stage is Stage.MEASURE:
            watcher.during()
        if before in (None, Stage.OPEN) and stage is Stage.HOLD:
            watcher.peak()
