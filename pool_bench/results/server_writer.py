"""What was seen of the server, in the result file: `runs[].server_side`. Reading it is `server_reader.py`.

In its timeline `t` counts from the beginning of the watching; `origin_s` is where the run's own begins.
"""

from dataclasses import asdict

from pool_bench.analysis.server_limit import Limit
from pool_bench.results.json_parts import JsonObject, histogram_to_json, rounded
from pool_bench.stats.server import (
    CpuUse,
    PoolerMemory,
    ServerMemory,
    ServerObservation,
    ServerSample,
    SetupSecond,
    SetupTimes,
)


def server_side_to_json(side: ServerObservation, limit: Limit | None = None) -> JsonObject:
    """`runs[].server_side`; `limit` is what kept the run from being faster, where that was judged."""
    return {
        "max_connections": side.max_connections,
        "superuser_reserved": side.superuser_reserved,
        "reserved": side.reserved,
        "in_use_before": side.in_use_before,
        "in_use_after": side.in_use_after,
        "used_peak": side.used_peak,
        "timeline": [_look(second) for second in side.seconds],
        "memory": {when: _memory(memory) for when, memory in side.memory.items()},
        "backend_cost_bytes": side.backend_cost_bytes,
        "pooler_memory": {when: _pooler_memory(memory) for when, memory in side.pooler_memory.items()},
        "pooler_client_bytes": side.pooler_client_bytes,
        "notes": list(side.notes),
        "cores": side.cores,
        "one_process": side.one_process,
        "between": None if side.between is None else asdict(side.between),
        "origin_s": side.origin_s,
        "sessions": dict(side.sessions),
        "pooler_totals": dict(side.totals),
        "setup": None if side.setup is None else _setup(side.setup),
        "limit": None if limit is None else {"what": limit.what, "words": limit.words},
    }


def _look(second: ServerSample) -> JsonObject:
    return {
        "t": rounded(second.t),
        "looks": second.looks,
        "used": second.used,
        "states": dict(second.states),
        "pools": dict(second.pools),
        "lists": dict(second.lists),
        "sessions": dict(second.sessions),
        "pooler_totals": dict(second.totals),
        "cpu": None if second.cpu is None else _cpu(second.cpu),
        "setup": None if second.setup is None else _setup_second(second.setup),
    }


def _cpu(cpu: CpuUse) -> JsonObject:
    return {
        "machine": rounded(cpu.machine),
        "server": rounded(cpu.server),
        "postmaster": rounded(cpu.postmaster),
        "server_thread": rounded(cpu.server_thread),
        "pooler": rounded(cpu.pooler),
        "pooler_busiest": rounded(cpu.pooler_busiest),
    }


def _setup_second(setup: SetupSecond) -> JsonObject:
    return {"count": setup.count, "p50": rounded(setup.p50), "p99": rounded(setup.p99)}


def _setup(setup: SetupTimes) -> JsonObject:
    parts = {"total": setup.total, "fork": setup.fork, "auth": setup.auth}
    return {
        "seen": setup.seen,
        "missed_bytes": setup.missed,
        "latency_ms": {name: histogram.summary_ms() for name, histogram in parts.items()},
        "histograms": {name: histogram_to_json(histogram) for name, histogram in parts.items()},
    }


def _memory(memory: ServerMemory) -> JsonObject:
    return {
        "processes": memory.processes,
        "total_bytes": memory.total_bytes,
        "backends": memory.backends,
        "idle_backend_bytes": memory.idle_backend_bytes,
        "sampled": memory.sampled,
    }


def _pooler_memory(memory: PoolerMemory) -> JsonObject:
    return {
        "processes": memory.processes,
        "total_bytes": memory.total_bytes,
        "clients": memory.clients,
    }
