"""What a rate must meet to count as sustained: `p99<50ms,errors<0.1%`, read and held against statistics.

Fields are percentiles and the maximum of the response time (`p50` to `p99.99`, `max`), and shares: `errors`
of what began (failed or unfinished), `errors.KIND` of one kind of failure, `dropped` of what was due.
"""

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from pool_bench.errors import FailureKind
from pool_bench.stats.histogram import PERCENTILES
from pool_bench.stats.operations import BenchStats
from pool_bench.units import format_duration, parse_duration, parse_share

_PERCENTILE_FIELDS: Final = {f"p{percentile:g}": percentile for percentile in PERCENTILES} | {"max": 100.0}
_SHARE_FIELDS: Final = ("errors", "dropped", *(f"errors.{kind}" for kind in FailureKind))
_CONDITION: Final = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*(<=|<)\s*(\S+(?:\s*\S+)?)\s*")
# What nobody would call sustained, whatever else was asked for.
_ALWAYS: Final = (("errors", "errors<1%"), ("dropped", "dropped<1%"))
# A percentile rests on something where so many samples are beyond it.
_BEYOND: Final = 10
_FEWEST_SAMPLES: Final = 100


@dataclass(frozen=True, slots=True)
class Objective:
    """One condition.

    Attributes:
        field: what is bounded.
        sign: whether the limit itself is allowed.
        limit: milliseconds for latencies, 0 to 1 for shares.
    """

    field: str
    sign: Literal["<", "<="]
    limit: float

    def __str__(self) -> str:
        limit = f"{self.limit:.10g}ms" if self.is_latency else f"{self.limit * 100:.10g}%"
        return f"{self.field}{self.sign}{limit}"

    @property
    def is_latency(self) -> bool:
        """Whether the limit is milliseconds."""
        return self.field in _PERCENTILE_FIELDS

    def value_text(self, value: float | None) -> str:
        """A value of this field as a person writes it."""
        if value is None:
            return "nothing"
        return format_duration(value / 1e3) if self.is_latency else f"{value * 100:.3g}%"

    def value_of(self, stats: BenchStats) -> float | None:
        """The field's value, None where there is none: no success, or nothing begun."""
        if self.is_latency:
            return stats.latency.percentile_ms(_PERCENTILE_FIELDS[self.field])
        if self.field == "dropped":
            return stats.dropped / stats.offered if stats.offered else None
        if not stats.attempts:
            return None
        if self.field == "errors":
            return (stats.failed + stats.unfinished) / stats.attempts
        kind = FailureKind(self.field.removeprefix("errors."))
        return stats.errors.get(kind, 0) / stats.attempts

    def is_met(self, value: float | None) -> bool:
        """Whether a value is within the limit; one that is missing is not."""
        if value is None:
            return False
        return value <= self.limit if self.sign == "<=" else value < self.limit

    @property
    def samples(self) -> int:
        """Operations that it takes to judge it: ten beyond a percentile; one failure must not decide."""
        if self.field == "max":
            return _FEWEST_SAMPLES
        share = 1 - _PERCENTILE_FIELDS[self.field] / 100 if self.is_latency else self.limit
        wanted = (_BEYOND if self.is_latency else 1) / share if share > 0 else 0.0
        return max(math.ceil(round(wanted, 6)), _FEWEST_SAMPLES)


@dataclass(frozen=True, slots=True)
class Breach:
    """A condition that was not met, and the value that broke it."""

    objective: Objective
    value: float | None

    def __str__(self) -> str:
        field = self.objective.field
        return f"{field} {self.objective.value_text(self.value)}, wanted {self.objective}"


@dataclass(frozen=True, slots=True)
class Objectives:
    """All conditions together."""

    conditions: tuple[Objective, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.conditions))

    @property
    def samples(self) -> int:
        """Operations that it takes to judge all of them."""
        return max(condition.samples for condition in self.conditions)

    def breaches(self, stats: BenchStats) -> tuple[Breach, ...]:
        """The conditions that `stats` does not meet."""
        values = ((condition, condition.value_of(stats)) for condition in self.conditions)
        return tuple(Breach(one, value) for one, value in values if not one.is_met(value))


def parse_objectives(text: str) -> Objectives:
    """Read `p99<50ms,errors<0.1%`.

    Where they say nothing of `errors` or `dropped`, less than 1 % of each is asked for, too.

    Raises:
        ValueError: a condition cannot be read; says which.
    """
    conditions = [_parse_one(part) for part in text.split(",")]
    known = {condition.field for condition in conditions}
    conditions += [_parse_one(default) for field, default in _ALWAYS if field not in known]
    return Objectives(tuple(conditions))


def _parse_one(text: str) -> Objective:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text.strip()!r} is not a condition (write p99<50ms or errors<0.1%)")
    name, sign, value = match[1], match[2], match[3]
    if name in _PERCENTILE_FIELDS:
        if not value[-1].isalpha():
            raise ValueError(f"{text.strip()!r} has no unit (write us, ms or s)")
        limit = parse_duration(value) * 1e3
    elif name in _SHARE_FIELDS:
        limit = parse_share(value)
    else:
        fields = ", ".join((*_PERCENTILE_FIELDS, "errors", "errors.KIND", "dropped"))
        raise ValueError(f"unknown field {name!r} (choose from {fields})")
    if limit == 0 and sign == "<":
        raise ValueError(f"{text.strip()!r} can never be met")
    return Objective(name, "<=" if sign == "<=" else "<", limit)
