"""What is derived from a finished run."""

import numpy as np
import pytest

from pool_bench.errors import FailureKind, Phase
from pool_bench.stats.generators import GeneratorPart
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureKey
from pool_bench.stats.runs import RunResult


def run(cpu_s: float = 0.5, lag_ms: int = 1) -> RunResult:
    lag = Histogram()
    lag.record(np.full(100, lag_ms * 1_000_000, dtype=np.int64))
    total = BenchStats(ok=80, failed=20)
    total.count_failure(FailureKey(FailureKind.REFUSED, Phase.TCP), 20, "no")
    client = ClientUsage(cpu_s=cpu_s, wall_s=1.0, lag=lag)
    return RunResult("1", 1, "wire", ("postgresql://h",), duration_s=2.0, total=total, client=client)


def test_throughput_counts_successes_and_cpu_is_shared_by_all_that_ended() -> None:
    assert run().throughput == 40.0
    assert run().cpu_us_per_op == pytest.approx(5000.0)
    assert run().total.errors == {FailureKind.REFUSED: 20}
    empty = RunResult("1", 1, "wire", ())
    assert (empty.throughput, empty.cpu_us_per_op, empty.saturation) == (0.0, None, None)


def test_a_client_that_was_the_bottleneck_says_why() -> None:
    assert run().saturation is None
    assert run(cpu_s=0.95).saturation == "it used 95% of a core"
    late = run(cpu_s=0.95, lag_ms=20).saturation
    assert late == "it used 95% of a core and its event loop was 20.0 ms late (p99)"


def test_one_saturated_process_of_several_is_named_though_all_together_are_not() -> None:
    busy, calm = (ClientUsage(cpu_s=cpu_s, wall_s=1.0) for cpu_s in (0.95, 0.1))
    result = run()
    result.client = ClientUsage(cpu_s=1.15, wall_s=1.0, processes=3)
    result.generators = tuple(GeneratorPart(number, client=calm) for number in (1, 2, 3))
    assert result.saturation is None
    result.generators = (
        GeneratorPart(1, client=calm),
        GeneratorPart(2, client=busy),
        GeneratorPart(3, client=calm),
    )
    assert result.saturation == "process 2 of 3: it used 95% of a core"


@pytest.mark.parametrize(
    ("late", "says"), [(1, None), (2, "its event loop was 12.0 ms late (more than once)")]
)
def test_of_few_looks_at_the_loop_one_late_one_is_no_bottleneck(late: int, says: str | None) -> None:
    short = run()
    short.client.lag = Histogram()
    short.client.lag.record(np.array([1_000_000] * (44 - late) + [12_000_000] * late, dtype=np.int64))
    assert short.saturation == says
