"""What limited a run: the rule, by table, and what it is fed with."""

from dataclasses import replace

import pytest

from pool_bench.analysis.server_limit import Facts, judge, limit_of
from pool_bench.stats.server import CpuUse, ServerObservation, ServerSample
from pool_bench.stats.server_cpu import mean_cpu
from tests.support.results.holds import held_run, normal
from tests.support.results.runs import TOO_MANY, client_of, lognormal_ms, run_of, stats_of

IDLE = Facts(ok=1000, seconds=10.0, cores=2, client=0.12, machine=0.5, server=0.3, postmaster=0.05)
ONE_PROCESS = replace(IDLE, postmaster=None, server_thread=0.2)
POOLED = replace(IDLE, pooled=True, pooler=0.2, pooler_busiest=0.2)


@pytest.mark.parametrize(
    ("facts", "what", "words"),
    [
        (
            replace(IDLE, server=1.6, machine=1.8),
            "server",
            "limit: the server (its processes used 1.6 of 2 cores; the client 12%)",
        ),
        (
            replace(IDLE, client=0.97, server=0.4),
            "client",
            "limit: the client (97% of a core; the server 0.4 of 2 cores)",
        ),
        (replace(IDLE, client=1.7, processes=2), "neither", None),
        (replace(IDLE, client=1.9, processes=2), "client", None),
        # Full as well, but the client is what was measured then.
        (replace(IDLE, client=0.97, server=1.7), "client", None),
        (
            replace(POOLED, pooler=0.97, pooler_busiest=0.97, client=0.4),
            "pooler",
            "limit: the pooler (one core full: its process used 97%; the client 40%)",
        ),
        # Two processes on one port that share the work are not one that is full.
        (replace(POOLED, pooler=0.97, pooler_busiest=0.5), "neither", None),
        (
            replace(IDLE, cores=16, server=9.0, postmaster=0.95, machine=10.0),
            "server",
            "limit: the server (one core full: its postmaster, which forks for every connection, used 95%; "
            "the client 12%)",
        ),
        (
            replace(ONE_PROCESS, server=1.3, server_thread=0.94, machine=1.9),
            "server",
            "limit: the server (one core full: its busiest thread used 94%; the server 1.3 of 2 cores; "
            "the client 12%)",
        ),
        # Its threads share the work.
        (replace(ONE_PROCESS, server=1.7, server_thread=0.5), "server", None),
        (replace(ONE_PROCESS, client=0.97, server_thread=0.94), "client", None),
        (ONE_PROCESS, "neither", None),
        (
            replace(IDLE, server=1.1, client=0.5, machine=1.95),
            "machine",
            "limit: this machine (1.9 of 2 cores busy: server 1.1, client 0.5, others 0.3)",
        ),
        (
            replace(IDLE, server=None, postmaster=None, client=0.3, machine=1.9),
            "machine",
            "limit: this machine (1.9 of 2 cores busy: client 0.3, others 1.6)",
        ),
        (
            replace(POOLED, waiting=0.9, most_waiting=1030),
            "pool",
            "limit: the pooler's pool (up to 1,030 clients waited for a server connection; "
            "the server 0.3 of 2 cores; the pooler 20%; the client 12%)",
        ),
        # The cores are somebody else's; what clients wait for is a server connection.
        (
            replace(POOLED, waiting=0.9, most_waiting=31, machine=1.98),
            "pool",
            "limit: the pooler's pool (up to 31 clients waited for a server connection; "
            "the server 0.3 of 2 cores; the pooler 20%; the client 12%; this machine 2.0)",
        ),
        (replace(POOLED, waiting=0.9, most_waiting=31, machine=1.98, server=1.1), "machine", None),
        (replace(POOLED, waiting=0.3, most_waiting=3), "neither", None),
        # The pool is a queue because the server behind it is full.
        (replace(POOLED, waiting=1.0, most_waiting=30, server=1.8), "server", None),
        (
            replace(IDLE, refused=0.25, max_connections=100),
            "slots",
            "limit: the server's slots (25% of the attempts found none free: max_connections 100)",
        ),
        # More slots would not make it faster.
        (replace(IDLE, refused=0.25, server=1.7), "server", None),
        (replace(IDLE, refused=0.001), "neither", None),
        (
            replace(IDLE, bottleneck="its event loop was 14.0 ms late (p99)"),
            "client",
            "limit: the client (its event loop was 14.0 ms late (p99); the server 0.3 of 2 cores)",
        ),
        # The verdict has said that it was the client.
        (replace(IDLE, bottleneck="late", machine=2.0, server=1.7), "client", None),
        (
            replace(IDLE, starved="the server used 0.3 of 2 cores"),
            "machine",
            "limit: this machine's cores (the client had to wait for one: the server used 0.3 of 2 cores)",
        ),
        # It was late because it had no core, and who had it can be said.
        (replace(IDLE, starved="others", machine=2.0, server=1.2), "machine", None),
        (replace(IDLE, starved="others", machine=2.0, server=1.7), "server", None),
        (
            IDLE,
            "neither",
            "limit: neither was busy: network, locks or the concurrency "
            "(server 0.3, client 0.1, others 0.1 of 2 cores)",
        ),
        (
            replace(IDLE, server=None, postmaster=None),
            "unknown",
            "not known: the server's processes are not to be seen from here; "
            "client 0.1, others 0.4 of 2 cores",
        ),
        (replace(POOLED, pooler=None, pooler_busiest=None), "unknown", None),
        (replace(POOLED, server=None, pooler=None, pooler_busiest=None), "unknown", None),
        (replace(IDLE, ok=0), "unknown", "not known: no operation succeeded"),
        (replace(IDLE, seconds=1.0), "unknown", "not known: CPU was seen for 1.0 s of the run only"),
    ],
)
def test_the_limit_is_what_was_full_or_else_what_queued(facts: Facts, what: str, words: str | None) -> None:
    limit = judge(facts)
    assert limit.what == what
    assert limit.words.startswith(("limit: ", "not known: "))
    assert words in (None, limit.words)


def watched(*cpu: CpuUse | None, waiting: int = 0, origin_s: float = 1.0) -> ServerObservation:
    """Looks a second apart, the first one before the run."""
    seconds = [
        ServerSample(float(t), cpu=use, pools={"cl_waiting": waiting} if waiting else {})
        for t, use in enumerate((None, *cpu))
    ]
    return ServerObservation(seconds=seconds, cores=2, origin_s=origin_s)


def test_only_looks_inside_the_measured_time_count() -> None:
    side = watched(*(CpuUse(server=value) for value in (9.0, 1.0, 2.0, 9.0)))
    use, seconds = mean_cpu(side.seconds, side.origin_s or 0.0, 2.0)
    assert (use.server, seconds) == (1.5, 2.0)


def test_looks_weigh_as_long_as_they_are_and_gaps_weigh_nothing() -> None:
    side = watched(CpuUse(server=1.0), None, CpuUse(server=None, machine=2.0), origin_s=0.0)
    side.seconds[3] = replace(side.seconds[3], t=5.0)
    side.seconds.append(ServerSample(8.0, cpu=CpuUse(server=0.2, machine=1.0)))
    use, seconds = mean_cpu(side.seconds, side.origin_s or 0.0, 10.0)
    assert use.server == pytest.approx((1.0 + 3 * 0.2) / 4)
    assert use.machine == pytest.approx((3 * 2.0 + 3 * 1.0) / 6)
    assert seconds == pytest.approx(1 + 3 + 3)


def test_a_run_that_nobody_watched_or_that_held_connections_is_not_judged() -> None:
    assert limit_of(run_of(stats_of(lognormal_ms(10)))) is None
    assert limit_of(held_run(normal(), server_side=watched(CpuUse(server=2.0)))) is None


def test_a_run_is_judged_by_its_own_figures() -> None:
    run = run_of(stats_of(lognormal_ms(100), failures={TOO_MANY: 100}), duration_s=3.0)
    run.server_side = watched(*[CpuUse(machine=0.5, server=0.2)] * 5)
    limit = limit_of(run)
    assert limit is not None
    assert limit.what == "slots"
    assert "50% of the attempts" in limit.words

    run = run_of(stats_of(lognormal_ms(100)), duration_s=3.0)
    run.server_side = watched(
        *[CpuUse(machine=0.9, server=0.2, pooler=0.1, pooler_busiest=0.1)] * 5, waiting=7
    )
    limit = limit_of(run)
    assert limit is not None
    assert limit.what == "pool"
    assert "up to 7 clients" in limit.words

    run = run_of(stats_of(lognormal_ms(100)), client=client_of(lag_ms=30.0), duration_s=3.0)
    run.server_side = watched(*[CpuUse(machine=0.9, server=0.2)] * 5)
    limit = limit_of(run)
    assert limit is not None
    assert limit.what == "client"
