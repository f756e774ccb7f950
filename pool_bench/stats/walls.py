"""Which wall connections have met when they stop growing: a rule from evidence to one named wall.

What a server or the kernel says of a refused connection comes first: its words name the limit. A timeout says
nothing, neither does a reset, nor a connect that just waits: then what was seen of this machine decides, from
the most certain to the least. Where nothing of it was at its limit it says what is missing: an answer, or a
connect.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pool_bench.errors import FailureKind


class WallKind(StrEnum):
    """What connections have met. The values are those of `runs[].wall.kind` in the result file."""

    CLIENT_DESCRIPTORS = "client_descriptors"
    SERVER_DESCRIPTORS = "server_descriptors"
    MAX_CONNECTIONS = "max_connections"
    ROLE_LIMIT = "role_limit"
    DATABASE_LIMIT = "database_limit"
    MAX_CLIENT_CONN = "max_client_conn"
    POOLER_LIMIT = "pooler_limit"
    POOL = "pool"
    ACCEPT_QUEUE = "accept_queue"
    LOCAL_PORTS = "local_ports"
    MEMORY = "memory"
    PROCESSES = "processes"
    NO_ANSWER = "no_answer"
    FAILURES = "failures"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Wall:
    """A wall that was met.

    Attributes:
        kind: which one.
        words: one line about it for a person, with its figures.
        limit, used: the limit and how much of it was in use; None where they could not be seen.
        t: when it was named, seconds since the run's beginning.
        held: connections that were open then.
    """

    kind: WallKind
    words: str
    limit: int | None = None
    used: int | None = None
    t: float = 0.0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """A limit, and how much of it is in use."""

    limit: int
    used: int

    def is_full(self, spare: int = 0) -> bool:
        """Whether at most `spare` are left."""
        return self.limit - self.used <= spare

    def __str__(self) -> str:
        return f"{self.used:,} of {self.limit:,}"


@dataclass(frozen=True, slots=True)
class Failing:
    """A sort of failures: how many of them there were, and the message of one."""

    kind: FailureKind
    message: str
    count: int


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process of this machine that listens where connections go to.

    Attributes:
        name, pid: what it is called, and its number.
        files: its descriptors; None where they are not to be seen.
        stopped: it is stopped, by SIGSTOP or a debugger.
        forks: it has children, which serve connections, or may.
    """

    name: str
    pid: int
    files: Use | None = None
    stopped: bool = False
    forks: bool = False

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


@dataclass(frozen=True, slots=True)
class AcceptQueue:
    """The queue of a listening socket: connections that the kernel has made, and its owner not taken yet.

    Attributes:
        where: which one, such as `port 6432`.
        waiting: connections in it.
        limit: the size that its owner asked for, within net.core.somaxconn; None where it is not to be seen.
            Linux takes one more.
    """

    where: str
    waiting: int
    limit: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether further connections are dropped."""
        return self.limit is not None and self.waiting >= max(self.limit, 1)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory that may be used and is: of `where`, in bytes, without what could be given back at once."""

    where: str
    limit: int
    used: int

    @property
    def is_full(self) -> bool:
        """Whether less than a fiftieth is left."""
        return self.limit - self.used < self.limit / 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known when connections no longer grow; None or empty where it could not be seen.

    Attributes:
        held: connections that are open.
        in_flight: connects under way.
        stalled_s: for how long none has opened, seconds.
        failing: how connects failed meanwhile.
        own_files: descriptors of the process that connects.
        processes: what listens at the other end, on this machine.
        max_connections: the server's, `kept` of them reserved, `slots_used` in use.
        role_limit, database_limit: CONNECTION LIMITs.
        clients: PgBouncer's max_client_conn, and its clients.
        waiting: clients that wait for one of PgBouncer's server connections.
        pool_size, wait_limit_s: PgBouncer's default_pool_size and query_wait_timeout, the second in seconds.
        queues: accept queues on this machine.
        dropped: connection requests that this machine has dropped at full queues since the run began.
        unanswered: our connection requests without an answer.
        ports: local ports to the server's address.
        memory: of this machine and of control groups.
        killed: processes killed for want of memory since the run began.
        is_here: the other end is on this machine, so that what is there can be seen.
    """

    held: int
    in_flight: int
    stalled_s: float = 0.0
    failing: Sequence[Failing] = ()
    own_files: Use | None = None
    processes: Sequence[ServerProcess] = ()
    max_connections: int | None = None
    kept: int = 0
    slots_used: int | None = None
    role_limit: int | None = None
    database_limit: int | None = None
    clients: Use | None = None
    waiting: int = 0
    pool_size: int | None = None
    wait_limit_s: int | None = None
    queues: Sequence[AcceptQueue] = ()
    dropped: int = 0
    unanswered: int = 0
    ports: Use | None = None
    memory: Sequence[MemoryUse] = ()
    killed: int = 0
    is_here: bool = False


# Failures whose kind says it all.
_BY_KIND: Final = {
    FailureKind.CLIENT_FDS: WallKind.CLIENT_DESCRIPTORS,
    FailureKind.CLIENT_PORTS: WallKind.LOCAL_PORTS,
}
# What PostgreSQL, PgBouncer and other poolers say of a limit; the first that matches counts.
_BY_WORDS: Final = tuple(
    (re.compile(words), kind)
    for words, kind in (
        (r"too many connections for role", WallKind.ROLE_LIMIT),
        (r"too many connections for database", WallKind.DATABASE_LIMIT),
        (r"no more connections allowed|max_client_conn\b", WallKind.MAX_CLIENT_CONN),
        (
            r"client connections exceeded|max_(db|user)_(client_)?connections|\(emax|max clients reached|"
            r"max (client|proxy) connections reached|sorry, max",
            WallKind.POOLER_LIMIT,
        ),
        (r"query_wait_timeout|could not get connection from the pool|echeckouttimeout", WallKind.POOL),
        (r"out of memory|cannot allocate memory|not enough memory", WallKind.MEMORY),
        (r"could not fork", WallKind.PROCESSES),
        (r"too many open files", WallKind.SERVER_DESCRIPTORS),
    )
)
# These say that nothing came of a connect, not why: who has no descriptor or memory left may cut it off.
_SILENT: Final = frozenset({FailureKind.TIMEOUT, FailureKind.RESET, FailureKind.CLOSED, FailureKind.REFUSED})
# Who has a process for each client, as many as a setting says, which accepts when its client has left.
_WORKERS: Final = {"pgpool": "num_init_children"}
_LONGEST_MESSAGE: Final = 160
# Programs open a descriptor or two for a moment; who has no more than these left cannot accept.
_SPARE_FILES: Final = 2


def kind_of(failing: Failing) -> WallKind | None:
    """The wall that a failure names by its kind or its words; None where it names none."""
    if failing.kind in _BY_KIND:
        return _BY_KIND[failing.kind]
    text = failing.message.lower()
    if failing.kind is FailureKind.REFUSED and "temporarily unavailable" in text:
        # EAGAIN of connect(2) on a Unix socket.
        return WallKind.ACCEPT_QUEUE
    kind = next((kind for words, kind in _BY_WORDS if words.search(text)), None)
    if kind is None and failing.kind is FailureKind.TOO_MANY_CONNECTIONS:
        return WallKind.MAX_CONNECTIONS
    return kind


def name_wall(evidence: Evidence) -> Wall:
    """The wall that connections have met; the rule of the head of this module."""
    by_kind: dict[WallKind, list[Failing]] = {}
    for failing in evidence.failing:
        kind = kind_of(failing)
        if kind is not None:
            by_kind.setdefault(kind, []).append(failing)
    if by_kind:
        kind = max(by_kind, key=lambda kind: sum(failing.count for failing in by_kind[kind]))
        return _wall_of(kind, max(by_kind[kind], key=lambda failing: failing.count), evidence)
    silent = sum(failing.count for failing in evidence.failing if failing.kind in _SILENT)
    if silent + evidence.in_flight >= sum(failing.count for failing in evidence.failing) - silent:
        seen = _seen(evidence)
        if seen is not None:
            return seen
    ended = [failing for failing in evidence.failing if failing.kind is not FailureKind.TIMEOUT]
    if ended:
        most = max(ended, key=lambda failing: failing.count)
        return Wall(
            WallKind.FAILURES,
            f"no limit is known to be met: connects fail as {most.kind}: {_clipped(most.message)}",
        )
    return _silence(evidence)


def _wall_of(kind: WallKind, failing: Failing, evidence: Evidence) -> Wall:
    words = f": {_clipped(failing.message)}" if failing.message else ""
    match kind:
        case WallKind.CLIENT_DESCRIPTORS:
            if "in system" in failing.message.lower():
                # ENFILE: those of the whole machine.
                return Wall(kind, f"descriptors of this machine (fs.file-max){words}")
            own = evidence.own_files
            if own is not None and not own.is_full(_SPARE_FILES + evidence.in_flight):
                # When this is read, some of those that were in use may have been given back.
                words = f"descriptors of this process: {own.limit:,} at most (ulimit -n)"
                return Wall(kind, words, own.limit)
            uses = "" if own is None else f": {own} in use"
            return Wall(kind, f"descriptors of this process{uses} (ulimit -n)", *_figures(own))
        case WallKind.LOCAL_PORTS:
            ports = evidence.ports
            uses = "" if ports is None else f": {ports} in use to the server's address"
            return Wall(
                kind, f"local ports{uses} (net.ipv4.ip_local_port_range, --source-ip)", *_figures(ports)
            )
        case WallKind.MAX_CONNECTIONS:
            return _slots(evidence, words)
        case WallKind.ROLE_LIMIT | WallKind.DATABASE_LIMIT:
            of_role = kind is WallKind.ROLE_LIMIT
            limit = evidence.role_limit if of_role else evidence.database_limit
            number = "" if limit is None else f" {limit:,}"
            which = "role" if of_role else "database"
            return Wall(kind, f"CONNECTION LIMIT{number} of the {which}{words}", limit)
        case WallKind.MAX_CLIENT_CONN:
            clients = evidence.clients
            uses = words if clients is None else f" {clients.limit:,}: {clients.used:,} clients"
            return Wall(kind, f"PgBouncer's max_client_conn{uses}", *_figures(clients))
        case WallKind.POOLER_LIMIT:
            return Wall(kind, f"a limit of the pooler on clients{words}")
        case WallKind.POOL:
            return _pool(evidence, words if "query_wait_timeout" not in words else "")
        case WallKind.ACCEPT_QUEUE:
            return _queue(evidence) or Wall(kind, f"the accept queue of the server's socket{words}")
        case WallKind.MEMORY:
            full = _full_memory(evidence)
            where = "" if full is None else f" ({_share(full)})"
            return Wall(kind, f"memory{where}{words}", *_figures(full))
        case WallKind.PROCESSES:
            return Wall(kind, f"processes that the server may start (TasksMax=, ulimit -u, pids.max){words}")
        case _:
            return _files(evidence) or Wall(kind, f"descriptors of the server{words}")


def _clipped(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 1]}…"


def _figures(use: Use | MemoryUse | None) -> tuple[int | None, int | None]:
    return (None, None) if use is None else (use.limit, use.used)


def _slots(evidence: Evidence, words: str) -> Wall:
    limit = evidence.max_connections
    if limit is None:
        return Wall(WallKind.MAX_CONNECTIONS, f"max_connections of the server{words}")
    kept = f", {evidence.kept:,} of them reserved" if evidence.kept else ""
    used = evidence.slots_used
    uses = "" if used is None else f", {used:,} in use"
    return Wall(WallKind.MAX_CONNECTIONS, f"max_connections {limit:,} of the server{kept}{uses}", limit, used)


def _seen(evidence: Evidence) -> Wall | None:
    """What is at its limit, by what was seen of this machine."""
    waits = _pool(evidence) if evidence.waiting else None
    return _files(evidence) or _memory(evidence) or _queue(evidence) or waits


def _files(evidence: Evidence) -> Wall | None:
    for process in evidence.processes:
        files = process.files
        if files is not None and files.is_full(_SPARE_FILES):
            return Wall(
                WallKind.SERVER_DESCRIPTORS,
                f"descriptors of {process}: {files} in use (LimitNOFILE=, ulimit -n)",
                files.limit,
                files.used,
            )
    return None


def _queue(evidence: Evidence) -> Wall | None:
    if not evidence.queues:
        return None
    queue = max(evidence.queues, key=lambda queue: (queue.is_full, queue.waiting))
    if not queue.waiting:
        return None
    owner = " and ".join(f"{process} is stopped" for process in evidence.processes if process.stopped)
    if not owner:
        names = sorted({process.name for process in evidence.processes})
        busy = "".join(
            f", its processes have a client each ({_WORKERS[name]})" for name in names if name in _WORKERS
        )
        owner = f"{', '.join(names) or 'the server'} does not accept them{busy}"
    size = "" if queue.limit is None else f", its size is {queue.limit:,}"
    dropped = (
        f", {evidence.dropped:,} requests were dropped (ListenOverflows)"
        if evidence.dropped and queue.is_full
        else ""
    )
    full = " is full" if queue.is_full else ""
    return Wall(
        WallKind.ACCEPT_QUEUE,
        f"the accept queue of {queue.where}{full}: {queue.waiting:,} wait in it{size}{dropped}; {owner}",
        queue.limit,
        queue.waiting,
    )


def _memory(evidence: Evidence) -> Wall | None:
    full = _full_memory(evidence)
    if full is None and not evidence.killed:
        return None
    killed = f"{evidence.killed:,} processes were killed for want of it" if evidence.killed else ""
    parts = [_share(full) if full is not None else "", killed]
    words = f"memory: {', '.join(part for part in parts if part)}"
    return Wall(WallKind.MEMORY, words, *_figures(full))


def _full_memory(evidence: Evidence) -> MemoryUse | None:
    return next((memory for memory in evidence.memory if memory.is_full), None)


def _share(memory: MemoryUse) -> str:
    return f"{memory.where} uses {memory.used >> 20:,} of {memory.limit >> 20:,} MB"


def _pool(evidence: Evidence, words: str = "") -> Wall:
    size = "" if evidence.pool_size is None else f" (default_pool_size {evidence.pool_size:,})"
    limit = "" if evidence.wait_limit_s is None else f" of {evidence.wait_limit_s:,} s"
    waiting = f"{evidence.waiting:,} clients wait for one" if evidence.waiting else "clients wait for one"
    return Wall(
        WallKind.POOL,
        f"the pooler's server connections{size}: {waiting}, until query_wait_timeout{limit} ends them{words}",
        evidence.pool_size,
    )


def _silence(evidence: Evidence) -> Wall:
    """Nothing opens, nothing fails, and nothing was seen at its limit."""
    under_way = f"{evidence.in_flight:,} connects are under way"
    if evidence.unanswered:
        where = "of this machine drops" if evidence.is_here else "on the way drops"
        return Wall(
            WallKind.NO_ANSWER,
            f"{evidence.unanswered:,} connection requests have no answer: the server's accept queue is full, "
            f"or a firewall {where} them",
        )
    if evidence.in_flight:
        stopped = " and ".join(f"{process} is stopped" for process in evidence.processes if process.stopped)
        why = stopped or "it waits for something of its own, such as a lock, a log-in or a server behind it"
        return Wall(
            WallKind.NO_ANSWER, f"the server has accepted them and does not answer: {under_way}; {why}"
        )
    return Wall(WallKind.UNKNOWN, "not known: no connect is under way, and none failed")
