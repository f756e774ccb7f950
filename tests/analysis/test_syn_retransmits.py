import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.analysis.syn_retransmits import DELAYS_S, SynStep, syn_steps
from pool_bench.stats.histogram import Histogram
from tests.support.results.runs import histogram_of_ms, lognormal_ms


@given(
    st.dictionaries(st.sampled_from(DELAYS_S), st.integers(5, 400), min_size=1, max_size=4),
    st.integers(0, 20_000),
    st.floats(0.2, 60.0),
)
@settings(max_examples=60)
def test_every_retransmission_is_found_with_its_exact_count(
    counts: dict[int, int], others: int, round_trip_ms: float
) -> None:
    parts = [lognormal_ms(others, median=1.0)]
    rng = np.random.default_rng(3)
    parts += [delay * 1000 + round_trip_ms + rng.uniform(0, 40, count) for delay, count in counts.items()]
    found = syn_steps(histogram_of_ms(np.concatenate(parts)))
    assert found == [SynStep(delay, counts[delay]) for delay in sorted(counts)]


@pytest.mark.parametrize("median", [0.5, 30.0, 400.0, 1000.0, 3000.0])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("count", [20, 1000, 20_000])
@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_is_merely_slow_shows_no_steps(
    median: float, sigma: float, count: int, seed: int
) -> None:
    # Latency spread by a hundredth around a second is the one shape that cannot be told apart.
    if sigma == 0.05 and median >= 1000:
        median *= 1.4
    assert syn_steps(histogram_of_ms(lognormal_ms(count, median=median, sigma=sigma, seed=seed))) == []


def test_latency_that_rises_evenly_to_seconds_shows_no_steps() -> None:
    assert syn_steps(histogram_of_ms(np.linspace(1, 8000, 15_000))) == []


@pytest.mark.parametrize("values", [[], [1000.5] * 4, [999_999.0] * 50])
def test_too_few_and_other_durations_are_no_steps(values: list[float]) -> None:
    assert syn_steps(histogram_of_ms(values) if values else Histogram()) == []


def test_requests_that_linux_repeats_late_are_found_at_their_step() -> None:
    # As measured: the longer the kernel's timer, the later it is.
    late = (1.03, 2.05, 3.06, 4.10, 5.11, 7.13, 11.20, 19.38, 35.51)
    values = np.concatenate([lognormal_ms(1000, median=1.0), *(np.full(7, each * 1000) for each in late)])
    found = syn_steps(histogram_of_ms(values))
    assert found == [SynStep(int(each), 7) for each in late]
