"""When it is noticed that connections no longer grow."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.analysis.stalled_growth import Growth, Stall
from pool_bench.errors import FailureKind as K
from pool_bench.errors import Phase
from pool_bench.stats.holds import HoldStats
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureCount, FailureKey
from pool_bench.stats.runs import Snapshot, Stage

FULL = (K.TOO_MANY_CONNECTIONS, "sorry, too many clients already")
LATE = (K.TIMEOUT, "not open after 30s (--connect-timeout)")
Sort = tuple[K, str]


def stats(ok: int = 0, failed: int = 0, sort: Sort = LATE, connect_s: float = 0.01) -> BenchStats:
    found = BenchStats(ok=ok, failed=failed)
    found.latency.record(np.full(ok, round(connect_s * 1e9), dtype=np.int64))
    if failed:
        found.failures[FailureKey(sort[0], Phase.TCP)] = FailureCount(failed, sort[1])
    return found


@dataclass
class Following:
    """A run of a snapshot a second, with twenty connects under way unless it is told otherwise."""

    holding: bool = True

    def __post_init__(self) -> None:
        self.growth = Growth()
        self.t = 0.0

    def second(
        self,
        ok: int = 0,
        failed: int = 0,
        sort: Sort = LATE,
        *,
        in_flight: int = 20,
        stage: Stage | None = None,
        connect_s: float = 0.01,
        **hold: float,
    ) -> Stall | None:
        self.t += 1
        return self.growth.add(
            Snapshot(
                stage=stage or (Stage.OPEN if self.holding else Stage.MEASURE),
                elapsed_s=self.t,
                seconds=1.0,
                targets=(stats(ok, failed, sort, connect_s),),
                warmup=BenchStats(),
                in_flight=in_flight,
                backing_off=0,
                client=ClientUsage(),
                hold=HoldStats(opened=ok, **hold) if self.holding else None,  # type: ignore[arg-type]
            )
        )


@given(st.booleans(), st.lists(st.integers(1, 50), max_size=20))
def test_a_stall_is_noticed_in_four_seconds_after_the_last_connection_and_not_before_two(
    holding: bool, grown: list[int]
) -> None:
    run = Following(holding)
    assert [run.second(ok) for ok in grown] == [None] * len(grown)
    last = run.t
    while (stall := run.second()) is None:
        assert run.t < last + 4
    assert run.t - last >= 2
    assert (stall.held, stall.in_flight) == (sum(grown) if holding else 0, 20)
    assert stall.seconds == run.t - last


@pytest.mark.parametrize("holding", [True, False])
def test_what_a_server_says_of_its_limit_is_noticed_at_once(holding: bool) -> None:
    run = Following(holding)
    assert run.second(50) is None
    stall = run.second(0, 3, FULL)
    assert stall is not None
    assert [(one.kind, one.count) for one in stall.failing] == [(K.TOO_MANY_CONNECTIONS, 3)]


def test_one_refusal_among_a_thousand_cycles_is_no_wall() -> None:
    run = Following(holding=False)
    assert run.second(1000, 1, FULL) is None
    assert run.second(50, 1, FULL) is not None


def test_in_a_pause_between_batches_nothing_has_stalled() -> None:
    run = Following()
    assert run.second(20) is None
    assert [run.second(in_flight=0) for _ in range(30)] == [None] * 30
    assert [run.second(in_flight=1) for _ in range(2)] == [None] * 2


def test_that_measuring_has_a_clock_of_its_own_makes_no_stall_shorter() -> None:
    run = Following(holding=False)
    run.second(50, stage=Stage.WARMUP)
    assert [run.second(stage=Stage.WARMUP) for _ in range(2)] == [None] * 2
    run.t = 0.0
    stall = run.second(stage=Stage.MEASURE)
    assert stall is not None
    assert (stall.t, stall.seconds) == (1.0, 3.0)


def test_what_hangs_after_the_last_one_was_begun_has_stalled_too() -> None:
    run = Following(holding=False)
    run.second(50)
    assert [run.second(stage=Stage.GRACE) is not None for _ in range(3)] == [False, False, True]


def test_a_server_that_invents_sqlstates_does_not_fill_the_memory() -> None:
    run = Following()
    last = None
    for number in range(400):
        found = BenchStats(failed=2)
        for code in (2 * number, 2 * number + 1):
            found.failures[FailureKey(K.OTHER, Phase.AUTH, f"{code:05}")] = FailureCount(1, "no")
        stall = run.growth.add(
            Snapshot(
                stage=Stage.OPEN,
                elapsed_s=float(number),
                seconds=1.0,
                targets=(found,),
                warmup=BenchStats(),
                in_flight=20,
                backing_off=0,
                client=ClientUsage(),
                hold=HoldStats(),
            )
        )
        last = stall or last
    assert last is not None
    assert len(last.failing) <= 257
    # It is looked at again every five seconds.
    assert sum(one.count for one in last.failing) == 2 * (last.t + 1) >= 790


def test_connects_that_take_long_by_nature_have_not_stalled() -> None:
    run = Following()
    assert run.second(20, connect_s=3.0) is None
    assert [run.second() for _ in range(8)] == [None] * 8
    assert run.second() is not None


def test_a_stall_that_goes_on_is_looked_at_again_and_at_once_where_something_new_fails() -> None:
    run = Following()
    run.second(20)
    seen = [run.second() is not None for _ in range(13)]
    assert [second for second, is_seen in enumerate(seen, 1) if is_seen] == [3, 8, 13]
    assert run.second() is None
    stall = run.second(0, 20, LATE)
    assert stall is not None
    assert stall.failing[0].kind is K.TIMEOUT


def test_an_opening_that_is_over_is_looked_at_where_any_failed_or_it_was_given_up() -> None:
    for failed, gave_up_s, expected in ((0, 0.0, False), (3, 0.0, True), (0, 60.0, True)):
        run = Following()
        stall = run.second(40, failed, in_flight=0, open_s=0.8, gave_up_s=gave_up_s)
        assert (stall is not None) is expected
        assert run.growth.over
        assert run.second(stage=Stage.HOLD) is None


def test_held_connections_meet_a_wall_where_those_that_are_dropped_name_one() -> None:
    run = Following()
    run.second(40, in_flight=0, open_s=0.8)
    dropped = HoldStats()
    dropped.count_drop(FailureKey(K.TIMEOUT, Phase.QUERY, "08P01"), "query_wait_timeout", 10**9)
    dropped.count_drop(FailureKey(K.RESET, Phase.HOLD), "Connection reset by peer", 10**9)
    stall = run.growth.add(
        Snapshot(
            stage=Stage.HOLD,
            elapsed_s=2.0,
            seconds=1.0,
            targets=(),
            warmup=BenchStats(),
            in_flight=0,
            backing_off=0,
            client=ClientUsage(),
            hold=dropped,
        )
    )
    assert stall is not None
    assert stall.held == 38
    assert [one.message for one in stall.failing] == ["query_wait_timeout"]
