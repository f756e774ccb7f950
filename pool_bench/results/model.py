"""The result file as it is (schema `pool-bench/1`): everything reports, pictures and comparisons read.

A `ResultRecord` comes from a file (`read.py`) or, by plain conversion, from the session of this process
(`from_session`); `write.py` makes a file of it.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from pool_bench.analysis.scalability import Law, Sizing, statement
from pool_bench.load.thread_time import cpu_quota, usable_cores
from pool_bench.results.parts import (
    Count,
    Name,
    Number,
    Settings,
    SummaryRecord,
    Text,
    figure,
    finite,
    finite_settings,
    record,
    rounded,
)
from pool_bench.results.run import RunRecord
from pool_bench.results.session import Contest, Limit, SearchResult, SearchStep, Session, ThresholdOutcome
from pool_bench.stats.calibration import Calibration, ClientFloor
from pool_bench.stats.histogram import Histogram

SCHEMA: Final = "pool-bench/1"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """A search for the maximum; names as in `SearchResult`.

    Attributes:
        rate: the confirmed rate, its `found`.
    """

    slo: Text
    latency_limit_ms: Number | None
    tolerance: Number | None = None
    rate: Number | None
    confirmed: bool = False
    limit: Text
    why: Text
    steps: tuple[SearchStep, ...]

    @classmethod
    def of(cls, search: SearchResult) -> Self:
        """The record of `search`."""
        return record(
            cls,
            search,
            rate=rounded(search.found),
            confirmed=search.found is not None,
            limit=str(search.limit or Limit.INTERRUPTED),
            steps=tuple(replace(step, rate=figure(step.rate)) for step in search.steps),
        )


@dataclass(frozen=True, slots=True)
class LawRecord:
    """The universal scalability law as it was fitted; `error` is the rounds' median distance from it."""

    name: Text
    rate: Number | None
    contention: float | None
    coherency: float | None
    error: float | None

    @classmethod
    def of(cls, law: Law, error: float | None) -> Self:
        """The record of `law`."""
        return cls(
            "universal scalability law",
            rounded(law.rate),
            finite(law.contention),
            finite(law.coherency),
            finite(error),
        )


@dataclass(frozen=True, slots=True)
class SizingRecord:
    """What a sweep of pool sizes allows to be said; an infinite peak is null."""

    recommended: Count | None
    knee: Count | None
    knee_interval: tuple[Count | None, Count | None]
    peak_interval: tuple[Number | None, Number | None]
    law: LawRecord | None
    why_not: Text
    statement: tuple[Text, ...]

    @classmethod
    def of(cls, sizing: Sizing) -> Self:
        """The record of `sizing`."""
        return cls(
            recommended=None if sizing.why_not else sizing.knee,
            knee=sizing.knee,
            knee_interval=(sizing.knee_low, sizing.knee_high),
            peak_interval=(rounded(sizing.peak_low), rounded(sizing.peak_high)),
            law=None if sizing.law is None else LawRecord.of(sizing.law, sizing.fit_error),
            why_not=sizing.why_not,
            statement=tuple(statement(sizing)),
        )


@dataclass(frozen=True, slots=True)
class FloorRecord:
    """One driver at one concurrency against the null server; names as in `ClientFloor`."""

    driver: Text
    concurrency: Count
    ok: Count
    failed: Count
    throughput: Number
    latency_ms: SummaryRecord
    histogram: Histogram
    cpu_us_per_op: Number | None
    cpu_percent: Number
    server_cpu_percent: Number

    @classmethod
    def of(cls, floor: ClientFloor) -> Self:
        """The record of `floor`."""
        return record(
            cls,
            floor,
            ok=floor.latency.count,
            latency_ms=SummaryRecord.of(floor.latency),
            histogram=floor.latency.bucketed(),
            cpu_percent=figure(floor.client_cpu_share * 100),
            server_cpu_percent=figure(floor.server_cpu_share * 100),
        )


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """What the client costs by itself; names as in `Calibration`."""

    operation: Text
    seconds: Number
    floors: tuple[FloorRecord, ...]

    @classmethod
    def of(cls, calibration: Calibration) -> Self:
        """The record of `calibration`."""
        floors = tuple(map(FloorRecord.of, calibration.floors))
        return cls(calibration.operation, figure(calibration.seconds), floors)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """The machine of the generators.

    Attributes:
        cpus: cores that may be used, by affinity and quota; machine_cpus: all there are.
        versions: of the packages that take part, None where one is not installed.
    """

    cpus: Count | None = None
    machine_cpus: Count | None = None
    cpu_quota: Number | None = None
    platform: Text = "?"
    python: Text = "?"
    event_loop: Text = ""
    versions: Mapping[Name, Text | None] = field(default_factory=dict)

    @classmethod
    def here(cls, runs: Sequence[RunRecord]) -> Self:
        """This machine."""
        return cls(
            cpus=max(1, int(usable_cores())),
            machine_cpus=os.cpu_count(),
            cpu_quota=rounded(cpu_quota()),
            platform=platform.platform(),
            python=platform.python_version(),
            event_loop=runs[0].client.event_loop if runs else "",
            versions={package: _version(package) for package in _VERSIONED},
        )


def _version(package: str) -> str | None:
    # Only who writes a result pays for it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRecord:
    """A result file. `source` is its path, or what stands for it in messages, and no part of it.

    Attributes:
        target: the first of `targets`, "" without any.
        find_max, sizing, contest, calibration: only in the file of a session that has them.
    """

    source: str = ""
    schema: Text = SCHEMA
    tool: Text
    name: Text
    started_at: datetime
    finished_at: datetime | None = None
    interrupted: bool
    argv: tuple[Text, ...] = ()
    target: Text
    targets: tuple[Text, ...]
    server: Mapping[Name, Text]
    thresholds: tuple[ThresholdOutcome, ...] = ()
    host: HostRecord = field(default_factory=HostRecord)
    config: Settings = field(default_factory=dict)
    runs: tuple[RunRecord, ...]
    find_max: SearchRecord | None = None
    sizing: SizingRecord | None = None
    contest: Contest | None = None
    calibration: CalibrationRecord | None = None

    @property
    def title(self) -> str:
        """The user's name for it, or else the file's."""
        return self.name or Path(self.source).stem


def from_session(session: Session) -> ResultRecord:
    """What the file of `session` says."""
    runs = tuple(map(RunRecord.of, session.runs))
    return ResultRecord(
        source="this run",
        tool=session.tool,
        name=session.name,
        started_at=session.started_at,
        finished_at=session.finished_at,
        interrupted=session.interrupted,
        argv=session.argv,
        target=session.targets[0] if session.targets else "",
        targets=session.targets,
        server=dict(session.server),
        thresholds=tuple(session.thresholds),
        host=HostRecord.here(runs),
        config=finite_settings(session.config),
        runs=runs,
        find_max=None if session.find_max is None else SearchRecord.of(session.find_max),
        sizing=None if session.sizing is None else SizingRecord.of(session.sizing),
        contest=session.contest,
        calibration=None if session.calibration is None else CalibrationRecord.of(session.calibration),
    )
