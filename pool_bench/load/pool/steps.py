"""How many clients of a pool are at work when, as its scenario has it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pool_bench.load.spec import PoolSpec

_RAMP_STEPS: Final = 10
_SPIKE_BASE: Final = 0.1


@dataclass(frozen=True, slots=True)
class ClientStep:
    """From `t` seconds after measuring began on, `clients` are at work."""

    t: float
    clients: int


def client_steps(spec: PoolSpec) -> tuple[ClientStep, ...]:
    """How many clients are at work when: ascending steps, the first at 0, which is also the warm-up's."""
    everybody = spec.clients
    if spec.scenario == "ramp":
        shares = [(step + 1) / _RAMP_STEPS for step in range(_RAMP_STEPS)]
        steps = [
            ClientStep(spec.duration_s * step / _RAMP_STEPS, max(1, round(everybody * share)))
            for step, share in enumerate(shares)
        ]
        # Fewer clients than steps: some steps add nobody.
        return (steps[0], *(b for a, b in pairwise(steps) if b.clients > a.clients))
    if spec.scenario == "spike":
        few = max(1, round(everybody * _SPIKE_BASE))
        third = spec.duration_s / 3
        return (ClientStep(0.0, few), ClientStep(third, everybody), ClientStep(2 * third, few))
    return (ClientStep(0.0, everybody),)
