"""A result file read back: typed, checked, its histograms decoded.

Whatever is wrong with a file ends in one line that names the file and the field. Fields the file
has beyond these are ignored, so a newer tool's additions can be read by an older one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from pool_bench.errors import UsageError, reason_of
from pool_bench.results.checkout_reader import LoadedCheckout, read_checkout
from pool_bench.results.fields import Fields, read_json
from pool_bench.results.hold_reader import LoadedHold, read_hold
from pool_bench.results.reader_parts import (
    LoadedFailure,
    LoadedOpenLoop,
    LoadedSummary,
    read_counts,
    read_failure,
    read_open_loop,
    read_summary,
)
from pool_bench.results.search import LoadedSearch, read_search
from pool_bench.results.server_reader import LoadedServerSide, read_server_side
from pool_bench.stats.histogram import Histogram

__all__ = [
    "SCHEMA",
    "LoadedClient",
    "LoadedFailure",
    "LoadedOpenLoop",
    "LoadedResult",
    "LoadedRun",
    "LoadedSearch",
    "LoadedSecond",
    "LoadedSummary",
    "LoadedTarget",
    "load_result",
    "parse_result",
]

SCHEMA: Final = "pool-bench/1"
# Hundreds of runs of an hour each.
_MAX_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class LoadedSecond:
    """One entry of the timeline: seconds, counts, milliseconds; the last ones of an open loop only."""

    t: float
    seconds: float
    ok: int
    failed: int
    in_flight: int
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    lag_ms: float | None
    cpu_s: float | None
    offered: int | None = None
    dropped: int | None = None
    service_p50: float | None = None
    service_p99: float | None = None
    late_ms: float | None = None


@dataclass(frozen=True, slots=True)
class LoadedClient:
    """What the generator cost; `why` says how it was the bottleneck where `saturated`."""

    cpu_s: float
    cpu_us_per_op: float | None
    cpu_percent: float | None
    rss_mb: float | None
    saturated: bool
    why: str | None


@dataclass(frozen=True, slots=True)
class LoadedReason:
    """One reason to doubt a run, or a note on it."""

    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LoadedVerdict:
    """What to think of a run."""

    valid: bool
    reasons: tuple[LoadedReason, ...] = ()
    notes: tuple[LoadedReason, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedTarget:
    """One of several targets of a run."""

    target: str
    ok: int
    failed: int
    unfinished: int
    throughput: float
    errors: Mapping[str, int]
    latency_ms: LoadedSummary
    histogram: Histogram


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """One setting, measured once.

    Attributes:
        rate: operations due a second, None in a closed loop.
        scenario: what a pool had to go through, "" where there is none to choose.
        round: which repetition of its setting it is, from 1; None where settings are measured once.
        setting: how it differs from the session's other settings, "" where it does not.
        target: printable names of its targets, "" in files of older versions.
        parameters: what it was asked to do, as text by name; {} in files of older versions.
        not_started: why it could not even begin; "" where it did.
    """

    label: str
    concurrency: int
    driver: str
    warmup_s: float
    duration_s: float
    interrupted: bool
    ok: int
    failed: int
    unfinished: int
    errors: Mapping[str, int]
    failures: tuple[LoadedFailure, ...]
    throughput: float
    latency_ms: LoadedSummary
    failure_ms: LoadedSummary | None
    phases_ms: Mapping[str, LoadedSummary]
    histogram: Histogram
    phase_histograms: Mapping[str, Histogram]
    failure_histogram: Histogram
    timeline: tuple[LoadedSecond, ...]
    client: LoadedClient
    targets: tuple[LoadedTarget, ...] = ()
    hold: LoadedHold | None = None
    server_side: LoadedServerSide | None = None
    verdict: LoadedVerdict | None = None
    open_loop: LoadedOpenLoop | None = None
    rate: float | None = None
    scenario: str = ""
    round: int | None = None
    setting: str = ""
    target: str = ""
    checkout: LoadedCheckout | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    not_started: str = ""

    @property
    def attempts(self) -> int:
        """Operations that were begun, however they ended."""
        return self.ok + self.failed + self.unfinished

    @property
    def success_rate(self) -> float | None:
        """Successes over attempts and what was dropped, 0 to 1; None where there was neither."""
        wanted = self.attempts + (self.open_loop.dropped if self.open_loop is not None else 0)
        return self.ok / wanted if wanted else None


@dataclass(frozen=True, slots=True)
class LoadedResult:
    """A result file. `source` is its path, or what stands for it in messages."""

    source: str
    tool: str
    name: str
    started_at: datetime
    finished_at: datetime | None
    interrupted: bool
    target: str
    targets: tuple[str, ...]
    server: Mapping[str, str]
    runs: tuple[LoadedRun, ...] = field(default=())
    find_max: LoadedSearch | None = None
    host: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The user's name for it, or else the file's."""
        return self.name or Path(self.source).stem


def load_result(path: Path) -> LoadedResult:
    """Read a result file.

    Raises:
        UsageError: it is missing, no JSON, of another schema, incomplete or damaged; one line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        if len(data) > _MAX_BYTES:
            raise _too_large(path) from error
        raise UsageError(f"{path} is not a result file: not UTF-8 text") from error
    if len(data) > _MAX_BYTES:
        raise _too_large(path)
    return parse_result(text, source=str(path))


def _too_large(path: Path) -> UsageError:
    return UsageError(f"{path} is not a result file: it is larger than {_MAX_BYTES >> 20} MB")


def parse_result(text: str, *, source: str) -> LoadedResult:
    """Read the text of a result file; `source` names it in messages.

    Raises:
        UsageError: it is no JSON, of another schema, incomplete or damaged; one line.
    """
    try:
        content = read_json(text)
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UsageError(f"{source} is not a result file: not JSON{place}") from error
    if not isinstance(content, dict) or "schema" not in content:
        raise UsageError(f"{source} is not a result file: it names no schema")
    if content["schema"] != SCHEMA:
        raise UsageError(
            f"{source} has schema {str(content['schema'])[:40]!r}, this program reads {SCHEMA!r}"
        )
    return _result(Fields(content, source, ""), source)


def _result(fields: Fields, source: str) -> LoadedResult:
    server = fields.fields("server")
    runs = tuple(_run(run) for run in fields.items("runs"))
    return LoadedResult(
        source=source,
        tool=fields.text("tool"),
        name=fields.text("name"),
        started_at=fields.moment("started_at"),
        finished_at=fields.moment("finished_at") if fields.has("finished_at") else None,
        interrupted=fields.flag("interrupted"),
        target=fields.text("target"),
        targets=fields.texts("targets") if fields.has("targets") else (fields.text("target"),),
        server={key: server.word(key) for key in server},
        runs=runs,
        find_max=read_search(fields.fields("find_max"), len(runs)) if fields.has("find_max") else None,
        host=_words(fields, "host"),
        config=_words(fields, "config"),
    )


def _words(fields: Fields, key: str) -> dict[str, str]:
    """The plain values of an object as text; those that are null, or objects themselves, are left out."""
    if not fields.has(key):
        return {}
    inner = fields.fields(key)
    return {name: inner.word(name) for name in inner if isinstance(inner.get(name), str | int | float)}


def _run(fields: Fields) -> LoadedRun:
    phases = fields.fields("phases_ms")
    histogram = fields.histogram("histogram")
    ok = fields.count("ok")
    if histogram.count != ok:
        raise fields.wrong("histogram.data", f"holds {histogram.count:,} operations, but ok is {ok:,}")
    phase_histograms = fields.fields("phase_histograms") if fields.has("phase_histograms") else None
    return LoadedRun(
        label=fields.text("label"),
        concurrency=fields.count("concurrency"),
        driver=fields.text("driver") if fields.has("driver") else fields.text("pool"),
        warmup_s=fields.number("warmup_s"),
        duration_s=fields.number("duration_s"),
        interrupted=fields.flag("interrupted") if fields.has("interrupted") else False,
        ok=ok,
        failed=fields.count("failed"),
        unfinished=fields.count("unfinished"),
        errors=read_counts(fields.fields("errors")),
        failures=tuple(read_failure(item) for item in fields.items("failures"))
        if fields.has("failures")
        else (),
        throughput=fields.number("throughput"),
        latency_ms=read_summary(fields.fields("latency_ms")),
        failure_ms=read_summary(fields.fields("failure_ms")) if fields.has("failure_ms") else None,
        phases_ms={name: read_summary(phases.fields(name)) for name in phases},
        histogram=histogram,
        phase_histograms={}
        if phase_histograms is None
        else {name: phase_histograms.histogram(name) for name in phase_histograms},
        failure_histogram=fields.histogram("failure_histogram")
        if fields.has("failure_histogram")
        else Histogram(),
        timeline=tuple(_second(item) for item in fields.items("timeline")),
        client=_client(fields.fields("client")),
        targets=tuple(_target(item) for item in fields.items("targets")) if fields.has("targets") else (),
        hold=read_hold(fields.fields("hold")) if fields.has("hold") else None,
        server_side=read_server_side(fields.fields("server_side")) if fields.has("server_side") else None,
        verdict=_verdict(fields.fields("verdict")) if fields.has("verdict") else None,
        open_loop=read_open_loop(fields),
        rate=fields.optional_number("rate") if fields.has("rate") else None,
        scenario=fields.text("scenario") if fields.has("scenario") else "",
        round=fields.count("round") if fields.has("round") else None,
        setting=fields.text("setting") if fields.has("setting") else "",
        target=fields.text("target") if fields.has("target") else "",
        checkout=read_checkout(fields) if fields.has("checkout") else None,
        parameters=_words(fields, "parameters"),
        not_started=fields.text("not_started") if fields.has("not_started") else "",
    )


def _second(fields: Fields) -> LoadedSecond:
    def addition(key: str) -> float | None:
        return fields.optional_number(key) if fields.has(key) else None

    return LoadedSecond(
        t=fields.number("t"),
        seconds=addition("seconds") or 1.0,
        ok=fields.count("ok"),
        failed=fields.count("failed"),
        in_flight=fields.count("in_flight"),
        p50=fields.optional_number("p50"),
        p95=addition("p95"),
        p99=fields.optional_number("p99"),
        max=fields.optional_number("max"),
        lag_ms=fields.optional_number("lag_ms"),
        cpu_s=addition("cpu_s"),
        offered=fields.count("offered") if fields.has("offered") else None,
        dropped=fields.count("dropped") if fields.has("dropped") else None,
        service_p50=addition("service_p50"),
        service_p99=addition("service_p99"),
        late_ms=addition("late_ms"),
    )


def _client(fields: Fields) -> LoadedClient:
    return LoadedClient(
        cpu_s=fields.number("cpu_s"),
        cpu_us_per_op=fields.optional_number("cpu_us_per_op"),
        cpu_percent=fields.optional_number("cpu_percent") if fields.has("cpu_percent") else None,
        rss_mb=fields.optional_number("rss_mb"),
        saturated=fields.flag("saturated"),
        why=fields.text("why") if fields.has("why") else None,
    )


def _verdict(fields: Fields) -> LoadedVerdict:
    def reasons(key: str) -> tuple[LoadedReason, ...]:
        return tuple(
            LoadedReason(item.text("code"), item.text("text"), item.text("remedy"))
            for item in fields.items(key)
        )

    return LoadedVerdict(
        fields.flag("valid"), reasons("reasons"), reasons("notes") if fields.has("notes") else ()
    )


def _target(fields: Fields) -> LoadedTarget:
    return LoadedTarget(
        target=fields.text("target"),
        ok=fields.count("ok"),
        failed=fields.count("failed"),
        unfinished=fields.count("unfinished"),
        throughput=fields.number("throughput"),
        errors=read_counts(fields.fields("errors")),
        latency_ms=read_summary(fields.fields("latency_ms")),
        histogram=fields.histogram("histogram"),
    )
