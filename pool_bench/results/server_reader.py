"""`runs[].server_side` of a result file, read back: typed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pool_bench.results.fields import Fields
from pool_bench.results.reader_parts import LoadedSummary, read_counts, read_summary
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.server import CpuUse, PoolerMemory, ServerMemory, ServerSample, SetupSecond


@dataclass(frozen=True, slots=True)
class LoadedSetup:
    """The server's own time for setting connections up: `total`, and of that `fork` and `auth`."""

    seen: int
    missed_bytes: int
    latency_ms: Mapping[str, LoadedSummary]
    histograms: Mapping[str, Histogram]


@dataclass(frozen=True, slots=True)
class LoadedServerSide:
    """What was seen of the server; names as in `ServerSide`, memory in bytes.

    Attributes:
        limit: what kept the run from being faster, in words; None where it was not judged.
    """

    max_connections: int | None
    superuser_reserved: int | None
    reserved: int | None
    in_use_before: int | None
    in_use_after: int | None
    used_peak: int | None
    timeline: tuple[ServerSample, ...]
    memory: Mapping[str, ServerMemory]
    backend_cost_bytes: int | None
    pooler_memory: Mapping[str, PoolerMemory]
    pooler_client_bytes: int | None
    notes: tuple[str, ...]
    cores: int | None = None
    origin_s: float | None = None
    sessions: Mapping[str, int] = field(default_factory=dict)
    pooler_totals: Mapping[str, int] = field(default_factory=dict)
    setup: LoadedSetup | None = None
    limit: str | None = None
    one_process: bool = False
    pooler_name: str = "PgBouncer"


def read_server_side(fields: Fields) -> LoadedServerSide:
    """`runs[].server_side`.

    Raises:
        UsageError: a field is missing or wrong.
    """
    memory = fields.fields("memory")
    pooler = fields.fields("pooler_memory") if fields.has("pooler_memory") else None
    return LoadedServerSide(
        max_connections=_optional_count(fields, "max_connections"),
        superuser_reserved=_optional_count(fields, "superuser_reserved"),
        reserved=_optional_count(fields, "reserved"),
        in_use_before=_optional_count(fields, "in_use_before"),
        in_use_after=_optional_count(fields, "in_use_after"),
        used_peak=_optional_count(fields, "used_peak"),
        timeline=tuple(_look(item) for item in fields.items("timeline")),
        memory={when: _memory(memory.fields(when)) for when in memory},
        backend_cost_bytes=_optional_bytes(fields, "backend_cost_bytes"),
        pooler_memory={when: _pooler_memory(pooler.fields(when)) for when in pooler} if pooler else {},
        pooler_client_bytes=_optional_bytes(fields, "pooler_client_bytes"),
        notes=fields.texts("notes"),
        cores=_optional_count(fields, "cores"),
        # Below nought where the server was too slow for a look before the run.
        origin_s=fields.optional_number("origin_s", signed=True) if fields.has("origin_s") else None,
        sessions=_optional_counts(fields, "sessions"),
        pooler_totals=_optional_counts(fields, "pooler_totals"),
        setup=_setup(fields.fields("setup")) if fields.has("setup") else None,
        limit=fields.fields("limit").text("words") if fields.has("limit") else None,
        one_process=fields.has("one_process") and fields.flag("one_process"),
        pooler_name=_pooler_name(fields.fields("between")) if fields.has("between") else "PgBouncer",
    )


def _pooler_name(fields: Fields) -> str:
    kind, name = fields.text("kind"), fields.text("name")
    return (name or f"the {kind}") if kind in ("pooler", "proxy") else "PgBouncer"


def _optional_count(fields: Fields, key: str) -> int | None:
    return fields.count(key) if fields.has(key) else None


def _optional_bytes(fields: Fields, key: str) -> int | None:
    # May be below zero: the server can have freed some memory of its own.
    return round(fields.number(key)) if fields.has(key) else None


def _look(fields: Fields) -> ServerSample:
    return ServerSample(
        t=fields.number("t"),
        states=read_counts(fields.fields("states")),
        used=_optional_count(fields, "used"),
        pools=read_counts(fields.fields("pools")),
        lists=read_counts(fields.fields("lists")),
        sessions=_optional_counts(fields, "sessions"),
        totals=_optional_counts(fields, "pooler_totals"),
        cpu=_cpu(fields.fields("cpu")) if fields.has("cpu") else None,
        setup=_setup_second(fields.fields("setup")) if fields.has("setup") else None,
        looks=fields.count("looks") if fields.has("looks") else 1,
    )


def _optional_counts(fields: Fields, key: str) -> dict[str, int]:
    return read_counts(fields.fields(key)) if fields.has(key) else {}


def _optional_number(fields: Fields, key: str) -> float | None:
    return fields.number(key) if fields.has(key) else None


def _cpu(fields: Fields) -> CpuUse:
    return CpuUse(
        machine=_optional_number(fields, "machine"),
        server=_optional_number(fields, "server"),
        postmaster=_optional_number(fields, "postmaster"),
        server_thread=_optional_number(fields, "server_thread"),
        pooler=_optional_number(fields, "pooler"),
        pooler_busiest=_optional_number(fields, "pooler_busiest"),
    )


def _setup_second(fields: Fields) -> SetupSecond:
    return SetupSecond(fields.count("count"), fields.optional_number("p50"), fields.optional_number("p99"))


def _setup(fields: Fields) -> LoadedSetup:
    latency, histograms = fields.fields("latency_ms"), fields.fields("histograms")
    return LoadedSetup(
        seen=fields.count("seen"),
        missed_bytes=fields.count("missed_bytes"),
        latency_ms={name: read_summary(latency.fields(name)) for name in latency},
        histograms={name: histograms.histogram(name) for name in histograms},
    )


def _memory(fields: Fields) -> ServerMemory:
    return ServerMemory(
        processes=fields.count("processes"),
        total_bytes=fields.count("total_bytes"),
        backends=fields.count("backends"),
        idle_backend_bytes=_optional_count(fields, "idle_backend_bytes"),
        sampled=fields.count("sampled"),
    )


def _pooler_memory(fields: Fields) -> PoolerMemory:
    return PoolerMemory(
        processes=fields.count("processes"),
        total_bytes=fields.count("total_bytes"),
        clients=fields.count("clients"),
    )
