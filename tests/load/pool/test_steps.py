"""How many clients are at work when."""

from dataclasses import replace
from itertools import pairwise

import pytest

from pool_bench.load.pool.steps import ClientStep, client_steps
from pool_bench.load.spec import (
    MEANINGS,
    SCENARIO_NAMES,
    PoolSpec,
    ScenarioName,
)
from pool_bench.targets.postgres import parse_target

SPEC = PoolSpec(
    targets=(parse_target("postgresql://127.0.0.1/db", env={}, default_user="u"),),
    pool="reference",
    scenario="query",
    clients=100,
    size=10,
    duration_s=9.0,
)


@pytest.mark.parametrize("scenario", SCENARIO_NAMES)
@pytest.mark.parametrize("clients", [1, 3, 100])
def test_steps_ascend_in_time_within_the_run_and_reach_everybody(
    scenario: ScenarioName, clients: int
) -> None:
    steps = client_steps(replace(SPEC, scenario=scenario, clients=clients))
    assert steps[0].t == 0
    assert all(a.t < b.t < SPEC.duration_s for a, b in pairwise(steps))
    assert max(step.clients for step in steps) == clients
    assert min(step.clients for step in steps) >= 1
    assert scenario in MEANINGS


def test_a_ramp_only_climbs_and_a_spike_comes_down_again() -> None:
    ramp = client_steps(replace(SPEC, scenario="ramp"))
    assert [step.clients for step in ramp] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert client_steps(replace(SPEC, scenario="spike")) == (
        ClientStep(0.0, 10),
        ClientStep(3.0, 100),
        ClientStep(6.0, 10),
    )


def test_a_spec_prints_no_password() -> None:
    target = parse_target("postgresql://u:s3cr3t@127.0.0.1/db", env={}, default_user="u")
    assert "s3cr3t" not in repr(replace(SPEC, targets=(target,)))
