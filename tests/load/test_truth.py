"""What a load generator must not do, by the ids of the failure modes it is known for."""

import time

import pytest

from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.generators import run, target


@pytest.mark.parametrize("driver", ["wire", "asyncpg"])
def test_steps_of_the_wall_clock_change_no_figure_l7(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    begin = time.time()
    asked = 0

    def stepping() -> float:
        """A clock that goes ten seconds back each time it is looked at."""
        nonlocal asked
        asked += 1
        return begin - 10.0 * asked

    monkeypatch.setattr(time, "time", stepping)
    monkeypatch.setattr(time, "time_ns", lambda: int(stepping() * 1e9))
    spec = ConnectSpec(
        targets=(target(embedded.url),),
        driver="wire" if driver == "wire" else "asyncpg",
        concurrency=2,
        warmup_s=0.0,
        duration_s=0.4,
        tick_s=0.1,
    )
    outcome = run(spec)
    total = outcome.total
    assert total.ok > 0
    assert total.failed == 0
    assert 0 < total.latency.min_ns <= total.latency.max_ns <= outcome.elapsed_s * 1e9
    assert all(0 < interval.seconds < outcome.elapsed_s for interval in total.intervals)
    elapsed = [snapshot.elapsed_s for snapshot in outcome.snapshots]
    assert elapsed == sorted(elapsed)
