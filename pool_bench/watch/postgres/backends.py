"""What a PostgreSQL shows of its client backends, and where its processes are on this machine.

A process number that a server reports means something here only if the server runs here. A loopback address
does not say so: it may lead through a tunnel or into a container. So the process must exist, be called as
PostgreSQL's are, and have begun when the backend says that it did.
"""

from dataclasses import dataclass
from typing import Final

from pool_bench.watch.machine.memory import Backend
from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.postgres.client import WatchClient

_STATES: Final = """
SELECT coalesce(state, 'starting') AS state, count(*)::int AS backends
  FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
 GROUP BY 1
"""
_BACKENDS: Final = """
SELECT pid, coalesce(state = 'idle', false) AS is_idle, pid = pg_backend_pid() AS is_ours
  FROM pg_stat_activity
 WHERE backend_type = 'client backend'
 ORDER BY backend_start, pid
"""
_OURSELVES: Final = """
SELECT pid, extract(epoch FROM backend_start)::float8 AS started_at
  FROM pg_stat_activity
 WHERE pid = pg_backend_pid()
"""
# The kernel counts from its own start, whose time it gives in whole seconds; forking takes a while.
_START_TOLERANCE_S: Final = 2.0
PROCESS_NAMES: Final = ("postgres", "postmaster")


@dataclass(frozen=True, slots=True)
class _State:
    state: str
    backends: int


@dataclass(frozen=True, slots=True)
class _Ourselves:
    pid: int
    started_at: float


def count_states(client: WatchClient) -> dict[str, int]:
    """Client backends by state, the one that answers not counted.

    One that has not reported a state yet is `starting`. Where the user may not see all sessions, only those
    of its own roles are counted.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import class_row

    return {row.state: row.backends for row in client.ask(_STATES, class_row(_State))}


def list_backends(client: WatchClient) -> list[Backend]:
    """The client backends that `count_states` counts and the one that answers, the longest-lived first.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import class_row

    return client.ask(_BACKENDS, class_row(Backend))


def find_postmaster(client: WatchClient) -> int:
    """The process number of the postmaster on this machine that `client` is connected to.

    Raises:
        ConnectError: there was no answer.
        UnseenError: it is not on this machine, or in a container of its own.
    """
    import psutil
    from psycopg.rows import class_row

    (ourselves,) = client.ask(_OURSELVES, class_row(_Ourselves))
    if not client.is_local:
        raise UnseenError("the server is not on this machine")
    try:
        backend = psutil.Process(ourselves.pid)
        parent = backend.parent()
        if (
            parent is not None
            and backend.name() in PROCESS_NAMES
            and parent.name() in PROCESS_NAMES
            and abs(backend.create_time() - ourselves.started_at) <= _START_TOLERANCE_S
        ):
            return parent.pid
    except psutil.Error:
        pass
    raise UnseenError("the server's processes are not among those of this machine")
