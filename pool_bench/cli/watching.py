"""Watching the server of a run that opens and closes connections: whether, what, and from when to when."""

from pool_bench.cli.places.base import Place
from pool_bench.cli.session import BenchSession
from pool_bench.cli.walls import KnownLimits, WallWatch
from pool_bench.errors import PoolBenchError, UsageError
from pool_bench.load.run import Run
from pool_bench.stats.runs import Snapshot, Stage
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


def follow_watched(
    work: BenchSession,
    run: Run,
    watcher: Watcher | None,
    reader: LimitsReader,
    known: KnownLimits | None = None,
) -> None:
    """Measure and show `run`, its server watched from before it to after it.

    Args:
        watcher: looks at the server, entered already; None where it is not watched.
        reader: reads this machine's limits.
        known: what servers said of theirs.

    Raises:
        GeneratorError: the generator failed; what it had measured until then is kept.
        UsageError: the run could not begin.
    """
    walls = WallWatch(run, reader, known or KnownLimits(), watcher, work.message)
    if watcher is None:
        work.follow(run, walls.saw)
        return
    stage: Stage | None = None

    def saw(snapshot: Snapshot) -> None:
        nonlocal stage
        walls.saw(snapshot)
        before, stage = stage, snapshot.stage
        # A warm-up ends a little later than it was to, so that is told once more.
        if before is None or (before is Stage.WARMUP and stage is not Stage.WARMUP):
            watcher.tell_clock(snapshot.began_ns, expected=stage is Stage.WARMUP)
        if before is not stage and stage is Stage.MEASURE:
            watcher.during()
        if before in (None, Stage.OPEN) and stage is Stage.HOLD:
            watcher.peak()

    watcher.start()
    try:
        work.follow(run, saw)
    except PoolBenchError:
        run.result.server_side = watcher.stop()
        raise
    run.result.server_side = watcher.stop()
