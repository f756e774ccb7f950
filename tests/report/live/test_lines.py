import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.errors import FailureKind, Phase
from pool_bench.report.live.lines import OperationLineView, Second, Totals, header_line, snapshot_line
from pool_bench.stats.operations import BenchStats, ClientUsage, FailureKey
from pool_bench.stats.runs import Snapshot, Stage
from tests.support.results.runs import REFUSED, TOO_MANY, snapshot_of, stats_of

failure_keys = st.builds(FailureKey, st.sampled_from(FailureKind), st.sampled_from(Phase))
any_stats = st.builds(
    lambda values, failures: stats_of(values, failures=failures),
    st.lists(st.floats(0, 1e6), max_size=8),
    st.dictionaries(failure_keys, st.integers(1, 10**6 // 1000), max_size=4),
)


@st.composite
def snapshots(draw: st.DrawFn, targets: int = 1) -> Snapshot:
    return Snapshot(
        stage=draw(st.sampled_from(Stage)),
        elapsed_s=draw(st.floats(-100, 1e6)),
        seconds=draw(st.floats(0, 10)),
        targets=tuple(draw(any_stats) for _ in range(targets)),
        warmup=draw(any_stats),
        in_flight=draw(st.integers(0, 10**6)),
        backing_off=draw(st.integers(0, 10**6)),
        client=ClientUsage(cpu_s=draw(st.floats(0, 10)), wall_s=draw(st.floats(0, 10))),
    )


def test_nought_has_no_sign() -> None:
    line = snapshot_line(snapshot_of(elapsed_s=-0.04), Totals())
    assert line.split()[0] == "0.0s"


@given(snapshots())
def test_every_line_has_as_many_columns_as_the_header(snapshot: Snapshot) -> None:
    totals = Totals()
    totals.add(snapshot)
    assert len(snapshot_line(snapshot, totals).split()) == len(header_line().split())


@given(snapshots(targets=3))
def test_several_targets_add_one_column_with_the_rate_of_each(snapshot: Snapshot) -> None:
    line, header = snapshot_line(snapshot, Totals()), header_line(3).split()
    assert len(line.split()) == len(header) == len(header_line().split()) + 1
    assert line.split()[header.index("conn/s_by_target")].count(",") == 2


def test_the_line_says_what_happened_in_this_second() -> None:
    totals = Totals(ok=100, failed=1)
    snapshot = snapshot_of(stats_of([1.0, 2.0, 3.0], failures={TOO_MANY: 12, REFUSED: 2}), backing_off=7)
    totals.add(snapshot)
    fields = dict(zip(header_line().split(), snapshot_line(snapshot, totals).split(), strict=True))
    assert fields["elapsed"] == "3.0s"
    assert fields["stage"] == "measure"
    assert fields["conn/s"] == "3"
    assert (fields["ok"], fields["failed"]) == ("103", "15")
    assert (fields["in_flight"], fields["backoff"]) == ("50", "7")
    assert (fields["p50_ms"], fields["max_ms"]) == ("2.00", "3.00")
    assert fields["cpu%"] == "42"
    assert fields["failures"] == "too_many_connections=12,refused=2"


def test_the_warm_up_has_a_rate_and_percentiles_but_no_totals() -> None:
    totals = Totals()
    snapshot = snapshot_of(BenchStats(), warmup=stats_of([5.0, 5.0]), stage=Stage.WARMUP, elapsed_s=-0.5)
    totals.add(snapshot)
    fields = dict(zip(header_line().split(), snapshot_line(snapshot, totals).split(), strict=True))
    assert (fields["stage"], fields["elapsed"]) == ("warm-up", "-0.5s")
    assert (fields["conn/s"], fields["ok"], fields["p50_ms"]) == ("2", "0", "5.00")


def test_a_second_without_a_success_shows_dashes() -> None:
    second = Second.of(snapshot_of(stats_of(failures={REFUSED: 1})))
    assert (second.p50, second.p95, second.p99, second.max) == (None, None, None, None)
    assert " - " in snapshot_line(snapshot_of(BenchStats()), Totals())


def test_reading_a_snapshot_does_not_change_it() -> None:
    snapshot = snapshot_of(stats_of([1.0], failures={REFUSED: 2}), stats_of([2.0], failures={REFUSED: 3}))
    assert Second.of(snapshot).errors == Second.of(snapshot).errors == {FailureKind.REFUSED: 5}
    assert [stats.failures[REFUSED].count for stats in snapshot.targets] == [2, 3]
    assert [stats.latency.count for stats in snapshot.targets] == [1, 1]


@pytest.mark.parametrize(
    ("total", "start"), [(1, "concurrency 50 (10s"), (7, "run 3/7: concurrency 50 (10s")]
)
def test_a_run_begins_with_its_name_and_a_header(total: int, start: str) -> None:
    stream = io.StringIO()
    view = OperationLineView(stream)
    view.begin_run("concurrency 50", 3, total, 10.0, 1.0)
    view.update(snapshot_of(stats_of([1.0])))
    view.update(snapshot_of(stats_of([1.0])))
    view.message("target\x1b[2J is back")
    view.end_run()
    view.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith(start)
    assert lines[1] == header_line()
    assert [line.split()[3] for line in lines[2:4]] == ["1", "2"]
    assert lines[4] == "target [2J is back"


def test_totals_start_again_with_each_run() -> None:
    stream = io.StringIO()
    view = OperationLineView(stream)
    for index in (1, 2):
        view.begin_run("c", index, 2, 0.0, 0.0)
        view.update(snapshot_of(stats_of([1.0])))
    assert "run 2/2: c (until stopped)" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].split()[3] == "1"
