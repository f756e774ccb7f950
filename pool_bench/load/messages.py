"""What a generator says to whoever started it."""

from dataclasses import dataclass
from typing import Literal

from pool_bench.stats.runs import Snapshot


@dataclass(frozen=True, slots=True)
class Failure:
    """What a generator sends when it cannot go on."""

    message: str
    usage: bool


@dataclass(frozen=True, slots=True)
class Hello:
    """What a generator sends first."""

    event_loop: str


Point = Literal["ready", "opened"]
"""Where several generators of one run wait for each other: before anything begins, and before they hold."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What one of several generators sends when it has come to where it waits for the others."""

    point: Point


@dataclass(frozen=True, slots=True)
class Started:
    """What one of several generators sends when it begins: how long after the moment it was told, ns."""

    late_ns: int


Message = Snapshot | Failure | Hello | Reached | Started
