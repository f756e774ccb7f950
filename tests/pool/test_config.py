"""Settings are checked once, and the message names the one that is wrong."""

import dataclasses
from pathlib import Path

import pytest

from pool_bench.pool import BreakerConfig, ConnectionPool, PoolConfig, ScalingConfig
from tests.support.simulation import FakeConnection, FakeServer


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("min_size", "max_uses", "max_waiters")
            for value in (-1, 1.5, True, "3")
        ),
        *(
            (name, value)
            for name in ("max_size", "connecting_limit", "connect_attempts")
            for value in (0, 2.5)
        ),
        *(
            (name, value)
            for name in (
                "connect_timeout",
                "validate_timeout",
                "health_check_timeout",
                "health_check_interval",
                "reset_timeout",
                "query_timeout",
                "close_timeout",
                "retry_base",
                "retry_cap",
                "max_lifetime",
                "max_idle",
                "leak_threshold",
            )
            for value in (0, -1.0, float("nan"), float("inf"), True, "1")
        ),
        *(
            (name, value)
            for name in ("acquire_timeout", "validate_after_idle", "slow_query")
            for value in (-0.1, "1")
        ),
        *(("max_lifetime_jitter", value) for value in (-0.1, 1.1, float("nan"))),
        ("reset_on_return", "sometimes"),
    ],
)
def test_a_bad_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        PoolConfig(**{name: value})  # type: ignore[arg-type]  # that is the point


def test_values_must_fit_together() -> None:
    with pytest.raises(ValueError, match=r"max_size must be at least min_size \(5\), not 4"):
        PoolConfig(min_size=5, max_size=4)
    with pytest.raises(ValueError, match=r"retry_cap must be at least retry_base \(3\)"):
        PoolConfig(retry_base=3, retry_cap=2)
    with pytest.raises(ValueError, match=r"scaling\.target must lie between"):
        ScalingConfig(target=0.9)
    with pytest.raises(ValueError, match=r"scaling\.step"):
        ScalingConfig(step=0)
    with pytest.raises(ValueError, match=r"breaker\.failures"):
        BreakerConfig(failures=0)


def test_a_config_cannot_be_changed_and_knows_its_defaults() -> None:
    config = PoolConfig(max_size=30)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.max_size = 2  # type: ignore[misc]
    assert [PoolConfig(max_size=size).openings_at_once for size in (1, 10, 30, 1000)] == [4, 4, 10, 16]
    assert PoolConfig(connecting_limit=2).openings_at_once == 2
    assert (BreakerConfig().failures, BreakerConfig().open_for) == (5, 60.0)
    scaling = ScalingConfig()
    assert (scaling.target, scaling.up, scaling.down, scaling.step, scaling.interval) == (
        0.7,
        0.8,
        0.5,
        0.2,
        60.0,
    )


@pytest.mark.parametrize("name", ["session_file", "schema_file"])
def test_a_file_that_cannot_be_read_is_named_when_the_pool_is_made(name: str, tmp_path: Path) -> None:
    config = PoolConfig(**{name: tmp_path / "nowhere.sql"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"{name}: .*nowhere\.sql cannot be read: No such file"):
        ConnectionPool[FakeConnection](FakeServer(), config)
