"""What was seen of the server, in the result file: `runs[].server_side`.

In its timeline `t` counts from the beginning of the watching; `origin_s` is where the run's own begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pool_bench.analysis.server_limit import Limit
from pool_bench.results.parts import Count, Counts, Name, Number, SummaryRecord, Text, record, rounded
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.server import (
    CpuUse,
    PoolerMemory,
    ServerMemory,
    ServerObservation,
    ServerSample,
    SetupTimes,
)


@dataclass(frozen=True, slots=True)
class ServerMemoryRecord:
    """Memory of the server's processes; names and units as in `ServerMemory`."""

    processes: Count
    total_bytes: Count
    backends: Count
    idle_backend_bytes: Count | None
    sampled: Count

    @classmethod
    def of(cls, memory: ServerMemory) -> Self:
        """The record of `memory`."""
        return cls(
            memory.processes,
            memory.total_bytes,
            memory.backends,
            memory.idle_backend_bytes,
            memory.sampled,
        )


@dataclass(frozen=True, slots=True)
class PoolerMemoryRecord:
    """Memory of PgBouncer's processes; names and units as in `PoolerMemory`."""

    processes: Count
    total_bytes: Count
    clients: Count

    @classmethod
    def of(cls, memory: PoolerMemory) -> Self:
        """The record of `memory`."""
        return cls(memory.processes, memory.total_bytes, memory.clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuRecord:
    """How many cores were busy, as in `CpuUse`; None if unseen."""

    machine: Number | None = None
    server: Number | None = None
    postmaster: Number | None = None
    server_thread: Number | None = None
    pooler: Number | None = None
    pooler_busiest: Number | None = None

    @classmethod
    def of(cls, cpu: CpuUse) -> Self:
        """The record of `cpu`."""
        return record(cls, cpu)


@dataclass(frozen=True, slots=True)
class SetupSecondRecord:
    """Connections that the server had ready in one second, and its own time for them, milliseconds."""

    count: Count
    p50: Number | None
    p99: Number | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSampleRecord:
    """What one look at the server showed; names as in `ServerSample`.

    Attributes:
        pooler_totals: its `totals`.
    """

    t: Number
    looks: Count = 1
    used: Count | None = None
    states: Counts
    pools: Counts
    lists: Counts
    sessions: Counts = field(default_factory=dict)
    pooler_totals: Counts = field(default_factory=dict)
    cpu: CpuRecord | None = None
    setup: SetupSecondRecord | None = None

    @classmethod
    def of(cls, sample: ServerSample) -> Self:
        """The record of `sample`."""
        setup = sample.setup
        return record(
            cls,
            sample,
            pooler_totals=dict(sample.totals),
            cpu=None if sample.cpu is None else CpuRecord.of(sample.cpu),
            setup=None
            if setup is None
            else SetupSecondRecord(setup.count, rounded(setup.p50), rounded(setup.p99)),
        )


@dataclass(frozen=True, slots=True)
class SetupRecord:
    """The server's own time for setting connections up: `total`, and of that `fork` and `auth`."""

    seen: Count
    missed_bytes: Count
    latency_ms: Mapping[Name, SummaryRecord]
    histograms: Mapping[Name, Histogram]

    @classmethod
    def of(cls, setup: SetupTimes) -> Self:
        """The record of `setup`."""
        parts = {"total": setup.total, "fork": setup.fork, "auth": setup.auth}
        return cls(
            setup.seen,
            setup.missed,
            {name: SummaryRecord.of(histogram) for name, histogram in parts.items()},
            {name: histogram.bucketed() for name, histogram in parts.items()},
        )


@dataclass(frozen=True, slots=True)
class BetweenRecord:
    """Who stands between the watcher and the server; names as in `Between`."""

    kind: Text
    name: Text = ""
    shares: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class LimitRecord:
    """What kept a run from being faster, and one line about it."""

    what: Text
    words: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSideRecord:
    """What was seen of the server; names as in `ServerObservation`, memory in bytes.

    Attributes:
        backend_cost_bytes, pooler_client_bytes: may be below zero: the server can have freed some memory.
        origin_s: below zero where the server was too slow for a look before the run.
        pooled: sessions of the server serve several connections each.
        limit: what kept the run from being faster; None where it was not judged.
    """

    max_connections: Count | None = None
    superuser_reserved: Count | None = None
    reserved: Count | None = None
    in_use_before: Count | None = None
    in_use_after: Count | None = None
    used_peak: Count | None = None
    timeline: tuple[ServerSampleRecord, ...]
    memory: Mapping[Name, ServerMemoryRecord]
    backend_cost_bytes: int | None = None
    pooler_memory: Mapping[Name, PoolerMemoryRecord] = field(default_factory=dict)
    pooler_client_bytes: int | None = None
    notes: tuple[Text, ...]
    cores: Count | None = None
    one_process: bool = False
    pooled: bool = False
    between: BetweenRecord | None = None
    origin_s: float | None = None
    sessions: Counts = field(default_factory=dict)
    pooler_totals: Counts = field(default_factory=dict)
    setup: SetupRecord | None = None
    limit: LimitRecord | None = None

    @classmethod
    def of(cls, side: ServerObservation, limit: Limit | None = None, *, courses: bool = True) -> Self:
        """The record of `side`.

        Args:
            limit: what kept the run from being faster, where that was judged.
            courses: with the timeline, which takes time.
        """
        between = side.between
        return record(
            cls,
            side,
            origin_s=side.origin_s,
            timeline=tuple(map(ServerSampleRecord.of, side.seconds)) if courses else (),
            memory={when: ServerMemoryRecord.of(memory) for when, memory in side.memory.items()},
            pooler_memory={
                when: PoolerMemoryRecord.of(memory) for when, memory in side.pooler_memory.items()
            },
            between=None
            if between is None
            else BetweenRecord(str(between.kind), between.name, between.shares, between.alone),
            pooler_totals=dict(side.totals),
            setup=None if side.setup is None else SetupRecord.of(side.setup),
            limit=None if limit is None else LimitRecord(limit.what, limit.words),
        )

    @property
    def pooler_name(self) -> str:
        """What is called the pooler, or the proxy, in between."""
        if self.between is None or self.between.kind not in ("pooler", "proxy"):
            return "PgBouncer"
        return self.between.name or f"the {self.between.kind}"
