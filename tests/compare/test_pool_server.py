"""What the server went through under a pool: rounds put together."""

from dataclasses import replace

from pool_bench.compare.pool_server import server_of
from pool_bench.compare.pools import group_by_load
from pool_bench.report.brief.pools import contests_brief
from pool_bench.report.summary.pool_server import size_limit
from pool_bench.report.summary.pools import contest_summary
from pool_bench.results.client import ClientTimeRecord
from pool_bench.results.run import RunRecord
from pool_bench.stats.client_time import ClientTime
from pool_bench.stats.runs import RunResult
from pool_bench.stats.server import CpuUse, ServerObservation, ServerSample
from tests.support.results.pools import pool_run


def seen(run: RunResult, *, server: float, machine: float, waiting: int | None = None) -> RunRecord:
    """The run, with a look at its server before it, and one a second while it measured."""
    pools = {} if waiting is None else {"cl_waiting": waiting, "maxwait_us": 40_000}
    use = CpuUse(server=server, machine=machine, pooler=None if waiting is None else 0.2)
    run.server_side = ServerObservation(
        seconds=[
            ServerSample(0.0, pools=dict.fromkeys(pools, 0)),
            *(ServerSample(t, states={"active": 3, "idle": 17}, pools=pools, cpu=use) for t in (1.0, 2.0)),
        ],
        cores=2,
        origin_s=1.0,
        max_connections=100,
        pooled=waiting is not None,
        notes=["what was not seen"],
    )
    return RunRecord.of(run)


def rounds(pool: str, **figures: float) -> list[RunRecord]:
    """Two rounds of a pool, each of a second."""
    return [
        seen(pool_run(pool, round_=number, duration_s=1.0, cpu_share=0.3), **figures)  # type: ignore[arg-type]
        for number in (1, 2)
    ]


def test_rounds_that_are_too_short_to_tell_by_themselves_tell_together() -> None:
    first, second = rounds("reference", server=1.7, machine=1.9)
    for run in (first, second):
        assert run.server_side is not None
        assert run.server_side.limit is not None
        assert run.server_side.limit.what == "unknown"
    server = server_of([first, second])
    assert server is not None
    assert server.limit.what == "server"
    assert (server.cpu.server, server.connections, server.active, server.slots) == (1.7, 20, 3, 100)


def test_two_generator_processes_may_use_more_than_a_core() -> None:
    runs = [seen(pool_run(cpu_share=1.5), server=0.2, machine=1.7) for _ in range(2)]
    together = [replace(run, processes=2, client=replace(run.client, saturated=False)) for run in runs]
    server = server_of(together)
    assert server is not None
    assert server.limit.what == "neither"


def test_looks_after_a_suspension_are_of_the_run_still() -> None:
    runs = rounds("reference", server=1.7, machine=1.9)
    time = ClientTimeRecord.of(ClientTime(seen_s=0.1, suspended_s=0.9))
    server = server_of([replace(run, duration_s=0.1, client=replace(run.client, time=time)) for run in runs])
    assert server is not None
    assert server.limit.what == "server"


def test_each_pool_is_told_its_own_limit_and_what_the_server_went_through() -> None:
    runs = [
        *rounds("reference", server=1.7, machine=1.9),
        *rounds("asyncpg", server=0.3, machine=0.6, waiting=7),
        *rounds("psycopg", server=0.3, machine=0.6),
    ]
    (contest,) = group_by_load(runs)
    words = " ".join(contests_brief([contest]).last.split())
    assert words.endswith(
        "limit: the server with reference; the pooler's pool with asyncpg; the pool's size, locks or the "
        "network with psycopg"
    )
    text = contest_summary(contest, "what it means")
    assert max(map(len, text.splitlines())) <= 100
    assert "psycopg: limit: neither was busy: network, locks or the pool's size" in " ".join(text.split())
    assert "20 of 100" in text
    assert text.count("what was not seen") == 1


def test_what_the_client_limited_is_told_once() -> None:
    runs = [seen(pool_run("asyncpg", cpu_share=0.99), server=1.7, machine=1.9) for _ in range(2)]
    runs += rounds("reference", server=1.7, machine=1.9)
    (contest,) = group_by_load(runs)
    words = " ".join(contests_brief([contest]).last.split())
    assert words.endswith("limit: this client, not the server, with asyncpg; the server with reference")


def test_a_size_has_the_limit_of_its_own_rounds_and_without_looks_there_is_none() -> None:
    (slow,) = group_by_load(rounds("reference", server=1.7, machine=1.9))
    (fast,) = group_by_load(rounds("reference", server=0.2, machine=0.3))
    sizes = [(4, slow.groups[0]), (8, fast.groups[0])]
    assert size_limit(sizes, 4).startswith("at size 4 limit: the server (")
    assert size_limit(sizes, None).startswith("at size 8 limit: neither was busy")
    alone = [RunRecord.of(pool_run())]
    assert server_of(alone) is None
    assert size_limit([(20, group_by_load(alone)[0].groups[0])], None) == ""


def test_without_looks_nothing_is_said_of_the_server() -> None:
    (contest,) = group_by_load([RunRecord.of(pool_run())])
    assert "server, the rounds" not in contest_summary(contest, "what it means")
    assert "limit:" not in contests_brief([contest]).last
