"""The slots of `max_connections`, and how many of them may be taken without locking the operators out.

PostgreSQL keeps `superuser_reserved_connections` for superusers and, from 16 on, `reserved_connections`
for roles with `pg_use_reserved_connections`; a superuser who fills a server takes those as well. Only client
backends take slots: walsenders, autovacuum and background workers have their own.
https://www.postgresql.org/docs/current/runtime-config-connection.html
"""

from dataclasses import dataclass
from typing import Final

from pool_bench.stats.intermediaries import Between
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.postgres.client import WatchClient, ask_briefly
from pool_bench.watch.postgres.route import see_between

# Beyond the reserved ones, which serve superusers only: monitoring and the application's own tools.
SPARE: Final = 5
# The watcher's own connection, which stays while others are held.
_WATCHERS: Final = 1

# To others than members of pg_read_all_stats, only sessions of roles they belong to show what they are.
_SLOTS: Final = """
SELECT current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int AS superuser_reserved,
       coalesce(current_setting('reserved_connections', true), '0')::int AS reserved,
       (SELECT count(*) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::int AS in_use,
       pg_has_role('pg_read_all_stats', 'USAGE') AS may_see_all,
       current_setting('is_superuser')::bool AS is_superuser,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS role_limit,
       (SELECT count(*) FROM pg_stat_activity
         WHERE usename = session_user AND pid <> pg_backend_pid()
           AND backend_type = 'client backend')::int AS role_in_use,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_limit,
       (SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND backend_type = 'client backend')::int AS database_in_use
"""


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a server at one moment.

    Attributes:
        max_connections, superuser_reserved, reserved: settings; `reserved` is 0 before PostgreSQL 16.
        in_use: client backends, the one that asked not counted; where `may_see_all` is false, only those
            of the user's own roles.
        may_see_all: whether the user may see everybody's sessions (`pg_monitor`).
        is_superuser: whether the user may take the slots reserved for superusers.
        pooled: something stands between us and the server, so that the server's slots say nothing about
            how many connections may be opened.
    """

    max_connections: int
    superuser_reserved: int
    reserved: int
    in_use: int
    may_see_all: bool
    is_superuser: bool
    pooled: bool
    role_limit: int | None = None
    role_in_use: int = 0
    database_limit: int | None = None
    database_in_use: int = 0


@dataclass(frozen=True, slots=True)
class _Row:
    max_connections: int
    superuser_reserved: int
    reserved: int
    in_use: int
    may_see_all: bool
    is_superuser: bool
    role_limit: int | None
    role_in_use: int
    database_limit: int | None
    database_in_use: int


def ask_slots(client: WatchClient, between: Between) -> Slots:
    """Ask a server for its slots, with `between` us and it.

    Raises:
        ConnectError: it gave no answer, or is no PostgreSQL.
    """
    from psycopg.rows import class_row

    (row,) = client.ask(_SLOTS, class_row(_Row))
    return Slots(
        max_connections=row.max_connections,
        superuser_reserved=row.superuser_reserved,
        reserved=row.reserved,
        in_use=row.in_use,
        may_see_all=row.may_see_all,
        is_superuser=row.is_superuser,
        pooled=between.shares,
        role_limit=(role := _limit(row.role_limit, row)),
        role_in_use=0 if role is None else row.role_in_use,
        database_limit=(database := _limit(row.database_limit, row)),
        database_in_use=0 if database is None else row.database_in_use,
    )


def _limit(limit: int | None, row: _Row) -> int | None:
    # -1 is none; see pg_roles and pg_database.
    return None if limit is None or limit < 0 or row.is_superuser else limit


def look_at_slots(target: PostgresTarget, timeout_s: float) -> Slots | None:
    """Connect, ask a server for its slots, and leave; blocks for `timeout_s` seconds at most.

    Returns:
        None where there was no answer in time, or the server is no PostgreSQL.
    """

    def ask(client: WatchClient) -> Slots:
        return ask_slots(client, see_between(client))

    return ask_briefly(target, ask, timeout_s, "pool-bench-slots")


def room(slots: Slots, asked: int, spare: int = SPARE, *, watched: bool = True) -> int | None:
    """How many connections may be opened so that the reserved slots and `spare` more stay free.

    One slot is kept for the watcher, if the server is `watched`. Superusers get no more than others: what
    they could take is what the operators need.

    Returns:
        0 to `asked`; None where the server's slots do not tell: behind a pooler, or where the user cannot
        see how many are in use.
    """
    if slots.pooled or not slots.may_see_all:
        return None
    watchers = _WATCHERS if watched else 0
    kept = slots.superuser_reserved + slots.reserved + spare + watchers
    most = [asked, slots.max_connections - kept - slots.in_use]
    # A role's and a database's own limits keep others out of nothing: only the watcher needs one.
    most += [limit - in_use - watchers for _, limit, in_use in own_limits(slots)]
    return max(min(most), 0)


def own_limits(slots: Slots) -> list[tuple[str, int, int]]:
    """The limits of the role and of the database, where they have any: what, how many, how many in use."""
    limits = (
        ("CONNECTION LIMIT of the role", slots.role_limit, slots.role_in_use),
        ("CONNECTION LIMIT of the database", slots.database_limit, slots.database_in_use),
    )
    return [(what, limit, in_use) for what, limit, in_use in limits if limit is not None]


def guard_note(slots: Slots | None, asked: int, spare: int = SPARE, *, watched: bool = True) -> str | None:
    """What the guard does, in words for a person.

    Args:
        slots: what `look_at_slots` gave.
        asked: how many connections were asked for.
        spare, watched: as in `room`.

    Returns:
        None where all that were asked for may be opened, or there is no guard because of a pooler.
    """
    if slots is None:
        return f"the server's slots could not be seen: opening all {asked}, and none is kept free"
    if slots.pooled:
        return None
    allowed = room(slots, asked, spare, watched=watched)
    if allowed is None:
        return (
            f"max_connections {slots.max_connections}, but this user may not see how many are in use "
            f"(GRANT pg_monitor): opening all {asked}"
        )
    if allowed == asked:
        return None
    for what, limit, in_use in own_limits(slots):
        if allowed == max(limit - in_use - watched, 0):
            return (
                f"{what} {limit}: {f'{_WATCHERS} for watching, ' if watched else ''}{in_use} in use: "
                f"opening {allowed or 'none'} of {asked} (--no-reserve opens all)"
            )
    parts = [
        f"{slots.superuser_reserved} reserved for superusers",
        f"{slots.reserved} reserved by reserved_connections" if slots.reserved else "",
        f"{spare} left free",
        f"{_WATCHERS} for watching" if watched else "",
        f"{slots.in_use} in use",
    ]
    return (
        f"max_connections {slots.max_connections}: {', '.join(part for part in parts if part)}: "
        f"opening {allowed or 'none'} of {asked} (--no-reserve opens all)"
    )
