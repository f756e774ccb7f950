import contextlib
import json
import random
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.errors import UsageError
from pool_bench.results.hold import lifetimes_s
from pool_bench.results.model import from_session
from pool_bench.results.read import load_result, parse_result
from pool_bench.results.server import PoolerMemoryRecord, ServerMemoryRecord, ServerSampleRecord
from pool_bench.results.write import dumps, session_to_json, write_json
from pool_bench.stats.histogram import Histogram
from pool_bench.stats.holds import Ages, HoldStats
from pool_bench.stats.operations import errors_by_name
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server import ServerObservation
from tests.report.live.test_hold_lines import plans
from tests.support.results.holds import Plan, held_run, hold_session, many, normal, restarted, watched
from tests.support.results.runs import run_of, session_of, stats_of

Json = dict[str, object]
LATENCY = {"min", "mean", "stdev", "p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99", "max"}


def content(run: RunResult | None = None) -> Json:
    run = run or held_run(restarted(), server_side=watched())
    return cast(Json, json.loads(dumps(session_to_json(hold_session(run)))))


def run_content() -> tuple[Json, Json]:
    whole = content()
    return whole, cast(list[Json], whole["runs"])[0]


def refused(whole: Json) -> str:
    with pytest.raises(UsageError) as caught:
        parse_result(json.dumps(whole), source="old.json")
    message = str(caught.value)
    assert message.startswith("old.json")
    assert "\n" not in message
    return message


def test_the_file_has_every_name_other_tools_rely_on() -> None:
    _, run = run_content()
    hold = cast(Json, run["hold"])
    names = (
        "asked connections opened reopened closed forced dropped drops reconnects query_failures held_peak "
        "emptied open_s hold_s close_s gave_up_s keepalive_ms keepalive_histogram active_ms active_histogram "
        "survival timeline base_rss_bytes held_rss_bytes client_bytes_each cpu_s cpu_share"
    )
    assert set(hold) == set(names.split())
    assert run["concurrency"] == hold["connections"] == 500
    drop = cast(list[Json], hold["drops"])[0]
    assert (drop["kind"], drop["phase"], drop["sqlstate"]) == ("server_shutdown", "hold", "57P01")
    assert set(cast(Json, drop["lifetime_s"])) == {"min", "p50", "max"}
    assert set(cast(Json, hold["keepalive_ms"])) == set(cast(Json, hold["active_ms"])) == LATENCY
    second = cast(list[Json], hold["timeline"])[0]
    timeline = (
        "t seconds stage held held_peak opened dropped closed keepalives keepalive_p50 keepalive_max "
        "actives active_p50 active_p99"
    )
    assert set(second) == set(timeline.split())
    assert set(cast(list[Json], hold["survival"])[0]) == {"age_s", "share"}
    side = cast(Json, run["server_side"])
    server = (
        "max_connections superuser_reserved reserved in_use_before in_use_after used_peak timeline memory "
        "backend_cost_bytes pooler_memory pooler_client_bytes notes cores one_process origin_s sessions "
        "pooler_totals setup limit between"
    )
    assert set(side) == set(server.split())
    assert set(cast(Json, side["memory"])) == {"before", "peak", "after"}


def test_runs_that_hold_nothing_have_neither() -> None:
    whole = json.loads(dumps(session_to_json(session_of(run_of(stats_of([1.0]))))))
    assert "hold" not in whole["runs"][0]
    assert "server_side" not in whole["runs"][0]
    loaded = parse_result(json.dumps(whole), source="x").runs[0]
    assert loaded.hold is None
    assert loaded.server_side is None


@given(plans, st.sampled_from([None, watched(), ServerObservation(notes=["nothing could be seen"])]))
@settings(max_examples=40, deadline=None)
def test_everything_survives_the_file(plan: Plan, side: ServerObservation | None) -> None:
    run = held_run(plan, server_side=side)
    loaded = from_session(hold_session(run)).runs[0]
    mine, hold = run.hold, loaded.hold
    assert mine is not None
    assert hold is not None
    for name in ("opened", "reopened", "closed", "forced", "dropped", "held_peak", "emptied"):
        assert getattr(hold, name) == getattr(mine, name), name
    for name in ("open_s", "hold_s", "close_s", "client_bytes_each"):
        assert getattr(hold, name) == pytest.approx(getattr(mine, name), abs=1e-6), name
    assert hold.connections == run.concurrency
    assert {(d.kind, d.phase, d.sqlstate or "", d.count, d.sample) for d in hold.drops} == {
        (str(key.kind), str(key.phase), key.sqlstate, drop.count, drop.sample)
        for key, drop in mine.drops.items()
    }
    assert [(point.age_s, point.share) for point in hold.survival] == [
        (point.age_s, point.share) for point in mine.survival()
    ]
    assert (hold.reconnects.ok, hold.reconnects.failed) == (mine.reconnects.ok, mine.reconnects.failed)
    assert hold.reconnects.errors == errors_by_name(mine.reconnects.errors)
    for theirs, ours in (
        (hold.keepalive_histogram, mine.keepalive),
        (hold.active_histogram, mine.active),
        (hold.reconnects.histogram, mine.reconnects.latency),
    ):
        assert theirs.encode() == ours.encode()
    assert len(hold.timeline) == len(mine.intervals)
    for second, interval in zip(hold.timeline, mine.intervals, strict=True):
        for name in ("stage", "held", "held_peak", "opened", "dropped", "closed", "keepalives", "actives"):
            assert getattr(second, name) == getattr(interval, name), name
    assert sum(second.dropped for second in hold.timeline) == hold.dropped
    assert (loaded.server_side is None) is (side is None)
    if side is not None and loaded.server_side is not None:
        assert loaded.server_side.timeline == tuple(map(ServerSampleRecord.of, side.seconds))
        assert loaded.server_side.memory == {
            when: ServerMemoryRecord.of(memory) for when, memory in side.memory.items()
        }
        assert loaded.server_side.pooler_memory == {
            when: PoolerMemoryRecord.of(memory) for when, memory in side.pooler_memory.items()
        }
        assert list(loaded.server_side.notes) == side.notes
        for name in ("max_connections", "superuser_reserved", "reserved", "used_peak"):
            assert getattr(loaded.server_side, name) == getattr(side, name), name
        for name in ("backend_cost_bytes", "pooler_client_bytes"):
            assert getattr(loaded.server_side, name) == getattr(side, name), name


def test_the_file_and_the_memory_give_the_same(tmp_path: Path) -> None:
    session = hold_session(held_run(many()))
    path = tmp_path / "held.json"
    write_json(path, session_to_json(session))
    assert load_result(path).runs == from_session(session).runs


def test_an_interval_still_open_is_written_and_stays_open() -> None:
    run = held_run(normal())
    assert run.hold is not None
    interval = run.hold.intervals[5]
    histogram = interval.keepalive = Histogram()
    hold = from_session(hold_session(run)).runs[0].hold
    assert hold is not None
    assert hold.timeline[5].keepalives == 0
    assert interval.keepalive is histogram


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("opened", -1, "runs[0].hold.opened is not a count"),
        ("dropped", 3, "runs[0].hold.dropped is 3, but drops hold 536"),
        ("closed", 10**6, "runs[0].hold.closed and dropped are more than were opened"),
        ("survival", [{"age_s": 1.0, "share": 2.0}], "runs[0].hold.survival[0].share is not between 0 and 1"),
        ("survival", {}, "runs[0].hold.survival is not a list"),
        ("timeline", [{"t": 1.0}], "runs[0].hold.timeline[0].seconds is missing"),
        ("emptied", 0, "runs[0].hold.emptied is not true or false"),
        ("open_s", None, "runs[0].hold.open_s is not a number"),
        ("keepalive_ms", {}, "runs[0].hold.keepalive_ms.min is missing"),
        ("active_histogram", {"encoding": "csv", "unit": "us", "data": ""}, "has encoding 'csv'"),
        ("reconnects", [], "runs[0].hold.reconnects is not an object"),
    ],
)
def test_a_wrong_field_of_held_connections_is_named(field: str, value: object, words: str) -> None:
    whole, run = run_content()
    cast(Json, run["hold"])[field] = value
    assert words in refused(whole)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("max_connections", "many", "server_side.max_connections is not a count"),
        (
            "timeline",
            [{"t": 1.0, "states": {"idle": -1}}],
            "server_side.timeline[0].states.idle is not a count",
        ),
        ("memory", {"peak": 3}, "server_side.memory.peak is not an object"),
        (
            "pooler_memory",
            {"peak": {"processes": 1}},
            "pooler_memory.peak.total_bytes is missing",
        ),
        ("notes", "none", "server_side.notes is not a list"),
    ],
)
def test_a_wrong_field_of_the_server_side_is_named(field: str, value: object, words: str) -> None:
    whole, run = run_content()
    cast(Json, run["server_side"])[field] = value
    assert words in refused(whole)


def test_no_value_put_anywhere_crashes_the_reader() -> None:
    chance = random.Random(7)
    whole, run = run_content()
    for part in ("hold", "server_side"):
        original = cast(Json, run[part])
        for key in original:
            values: tuple[object, ...] = (
                None,
                -1,
                "x",
                [],
                {},
                [1],
                [{}],
                {"x": None},
                True,
                chance.random(),
            )
            for value in values:
                run[part] = {**original, key: value}
                with contextlib.suppress(UsageError):
                    parse_result(json.dumps(whole), source="old.json")
        run[part] = original


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=60))
def test_lifetimes_are_the_extremes_and_the_median_to_three_digits(ages_ns: list[int]) -> None:
    ages = Ages()
    for age in ages_ns:
        ages.add(age)
    found = lifetimes_s(ages)
    ordered = sorted(ages_ns)
    expected = (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])
    assert found == pytest.approx([age / 1e9 for age in expected], rel=0.01, abs=0.001)
    assert lifetimes_s(Ages()) is None


def test_nothing_held_is_a_whole_file_too() -> None:
    run = RunResult(label="", concurrency=3, driver="wire", targets=("t",), hold=HoldStats())
    hold = parse_result(json.dumps(content(run)), source="x").runs[0].hold
    assert hold is not None
    assert (hold.survival, hold.timeline, hold.client_bytes_each, hold.cpu_share) == ((), (), None, None)
