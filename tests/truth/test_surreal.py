"""What is reported of SurrealDB's drivers against what a server of known behaviour says it did."""

from contextlib import closing
from typing import Literal

import numpy as np
import pytest

from pool_bench.drivers.base import DriverName
from pool_bench.errors import FailureKind, Phase
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.scripted.behaviour import Behaviour, Bimodal, Fixed
from pool_bench.servers.scripted.server import ScriptedSurreal
from pool_bench.stats.runs import RunResult
from tests.support.measuring import Enough, Measured, attempts, run_until

Scheme = Literal["ws", "http"]

ways = pytest.mark.parametrize(
    ("driver", "scheme"),
    [("surreal", "ws"), ("surreal", "http"), ("surrealdb", "ws")],
)


def measure(
    behaviour: Behaviour,
    driver: DriverName,
    scheme: Scheme = "ws",
    *,
    enough: Enough,
    concurrency: int = 5,
) -> Measured:
    """Run the bench against a server of this behaviour; without a warm-up, so that every operation counts."""
    with ScriptedSurreal(behaviour) as server, closing(StopSwitch()) as stop:
        spec = ConnectSpec(
            targets=(server.target(scheme),),
            driver=driver,
            concurrency=concurrency,
            warmup_s=0.0,
            duration_s=0.0,
            grace_s=30.0,
            tick_s=0.05,
            query="RETURN 1",
            seed=1,
        )
        run = Run(spec, "truth", stop)
        run_until(enough, run, stop)
        return Measured(run.result, server.truth())


@ways
def test_every_operation_is_counted_on_both_sides(driver: DriverName, scheme: Scheme) -> None:
    measured = measure(Behaviour(), driver, scheme, enough=attempts(50))
    run, truth = measured.run, measured.truth
    assert run.total.failed == run.total.unfinished == truth.abandoned == 0
    assert run.total.ok == truth.served == truth.accepted == truth.queries
    if driver == "surreal":
        for phase in (Phase.SIGNIN, Phase.USE, Phase.QUERY):
            assert run.total.phases[phase].count == truth.phases[phase].count == run.total.ok


@ways
def test_no_percentile_is_below_what_the_server_took(driver: DriverName, scheme: Scheme) -> None:
    behaviour = Behaviour(auth=Bimodal(0.005, 0.06, 0.2))
    measured = measure(behaviour, driver, scheme, enough=attempts(220))
    run, truth = measured.run, measured.truth
    # All of the server's delay, and it ends before its answer is sent: no operation can be shorter.
    delays = truth.phases[Phase.SIGNIN]
    assert delays.count == run.total.ok
    for name in (50, 75, 90, 95):
        (mine,), (true,) = (one.percentiles_ms((name,)) for one in (run.total.latency, delays))
        assert mine is not None
        assert true is not None
        assert mine >= true
    if driver == "surreal":
        # What was slow at the server was so at the client, and whatever held that up can only add to it.
        both = (run.total.phases[Phase.SIGNIN], truth.phases[Phase.SIGNIN])
        slow, truly = (one.count - one.binned(np.array([30.0]))[0] for one in both)
        assert slow >= truly > 0


@pytest.mark.parametrize("driver", ["surreal", "surrealdb"])
def test_resets_are_counted_one_by_one(driver: DriverName) -> None:
    measured = measure(Behaviour(auth=Fixed(0.002), reset_share=0.05), driver, enough=attempts(60))
    run, truth = measured.run, measured.truth
    assert truth.resets == truth.accepted // 20 > 0
    assert run.total.failed == truth.resets
    assert set(run.total.errors) <= {FailureKind.RESET, FailureKind.CLOSED}
    assert run.total.ok == truth.served == truth.accepted - truth.resets


@pytest.mark.parametrize("driver", ["surreal", "surrealdb"])
def test_a_cap_on_connections_is_seen_as_one_refusal_each(driver: DriverName) -> None:
    def both(result: RunResult) -> bool:
        return result.total.ok >= 20 and result.total.failed >= 10

    behaviour = Behaviour(auth=Fixed(0.02), max_connections=3)
    measured = measure(behaviour, driver, concurrency=6, enough=both)
    run, truth = measured.run, measured.truth
    assert truth.open_peak == 3
    assert run.total.errors == {FailureKind.TOO_MANY_CONNECTIONS: truth.refused}
    assert truth.refused > 0
