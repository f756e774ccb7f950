"""The result file: a `Session` as JSON, in the names DESIGN.md fixes (schema `pool-bench/1`).

Reading it back is `model.py`; pictures are drawn from what that reads, for fresh runs too.
"""

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pool_bench.analysis.server_limit import limit_of
from pool_bench.analysis.verdict import judge
from pool_bench.errors import UsageError
from pool_bench.load.thread_time import cpu_quota, usable_cores
from pool_bench.results.addresses import addresses_to_json
from pool_bench.results.checkout_writer import checkout_to_json, setting_to_json, sizing_to_json
from pool_bench.results.files import check_writable, write_atomically
from pool_bench.results.hold_writer import hold_numbers, hold_to_json
from pool_bench.results.json_parts import (
    JsonObject,
    JsonValue,
    failures_to_json,
    finite,
    histogram_to_json,
    rounded,
)
from pool_bench.results.model import SCHEMA, LoadedResult, load_result, parse_result
from pool_bench.results.search import search_to_json
from pool_bench.results.server_writer import server_side_to_json
from pool_bench.results.session import Session, ThresholdOutcome
from pool_bench.results.unfinished import hanging_to_json
from pool_bench.results.verdict import calibration_to_json, own_to_json, verdict_to_json
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval, errors_by_name
from pool_bench.stats.runs import RunResult
from pool_bench.stats.walls import Wall

__all__ = [
    "SCHEMA",
    "LoadedResult",
    "check_writable",
    "default_path",
    "dumps",
    "from_session",
    "load_result",
    "run_numbers",
    "run_to_json",
    "session_to_json",
    "write_json",
]

_VERSIONED: Final = (
    "pool-bench",
    "asyncpg",
    "psycopg",
    "psycopg-pool",
    "sqlalchemy",
    "surrealdb",
    "surrealdb-embedded",
    "purreal",
    "websockets",
    "uvloop",
    "numpy",
)


def session_to_json(session: Session) -> JsonObject:
    """The result file's content; every number in it is finite."""
    content: JsonObject = {
        "schema": SCHEMA,
        "tool": session.tool,
        "name": session.name,
        "started_at": _timestamp(session.started_at),
        "finished_at": None if session.finished_at is None else _timestamp(session.finished_at),
        "interrupted": session.interrupted,
        "argv": list(session.argv),
        "target": session.targets[0] if session.targets else "",
        "targets": list(session.targets),
        "server": dict(session.server),
        "thresholds": [_judged(one) for one in session.thresholds],
        "host": _host(session.runs),
        "config": {
            key: finite(value) if isinstance(value, float) else value for key, value in session.config.items()
        },
        "runs": [run_to_json(run) for run in session.runs],
        **({} if session.find_max is None else {"find_max": search_to_json(session.find_max)}),
    }
    if session.sizing is not None:
        content["sizing"] = sizing_to_json(session.sizing)
    if session.calibration is not None:
        content["calibration"] = calibration_to_json(session.calibration)
    return content


def from_session(session: Session) -> LoadedResult:
    """What `load_result` would give for the file of `session`, without the file."""
    return parse_result(dumps(session_to_json(session)).decode("utf-8"), source="this run")


def dumps(content: Mapping[str, JsonValue]) -> bytes:
    """`content` as indented UTF-8 JSON.

    Raises:
        ValueError: it holds a number JSON has no word for (NaN, an infinity).
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # A lone surrogate, from an undecodable byte in argv, is no valid UTF-8.
    return text.encode("utf-8", errors="backslashreplace") + b"\n"


def write_json(path: Path, content: Mapping[str, JsonValue]) -> None:
    """Write `content` to `path` as a whole or not at all.

    Raises:
        UsageError: the path cannot be written; an older file there is left as it was.
        ValueError: `content` is no JSON; an older file there is left as it was.
    """
    write_atomically(path, dumps(content))


def default_path(output_dir: Path, session: Session, *, levels: Sequence[int] = (), span: str = "") -> Path:
    """Where a session's file goes, such as `results/pg-connection-bench_20261121T023000Z_NAME_c50.json`.

    Never a path with a file at it, nor one whose picture (`.png`, `.svg`) is there already. `span` stands
    instead of the levels of concurrency.
    """
    levels = levels or [run.concurrency for run in session.runs]
    span = span or (f"c{min(levels)}-{max(levels)}" if len(levels) > 1 else f"c{levels[0]}" if levels else "")
    name = re.sub(r"[^\w.-]+", "-", session.name).strip("-.")[:60]
    when = _utc(session.started_at).strftime("%Y%m%dT%H%M%SZ")
    stem = "_".join(part for part in (session.tool, when, name, span) if part)
    for number in range(1, 10_000):
        path = output_dir / f"{stem}{f'-{number}' if number > 1 else ''}.json"
        if not any(path.with_suffix(suffix).exists() for suffix in (".json", ".png", ".svg")):
            return path
    raise UsageError(f"{output_dir} is full of files named {stem}-N.json")


def run_to_json(run: RunResult) -> JsonObject:
    """One entry of `runs`."""
    content = run_numbers(run)
    content["phase_histograms"] = {
        str(phase): histogram_to_json(histogram) for phase, histogram in sorted(run.total.phases.items())
    }
    content["histogram"] = histogram_to_json(run.total.latency)
    content["failure_histogram"] = histogram_to_json(run.total.failure_latency)
    if run.rate is not None:
        content |= _open_loop_histograms(run.total)
    content["timeline"] = [
        _interval(interval, open_loop=run.rate is not None) for interval in run.total.intervals
    ]
    if run.hold is not None:
        content["hold"] = hold_to_json(run.hold, connections=run.concurrency, asked=run.asked)
    content["parameters"] = {
        name: finite(value) if isinstance(value, float) else value for name, value in run.parameters.items()
    }
    if hanging := hanging_to_json(run):
        content["hanging"] = hanging
    if run.wall is not None:
        content["wall"] = _wall(run.wall)
    if run.not_started:
        content["not_started"] = run.not_started
    if addresses := addresses_to_json(run):
        content["addresses"] = addresses
    if len(run.per_target) > 1:
        content["targets"] = [
            _target(run, name, stats) for name, stats in zip(run.targets, run.per_target, strict=True)
        ]
    return content


def _wall(wall: Wall) -> JsonObject:
    """`runs[].wall`: what connections met when they stopped growing."""
    return {
        "kind": str(wall.kind),
        "words": wall.words,
        "limit": wall.limit,
        "used": wall.used,
        "t": rounded(wall.t),
        "held": wall.held,
    }


def run_numbers(run: RunResult) -> JsonObject:
    """An entry of `runs` without histograms and timelines: cheap enough for every second of a run."""
    total = run.total
    content: JsonObject = {
        "label": run.label,
        "concurrency": run.concurrency,
        "rate": rounded(run.rate),
        "processes": run.client.processes,
        "driver": run.driver,
        "target": ", ".join(run.targets),
        "round": run.round,
        "setting": run.setting,
        "warmup_s": rounded(run.warmup_s),
        "duration_s": rounded(run.duration_s),
        "interrupted": run.interrupted,
        "ok": total.ok,
        "failed": total.failed,
        "unfinished": total.unfinished,
        "set_aside": total.aside,
        "closed_by_us": total.closed_by_us,
        "success_rate": finite(total.success_rate),
        "errors": errors_by_name(total.errors),
        "failures": failures_to_json(total),
        "throughput": rounded(run.throughput),
        "latency_ms": total.latency.summary_ms(),
        "failure_ms": total.failure_latency.summary_ms(),
        "phases_ms": {
            str(phase): histogram.summary_ms() for phase, histogram in sorted(total.phases.items())
        },
        "warmup": {
            "ok": run.warmup.ok,
            "failed": run.warmup.failed,
            "unfinished": run.warmup.unfinished,
        },
        "client": _client(run),
        "verdict": verdict_to_json(judge(run)),
    }
    if run.own is not None:
        content["calibration"] = own_to_json(run.own)
    if run.rate is not None:
        content |= _open_loop(total)
    if run.hold is not None:
        content["hold"] = hold_numbers(run.hold, connections=run.concurrency, asked=run.asked)
    if run.pool is not None and run.checkout is not None:
        content |= setting_to_json(run.pool)
        content["checkout"] = checkout_to_json(run.checkout)
    if run.server_side is not None:
        content["server_side"] = server_side_to_json(run.server_side, limit_of(run))
    return content


def _judged(one: ThresholdOutcome) -> JsonObject:
    return {
        "text": one.text,
        "field": one.field,
        "value": finite(one.value),
        "limit": finite(one.limit),
        "unit": one.unit,
        "ok": one.ok,
        "run": one.run,
        "round": one.round,
    }


def _open_loop(stats: BenchStats) -> JsonObject:
    """What an open loop adds, where `latency_ms` is the response time."""
    return {
        "offered": stats.offered,
        "dropped": stats.dropped,
        "service_ms": stats.service.summary_ms(),
        "schedule_error_ms": stats.schedule_error.summary_ms(),
    }


def _open_loop_histograms(stats: BenchStats) -> JsonObject:
    return {
        "service_histogram": histogram_to_json(stats.service),
        "schedule_error_histogram": histogram_to_json(stats.schedule_error),
    }


def _target(run: RunResult, name: str, stats: BenchStats) -> JsonObject:
    content: JsonObject = {
        "target": name,
        "ok": stats.ok,
        "failed": stats.failed,
        "unfinished": stats.unfinished,
        "success_rate": finite(stats.success_rate),
        "throughput": rounded(stats.ok / run.duration_s if run.duration_s else 0.0),
        "errors": errors_by_name(stats.errors),
        "failures": failures_to_json(stats),
        "latency_ms": stats.latency.summary_ms(),
        "histogram": histogram_to_json(stats.latency),
    }
    if run.rate is not None:
        content |= _open_loop(stats) | _open_loop_histograms(stats)
    return content


def _interval(interval: Interval, *, open_loop: bool) -> JsonObject:
    percentiles = (interval.p50, interval.p95, interval.p99, interval.max)
    if interval.latency is not None:
        percentiles = tuple(interval.latency.percentiles_ms((50, 95, 99, 100)))  # type: ignore[assignment]
    p50, p95, p99, top = percentiles
    content: JsonObject = {
        "t": rounded(interval.t),
        "seconds": rounded(interval.seconds),
        "ok": interval.ok,
        "failed": interval.failed,
        "in_flight": interval.in_flight,
        "p50": rounded(p50),
        "p95": rounded(p95),
        "p99": rounded(p99),
        "max": rounded(top),
        "lag_ms": rounded(interval.lag_ms),
        "cpu_s": rounded(interval.cpu_s),
    }
    if open_loop:
        service_p50, service_p99 = interval.service_p50, interval.service_p99
        if interval.service is not None:
            service_p50, service_p99 = interval.service.percentiles_ms((50, 99))
        content |= {
            "offered": interval.offered,
            "dropped": interval.dropped,
            "service_p50": rounded(service_p50),
            "service_p99": rounded(service_p99),
            "late_ms": rounded(interval.late_ms),
        }
    return content


def _client(run: RunResult) -> JsonObject:
    client = run.client
    p50, p99, top = client.lag.percentiles_ms((50, 99, 100))
    return {
        "cpu_s": rounded(client.cpu_s),
        "cpu_us_per_op": rounded(run.cpu_us_per_op),
        "cpu_percent": rounded(client.cpu_share * 100),
        "rss_mb": rounded(client.rss_bytes / 2**20),
        "loop_lag_ms": {"p50": rounded(p50), "p99": rounded(p99), "max": rounded(top)},
        "gc": {
            "pauses": client.pauses.count,
            "total_ms": rounded(client.pauses.total_s * 1e3),
            "max_ms": rounded(client.pauses.max_ns / 1e6),
        },
        "event_loop": run.event_loop,
        "saturated": run.saturation is not None,
        "state": str(run.client_state),
        "why": run.client_trouble,
        "time": _client_time(client),
        "port_searches": client.port_searches,
    }


def _client_time(client: ClientUsage) -> JsonObject | None:
    """Where the generator's time went, by the kernel's account; None where it does not tell."""
    time = client.time
    if not time.seen_s:
        return None
    return {
        "seen_s": rounded(time.seen_s),
        "waited_for_cpu_s": rounded(time.waited_s),
        "late_waiting_s": rounded(time.late_waiting_s),
        "late_running_s": rounded(time.late_running_s),
        "late_standing_s": rounded(time.late_standing_s),
        "throttled_s": rounded(time.throttled_s),
        "stolen_s": rounded(time.stolen_s),
        "machine_busy_s": rounded(time.busy_s),
        "suspended_s": rounded(time.suspended_s),
        "suspensions": time.suspensions,
        "cores": rounded(time.cores),
    }


def _host(runs: Sequence[RunResult]) -> JsonObject:
    from importlib.metadata import PackageNotFoundError, version

    versions: JsonObject = {}
    for package in _VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpus": max(1, int(usable_cores())),
        "machine_cpus": os.cpu_count(),
        "cpu_quota": rounded(cpu_quota()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "event_loop": runs[0].event_loop if runs else "",
        "versions": versions,
    }


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _timestamp(moment: datetime) -> str:
    return _utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")
