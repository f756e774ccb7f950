"""Which tick comes next."""

from hypothesis import given
from hypothesis import strategies as st

from pool_bench.load.ticks import next_tick


@given(
    tick=st.integers(1, 10_000),
    tick_s=st.floats(0.001, 60),
    late_ticks=st.floats(0, 1000),
)
def test_the_next_tick_is_the_first_that_is_not_over(tick: int, tick_s: float, late_ticks: float) -> None:
    elapsed_s = (tick + late_ticks) * tick_s
    following = next_tick(tick, elapsed_s, tick_s)
    assert following > tick
    assert following * tick_s >= elapsed_s - 1e-9 * tick_s * following
    assert following == tick + 1 or (following - 1) * tick_s <= elapsed_s * (1 + 1e-9)


def test_a_timer_that_rings_a_little_early_skips_nothing() -> None:
    assert next_tick(3, 2.999, 1.0) == 4
