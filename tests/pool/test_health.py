"""How well a pool says that it does: the rules, and that they are applied to what happens."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pool_bench.pool import BreakerConfig, BreakerState, EventKind, HealthConfig, HealthState, PoolEvent
from pool_bench.pool.health import Signs, assess
from pool_bench.pool.metrics import PoolCollector
from tests.support.simulation import FakeServer, make_pool, simulate

WELL = Signs(breaker=BreakerState.CLOSED, failures=0, live=2, utilisation=0.5)


@pytest.mark.parametrize(
    ("signs", "state", "reason"),
    [
        (WELL, HealthState.HEALTHY, ""),
        (replace(WELL, live=0), HealthState.HEALTHY, ""),
        (replace(WELL, utilisation=0.79), HealthState.HEALTHY, ""),
        (replace(WELL, utilisation=0.8), HealthState.DEGRADED, "80%"),
        (replace(WELL, utilisation=0.95), HealthState.CRITICAL, "95%"),
        (replace(WELL, failures=1), HealthState.DEGRADED, "in a row: 1"),
        (replace(WELL, failures=50), HealthState.DEGRADED, "left: 2"),
        (replace(WELL, failures=2, live=0), HealthState.DEGRADED, "in a row: 2"),
        (replace(WELL, failures=3, live=0), HealthState.CRITICAL, "left: 0"),
        (replace(WELL, breaker=BreakerState.HALF_OPEN), HealthState.DEGRADED, "half open"),
        (replace(WELL, breaker=BreakerState.OPEN), HealthState.DEGRADED, "breaker is open"),
        (replace(WELL, breaker=BreakerState.OPEN, live=0), HealthState.CRITICAL, "breaker is open"),
        (replace(WELL, failures=1, utilisation=1.0), HealthState.CRITICAL, "100%"),
    ],
)
def test_each_rule_gives_its_state_and_the_worst_that_holds_its_reason(
    signs: Signs, state: HealthState, reason: str
) -> None:
    health = assess(signs, HealthConfig())
    assert health.state is state
    assert reason in health.reason
    assert bool(health.reason) is (state is not HealthState.HEALTHY)


def test_the_thresholds_are_those_of_the_config() -> None:
    rules = HealthConfig(degraded_utilisation=0.4, critical_utilisation=0.5, degraded_failures=2)
    assert assess(WELL, rules).state is HealthState.CRITICAL
    assert assess(replace(WELL, utilisation=0.45), rules).state is HealthState.DEGRADED
    assert assess(replace(WELL, utilisation=0, failures=1), rules).state is HealthState.HEALTHY


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("degraded_utilisation", 0.96),
        ("degraded_utilisation", 0),
        ("critical_utilisation", 1.5),
        ("degraded_failures", 4),
        ("critical_failures", 0),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=r"health\.\w*" + setting.partition("_")[2]):
        HealthConfig(**{setting: value})  # type: ignore[arg-type]


def test_an_outage_makes_a_pool_degraded_then_critical_and_its_end_healthy() -> None:
    async def main() -> None:
        server = FakeServer()
        events: list[PoolEvent] = []

        async def hear(event: PoolEvent) -> None:
            if event.kind is EventKind.HEALTH_CHANGED:
                events.append(event)

        breaker = BreakerConfig(failures=3, open_for=5.0)
        async with make_pool(server, min_size=2, max_size=2, breaker=breaker) as pool:
            pool.subscribe(hear)
            assert pool.get_stats().health is HealthState.HEALTHY
            held = await pool.acquire()
            server.down = True
            for conn in server.open:
                conn.terminate()
            await pool.release(held)
            await asyncio.sleep(3)
            stats = pool.get_stats()
            assert (stats.health, stats.breaker) == (HealthState.CRITICAL, BreakerState.OPEN)
            assert "circuit breaker" in stats.health_reason
            registry = CollectorRegistry()
            registry.register(PoolCollector([pool]))
            text = generate_latest(registry).decode()
            assert 'pool_bench_pool_health{pool="test",pool_bench_pool_health="critical"} 1.0' in text
            assert 'pool_bench_pool_health{pool="test",pool_bench_pool_health="healthy"} 0.0' in text
            server.down = False
            await asyncio.sleep(10)
            stats = pool.get_stats()
            assert (stats.health, stats.health_reason) == (HealthState.HEALTHY, "")
        told = [event.message.partition(":")[0].split(" became ") for event in events]
        assert told[0] == ["healthy", "degraded"]
        assert told[-1][1] == "healthy"
        assert ["degraded", "critical"] in told
        assert [before for before, _ in told[1:]] == [after for _, after in told[:-1]]

    simulate(main())


def test_a_burst_changes_nothing_and_a_pool_that_stays_full_is_critical() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), max_size=4) as pool:
            await asyncio.sleep(10)
            held = [await pool.acquire() for _ in range(4)]
            await asyncio.sleep(2.5)
            stats = pool.get_stats()
            assert (stats.utilisation, stats.health) == (1.0, HealthState.HEALTHY)
            assert stats.recent_utilisation == pytest.approx(0.2, abs=0.11)
            await asyncio.sleep(10)
            assert pool.get_stats().health is HealthState.CRITICAL
            for conn in held:
                await pool.release(conn)
            await asyncio.sleep(11)
            assert pool.get_stats().health is HealthState.HEALTHY

    simulate(main())


def test_rates_are_those_of_the_last_ten_seconds() -> None:
    async def main() -> None:
        async with make_pool(FakeServer(), min_size=0, max_size=2, max_uses=1) as pool:
            for _ in range(40):
                async with pool.acquire():
                    await asyncio.sleep(0.5)
            stats = pool.get_stats()
            assert stats.checkout_rate == pytest.approx(2, rel=0.2)
            assert stats.return_rate == pytest.approx(stats.checkout_rate, rel=0.2)
            assert stats.connect_rate == pytest.approx(stats.checkout_rate, rel=0.2)
            assert stats.failure_rate == 0
            await asyncio.sleep(12)
            stats = pool.get_stats()
            assert (stats.checkout_rate, stats.return_rate, stats.connect_rate) == (0, 0, 0)
            await pool.pause()
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    await pool.acquire(timeout=0.5)
            assert pool.get_stats().failure_rate == pytest.approx(2, rel=0.2)

    simulate(main())
