"""All that one command did, of which the result file and the reports are made. Plain data, no I/O."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pool_bench.analysis.scalability import Sizing
from pool_bench.results.parts import Count, Number, Text
from pool_bench.stats.calibration import Calibration
from pool_bench.stats.runs import RunResult


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One trial of a search, as it is in the result file: which of the runs it was, and how it went.

    Attributes:
        run: index in `Session.runs`.
        rate: operations that were due a second.
        kind: what it was for: raise, lower, narrow or confirm.
        passed: whether all objectives were met.
        breaches: those that were not, in words.
        client: how the client was at a limit, in words; None where it was not.
        client_to_blame: whether that can account for what was missed.
    """

    run: Count
    rate: Number
    kind: Text
    passed: bool
    breaches: tuple[Text, ...] = ()
    client: Text | None = None
    client_to_blame: bool = False


class Limit(StrEnum):
    """What kept a search from a higher rate."""

    SERVER = "server"
    CLIENT = "client"
    MAX_RATE = "max_rate"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class SearchResult:
    """A search for the highest rate that meets objectives.

    Attributes:
        slo: the objectives as they were read.
        latency_limit_ms: the limit on a latency among them, for pictures; None where there is none.
        tolerance: how far, as a share, the true maximum may be above what was found.
        steps: every trial, in order.
        found: the confirmed rate, operations a second; None where none met the objectives.
        limit: what kept it from a higher rate, None while it is under way; `why` says it in words.
    """

    slo: str
    latency_limit_ms: float | None
    tolerance: float
    steps: list[SearchStep] = field(default_factory=list)
    found: float | None = None
    limit: Limit | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdOutcome:
    """What came of one threshold in one run, as it is in the result file.

    Attributes:
        text: the threshold as the user wrote it.
        field: the field of the run it is about, a dotted path.
        value: the field's value in its own unit, None where the run has none.
        limit: what it is compared with, in the same unit.
        unit: of value and limit: `ms`, `s`, `us`, `/s`, "" (a count), `share` (of 1), `%`, `MB`, `B`,
            `true/false` (1 and 0).
        ok: it held; without a value it did not.
        run: the run's label; `round` its repetition.
    """

    text: Text
    field: Text
    value: float | None
    limit: float
    unit: Text = ""
    ok: bool
    run: Text
    round: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A setting of a pool beside the one with the most operations, as it is in the result file.

    Attributes:
        name: the setting, such as `reference 5-10`.
        throughput: its operations a second.
        change, low, high: how its throughput differs from the other's, a share of that, and the interval
            of it; None where nothing can be said.
        behind: whether the whole interval says that it is slower.
    """

    name: Text
    throughput: Number
    change: Number | None
    low: Number | None
    high: Number | None
    behind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Settings of a pool compared with each other, as they are in the result file.

    Attributes:
        best: the one with the most operations, "" where none had any.
        throughput: its operations a second.
        won: whether all others are behind it.
        confidence: that all intervals hold together, 0 to 1.
        rivals: the others, the fastest first.
        left_out: settings that were not compared, and why, in sentences.
        why_not: why no interval is to be believed, "" where they are.
    """

    best: Text
    throughput: Number
    won: bool
    confidence: Number
    rivals: tuple[Rival, ...]
    left_out: tuple[Text, ...] = ()
    why_not: Text = ""


@dataclass(slots=True)
class Session:
    """All that one command did: what the result file holds.

    Attributes:
        tool: the command, such as `pg-connection-bench`.
        name: the user's name for it, "" without one.
        started_at, finished_at: UTC.
        argv: the command line with secrets removed.
        target: the first target; `targets` all of them; no passwords.
        server: product, version and what else the server said, {} where it could not be asked.
        config: the settings in force.
        calibration: what the client costs by itself, None where that was not measured.
        find_max: the search that the runs are the trials of, None where there was none.
        thresholds: what came of each threshold in each run.
        sizing: what a sweep of pool sizes allows to be said, in a session that is one.
        contest: the same of settings that were compared.
    """

    tool: str
    name: str
    started_at: datetime
    argv: tuple[str, ...]
    targets: tuple[str, ...]
    server: dict[str, str] = field(default_factory=dict)
    config: dict[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)
    runs: list[RunResult] = field(default_factory=list)
    finished_at: datetime | None = None
    interrupted: bool = False
    calibration: Calibration | None = None
    find_max: SearchResult | None = None
    thresholds: list[ThresholdOutcome] = field(default_factory=list)
    sizing: Sizing | None = None
    contest: Contest | None = None
