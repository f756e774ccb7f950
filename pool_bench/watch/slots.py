"""The slots of `max_connections`, and how many of them may be taken without locking the operators out.

PostgreSQL keeps `superuser_reserved_connections` for superusers and, from 16 on, `reserved_connections`
for roles with `pg_use_reserved_connections`; a superuser who fills a server takes those as well. Only client
backends take slots: walsenders, autovacuum and background workers have their own.
https://www.postgresql.org/docs/current/runtime-config-connection.html
"""

import threading
from dataclasses import dataclass
from typing import Final

from pool_bench.errors import ConnectError
from pool_bench.targets import Target
from pool_bench.watch.client import CLOSE_WAIT_S, WatchClient

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
       pg_backend_pid() AS backend_pid
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


@dataclass(frozen=True, slots=True)
class _Row:
    max_connections: int
    superuser_reserved: int
    reserved: int
    in_use: int
    may_see_all: bool
    is_superuser: bool
    backend_pid: int


def ask_slots(client: WatchClient) -> Slots:
    """Ask a server for its slots.

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
        # A pooler makes up the number that it gives at start-up.
        pooled=row.backend_pid != client.backend_pid,
    )


def look_at_slots(target: Target, timeout_s: float) -> Slots | None:
    """Connect, ask a server for its slots, and leave; blocks for `timeout_s` seconds at most.

    Returns:
        None where there was no answer in time, or the server is no PostgreSQL.
    """
    found: list[Slots] = []
    leave = threading.Event()

    def look() -> None:
        client = WatchClient(target, leave)
        try:
            found.append(ask_slots(client))
        except ConnectError:
            return
        finally:
            client.close(wait_s=CLOSE_WAIT_S)

    # In a thread, for libpq looks up names without a limit of time.
    thread = threading.Thread(target=look, name="pool-bench-slots", daemon=True)
    thread.start()
    thread.join(timeout_s)
    leave.set()
    return found[0] if found else None


def room(slots: Slots, asked: int, spare: int = SPARE) -> int | None:
    """How many connections may be opened so that the reserved slots and `spare` more stay free.

    One slot is kept for the watcher. Superusers get no more than others: what they could take is what the
    operators need.

    Returns:
        0 to `asked`; None where the server's slots do not tell: behind a pooler, or where the user cannot
        see how many are in use.
    """
    if slots.pooled or not slots.may_see_all:
        return None
    kept = slots.superuser_reserved + slots.reserved + spare + _WATCHERS
    return max(min(slots.max_connections - kept - slots.in_use, asked), 0)


def guard_note(slots: Slots | None, asked: int, spare: int = SPARE) -> str | None:
    """What the guard does, in words for a person.

    Args:
        slots: what `look_at_slots` gave.
        asked: how many connections were asked for.
        spare: as in `room`.

    Returns:
        None where all that were asked for may be opened, or there is no guard because of a pooler.
    """
    if slots is None:
        return f"the server's slots could not be seen: opening all {asked}, and none is kept free"
    if slots.pooled:
        return None
    allowed = room(slots, asked, spare)
    if allowed is None:
        return (
            f"max_connections {slots.max_connections}, but this user may not see how many are in use "
            f"(GRANT pg_monitor): opening all {asked}"
        )
    if allowed == asked:
        return None
    parts = [
        f"{slots.superuser_reserved} reserved for superusers",
        f"{slots.reserved} reserved by reserved_connections" if slots.reserved else "",
        f"{spare} left free",
        f"{_WATCHERS} for watching",
        f"{slots.in_use} in use",
    ]
    return (
        f"max_connections {slots.max_connections}: {', '.join(part for part in parts if part)}: "
        f"opening {allowed or 'none'} of {asked} (--no-reserve opens all)"
    )
