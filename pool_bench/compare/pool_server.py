"""What the server went through under one pool, its rounds put together.

A round is often too short for a figure of its own: of it a look a second sees a part. Together the rounds
tell, by the rule of `analysis/server_limit.py`, what kept the pool from being faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pool_bench.analysis.server_limit import POOL_SIZE, Facts, Limit, judge
from pool_bench.errors import FailureKind
from pool_bench.results.run import RunRecord
from pool_bench.stats.client_time import ClientState
from pool_bench.stats.server import CpuUse
from pool_bench.stats.server_cpu import cpu_together, is_measured, mean_cpu


@dataclass(frozen=True, slots=True)
class PoolServer:
    """The server under one pool.

    Attributes:
        limit: what kept the pool from being faster.
        cpu: means of the measured time of all rounds.
        cores: of this machine.
        connections: the most that the server had at any look, others' included.
        active: the most of them that were at work at any look.
        slots: what the server has room for, None where it did not say.
        waiting: the most clients that waited in PgBouncer while it was measured, None where nobody asked it.
        waited_us: the longest wait there, microseconds.
        notes: what was not seen, and why.
    """

    limit: Limit
    cpu: CpuUse
    cores: int
    connections: int
    active: int
    slots: int | None
    waiting: int | None
    waited_us: int
    notes: tuple[str, ...]


def server_of(runs: Sequence[RunRecord]) -> PoolServer | None:
    """The server under these rounds of one pool; None where none of them was watched."""
    watched = [(run, run.server_side) for run in runs if run.server_side is not None]
    if not watched:
        return None
    sides = [side for _, side in watched]
    looks = [look for side in sides for look in side.timeline]
    parts, queues = [], []
    for run, side in watched:
        # The looks went on while the client was suspended.
        begin_s, length_s = side.origin_s or 0.0, run.duration_s + _suspended_s(run)
        cpu, seconds = mean_cpu(side.timeline, begin_s, length_s)
        parts.append((seconds, cpu))
        queues += [
            look.pools["cl_waiting"]
            for look in side.timeline
            if "cl_waiting" in look.pools and is_measured(look, begin_s, length_s)
        ]
    use, cores = cpu_together(parts), max(side.cores or 1 for side in sides)
    slots = next((side.max_connections for side in sides if side.max_connections is not None), None)
    attempts = sum(run.ok + run.failed for run, _ in watched)
    refused = sum(run.errors.get(FailureKind.TOO_MANY_CONNECTIONS, 0) for run, _ in watched)
    limit = judge(
        Facts(
            ok=sum(run.ok for run, _ in watched),
            seconds=sum(seconds for seconds, _ in parts),
            cores=cores,
            client=fmean((run.client.cpu_percent or 0.0) / 100 for run, _ in watched),
            processes=max(run.processes for run, _ in watched),
            bottleneck=next((run.client.why for run, _ in watched if run.client.saturated), None),
            starved=next(
                (run.client.why for run, _ in watched if run.client.state == ClientState.STARVED), None
            ),
            machine=use.machine,
            server=use.server,
            postmaster=use.postmaster,
            server_thread=use.server_thread,
            pooler=use.pooler,
            pooler_busiest=use.pooler_busiest,
            pooled=any(side.pooled for side in sides),
            waiting=sum(queue > 0 for queue in queues) / len(queues) if queues else 0.0,
            most_waiting=max(queues, default=0),
            refused=refused / attempts if attempts else 0.0,
            max_connections=slots,
            bound=POOL_SIZE,
        )
    )
    return PoolServer(
        limit=limit,
        cpu=use,
        cores=cores,
        connections=max((sum(look.states.values()) for look in looks), default=0),
        active=max((look.states.get("active", 0) for look in looks), default=0),
        slots=slots,
        waiting=max(queues) if queues else None,
        waited_us=max((look.pools.get("maxwait_us", 0) for look in looks), default=0),
        notes=tuple(dict.fromkeys(note for side in sides for note in side.notes)),
    )


def _suspended_s(run: RunRecord) -> float:
    return 0.0 if run.client.time is None else run.client.time.suspended_s
