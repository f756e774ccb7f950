"""What a server shows while a run is under way: plain data, for every tool that watches one.

Clocks: `t` counts from the beginning of the watching. A run's own clock, that of its timeline, stood at 0
`ServerObservation.origin_s` seconds after that.
"""

from dataclasses import dataclass, field, fields

from pool_bench.stats.histogram import Histogram
from pool_bench.stats.intermediaries import Between
from pool_bench.stats.memory_cost import client_cost_each, server_cost_each


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """Memory of the server's processes on this machine, as proportional set size (PSS).

    Attributes:
        processes: how many there were.
        total_bytes: PSS of all of them.
        backends: client backends among them; connections where one process serves all of them.
        idle_backend_bytes: mean PSS of the idle ones, None where there was none.
        sampled: how many processes were looked at; the total is scaled up where not all.
    """

    processes: int
    total_bytes: int
    backends: int
    idle_backend_bytes: int | None
    sampled: int


@dataclass(frozen=True, slots=True)
class PoolerMemory:
    """Memory of PgBouncer's processes on this machine, as proportional set size (PSS).

    Attributes:
        processes: how many there were.
        total_bytes: PSS of all of them.
        clients: client connections that it had then, the watcher's own not counted.
    """

    processes: int
    total_bytes: int
    clients: int


@dataclass(frozen=True, slots=True)
class CpuUse:
    """How many cores were busy on this machine since the look before, each 1.0 for a core; None if unseen.

    Attributes:
        machine: all processes of the machine together, what the hypervisor took included.
        server: the postmaster and its processes, those that have ended included.
        postmaster: the postmaster alone, which forks one backend after another.
        pooler: the processes together of the pooler or proxy in between.
        pooler_busiest: the busiest one of them; of one that has several threads, its busiest thread.
        server_thread: the busiest thread of a server that is one process.
    """

    machine: float | None = None
    server: float | None = None
    postmaster: float | None = None
    pooler: float | None = None
    pooler_busiest: float | None = None
    server_thread: float | None = None


@dataclass(frozen=True, slots=True)
class SetupSecond:
    """Connections that the server had ready in one second, and its own time for them, milliseconds."""

    count: int
    p50: float | None
    p99: float | None


@dataclass(slots=True)
class SetupTimes:
    """The server's own time for setting connections up, as PostgreSQL 18 logs it (`setup_durations`).

    Attributes:
        seen: connections that became ready while the server was watched, the warm-up's included.
        missed: bytes of the log that were not read, lest reading it take time from the run.
        total: from accepting the socket to being ready for a query, of those that were ready once
            measuring had begun.
        fork: of that, starting the process.
        auth: of that, authentication.
    """

    seen: int = 0
    missed: int = 0
    total: Histogram = field(default_factory=Histogram)
    fork: Histogram = field(default_factory=Histogram)
    auth: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class ServerSample:
    """What one look at the server showed.

    Attributes:
        t: seconds since the watching began.
        states: client backends by state, as `pg_stat_activity` names it; connections where one process serves
            all of them: `open`, and `closing` where only the client has ended.
        used: slots of `max_connections` in use, None where it is no PostgreSQL.
        pools: figures of PgBouncer's pools by name (`cl_active`, `sv_idle`, ...), added up.
        lists: PgBouncer's `SHOW LISTS`.
        sessions: how far the counters of `pg_stat_database` have come since the watching began, the
            watcher's own sessions not counted: `sessions`, `abandoned`, `fatal`, `killed`.
        totals: the same of PgBouncer's `SHOW STATS_TOTALS`, the watcher's own questions to the server
            behind it included.
        cpu: cores in use since the look before.
        setup: connections that became ready since the look before; None where the server does not log it.
        looks: how many looks, a second apart, it stands for: in a long run old ones become one.
    """

    t: float
    states: dict[str, int] = field(default_factory=dict)
    used: int | None = None
    pools: dict[str, int] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    cpu: CpuUse | None = None
    setup: SetupSecond | None = None
    looks: int = 1

    @property
    def sort(self) -> str:
        """All looks are alike."""
        return ""

    def seal(self) -> None:
        """Nothing is kept for joining."""

    def joined(self, later: "ServerSample") -> "ServerSample":
        """This look and the next as one: the highest of what goes up and down, the last of what only grows.

        Cores in use are the mean. Of set-up times only the count remains: percentiles are not put together.
        """
        setups = [sample.setup for sample in (self, later) if sample.setup is not None]
        return ServerSample(
            t=later.t,
            states=_highest(self.states, later.states),
            used=max((used for used in (self.used, later.used) if used is not None), default=None),
            pools=_highest(self.pools, later.pools),
            lists=_highest(self.lists, later.lists),
            sessions=later.sessions or self.sessions,
            totals=later.totals or self.totals,
            cpu=_mean_cpu(self, later),
            setup=SetupSecond(sum(setup.count for setup in setups), None, None) if setups else None,
            looks=self.looks + later.looks,
        )


def _highest(first: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: max(first.get(key, 0), other.get(key, 0)) for key in (*first, *other)}


def _mean_cpu(first: ServerSample, other: ServerSample) -> CpuUse | None:
    if first.cpu is None or other.cpu is None:
        return first.cpu or other.cpu
    means: dict[str, float | None] = {}
    for each in fields(CpuUse):
        mine, theirs = getattr(first.cpu, each.name), getattr(other.cpu, each.name)
        means[each.name] = None
        if mine is not None and theirs is not None:
            means[each.name] = (mine * first.looks + theirs * other.looks) / (first.looks + other.looks)
    return CpuUse(**means)


@dataclass(slots=True)
class ServerObservation:
    """What was seen of the server during a run.

    Attributes:
        max_connections, superuser_reserved, reserved: settings; None where they could not be read.
        in_use_before, in_use_after: client connections before the first and after the last of ours,
            the watcher's own not counted.
        seconds: one look after another, a second apart.
        memory: `before`, `during` or `peak`, and `after`, those that could be measured.
        pooler_memory: the same of PgBouncer.
        notes: what could not be seen and why.
        cores: how many this machine has.
        origin_s: when the run's own clock was at 0, seconds since the watching began; None where not told.
        setup: the server's own time for setting connections up, None where it does not log it.
        pooled: sessions of the server serve several connections each.
        between: who stands between the watcher and the server; None where nobody looked.
        one_process: the server is one process, so that what is counted are connections, not backends.
    """

    max_connections: int | None = None
    superuser_reserved: int | None = None
    reserved: int | None = None
    in_use_before: int | None = None
    in_use_after: int | None = None
    seconds: list[ServerSample] = field(default_factory=list)
    memory: dict[str, ServerMemory] = field(default_factory=dict)
    pooler_memory: dict[str, PoolerMemory] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cores: int | None = None
    origin_s: float | None = None
    setup: SetupTimes | None = None
    pooled: bool = False
    one_process: bool = False
    between: Between | None = None

    def note(self, text: str) -> None:
        """Add a line to the notes, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def pooler_name(self) -> str:
        """What is called the pooler, or the proxy, in between."""
        if self.between is None or self.between.kind not in ("pooler", "proxy"):
            return "PgBouncer"
        return self.between.name or f"the {self.between.kind}"

    @property
    def sessions(self) -> dict[str, int]:
        """How far the counters of `pg_stat_database` came, at the last look that had them."""
        return next((second.sessions for second in reversed(self.seconds) if second.sessions), {})

    @property
    def totals(self) -> dict[str, int]:
        """How far PgBouncer's totals came, at the last look that had them."""
        return next((second.totals for second in reversed(self.seconds) if second.totals), {})

    @property
    def used_peak(self) -> int | None:
        """The most slots in use at any look."""
        return max((second.used for second in self.seconds if second.used is not None), default=None)

    @property
    def backend_cost_bytes(self) -> int | None:
        """What the server's memory grew by for each further client backend, bytes.

        None where too little grew to say: a server's memory moves by itself, too.
        """
        before, peak = self.memory.get("before"), self.memory.get("peak")
        if before is None or peak is None:
            return None
        return server_cost_each(peak.total_bytes - before.total_bytes, peak.backends - before.backends)

    @property
    def pooler_client_bytes(self) -> int | None:
        """What PgBouncer's memory grew by for each further client connection, bytes; None as above."""
        before, peak = self.pooler_memory.get("before"), self.pooler_memory.get("peak")
        if before is None or peak is None:
            return None
        each = client_cost_each(peak.total_bytes - before.total_bytes, peak.clients - before.clients)
        return None if each is None else round(each)
