"""PostgreSQL's counters of sessions, from `pg_stat_database`, over all databases.

A backend adds itself when it is ready for its first query, and how it ended before it leaves
`pg_stat_activity`: with no backend left, the counters are complete.
https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
"""

from dataclasses import asdict, dataclass
from typing import Final

from pool_bench.watch.postgres.client import WatchClient

# By way of JSON, since PostgreSQL 13 and older have no such columns.
_COUNTERS: Final = """
SELECT sum((columns ->> 'sessions')::bigint)::bigint AS sessions,
       sum((columns ->> 'sessions_abandoned')::bigint)::bigint AS abandoned,
       sum((columns ->> 'sessions_fatal')::bigint)::bigint AS fatal,
       sum((columns ->> 'sessions_killed')::bigint)::bigint AS killed
  FROM (SELECT to_jsonb(database) AS columns FROM pg_stat_database AS database) AS databases
"""


@dataclass(frozen=True, slots=True)
class _Counters:
    sessions: int | None
    abandoned: int | None
    fatal: int | None
    killed: int | None


def count_sessions(client: WatchClient) -> dict[str, int]:
    """Sessions begun, and of those ended by a lost client, by a fatal error, by an operator; since the reset.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import class_row

    (row,) = client.ask(_COUNTERS, class_row(_Counters))
    return {name: count for name, count in asdict(row).items() if count is not None}


class CounterDelta:
    """How far counters have come since they were first read; a reset, as after a crash, begins anew."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._come: dict[str, int] = {}
        self.was_reset = False

    def update(self, counters: dict[str, int]) -> dict[str, int]:
        """How far each of `counters` has come; what was counted between the last look and a reset is lost."""
        for name, count in counters.items():
            before = self._last.get(name)
            if before is None:
                self._come.setdefault(name, 0)
            elif count < before:
                self.was_reset = True
                self._come[name] += count
            else:
                self._come[name] += count - before
        self._last = dict(counters)
        return dict(self._come)
