"""How well a pool does, by rules that one can read; without I/O and without a clock.

Life-cycle states say what a pool does with callers; these say whether it does it well:

    critical   no connection is left, and the breaker is open or `critical_failures` connects in a row failed;
               or at least `critical_utilisation` of `max_size` was leased of late
    degraded   a connection is left, and the breaker is open; or the breaker is half open;
               or `degraded_failures` connects in a row failed;
               or at least `degraded_utilisation` of `max_size` was leased of late
    healthy    none of these

"Of late" is the mean of one look a second over the last ten, so that a burst changes nothing. The first rule
that holds gives the reason.
"""

from dataclasses import dataclass
from enum import StrEnum

from pool_bench.pool.config import HealthConfig
from pool_bench.pool.retry import BreakerState


class HealthState(StrEnum):
    """How well a pool does."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It serves its callers, and something is wrong."""
    CRITICAL = "critical"
    """Callers fail, or wait for others as a rule."""


@dataclass(frozen=True, slots=True)
class Health:
    """A state, and why.

    Attributes:
        reason: the rule that holds, in words; empty where none does.
    """

    state: HealthState = HealthState.HEALTHY
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the rules look at.

    Attributes:
        breaker: the circuit breaker.
        failures: connects in a row that failed.
        live: connections that are, or will be, of use.
        utilisation: share of `max_size` that was leased of late, 0 to 1.
    """

    breaker: BreakerState
    failures: int
    live: int
    utilisation: float


def assess(signs: Signs, rules: HealthConfig) -> Health:
    """The state that `signs` amount to, and the rule that says so."""
    left = f"connections left: {signs.live}"
    failing = f"connects that failed in a row: {signs.failures}; {left}"
    busy = f"{signs.utilisation:.0%} of the connections were leased over the last ten seconds"
    is_open = signs.breaker is BreakerState.OPEN
    judged = (
        (HealthState.CRITICAL, is_open and not signs.live, f"the circuit breaker is open; {left}"),
        (HealthState.CRITICAL, signs.failures >= rules.critical_failures and not signs.live, failing),
        (HealthState.CRITICAL, signs.utilisation >= rules.critical_utilisation, busy),
        (HealthState.DEGRADED, is_open, f"the circuit breaker is open; {left}"),
        (HealthState.DEGRADED, signs.breaker is BreakerState.HALF_OPEN, "the circuit breaker is half open"),
        (HealthState.DEGRADED, signs.failures >= rules.degraded_failures, failing),
        (HealthState.DEGRADED, signs.utilisation >= rules.degraded_utilisation, busy),
    )
    return next((Health(state, reason) for state, holds, reason in judged if holds), Health())
