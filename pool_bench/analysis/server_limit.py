"""What kept a run from being faster: one line, by a rule that looks at nothing but figures.

First what the verdict says of the client, then what is full: the pooler's thread, the postmaster's, the
server's cores, the busiest thread of a server that is one process, the server's slots, the cores of the
machine. Then who queued while nothing was full, or nothing of the run's own. Only where all of them were
seen and none was busy does it say so; where a part was not seen, it is not acquitted.
"""

from dataclasses import dataclass
from typing import Final, Literal

from pool_bench.errors import FailureKind
from pool_bench.stats.client_time import ClientState
from pool_bench.stats.generators import SATURATED_CPU_SHARE
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server_cpu import is_measured, mean_cpu

What = Literal["client", "server", "pooler", "pool", "slots", "machine", "neither", "unknown"]

# One thread that is busy for so much of its time is never idle when work comes.
_FULL_THREAD: Final = 0.90
# Of all cores: what is left goes to the kernel's own work for the server's sockets and processes.
_FULL_SERVER: Final = 0.80
_FULL_MACHINE: Final = 0.90
# Of all looks: a pool in which clients wait at most of them is a queue.
_QUEUE: Final = 0.5
_REFUSED: Final = 0.01
# What bounds a load on which nothing else does.
CONCURRENCY: Final = "the concurrency"
POOL_SIZE: Final = "the pool's size"
_LEAST_SECONDS: Final = 1.5


@dataclass(frozen=True, slots=True)
class Limit:
    """What the limit was, and one line about it for a person."""

    what: What
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rule looks at. CPU in cores, means of the measured time; None where it was not seen.

    Attributes:
        seconds: for how much of the measured time there is a figure of CPU.
        cores: of this machine.
        client: the generators together; `processes` of them.
        bottleneck: why the verdict calls the client the bottleneck, in words; None where it does not.
        starved: what the client waited for a core for, in words; None where it did not.
        machine, server, postmaster, server_thread, pooler, pooler_busiest: as in `CpuUse`.
        pooled: there is a pooler between us and the server.
        waiting: at what share of the looks PgBouncer had clients waiting; `most_waiting` of them at once.
        refused: share of the attempts for which the server had no slot; it has `max_connections`.
        ok: operations that succeeded.
        bound: what else bounds such a load.
    """

    ok: int
    seconds: float
    cores: int
    client: float
    processes: int = 1
    bottleneck: str | None = None
    starved: str | None = None
    machine: float | None = None
    server: float | None = None
    postmaster: float | None = None
    server_thread: float | None = None
    pooler: float | None = None
    pooler_busiest: float | None = None
    pooled: bool = False
    waiting: float = 0.0
    most_waiting: int = 0
    refused: float = 0.0
    max_connections: int | None = None
    bound: str = CONCURRENCY


def judge(facts: Facts) -> Limit:
    """The limit of a run; the rule of the head of this module."""
    if not facts.ok:
        return Limit("unknown", "not known: no operation succeeded")
    client = f"the client {facts.client:.0%}"
    if facts.client > SATURATED_CPU_SHARE * facts.processes:
        return Limit("client", f"limit: the client ({facts.client:.0%} of a core{_others(facts, 'client')})")
    if facts.bottleneck is not None:
        # What else was full did not matter: the verdict says that it was the client.
        return Limit("client", f"limit: the client ({facts.bottleneck}{_others(facts, 'client')})")
    if facts.seconds < _LEAST_SECONDS:
        return Limit("unknown", f"not known: CPU was seen for {facts.seconds:.1f} s of the run only")
    if (busiest := facts.pooler_busiest) is not None and busiest >= _FULL_THREAD:
        return Limit("pooler", f"limit: the pooler (one core full: its process used {busiest:.0%}; {client})")
    if facts.postmaster is not None and facts.postmaster >= _FULL_THREAD:
        return Limit(
            "server",
            f"limit: the server (one core full: its postmaster, which forks for every connection, used "
            f"{facts.postmaster:.0%}; {client})",
        )
    if facts.server is not None and facts.server >= _FULL_SERVER * facts.cores:
        return Limit(
            "server",
            f"limit: the server (its processes used {facts.server:.1f} of {_cores(facts)}"
            f"{_others(facts, 'server')})",
        )
    if facts.server_thread is not None and facts.server_thread >= _FULL_THREAD:
        return Limit(
            "server",
            f"limit: the server (one core full: its busiest thread used {facts.server_thread:.0%}"
            f"{_others(facts, 'thread')})",
        )
    if facts.refused >= _REFUSED:
        slots = "" if facts.max_connections is None else f": max_connections {facts.max_connections:,}"
        return Limit(
            "slots", f"limit: the server's slots ({facts.refused:.0%} of the attempts found none free{slots})"
        )
    machine = facts.machine or 0.0
    is_full = machine >= _FULL_MACHINE * facts.cores
    # A queue in a pool while others have the cores may be theirs, but here it is where the time went.
    if is_full and (facts.waiting < _QUEUE or _own(facts) >= facts.cores / 2):
        return Limit(
            "machine", f"limit: this machine ({machine:.1f} of {_cores(facts)} busy: {_shares(facts)})"
        )
    if facts.waiting >= _QUEUE:
        return Limit(
            "pool",
            f"limit: the pooler's pool (up to {facts.most_waiting:,} clients waited for a server connection"
            f"{_others(facts, 'pool')}{f'; this machine {machine:.1f}' if is_full else ''})",
        )
    if facts.starved is not None:
        return Limit(
            "machine", f"limit: this machine's cores (the client had to wait for one: {facts.starved})"
        )
    unseen = _unseen(facts)
    if unseen:
        return Limit(
            "unknown", f"not known: {unseen} not to be seen from here; {_shares(facts)} of {_cores(facts)}"
        )
    return Limit(
        "neither",
        f"limit: neither was busy: network, locks or {facts.bound} ({_shares(facts)} of {_cores(facts)})",
    )


def _own(facts: Facts) -> float:
    """Cores used by what takes part in the run."""
    return facts.client + (facts.server or 0.0) + (facts.pooler or 0.0)


def _unseen(facts: Facts) -> str:
    parts = []
    if facts.server is None:
        parts.append("the server's processes are")
    if facts.pooled and facts.pooler is None:
        parts.append("the pooler's processes are")
    return "the pooler's and the server's processes are" if len(parts) > 1 else "".join(parts)


def _cores(facts: Facts) -> str:
    return f"{facts.cores} core{'s' if facts.cores > 1 else ''}"


def _others(facts: Facts, but: str) -> str:
    """What the others used, `but` one, as the end of a bracket."""
    parts = []
    if but != "server" and facts.server is not None:
        parts.append(f"the server {facts.server:.1f} of {_cores(facts)}")
    if facts.pooler is not None:
        parts.append(f"the pooler {facts.pooler:.0%}")
    if but != "client":
        parts.append(f"the client {facts.client:.0%}")
    return "".join(f"; {part}" for part in parts)


def _shares(facts: Facts) -> str:
    """Cores by who used them."""
    parts = [
        (name, cores)
        for name, cores in (("server", facts.server), ("pooler", facts.pooler), ("client", facts.client))
        if cores is not None
    ]
    if facts.machine is not None:
        parts.append(("others", max(facts.machine - sum(cores for _, cores in parts), 0.0)))
    return ", ".join(f"{name} {cores:.1f}" for name, cores in parts)


def limit_of(run: RunResult) -> Limit | None:
    """The limit of a run; None where nobody watched, or connections were held."""
    side = run.server_side
    if side is None or run.hold is not None:
        return None
    # The looks went on while the client was suspended.
    length_s = run.duration_s + run.client.time.suspended_s
    begin_s = side.origin_s or 0.0
    cpu, seconds = mean_cpu(side.seconds, begin_s, length_s)
    looks = [look for look in side.seconds if is_measured(look, begin_s, length_s)]
    queues = [look.pools["cl_waiting"] for look in looks if "cl_waiting" in look.pools]
    refused = run.total.errors.get(FailureKind.TOO_MANY_CONNECTIONS, 0)
    state = run.client_state
    return judge(
        Facts(
            ok=run.total.ok,
            seconds=seconds,
            cores=side.cores or 1,
            client=run.client.cpu_share,
            processes=run.client.processes,
            bottleneck=run.saturation,
            starved=run.starved_by if state is ClientState.STARVED else None,
            machine=cpu.machine,
            server=cpu.server,
            postmaster=cpu.postmaster,
            server_thread=cpu.server_thread,
            pooler=cpu.pooler,
            pooler_busiest=cpu.pooler_busiest,
            pooled=side.pooled,
            waiting=sum(queue > 0 for queue in queues) / len(queues) if queues else 0.0,
            most_waiting=max(queues, default=0),
            refused=refused / run.total.attempts if run.total.attempts else 0.0,
            max_connections=side.max_connections,
            bound=CONCURRENCY if run.pool is None else POOL_SIZE,
        )
    )
