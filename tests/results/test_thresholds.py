import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_bench.errors import FailureKind, Phase, UsageError
from pool_bench.report.summary.thresholds import judged_rows, threshold_lines
from pool_bench.results.thresholds import Unit, Watch, judge_run, known_fields, read_thresholds, value_of
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.operations import FailureKey
from pool_bench.stats.runs import RunResult, Stage
from tests.support.results.holds import held_run, restarted, watched
from tests.support.results.runs import (
    PHASE_SHARES,
    REFUSED,
    lognormal_ms,
    run_of,
    session_of,
    snapshot_of,
    stats_of,
    typical_run,
)

BENCH = known_fields()
HOLD = known_fields(hold=True)
TIMEOUT = FailureKey(FailureKind.TIMEOUT, Phase.TCP)


def outcome(text: str, run: RunResult, known: dict[str, Unit] = BENCH) -> bool:
    (judged,) = judge_run(read_thresholds([text], known), run)
    return judged.ok


def run_with(ok: int = 1000, *, ms: float = 10.0, failed: int = 0, duration_s: float = 10.0) -> RunResult:
    failures = {REFUSED: failed} if failed else None
    return run_of(stats_of([ms] * ok, failures=failures, phases=PHASE_SHARES), duration_s=duration_s)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99<20ms", True),
        ("p99 < 0.02s", True),
        ("p99<9ms", False),
        ("p50>=9999us", True),
        ("p99.9<=11", True),
        ("latency_ms.p99_99<11ms", True),
        ("latency.mean<11ms", True),
        ("throughput>99/s", True),
        ("throughput>6100/m", False),
        ("throughput>=100", True),
        ("errors==0", False),
        ("errors==10", True),
        ("errors<2%", True),
        ("errors<0.5%", False),
        ("errors.refused<=10", True),
        ("errors.refused<0.9%", False),
        ("errors.timeout==0", True),
        ("failed!=10", False),
        ("success>99%", True),
        ("success>0.999", False),
        ("phases.auth.p99<9ms", True),
        ("phases_ms.auth.p99<1ms", False),
        ("client.cpu_percent<80%", True),
        ("client.rss_mb<100MB", True),
        ("client.rss_mb<1000KB", False),
        ("client.saturated==false", True),
        ("interrupted!=false", False),
    ],
)
def test_a_threshold_reads_its_field_in_its_unit(text: str, holds: bool) -> None:
    assert outcome(text, run_with(1000, failed=10)) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("held>=400", True),
        ("hold.dropped==0", False),
        ("dropped<60%", True),
        ("dropped<0.01%", False),
        ("keepalive.p99<10s", True),
        ("server_side.backend_cost_bytes<1GB", True),
        ("hold.open_s<1h", None),
    ],
)
def test_held_connections_have_fields_of_their_own(text: str, holds: bool | None) -> None:
    if holds is None:
        with pytest.raises(UsageError, match="not in 'h'"):
            read_thresholds([text], HOLD)
        return
    assert outcome(text, held_run(restarted(), server_side=watched()), HOLD) is holds


@pytest.mark.parametrize("text", ["held>=400", "hold.dropped==0", "keepalive.p99<10s"])
def test_what_only_held_connections_have_is_unknown_elsewhere(text: str) -> None:
    with pytest.raises(UsageError, match="no field of this tool's results"):
        read_thresholds([text], BENCH)


def test_what_an_open_loop_offers_and_drops_can_be_compared() -> None:
    assert [one.field for one in read_thresholds(["dropped==0", "service_ms.p99<5ms"], BENCH)] == [
        "dropped",
        "service_ms.p99",
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "not a condition"),
        ("p99", "not a condition"),
        ("p99<", "not a condition"),
        ("p99=20ms", "not a condition"),
        ("<20ms", "not a condition"),
        ("p99<20ms extra", "not a condition"),
        ("p98<20ms", "names no field"),
        ("latency_ms<20ms", "names no field"),
        ("errors.gremlins==0", "names no field"),
        ("histogram.data==0", "names no field"),
        ("label==0", "names no field"),
        ("p99<20MB", "not in 'MB'"),
        ("p99<20%", "not in '%'"),
        ("throughput>400ms", "not in 'ms'"),
        ("ok>400/s", "is a count"),
        ("ok>5%", "is a count"),
        ("client.saturated==1", "true or false"),
        ("p99<true", "true and false go with"),
        ("client.saturated<true", "true and false go with"),
        ("p99<1e999ms", "too large"),
    ],
)
def test_what_cannot_be_meant_is_one_line_that_quotes_it(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_thresholds(["p50<1s", text], BENCH)
    message = str(caught.value)
    assert message.startswith("--threshold: ")
    assert named in message
    assert "\n" not in message
    assert text in message


@given(st.text(max_size=30))
def test_no_text_is_answered_with_anything_but_a_usage_error(text: str) -> None:
    try:
        (threshold,) = read_thresholds([text], BENCH)
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017  # most texts are refused, and some are not
    else:
        assert threshold.field in BENCH


@pytest.mark.parametrize("hold", [False, True])
def test_every_field_that_is_known_is_in_the_result_file(hold: bool) -> None:
    run = held_run(restarted(), server_side=watched()) if hold else typical_run(2000)
    content = session_to_json(session_of(run))["runs"]
    assert isinstance(content, Sequence)
    fields = known_fields(hold=hold)
    for field, unit in fields.items():
        text = f"{field}=={'false' if unit is Unit.FLAG else 0}"
        (threshold,) = read_thresholds([text], fields)
        found: object = content[0]
        for part in field.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        value = value_of(threshold, run)
        assert value == found or (found is None and value == 0) or (found is None and value is None), field


def test_a_value_that_the_run_has_not_is_a_failed_threshold() -> None:
    (judged,) = judge_run(read_thresholds(["p99<60s"], BENCH), run_with(0, failed=5))
    assert judged.value is None
    assert not judged.ok
    assert judged_rows([judged])[1][2:] == ["no value", "60,000 ms", "FAILED"]


def test_what_came_of_thresholds_is_in_the_result_file_and_the_table() -> None:
    run = replace(run_with(1000, failed=10), round=2)
    session = session_of(run)
    session.thresholds = judge_run(read_thresholds(["p99<20ms", "errors<0.5%"], BENCH), run)
    assert json.loads(dumps(session_to_json(session)))["thresholds"] == [
        {
            "text": "p99<20ms",
            "field": "latency_ms.p99",
            "value": 10.0,
            "limit": 20.0,
            "unit": "ms",
            "ok": True,
            "run": run.label,
            "round": 2,
        },
        {
            "text": "errors<0.5%",
            "field": "failed",
            "value": pytest.approx(10 / 1010),
            "limit": 0.005,
            "unit": "share",
            "ok": False,
            "run": run.label,
            "round": 2,
        },
    ]
    assert b"errors<0.5%" in dumps(session_to_json(session))
    lines = threshold_lines(session.thresholds).splitlines()
    assert lines[0] == "thresholds: 1 of 2 failed"
    assert lines[-1].split()[-4:] == ["errors<0.5%", "0.990099%", "0.5%", "FAILED"]


def lost_after(text: str, *runs: RunResult, stage: Stage = Stage.MEASURE) -> int | None:
    """At which of these looks the threshold is lost, from 1."""
    watch = Watch(read_thresholds([text], BENCH))
    for index, run in enumerate(runs, 1):
        if watch.look(run, snapshot_of(stats_of([]), stage=stage)) is not None:
            return index
    return None


def test_a_count_that_may_not_be_passed_ends_the_run_at_once() -> None:
    assert lost_after("errors==0", run_with(), run_with(failed=1)) == 2
    assert lost_after("errors.refused<5", run_with(failed=4), run_with(failed=5)) == 2
    assert lost_after("errors==3", run_with(failed=2), run_with(failed=4)) == 2


def test_a_count_that_must_be_reached_can_be_until_the_end() -> None:
    assert lost_after("ok>5000", *[run_with(10)] * 9) is None
    assert lost_after("errors==3", *[run_with(failed=2)] * 9) is None


def test_a_share_of_errors_ends_the_run_once_one_failure_less_would_not_save_it() -> None:
    assert lost_after("errors<5%", run_with(18, failed=1)) is None
    assert lost_after("errors<5%", run_with(98, failed=2)) is None
    assert lost_after("errors<5%", run_with(95, failed=7)) == 1
    assert lost_after("success>95%", run_with(95, failed=5)) is None
    assert lost_after("success>95%", run_with(80, failed=20)) == 1
    assert lost_after("errors<5%", run_with(0, failed=5)) is None
    assert lost_after("errors<5%", run_with(0, failed=20)) == 1


def test_a_percentile_ends_the_run_after_three_failing_looks_with_samples_enough() -> None:
    bad, good = run_with(ms=50), run_with(ms=5)
    assert lost_after("p99<20ms", bad, bad, bad) == 3
    assert lost_after("p99<20ms", bad, bad, good, bad, bad, bad) == 6
    assert lost_after("p99<20ms", *[run_with(990, ms=50)] * 9) is None
    assert lost_after("p99.9<20ms", *[bad] * 9) is None
    assert lost_after("p99<20ms", *[run_with(ms=50, duration_s=4.9)] * 9) is None


def test_throughput_has_five_seconds_to_settle() -> None:
    assert lost_after("throughput>200", *[run_with(100, duration_s=1)] * 9) is None
    assert lost_after("throughput>200", *[run_with(600, duration_s=6)] * 3) == 3


def test_the_warm_up_and_the_grace_period_end_nothing() -> None:
    for stage in (Stage.WARMUP, Stage.GRACE, Stage.DONE):
        assert lost_after("errors==0", run_with(failed=9), stage=stage) is None


def test_failures_that_are_fast_leave_the_latency_of_successes_alone_l10() -> None:
    # Four of five fail after 1 ms, one succeeds after 100 ms.
    run = run_of(stats_of([100.0] * 200, failures={TIMEOUT: 800}, time_to_fail_ms=1.0))
    assert outcome("p50>=100ms", run)
    assert outcome("failure.p50<2ms", run)
    assert outcome("errors.timeout==80%", run)
    assert outcome("throughput==20/s", run)


def test_merged_parts_have_the_percentile_of_all_operations_l9() -> None:
    # Workers at 1 ms and at 100 ms: p99 is what one operation of a hundred exceeds, in all of them.
    run = run_of(per_target=[stats_of([1.0] * 900), stats_of([100.0] * 100)], targets=("a", "b"))
    assert outcome("p99>99ms", run)
    assert outcome("p90<=1ms", run)
    half = run_of(per_target=[stats_of([1.0] * 500), stats_of(lognormal_ms(500, median=100.0))])
    assert value_of(read_thresholds(["p99<1s"], BENCH)[0], half) == half.total.latency.percentile_ms(99)
