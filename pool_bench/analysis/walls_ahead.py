"""Walls that can be seen before a run: a rule from what is asked for, and what this machine shows, to words.

Nothing here keeps a run from being made: meeting a wall may be what it is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from pool_bench.stats.walls import AcceptQueue, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is to do.

    Attributes:
        connections: to be open at once, to all servers together.
        at_once: connects that may be begun together; 0 where they are spread over time.
        option: the option that says how many those are.
        servers: how many servers they are spread over.
    """

    connections: int
    at_once: int
    option: str
    servers: int = 1

    @property
    def each(self) -> int:
        """Connections to each server."""
        return ceil(self.connections / self.servers)


def walls_ahead(asked: Asked, seen: Evidence, *, somaxconn: int | None = None) -> list[str]:
    """A line for each wall that what is asked for will meet; none where there is room as far as can be seen.

    Args:
        seen: of this machine, and of PgBouncer's clients, before the first connection.
        somaxconn: net.core.somaxconn, which bounds every accept queue; None where it is not known.
    """
    return [*_queues(asked, seen.queues, somaxconn), *_files(asked, seen), *_clients(asked, seen)]


def _queues(asked: Asked, queues: Sequence[AcceptQueue], somaxconn: int | None) -> list[str]:
    at_once = ceil(asked.at_once / asked.servers)
    small = [queue for queue in queues if queue.limit is not None and at_once > queue.limit + 1]
    if not small:
        return []
    # Of several sockets on one port the kernel chooses one for each connection: the others have room, too.
    room = sum(queue.limit or 0 for queue in queues)
    if at_once <= room:
        return []
    queue = min(small, key=lambda queue: queue.limit or 0)
    bound = queue.limit == somaxconn
    which = "net.core.somaxconn" if bound else "the server's listen backlog (PgBouncer: listen_backlog)"
    return [
        f"the accept queue of {queue.where} has room for {queue.limit:,}, but {at_once:,} connects may begin "
        f"at once ({asked.option}): TCP tries those that find it full again 1 s later. Lower {asked.option}, "
        f"or raise {which}"
    ]


def _files(asked: Asked, seen: Evidence) -> list[str]:
    lines = []
    for process in seen.processes:
        files = process.files
        # Who forks for each connection, or has workers, has no descriptor of it itself.
        if files is None or process.forks or asked.each <= files.limit - files.used:
            continue
        lines.append(
            f"{process} may have {files.limit:,} descriptors, {files.used:,} are in use: "
            f"{asked.each:,} connections do not fit (LimitNOFILE= of its unit, ulimit -n)"
        )
    return lines


def _clients(asked: Asked, seen: Evidence) -> list[str]:
    clients = seen.clients
    if clients is None or asked.each <= clients.limit - clients.used:
        return []
    there = f", {clients.used:,} are there" if clients.used else ""
    return [f"PgBouncer's max_client_conn is {clients.limit:,}{there}: {asked.each:,} connections do not fit"]
