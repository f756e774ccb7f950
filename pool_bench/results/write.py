"""The result file: a `ResultRecord` as JSON, in its names (schema `pool-bench/1`)."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias, cast

import msgspec

from pool_bench.errors import UsageError
from pool_bench.results.files import write_atomically
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Session
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.runs import RunResult

JsonValue: TypeAlias = "Mapping[str, JsonValue] | Sequence[JsonValue] | str | int | float | bool | None"
JsonObject = dict[str, JsonValue]

# Fields that are in the file only where they say something.
_OF_RESULTS: Final = ("find_max", "sizing", "contest", "calibration")
_OF_RUNS: Final = (
    "min_size",
    "calibration",
    "hold",
    "server_side",
    "hanging",
    "wall",
    "not_started",
    "addresses",
    "generators",
    "workers",
    "targets",
)
_ADDITIONS: Final = {
    "warmup": ("failures",),
    "server_side": ("pooled",),
    "calibration": ("concurrency",),
    "checkout": (*("dead_met", "leaked", "left_open", "connection_bytes", "waiter_bytes"), "close_failure"),
}
_OF_POOLS: Final = (
    *("pool", "scenario", "clients", "size", "min_size", "reset", "prepared", "query", "hold_s", "timeout_s"),
    "checkout",
)
_OF_OPEN_LOOPS: Final = (
    *("offered", "dropped", "service_ms", "schedule_error_ms", "service_histogram"),
    *("schedule_error_histogram", "service_p50", "service_p99", "late_ms"),
)
_OF_HELD_ADDRESSES: Final = ("dropped", "dropped_errors", "reopened", "reopen_failed")


def to_json(result: ResultRecord) -> JsonObject:
    """The content of the file."""
    content = cast(JsonObject, msgspec.to_builtins(result, enc_hook=_encoded))
    del content["source"]
    content["started_at"] = _timestamp(result.started_at)
    content["finished_at"] = None if result.finished_at is None else _timestamp(result.finished_at)
    _leave_out(content, _OF_RESULTS)
    for run in _objects(content["runs"]):
        _prune_run(run)
    return content


def session_to_json(session: Session) -> JsonObject:
    """The content of the file of `session`; every number in it is finite."""
    return to_json(from_session(session))


def numbers_of(run: RunResult) -> JsonObject:
    """An entry of `runs` without histograms and timelines: cheap enough for every second of a run."""
    return numbers_of_record(RunRecord.of(run, courses=False))


def numbers_of_record(run: RunRecord) -> JsonObject:
    """As `numbers_of`, of a run that is over; its timelines are in it where it has them."""
    content = cast(JsonObject, msgspec.to_builtins(run, enc_hook=_nothing))
    _prune_run(content)
    return content


def _encoded(histogram: object) -> JsonObject:
    """A histogram as every HdrHistogram library reads it."""
    return {"encoding": "hdr-v2-base64", "unit": "us", "data": cast(Histogram, histogram).encode()}


def _nothing(_: object) -> JsonObject:
    return {}


def _prune_run(run: JsonObject) -> None:
    """Take out what such a run does not have."""
    if run["checkout"] is None:
        _leave_out(run, _OF_POOLS, whatever=True)
    if run["offered"] is None:
        for part in (run, *_objects(run["timeline"]), *_objects(run["targets"])):
            _leave_out(part, _OF_OPEN_LOOPS, whatever=True)
    for address in _objects(run["addresses"]):
        _leave_out(address, _OF_HELD_ADDRESSES)
    for name, fields in _ADDITIONS.items():
        if run.get(name) is not None:
            _leave_out(cast(JsonObject, run[name]), fields)
    _leave_out(run, _OF_RUNS)


def _leave_out(content: JsonObject, names: Collection[str], *, whatever: bool = False) -> None:
    """Take out fields that say nothing, or `whatever` they say."""
    for name in names:
        value = content.get(name, 0)
        # A zero says something.
        if whatever or value is False or (not value and value != 0):
            content.pop(name, None)


def _objects(values: JsonValue) -> Sequence[JsonObject]:
    return cast(Sequence[JsonObject], values)


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


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _timestamp(moment: datetime) -> str:
    return _utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")
