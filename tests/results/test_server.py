"""What was seen of a server: in the summary, in the result file and back, and in the picture."""

import json

import numpy as np
import pytest

from pool_bench.errors import Phase, UsageError
from pool_bench.report.plot.figures import plot_run
from pool_bench.report.plot.run import draw_run
from pool_bench.report.plot.sheet import style
from pool_bench.report.summary.server_lines import watched_summary
from pool_bench.results.model import ResultRecord, from_session
from pool_bench.results.read import parse_result
from pool_bench.results.run import RunRecord
from pool_bench.results.server import CpuRecord, ServerSampleRecord
from pool_bench.results.write import dumps, session_to_json
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server import (
    CpuUse,
    PoolerMemory,
    ServerMemory,
    ServerObservation,
    ServerSample,
    SetupSecond,
    SetupTimes,
)
from tests.report.plot.test_figures import assert_legible, svg_text
from tests.support.results.runs import (
    histogram_of_ms,
    lognormal_ms,
    run_of,
    session_of,
    stats_of,
    typical_run,
)

DURATION_S = 30.0


def setup_times(count: int = 19_000) -> SetupTimes:
    """A server that needs two milliseconds for a connection."""
    total = lognormal_ms(count, median=2.0)
    return SetupTimes(
        seen=count + 900,
        total=histogram_of_ms(total),
        fork=histogram_of_ms(total * 0.1),
        auth=histogram_of_ms(total * 0.3),
    )


def side(*, pooled: bool = False, server: float = 1.7) -> ServerObservation:
    """A second of warm-up and thirty of measuring, directly or through a PgBouncer."""
    rng = np.random.default_rng(4)
    pools = {"cl_active": 20, "cl_waiting": 30, "sv_active": 20, "maxwait_us": 340_000} if pooled else {}
    looks = [
        ServerSample(
            t=t * 1.003,
            states={"idle": int(rng.integers(0, 20)), "starting": 2},
            used=22,
            pools=pools,
            sessions={"sessions": t * 900, "abandoned": 3, "fatal": 0, "killed": 0},
            totals={"query_count": t * 5} if pooled else {},
            cpu=CpuUse(1.9, server, 0.2, *((0.2, 0.2) if pooled else ())) if t else None,
            setup=None if pooled else SetupSecond(900, 2.0, 9.5),
        )
        for t in range(33)
    ]
    return ServerObservation(
        max_connections=100,
        superuser_reserved=3,
        reserved=0,
        in_use_before=0,
        in_use_after=0,
        seconds=looks,
        memory={"during": ServerMemory(20, 30 << 20, 12, 1_500_000, 20)},
        pooler_memory={"during": PoolerMemory(1, 3 << 20, 50)} if pooled else {},
        cores=2,
        origin_s=1.004,
        setup=None if pooled else setup_times(),
        pooled=pooled,
    )


def watched(*, pooled: bool = False) -> RunResult:
    """A run of thirty seconds and its server."""
    run = typical_run(duration_s=DURATION_S)
    run.server_side = side(pooled=pooled)
    return run


@pytest.mark.parametrize("pooled", [False, True])
def test_everything_that_was_seen_is_in_the_file_and_comes_back(pooled: bool) -> None:
    run = watched(pooled=pooled)
    seen = run.server_side
    assert seen is not None
    back = from_session(session_of(run)).runs[0].server_side
    assert back is not None
    assert back.timeline == tuple(map(ServerSampleRecord.of, seen.seconds))
    assert (back.cores, back.origin_s) == (2, 1.004)
    assert back.sessions == {"sessions": 32 * 900, "abandoned": 3, "fatal": 0, "killed": 0}
    assert back.pooler_totals == ({"query_count": 160} if pooled else {})
    assert back.limit is not None
    assert back.limit.words.startswith("limit: the server (its processes used 1.7 of 2 cores")
    if seen.setup is None:
        assert back.setup is None
    else:
        assert back.setup is not None
        assert (back.setup.seen, back.setup.missed_bytes) == (19_900, 0)
        assert back.setup.histograms["total"].count == 19_000
        assert back.setup.latency_ms["fork"].p50 == pytest.approx(0.2, rel=0.05)


def test_a_file_from_before_these_figures_is_read_as_ever() -> None:
    content = json.loads(dumps(session_to_json(session_of(watched()))))
    runs = content["runs"]
    server = runs[0]["server_side"]
    for name in ("cores", "origin_s", "sessions", "pooler_totals", "setup", "limit", "one_process"):
        del server[name]
    for look in server["timeline"]:
        for name in ("sessions", "pooler_totals", "cpu", "setup"):
            del look[name]
    result = parse_result(dumps(content).decode(), source="old.json")
    back = result.runs[0].server_side
    assert back is not None
    assert back.limit is None
    assert back.timeline[1].cpu is None
    with style():
        draw_run(result, result.runs[0])


def test_a_run_that_began_before_the_first_look_at_a_slow_server_is_read_as_it_is() -> None:
    run = typical_run()
    run.server_side = ServerObservation(cores=2, origin_s=-1.25, seconds=[ServerSample(t=0.5, used=3)])
    loaded = parse_result(dumps(session_to_json(session_of(run))).decode(), source="x").runs[0].server_side
    assert loaded is not None
    assert loaded.origin_s == -1.25


def test_a_damaged_figure_is_named() -> None:
    content = json.loads(dumps(session_to_json(session_of(watched()))))
    runs = content["runs"]
    runs[0]["server_side"]["timeline"][3]["cpu"]["server"] = "much"
    with pytest.raises(UsageError, match=r"runs\[0\]\.server_side\.timeline\[3\]\.cpu\.server"):
        parse_result(dumps(content).decode(), source="bad.json")


def test_the_summary_says_what_the_limit_was_and_what_the_server_s_part_was() -> None:
    text = watched_summary(RunRecord.of(watched()))
    assert "limit: the server (its processes used 1.7 of 2 cores; the client 42%)" in text
    assert "CPU, cores: server 1.70 (postmaster 0.20), this machine 1.90 of 2" in text
    assert "sessions from before the run to after it: 28,800, 3 abandoned" in text
    assert "accepted to ready       19,000" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_means_of_client_and_server_are_set_beside_each_other() -> None:
    run = run_of(stats_of(np.full(1000, 10.0), phases={Phase.AUTH: 0.5, Phase.READY: 0.1}), duration_s=30.0)
    run.server_side = side()
    assert run.server_side.setup is not None
    run.server_side.setup.total = histogram_of_ms([4.0] * 1000)
    words = " ".join(watched_summary(RunRecord.of(run)).split())
    client_ms = sum(run.total.phases[phase].total_s for phase in (Phase.AUTH, Phase.READY))
    assert client_ms == pytest.approx(6.0, rel=0.02)
    assert f"the client waited {client_ms:.2f} ms on average for what took the server 4.00 ms" in words


def test_a_run_that_nobody_watched_has_no_such_section() -> None:
    run = typical_run()
    assert "limit" not in watched_summary(RunRecord.of(run))
    with style():
        texts = {text.get_text() for text in draw_run(*drawn(run)).labels}
    assert "Server" not in texts


def drawn(run: RunResult) -> tuple[ResultRecord, RunRecord]:
    """A run as it is drawn."""
    result = from_session(session_of(run))
    return result, result.runs[0]


@pytest.mark.parametrize("pooled", [False, True])
def test_the_picture_shows_the_server_and_no_text_overlaps_another(pooled: bool) -> None:
    with style():
        sheet = draw_run(*drawn(watched(pooled=pooled)))
        assert_legible(sheet)
    texts = {text.get_text() for text in sheet.labels}
    assert {"Server", "machine", "server", "client"} <= texts
    assert ({"waiting", "served", "servers", "PgBouncer"} <= texts) is pooled
    assert ("Set-up" in texts) is not pooled
    assert any(text.startswith("limit: the server") for text in texts)
    # The server's looks stand where the run's clock was then.
    lines = [np.asarray(line.get_xydata()) for axes in sheet.figure.axes for line in axes.get_lines()]
    (server,) = [line for line in lines if len(line) == 32 and (line[:, 1] == 1.7).all()]
    assert server[1, 0] == pytest.approx(1.5 * 1.003 - 1.004)


def one_process() -> ServerObservation:
    """A SurrealDB, whose connections are all served by one process."""
    looks = [
        ServerSample(
            t=float(t),
            states={"open": 12, "closing": 1} if 0 < t < 32 else {},
            cpu=CpuUse(1.5, 1.0, server_thread=0.75) if t else None,
        )
        for t in range(33)
    ]
    sizes = {"before": (50 << 20, 0), "peak": (74 << 20, 24), "after": (61 << 20, 0)}
    return ServerObservation(
        in_use_before=0,
        in_use_after=0,
        seconds=looks,
        memory={when: ServerMemory(1, size, count, None, 1) for when, (size, count) in sizes.items()},
        cores=2,
        origin_s=1.0,
        one_process=True,
    )


def test_what_one_process_serves_is_called_connections() -> None:
    run = typical_run(duration_s=DURATION_S)
    run.server_side = one_process()
    text = watched_summary(RunRecord.of(run))
    assert "backend" not in text
    assert "server 1.00 (busiest thread 0.75), this machine 1.50 of 2" in text
    assert "connections at peak: open 12, closing 1" in text
    assert "each further connection cost the server 1 MB" in text
    result = from_session(session_of(run))
    back = result.runs[0].server_side
    assert back is not None
    assert back.one_process
    assert back.timeline[1].cpu == CpuRecord(machine=1.5, server=1.0, server_thread=0.75)
    with style():
        assert_legible(draw_run(result, result.runs[0]))
    drawn = svg_text(plot_run(result, file_format="svg"))
    assert "connections" in drawn.splitlines()
    assert "backend" not in drawn
