"""Thresholds such as `p99<20ms`: read before a run, judged after it, watched during it.

A threshold names a field of one entry of `runs` in the result file by its dotted path, or by a short name
(`FIELDS_HELP`). Which fields there are is read off an entry written by `report.results` itself, so that
this cannot know others than the file has. A field's unit follows from its name (`latency_ms`, `cpu_s`,
`rss_mb`, `success_rate`); a limit with a unit is converted, one without is in the field's own.
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pool_bench.errors import FailureKind, Phase, UsageError
from pool_bench.results.session import ThresholdOutcome
from pool_bench.results.write import JsonValue
from pool_bench.stats.runs import RunResult, Snapshot, Stage

OPTION: Final = "--threshold"
FIELDS_HELP: Final = (
    "p50 to p99.99, min, max, mean (of latency_ms), throughput, success, failed, errors, errors.KIND, "
    "phases.PHASE.p99, held, dropped, keepalive.p99, or any path in an entry of `runs`"
)


class Unit(StrEnum):
    """The unit a field is in."""

    MS = "ms"
    S = "s"
    US = "us"
    RATE = "/s"
    COUNT = ""
    SHARE = "share"
    PERCENT = "%"
    MB = "MB"
    BYTES = "B"
    FLAG = "true/false"


_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_TEXT: Final = re.compile(
    r"\s*([A-Za-z][\w.\-]*)\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?|true|false)\s*(\S*)\s*",
    re.IGNORECASE | re.ASCII,
)

_TIMES: Final = {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_BYTES: Final = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30}
# What a limit may be written in: how much one of it is of the field's own unit.
_WRITTEN: Final[Mapping[Unit, Mapping[str, float]]] = {
    Unit.MS: {name: size * 1e3 for name, size in _TIMES.items()},
    Unit.S: _TIMES,
    Unit.US: {name: size * 1e6 for name, size in _TIMES.items()},
    Unit.RATE: {"/s": 1.0, "/m": 1 / 60, "/h": 1 / 3600},
    Unit.COUNT: {},
    Unit.SHARE: {"%": 0.01},
    Unit.PERCENT: {"%": 1.0},
    Unit.MB: {name: size / 2**20 for name, size in _BYTES.items()},
    Unit.BYTES: {name: float(size) for name, size in _BYTES.items()},
    Unit.FLAG: {},
}
_SUFFIXES: Final = (
    ("_ms", Unit.MS),
    ("_us", Unit.US),
    ("_us_per_op", Unit.US),
    ("_s", Unit.S),
    ("_mb", Unit.MB),
    ("_bytes", Unit.BYTES),
    ("_bytes_each", Unit.BYTES),
    ("_percent", Unit.PERCENT),
    ("_rate", Unit.SHARE),
    ("_share", Unit.SHARE),
)
_SUMMARY_NAMES: Final = ("min", "mean", "stdev", "p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99", "max")
_SHORT: Final[Mapping[str, str]] = {
    **{name: f"latency_ms.{name}" for name in _SUMMARY_NAMES},
    "errors": "failed",
    "success": "success_rate",
    "held": "hold.held_peak",
}
_SHORT_PARTS: Final[Mapping[str, str]] = {
    "latency": "latency_ms",
    "service": "service_ms",
    "phases": "phases_ms",
    "failure": "failure_ms",
    "keepalive": "hold.keepalive_ms",
    "active": "hold.active_ms",
}
# Counts that a percentage makes shares of something: of all operations begun, or all connections opened.
_PARTS_OF_ATTEMPTS: Final = ("failed", "unfinished", "errors")
_DROPPED: Final = "hold.dropped"


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition on one field.

    Attributes:
        text: as the user wrote it.
        field: the dotted path.
        unit: of the value and the limit.
        compare: one of `<`, `<=`, `>`, `>=`, `==`, `!=`.
        limit: in the field's unit.
        as_share: the field is a count, and the limit a share (0 to 1) of all operations.
    """

    text: str
    field: str
    unit: Unit
    compare: str
    limit: float
    as_share: bool = False

    def holds(self, value: float | None) -> bool:
        """Whether `value` meets the condition; no value never does."""
        return value is not None and _OPERATORS[self.compare](value, self.limit)


def read_thresholds(texts: Sequence[str], known: Mapping[str, Unit]) -> tuple[Threshold, ...]:
    """Read thresholds of fields that are `known`.

    Raises:
        UsageError: one is malformed, of an unknown field, or in a unit that its field cannot have.
    """
    return tuple(_read(text, known) for text in texts)


def _read(text: str, known: Mapping[str, Unit]) -> Threshold:
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{OPTION}: {text!r} is not a condition (write p99<20ms, throughput>400 or errors==0)"
        )
    name, compare, number, suffix = match.groups()
    field = _full_name(name, known)
    unit = known.get(field)
    if unit is None:
        raise UsageError(f"{OPTION}: {text!r} names no field of this tool's results; there are {FIELDS_HELP}")
    if number.lower() in ("true", "false"):
        if unit is not Unit.FLAG or suffix or compare not in ("==", "!="):
            raise UsageError(
                f"{OPTION}: {text!r}: true and false go with == and != and a field that is either"
            )
        return Threshold(text, field, unit, compare, float(number.lower() == "true"))
    if unit is Unit.FLAG:
        raise UsageError(f"{OPTION}: {text!r}: {field} is true or false, no number")
    limit = float(number)
    if not math.isfinite(limit):
        raise UsageError(f"{OPTION}: {text!r}: {number} is too large a number")
    as_share = suffix == "%" and (field.split(".")[0] in _PARTS_OF_ATTEMPTS or field == _DROPPED)
    if as_share:
        return Threshold(text, field, Unit.SHARE, compare, limit / 100, as_share=True)
    if suffix:
        factor = _WRITTEN[unit].get(suffix.lower())
        if factor is None:
            raise UsageError(f"{OPTION}: {text!r}: {field} {_units_words(unit)}, not in {suffix!r}")
        limit *= factor
    return Threshold(text, field, unit, compare, limit)


def _units_words(unit: Unit) -> str:
    names = [name for name in _WRITTEN[unit] if name.isascii()]
    return f"is in {' or '.join(names)}" if names else "is a count"


def _full_name(name: str, known: Mapping[str, Unit]) -> str:
    # p99.9 is written with a point, which in a path is something else.
    plain = re.sub(r"\bp99\.(9+)\b", r"p99_\1", name)
    if plain in known and plain not in _SHORT:
        return plain
    if plain in _SHORT:
        return _SHORT[plain]
    if plain == "dropped" and _DROPPED in known:
        return _DROPPED
    first, _, rest = plain.partition(".")
    return f"{_SHORT_PARTS[first]}.{rest}" if first in _SHORT_PARTS and rest else plain


def known_fields(*, hold: bool = False, pool: bool = False) -> dict[str, Unit]:
    """All fields of an entry of `runs` that can be compared, and their units.

    Args:
        hold: of a tool that holds connections; else of one that measures in a closed or an open loop.
        pool: of a tool that puts pools under load.
    """
    from pool_bench.results.write import numbers_of
    from pool_bench.stats.checkouts import CheckoutStats
    from pool_bench.stats.histogram import Histogram
    from pool_bench.stats.holds import HoldStats
    from pool_bench.stats.operations import BenchStats
    from pool_bench.stats.runs import PoolSetting
    from pool_bench.stats.server import PoolerMemory, ServerMemory, ServerObservation

    moments = ("before", "peak", "after")
    side = ServerObservation(
        memory={moment: ServerMemory(0, 0, 0, None, 0) for moment in moments},
        pooler_memory={moment: PoolerMemory(0, 0, 0) for moment in moments},
    )
    run = RunResult(
        label="",
        concurrency=0,
        driver="",
        targets=(),
        total=BenchStats(phases={phase: Histogram() for phase in Phase}),
        hold=HoldStats() if hold else None,
        server_side=side,
        rate=None if hold else 0.0,
        checkout=CheckoutStats(dead_met=0, leaked=0, left_open=0, connection_bytes=0, waiter_bytes=0)
        if pool
        else None,
        pool=PoolSetting(
            name="", scenario="", clients=0, size=0, reset="", query="", hold_s=0, timeout_s=0, round=1
        )
        if pool
        else None,
    )
    fields = {
        path: _unit_of(path, value)
        for path, value in _leaves(numbers_of(run), "")
        if "_histogram" not in path
    }
    for kind in FailureKind:
        fields[f"errors.{kind}"] = Unit.COUNT
        if hold:
            fields[f"hold.reconnects.errors.{kind}"] = Unit.COUNT
    return fields


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    """Numbers, flags, and what has no value yet, with their paths; no text and nothing in lists."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, bool | int | float) or (value is None and path not in _TEXTS):
        yield path, value


# Empty in a run that has not been: text, which is nothing to compare.
_TEXTS: Final = ("client.why", "round")


def _unit_of(path: str, value: JsonValue) -> Unit:
    if isinstance(value, bool):
        return Unit.FLAG
    if path in ("throughput", "rate"):
        return Unit.RATE
    # The unit may be in the name of the object: latency_ms.p99.
    for part in reversed(path.split(".")):
        for suffix, unit in _SUFFIXES:
            if part.endswith(suffix):
                return unit
    return Unit.COUNT


def value_of(threshold: Threshold, run: RunResult) -> float | None:
    """The value of a threshold's field in `run`, in the threshold's unit; None where it has none."""
    from pool_bench.results.write import numbers_of

    return value_in(threshold, numbers_of(run))


def value_in(threshold: Threshold, content: Mapping[str, JsonValue]) -> float | None:
    """As `value_of`, of an entry of `runs` as it is in the file."""
    found: JsonValue = content
    for part in threshold.field.split("."):
        if not isinstance(found, Mapping):
            return None
        # A kind of failure that never came is not in the file: there were none.
        found = found.get(part, 0 if "errors" in threshold.field else None)
    if not isinstance(found, bool | int | float):
        return None
    if not threshold.as_share:
        return float(found)
    whole = _connections(content) if threshold.field == _DROPPED else _attempts(content)
    return found / whole if whole else None


def _attempts(content: Mapping[str, JsonValue]) -> float:
    counts = (content[name] for name in ("ok", "failed", "unfinished"))
    return float(sum(count for count in counts if isinstance(count, int)))


def _connections(content: Mapping[str, JsonValue]) -> float:
    hold = content.get("hold")
    counts = (hold[name] for name in ("opened", "reopened")) if isinstance(hold, Mapping) else ()
    return float(sum(count for count in counts if isinstance(count, int)))


def judge_run(thresholds: Sequence[Threshold], run: RunResult) -> list[ThresholdOutcome]:
    """What came of each threshold in `run`."""
    from pool_bench.results.write import numbers_of

    if not thresholds:
        return []
    content = numbers_of(run)
    outcomes = []
    for threshold in thresholds:
        value = value_in(threshold, content)
        outcomes.append(
            ThresholdOutcome(
                text=threshold.text,
                field=threshold.field,
                value=value,
                limit=threshold.limit,
                unit=str(threshold.unit),
                ok=threshold.holds(value),
                run=run.label,
                round=run.round,
            )
        )
    return outcomes


class Watch:
    """Says during a run when a threshold can no longer hold, or has failed for long enough.

    - A count with an upper limit (`errors==0`, `errors.timeout<5`): at once when it is passed, since counts
      only grow. One with a lower limit can be reached until the end, and never ends a run.
    - A share of errors, `success`: as soon as it would fail with one failure less too, and 20 operations
      have ended.
    - A percentile or any other duration: when it has failed at three looks in a row (a look each second),
      after 5 s of measuring, with ten operations beyond the percentile.
    - Throughput: likewise, at three looks in a row after 5 s of measuring.
    - All else (memory, CPU, the server's side) is known at the end only.
    """

    FEWEST_ENDED: Final = 20
    LOOKS: Final = 3
    SETTLED_S: Final = 5.0
    BEYOND: Final = 10

    def __init__(self, thresholds: Sequence[Threshold]) -> None:
        self._thresholds = tuple(thresholds)
        self._failing = dict.fromkeys(self._thresholds, 0)

    def look(self, run: RunResult, snapshot: Snapshot) -> Threshold | None:
        """The first threshold that ends the run, None where it may go on.

        Args:
            run: everything measured so far, `snapshot` included.
            snapshot: its latest second.
        """
        if snapshot.stage not in (Stage.MEASURE, Stage.OPEN, Stage.HOLD) or not self._thresholds:
            return None
        from pool_bench.results.write import numbers_of

        content = numbers_of(run)
        return next(
            (threshold for threshold in self._thresholds if self._is_lost(threshold, run, content)), None
        )

    def _is_lost(self, threshold: Threshold, run: RunResult, content: Mapping[str, JsonValue]) -> bool:
        value = value_in(threshold, content)
        if value is None or threshold.holds(value):
            self._failing[threshold] = 0
            return False
        if threshold.as_share or threshold.field == "success_rate":
            ended = _connections(content) if threshold.field == _DROPPED else _attempts(content)
            better = value + (1 if threshold.field == "success_rate" else -1) / ended if ended else value
            return ended >= self.FEWEST_ENDED and not threshold.holds(better)
        if threshold.unit is Unit.COUNT:
            return threshold.compare in ("<", "<=") or (threshold.compare == "==" and value > threshold.limit)
        if threshold.unit not in (Unit.MS, Unit.RATE) or run.duration_s < self.SETTLED_S:
            return False
        name = threshold.field.rpartition(".")[2]
        if re.fullmatch(r"p\d+(_9+)?", name):
            beyond = 1 - float(name[1:].replace("_", ".")) / 100
            if run.total.ok * beyond < self.BEYOND:
                return False
        self._failing[threshold] += 1
        return self._failing[threshold] >= self.LOOKS
