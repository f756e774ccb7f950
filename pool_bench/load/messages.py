"""What a generator says to whoever started it."""

from dataclasses import dataclass

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


Message = Snapshot | Failure | Hello
