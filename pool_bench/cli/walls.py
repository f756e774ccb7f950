"""Says which wall connections have met, as soon as they stop growing: in the live output and in the result.

`analysis/stalled_growth.py` notices that they do, `walls.py` names the wall from what
`watch/machine/limits.py` reads at that moment and from what was known before: limits of the server and of
PgBouncer, where nobody may be let in by then.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from pool_bench.analysis.stalled_growth import Growth, Stall
from pool_bench.analysis.walls_ahead import Asked, walls_ahead
from pool_bench.errors import ConnectError, FailureKind
from pool_bench.load.run import Run
from pool_bench.report.summary.verdict import wall_words
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.server import ServerObservation
from pool_bench.stats.walls import Evidence, Use, WallKind, name_wall
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.machine.limits import LimitsReader, longest_queue
from pool_bench.watch.postgres.client import CLOSE_WAIT_S, WatchClient
from pool_bench.watch.postgres.pgbouncer import console_target, show_limits, show_lists
from pool_bench.watch.postgres.slots import Slots
from pool_bench.watch.watcher import Watcher

# These say that nothing comes, which a server that is only slow shows as well: over once something does.
_PASSING: Final = (WallKind.NO_ANSWER, WallKind.UNKNOWN)

# Of questions to a console that does not answer at once: it may be busy for a moment.
_TRIES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLimits:
    """What a server and PgBouncer said of their limits before the run; None where they did not.

    Attributes:
        slots: of the server.
        settings: of PgBouncer, by name, as `show_limits` gives them.
        clients: PgBouncer's clients then.
    """

    slots: Slots | None = None
    settings: tuple[tuple[str, int], ...] = ()
    clients: int = 0

    def setting(self, name: str) -> int | None:
        """A setting of PgBouncer's."""
        return dict(self.settings).get(name)

    @classmethod
    def of(cls, target: PostgresTarget, slots: Slots | None, admin: PostgresTarget | None) -> Self:
        """What the server at `target` said, and PgBouncer's console; blocks for some seconds at most.

        Args:
            slots: of the server.
            admin: the console; None has that of a pooler at `target` tried.
        """
        if admin is None and (slots is None or not slots.pooled):
            return cls(slots=slots)
        console = WatchClient(console_target(admin or target))
        settings: dict[str, int] = {}
        clients = 0
        for _ in range(_TRIES):
            try:
                settings = show_limits(console)
                clients = show_lists(console).get("used_clients", 0)
            except ConnectError as error:
                if error.kind is FailureKind.TIMEOUT:
                    continue
            break
        console.close(wait_s=CLOSE_WAIT_S)
        return cls(slots=slots, settings=tuple(settings.items()), clients=clients)


def warn_of_walls(asked: Asked, reader: LimitsReader, known: KnownLimits, say: Callable[[str], None]) -> None:
    """Say which walls a run will meet, as far as they can be seen before it."""
    seen = reader.look(())
    most = known.setting("max_client_conn")
    if most is not None:
        seen = replace(seen, clients=Use(most, known.clients))
    for line in walls_ahead(asked, seen, somaxconn=longest_queue()):
        say(f"ahead: {line}")


class WallWatch:
    """Follows one run.

    Args:
        run: the run under way; its result gets the wall.
        reader: reads this machine's limits.
        known: what was said before.
        watcher: looks at the server, where it is watched.
        say: says one line among those of the run.
    """

    def __init__(
        self,
        run: Run,
        reader: LimitsReader,
        known: KnownLimits,
        watcher: Watcher | None,
        say: Callable[[str], None],
    ) -> None:
        self._run = run
        self._reader = reader
        self._known = known
        self._watcher = watcher
        self._say = say
        self._growth = Growth()
        self._said: set[WallKind] = set()

    def saw(self, snapshot: Snapshot) -> None:
        """Take in one snapshot, before it is shown."""
        growth, result = self._growth, self._run.result
        opened, over = growth.opened, growth.over
        stall = growth.add(snapshot)
        grew, whole = growth.opened > opened, growth.over and growth.opened >= result.concurrency
        if result.wall is not None and ((grew and result.wall.kind in _PASSING) or (whole and not over)):
            result.wall = None
        if stall is None:
            return
        wall = replace(name_wall(self._evidence(stall)), t=stall.t, held=stall.held)
        if snapshot.stage is Stage.HOLD and wall.kind in (*_PASSING, WallKind.FAILURES):
            return  # what was dropped, and how, is said anyway
        if result.wall is None or wall.kind not in _PASSING:
            result.wall = wall
        if wall.kind not in self._said:
            self._said.add(wall.kind)
            self._say(wall_words(wall))

    def _evidence(self, stall: Stall) -> Evidence:
        seen = self._reader.look(self._run.pids)
        known, slots = self._known, self._known.slots
        side = ServerObservation() if self._watcher is None else self._watcher.side
        look = side.seconds[-1] if side.seconds else None
        max_connections, kept = side.max_connections, (side.superuser_reserved or 0) + (side.reserved or 0)
        if max_connections is None and slots is not None:
            max_connections, kept = slots.max_connections, slots.superuser_reserved + slots.reserved
        most, clients = known.setting("max_client_conn"), known.clients + stall.held
        if look is not None:
            clients = max(clients, look.lists.get("used_clients", 0))
        return replace(
            seen,
            held=stall.held,
            in_flight=stall.in_flight,
            stalled_s=stall.seconds,
            failing=stall.failing,
            max_connections=max_connections,
            kept=kept,
            slots_used=None if look is None else look.used,
            role_limit=None if slots is None else slots.role_limit,
            database_limit=None if slots is None else slots.database_limit,
            clients=None if most is None else Use(most, clients),
            waiting=0 if look is None else look.pools.get("cl_waiting", 0),
            pool_size=known.setting("default_pool_size"),
            wait_limit_s=known.setting("query_wait_timeout"),
        )
