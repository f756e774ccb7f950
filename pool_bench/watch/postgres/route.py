"""Looks at who stands between us and a PostgreSQL; `stats/intermediaries.py` judges.

Where the server sees our own port, one question suffices. Else the connection is closed and another one made:
whether that meets the same session, or the first one's session is still there, tells poolers from proxies.
"""

import os
import socket
import time
from dataclasses import dataclass
from typing import Final

from pool_bench.errors import ConnectError
from pool_bench.stats.intermediaries import UNKNOWN, Between, Sight, is_decided, judge
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.machine.listeners import listeners, program_of
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.postgres.client import CLOSE_WAIT_S, WatchClient, ask_briefly

# The row of a session is kept by the server for a moment after the connection's end.
_OUTLIVED_S: Final = 1.0
_POLL_S: Final = 0.05

_SIGHT: Final = """
SELECT pg_backend_pid() AS pid,
       inet_client_port() AS seen_port,
       coalesce(backend_start::text, '') AS began,
       backend_type
  FROM (SELECT 1) AS one
  LEFT JOIN pg_stat_activity ON pid = pg_backend_pid()
"""
_SESSIONS: Final = "SELECT pid, coalesce(backend_start::text, '') AS began FROM pg_stat_activity"


@dataclass(frozen=True, slots=True)
class _Sight:
    pid: int
    seen_port: int | None
    began: str
    backend_type: str | None


@dataclass(frozen=True, slots=True)
class _Session:
    pid: int
    began: str | None


@dataclass(frozen=True, slots=True)
class _Version:
    pool_version: str


def see_between(client: WatchClient) -> Between:
    """Who stands between `client` and the server; takes a second or two at most where all answer.

    Raises:
        ConnectError: the very first question had no answer.
    """
    first = _look(client)
    try:
        program = program_of(listeners(client.local_fd, "the server"))
    except UnseenError:
        program = None
    if is_decided(first, program):
        return judge(first, None, program=program, outlived=None, pgpool=None)
    second = outlived = None
    try:
        pgpool = _pgpool_version(client)
        client.close(wait_s=CLOSE_WAIT_S)
        second = _look(client)
        outlived = second.session != first.session and _outlives(client, first)
    except ConnectError:
        pgpool = None
    return judge(first, second, program=program, outlived=outlived, pgpool=pgpool)


def look_between(target: PostgresTarget, timeout_s: float) -> Between:
    """Connect, see who stands in between, and leave; blocks for `timeout_s` seconds at most."""
    return ask_briefly(target, see_between, timeout_s, "pool-bench-between") or UNKNOWN


def _look(client: WatchClient) -> Sight:
    from psycopg.rows import class_row

    (row,) = client.ask(_SIGHT, class_row(_Sight))
    return Sight(
        our_port=_own_port(client),
        seen_port=row.seen_port,
        given_pid=client.backend_pid or 0,
        pid=row.pid,
        session=f"{row.pid} {row.began}",
        backend_type=row.backend_type,
    )


def _own_port(client: WatchClient) -> int | None:
    fd = client.socket_fd
    if fd is None:
        return None
    with socket.socket(fileno=os.dup(fd)) as ours:
        name = ours.getsockname()
    return name[1] if isinstance(name, tuple) and len(name) > 1 else None


def _pgpool_version(client: WatchClient) -> str | None:
    """pgpool-II answers this itself; a PostgreSQL does not know it."""
    from psycopg.rows import class_row

    try:
        rows = client.ask("SHOW pool_version", class_row(_Version))
    except ConnectError:
        return None
    # Its answer may have no row that libpq can read.
    return rows[0].pool_version.partition(" ")[0] if rows else ""


def _outlives(client: WatchClient, first: Sight) -> bool:
    """Whether the session of a connection that was closed is still there after a while."""
    from psycopg.rows import class_row

    deadline = time.monotonic() + _OUTLIVED_S
    while True:
        sessions = client.ask(_SESSIONS, class_row(_Session))
        if all(f"{session.pid} {session.began}" != first.session for session in sessions):
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(_POLL_S)
