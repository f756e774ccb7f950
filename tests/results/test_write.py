import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.results.model import from_session
from pool_bench.results.read import load_result
from pool_bench.results.session import Session
from pool_bench.results.write import default_path, dumps, session_to_json, write_json
from pool_bench.stats.operations import BenchStats, Interval
from tests.support.results.runs import (
    PHASE_SHARES,
    REFUSED,
    STARTED,
    TOO_MANY,
    client_of,
    histogram_of_ms,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
    sweep_runs,
    typical_run,
)

LATENCY = {"min", "mean", "stdev", "p50", "p75", "p90", "p95", "p99", "p99_9", "p99_99", "max"}


def written(tmp_path: Path, session: Session) -> Path:
    path = tmp_path / "result.json"
    write_json(path, session_to_json(session))
    return path


def test_the_file_has_every_name_other_tools_rely_on(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path, session_of(typical_run(), name="first")).read_text())
    top = "schema tool name started_at finished_at interrupted argv target server host config runs"
    assert set(top.split()) <= set(content)
    assert content["schema"] == "pool-bench/1"
    assert content["started_at"] == "2026-11-21T02:30:00.000Z"
    host = {"cpus", "machine_cpus", "cpu_quota", "platform", "python", "event_loop", "versions"}
    assert set(content["host"]) == host
    assert {
        "pool-bench",
        "asyncpg",
        "psycopg",
        "psycopg-pool",
        "sqlalchemy",
        "surrealdb",
        "surrealdb-embedded",
        "purreal",
        "websockets",
        "uvloop",
        "numpy",
    } == set(content["host"]["versions"])
    run = content["runs"][0]
    names = (
        "label concurrency rate processes driver warmup_s duration_s ok failed unfinished errors throughput"
    )
    assert set(names.split()) <= set(run)
    assert set(run["latency_ms"]) == set(run["failure_ms"]) == set(run["phases_ms"]["auth"]) == LATENCY
    assert set(run["histogram"]) == set(run["phase_histograms"]["auth"]) == {"encoding", "unit", "data"}
    assert run["histogram"]["encoding"] == "hdr-v2-base64"
    seconds = "t seconds ok failed in_flight p50 p95 p99 max lag_ms cpu_s"
    assert set(run["timeline"][0]) == set(seconds.split())
    client = "cpu_s cpu_us_per_op rss_mb loop_lag_ms saturated why"
    assert set(client.split()) <= set(run["client"])
    assert set(run["client"]["loop_lag_ms"]) == {"p50", "p99", "max"}
    assert run["errors"] == {"too_many_connections": 210, "refused": 12}
    assert run["failures"][0]["sqlstate"] == "53300"
    assert run["warmup"] == {"ok": 512, "failed": 0, "unfinished": 0}
    assert "targets" not in run


@given(st.lists(st.floats(0.001, 3e6), max_size=80), st.integers(0, 20), st.integers(0, 9))
@settings(max_examples=50)
def test_counts_and_percentiles_survive_the_file(values: list[float], failed: int, unfinished: int) -> None:
    stats = stats_of(
        values,
        failures={TOO_MANY: failed} if failed else {},
        unfinished=unfinished,
        phases=PHASE_SHARES,
    )
    (run,) = from_session(session_of(run_of(stats))).runs
    assert (run.ok, run.failed, run.unfinished) == (len(values), failed, unfinished)
    assert run.histogram.count == len(values)
    assert run.failure_histogram.count == failed
    rate = run.success_rate
    assert rate is None or 0 <= rate <= 1
    assert rate == stats.success_rate
    for percentile in (50, 90, 99, 99.99):
        exact, loaded = stats.latency.percentile_ms(percentile), run.histogram.percentile_ms(percentile)
        if exact is None:
            assert loaded is None
        else:
            assert loaded == pytest.approx(exact, rel=2e-3, abs=0.0011)
    assert run.latency_ms.p99 == pytest.approx(stats.latency.percentile_ms(99)) or run.latency_ms.p99 is None


def test_another_hdr_reader_finds_the_same_percentiles(tmp_path: Path) -> None:
    content = json.loads(written(tmp_path, session_of(typical_run())).read_text())
    run = content["runs"][0]
    hdr = HdrHistogram.decode(run["histogram"]["data"])
    assert hdr.total_count == run["ok"]
    assert hdr.get_value_at_percentile(99) / 1000 == pytest.approx(run["latency_ms"]["p99"], rel=1e-3)


def test_a_loaded_file_equals_the_session_it_was_written_from(tmp_path: Path) -> None:
    session = session_of(*sweep_runs(), name="sweep")
    loaded, fresh = load_result(written(tmp_path, session)), from_session(session)
    assert replace(loaded, source="this run") == fresh
    assert loaded.finished_at == session.finished_at


def test_several_targets_are_listed_with_their_own_figures(tmp_path: Path) -> None:
    parts = [stats_of(lognormal_ms(300)), stats_of(lognormal_ms(50), failures={REFUSED: 3})]
    run = run_of(per_target=parts, targets=("postgresql://one/db", "postgresql://two/db"))
    path = written(tmp_path, session_of(run))
    names = {"target", "ok", "failed", "unfinished", "throughput", "errors", "latency_ms", "histogram"}
    assert names <= set(json.loads(path.read_text())["runs"][0]["targets"][1])
    one, two = load_result(path).runs[0].targets
    assert (one.ok, two.ok, two.errors) == (300, 50, {"refused": 3})
    assert one.histogram.count + two.histogram.count == load_result(path).runs[0].histogram.count


def test_unsealed_intervals_are_written_with_their_percentiles() -> None:
    stats = stats_of([5.0])
    stats.intervals.extend([Interval(1.0, 1.0, 1, 0, 3, 0.5, 0.1, histogram_of_ms([5.0]))])
    (second,) = from_session(session_of(run_of(stats))).runs[0].timeline
    assert (second.p50, second.max) == (5.0, 5.0)


def test_no_number_in_the_file_is_nan_or_infinite() -> None:
    nan, infinity = float("nan"), float("inf")
    stats = stats_of([])
    stats.intervals.extend([Interval(nan, infinity, 0, 0, 0, nan, -infinity, None, p50=nan)])
    run = run_of(stats, duration_s=0.0, client=client_of(wall_s=0.0))
    session = session_of(run)
    session.config["rate"] = infinity
    text = dumps(session_to_json(session)).decode()
    assert "NaN" not in text
    assert "Infinity" not in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"x": nan})


def test_a_file_that_cannot_be_serialised_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_times_are_utc_whatever_zone_they_came_in() -> None:
    session = session_of(run_of(stats_of([1.0])))
    session.started_at = datetime(2026, 11, 21, 4, 30, tzinfo=timezone(timedelta(hours=2)))
    assert from_session(session).started_at == STARTED
    session.finished_at = None
    assert from_session(session).finished_at is None


def test_a_session_without_runs_can_be_written_and_read(tmp_path: Path) -> None:
    session = session_of()
    session.interrupted = True
    loaded = load_result(written(tmp_path, session))
    assert loaded.runs == ()
    assert loaded.interrupted


def test_odd_text_survives(tmp_path: Path) -> None:
    stats = stats_of(failures={REFUSED: 1})
    stats.failures[REFUSED].sample = 'quote " emoji 🐘 \udcff'
    loaded = load_result(written(tmp_path, session_of(run_of(stats), name="né € 🐘")))
    assert loaded.name == "né € 🐘"
    assert loaded.runs[0].failures[0].sample.startswith('quote " emoji 🐘')


@pytest.mark.parametrize(
    ("name", "runs", "expected"),
    [
        ("", 1, "pg-connection-bench_20261121T023000Z_c50.json"),
        ("pg bouncer/../x", 1, "pg-connection-bench_20261121T023000Z_pg-bouncer-..-x_c50.json"),
        ("../../etc", 1, "pg-connection-bench_20261121T023000Z_etc_c50.json"),
        ("sweep", 7, "pg-connection-bench_20261121T023000Z_sweep_c1-64.json"),
        ("none", 0, "pg-connection-bench_20261121T023000Z_none.json"),
    ],
)
def test_default_names_say_what_was_run(tmp_path: Path, name: str, runs: int, expected: str) -> None:
    made = sweep_runs() if runs > 1 else [run_of(BenchStats())] * runs
    path = default_path(tmp_path, session_of(*made, name=name))
    assert path.name == expected
    assert path.parent == tmp_path


def test_default_names_never_hit_an_existing_file_or_picture(tmp_path: Path) -> None:
    session = session_of(run_of(BenchStats()))
    first = default_path(tmp_path, session)
    first.write_text("")
    second = default_path(tmp_path, session)
    assert second.name == first.name.replace(".json", "-2.json")
    second.with_suffix(".png").write_text("")
    assert default_path(tmp_path, session).name.endswith("-3.json")


@pytest.mark.parametrize("count", [1, 9, 11, 100, 999, 5000])
def test_the_documents_snippet_reads_the_percentiles_of_the_summary(tmp_path: Path, count: int) -> None:
    document = (Path(__file__).parents[2] / "docs" / "result-file.md").read_text(encoding="utf-8")
    codes = [part.partition("```")[0] for part in document.split("```python\n")[1:]]
    (code,) = [part for part in codes if "HdrHistogram" in part]
    path = tmp_path / "result.json"
    write_json(path, session_to_json(session_of(run_of(stats_of(lognormal_ms(count, sigma=1.0))))))
    ours = json.loads(path.read_text())["runs"][0]["latency_ms"]
    code = code.replace("result.json", str(path)).partition("print(")[0]
    code += """
histogram = HdrHistogram.decode(run["histogram"]["data"])
print(json.dumps([percentile_ms(histogram, each) for each in (50, 75, 90, 95, 99, 99.9)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    names = ("p50", "p75", "p90", "p95", "p99", "p99_9")
    assert json.loads(done.stdout) == pytest.approx([ours[name] for name in names], rel=0.001)
