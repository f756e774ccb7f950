"""A warm-up that was not over and a pause that a closed loop hides, told from noise."""

from collections.abc import Iterable

import numpy as np
import pytest

from pool_bench.analysis.steadiness import hidden_pause, warmup_transient
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.operations import BenchStats, Interval
from pool_bench.stats.runs import RunResult


def intervals(p50_ms: Iterable[float], *, ok: int = 500, offered: int = 0) -> list[Interval]:
    """Seconds with these medians."""
    return [
        Interval(float(t), 1.0, ok, 0, 10, 0.1, 0.1, None, p50=float(p50), offered=offered)
        for t, p50 in enumerate(p50_ms, 1)
    ]


@pytest.mark.parametrize(
    ("medians", "seconds"),
    [
        ([9.0, 8.0, 5.0, 5.1, 4.9, 5.0, 5.1, 5.0, 4.9, 5.0], 2),
        ([10, 9.4, 8.9, 8.3, 7.7, 7.2, 6.6, 6.1, 5.5, 5.0], 4),
        ([50.0] * 10 + [5.0, 5.2, 5.1, 4.9] * 5, 10),
    ],
)
def test_a_slow_beginning_is_found_with_its_length(medians: list[float], seconds: int) -> None:
    found = warmup_transient(intervals(medians))
    assert found is not None
    assert found.seconds == seconds
    assert found.from_ms > found.to_ms


@pytest.mark.parametrize(
    "medians",
    [
        [5.0] * 10,
        [5.0] * 5 + [9.0] * 5,
        [9.0, *[5.0] * 9],
        [9.0, 8.0, 5.0, 5.0, 5.0],
        [5.9, 5.8, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0],
        [8.0, 8.0, 5.0, 5.0, 5.0, 5.0, 7.5, 5.0],
    ],
    ids=["flat", "slower later", "one second", "too short", "slight", "as unsteady later"],
)
def test_what_is_no_warm_up_is_not_called_one(medians: list[float]) -> None:
    assert warmup_transient(intervals(medians)) is None


def test_seconds_with_next_to_nothing_in_them_do_not_count() -> None:
    lean = intervals([50.0, 50.0], ok=3) + intervals([5.0] * 8)
    assert warmup_transient(lean) is None


def test_an_open_loop_that_offered_more_at_first_was_not_cold() -> None:
    slow, fast = intervals([50.0] * 3, offered=1000), intervals([5.0] * 9, offered=300)
    assert warmup_transient(slow + fast) is None
    assert warmup_transient(intervals([50.0] * 3, offered=300) + fast) is not None


@pytest.mark.parametrize("seconds", [8, 10, 30, 60])
@pytest.mark.parametrize(
    ("deviation", "persistence", "share"),
    [(0.1, 0.0, 0.005), (0.1, 0.5, 0.02), (0.2, 0.0, 0.01), (0.2, 0.5, 0.035)],
)
def test_noise_is_rarely_taken_for_a_warm_up(
    seconds: int, deviation: float, persistence: float, share: float
) -> None:
    rng = np.random.default_rng(seconds)
    runs = 2000
    noise = rng.normal(0, deviation, (runs, seconds + 20))
    for t in range(1, seconds + 20):
        noise[:, t] += persistence * noise[:, t - 1]
    found = sum(warmup_transient(intervals(5 * np.exp(row[20:]))) is not None for row in noise)
    assert found / runs < share


def run_of(latencies_ms: list[float], ok_each_second: list[int], concurrency: int = 4) -> RunResult:
    latency = Histogram()
    latency.record((np.array(latencies_ms) * 1e6).astype(np.int64))
    total = BenchStats(ok=len(latencies_ms), latency=latency)
    for t, ok in enumerate(ok_each_second, 1):
        total.intervals.append(Interval(float(t), 1.0, ok, 0, 4, 0.1, 0.1, None, p50=2.0))
    return RunResult("x", concurrency, "wire", ("t",), duration_s=float(len(ok_each_second)), total=total)


def test_a_pause_is_found_with_what_would_have_been_due() -> None:
    pause = hidden_pause(run_of([2.0] * 5000 + [1000.0] * 4, [1000, 1000, 300, 700, 1000, 1000]))
    assert pause is not None
    assert (pause.seconds, pause.shown) == (1.0, 4)
    assert pause.due == 1000


@pytest.mark.parametrize(
    "run",
    [
        run_of([2.0] * 6000, [1000] * 6),
        run_of([2.0] * 6000 + [1000.0] * 4, [1000] * 6),
        run_of([2.0] * 5000 + [1000.0], [1000, 1000, 300, 700, 1000, 1000]),
        run_of([2.0] * 5000 + [150.0] * 4, [1000, 1000, 300, 700, 1000, 1000]),
        run_of([2.0] * 500 + [1000.0] * 400, [150, 150, 0, 100, 150, 150]),
        run_of([], []),
    ],
    ids=["none", "no hole in the rate", "one slow worker", "too short", "many show it", "empty"],
)
def test_what_hides_nothing_is_not_noted(run: RunResult) -> None:
    assert hidden_pause(run) is None
