"""Commands watch the server of their runs, and say what they saw."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any, Self, cast

import psycopg
import pytest

from pool_bench.cli.places.postgres import PostgresPlace
from pool_bench.cli.session import BenchSession
from pool_bench.cli.watching import follow_watched, is_wanted
from pool_bench.errors import UsageError
from pool_bench.load.run import Run
from pool_bench.results.read import load_result
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.stats.operations import BenchStats, ClientUsage
from pool_bench.stats.runs import Snapshot, Stage
from pool_bench.stats.server import ServerObservation
from pool_bench.watch.machine.limits import LimitsReader
from pool_bench.watch.watcher import Watcher, watch_postgres
from tests.support.commands import Outcome, load, run_tool
from tests.support.held_sessions import await_true, clients, target
from tests.support.patience import PATIENT
from tests.support.servers import StartPgBouncer, StartPostgres

COUNTS = ("ok", "failed", "unfinished")
# Enough for the watcher to see something of it.
_GENTLE = ("-c", "2", "-d", "300ms", "--warmup", "0")


@pytest.fixture(scope="module")
def server(start_postgres: StartPostgres) -> EmbeddedPostgres:
    """A PostgreSQL of these tests' own: its counters must be exact."""
    server = start_postgres(
        PostgresConfig(
            settings={"autovacuum": "off"}, access=("host all plain,somebody,narrow 127.0.0.1/32 trust",)
        )
    )
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")
        connection.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 2")
    return server


def measured(
    tmp_path: Path, *arguments: str, command: str = "pg_connection_bench"
) -> tuple[Outcome, list[dict[str, Any]]]:
    """What the command said, and its runs."""
    path = tmp_path / "result.json"
    saving = ("--quiet", "--no-save", "--json", str(path))
    outcome = run_tool(*arguments, *saving, constants=PATIENT, command=command)
    assert outcome.code == 0, outcome.stderr
    # What was written is what can be read.
    load_result(path)
    runs: list[dict[str, Any]] = load(path)["runs"]
    return outcome, runs


def begun(run: dict[str, Any]) -> int:
    """Connections that the client began, the warm-up's included."""
    count: int = sum(run[name] for name in COUNTS) + sum(run["warmup"].values())
    return count


def test_the_server_counts_as_many_sessions_as_the_client_began_in_each_run(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    await_true(lambda: not clients(server))
    levels = ("--concurrency-min", "2", "--concurrency-max", "3", "--wait-between-runs", "0")
    # Time for looks, of which hardly any is work.
    rare = ("-d", "1s", "--warmup", "500ms", "--query", "SELECT pg_sleep(0.02)")
    outcome, runs = measured(tmp_path, "-u", server.url, *levels, *rare, "-v")
    assert len(runs) == 2
    for run in runs:
        side = run["server_side"]
        assert side["sessions"] == {"sessions": begun(run), "abandoned": 0, "fatal": 0, "killed": 0}
        assert (side["in_use_before"], side["in_use_after"]) == (0, 0)
        assert side["notes"] == []
        assert {"before", "during", "after"} == side["memory"].keys()
        # The warm-up lies between the beginning of the watching and that of the run's clock.
        assert 0.5 <= side["origin_s"] <= side["timeline"][-1]["t"] - 1
        # This server does not log set-ups.
        assert side["setup"] is None
        looks = [look["cpu"] for look in side["timeline"] if look["cpu"]]
        assert looks
        assert all(0 <= cpu["postmaster"] <= cpu["server"] for cpu in looks)
        assert max(cpu["server"] for cpu in looks) > 0
        assert f"  {side['limit']['words']}"[:60] in outcome.stdout


def test_pools_are_watched_without_taking_one_of_their_connections(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    # There is no slot beside the pool's: who took one would keep a pool from filling.
    url = server.url.replace(f"{server.user}@", "narrow@", 1)
    await_true(lambda: not clients(server))
    load_ = ("--scenario", "query", "--pool", "reference,asyncpg", "--clients", "8", "--size", "2")
    timing = ("-d", "500ms", "--warmup", "0", "--rounds", "1", "--timeout", "60s", "-v", "--no-prepared")
    outcome, runs = measured(tmp_path, "run", "-u", url, *load_, *timing, command="pool_bench.__main__")
    assert len(runs) == 2
    for run in runs:
        side = run["server_side"]
        assert (run["failed"], run["checkout"]["opened"]) == (0, 2)
        # The watcher's own are none of them.
        assert side["sessions"] == {"sessions": 2, "abandoned": 0, "fatal": 0, "killed": 0}
        assert "the watcher gave its own connection back" in " ".join(side["notes"])
        assert side["memory"].keys() == {"before", "after"}
        assert any(look["cpu"] for look in side["timeline"])
    assert "server, the rounds together" in outcome.stdout


def test_the_console_that_is_named_is_asked_while_pools_are_measured(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, tmp_path: Path
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port))
    sizes = ("size", "--sizes", "1..16", "--clients", "16", "--rounds", "1", "-d", "100ms", "--warmup", "0")
    # Pools go past the pooler, so that nobody is its client.
    where = ("-u", server.url, "--pgbouncer-admin", bouncer.url, "--timeout", "60s")
    _, runs = measured(tmp_path, *sizes, *where, command="pool_bench.__main__")
    for run in runs:
        looks = run["server_side"]["timeline"]
        assert {look["lists"]["used_clients"] for look in looks} == {0}


def test_the_embedded_server_tells_its_own_time_for_each_connection(tmp_path: Path) -> None:
    outcome, (run,) = measured(tmp_path, "-c", "4", "-d", "1s", "--warmup", "0", "-v")
    side = run["server_side"]
    setup = side["setup"]
    assert setup["seen"] == side["sessions"]["sessions"] == begun(run) == run["ok"]
    assert setup["missed_bytes"] == 0
    assert sum(look["setup"]["count"] for look in side["timeline"]) == run["ok"]
    # The clock begins when all are under way, and the log's times are whole milliseconds.
    count = load_result(tmp_path / "result.json").runs[0].server_side
    assert count is not None
    assert count.setup is not None
    assert run["ok"] - 10 <= count.setup.histograms["total"].count <= run["ok"]
    # It is a part of what the client waited for.
    for name in ("p50", "p99", "max"):
        assert 0 < setup["latency_ms"]["total"][name] <= run["latency_ms"][name]
    assert setup["latency_ms"]["fork"]["mean"] < setup["latency_ms"]["total"]["mean"]
    assert "accepted to ready" in outcome.stdout


class _Told:
    """A watcher that keeps what it is told of the run's clock."""

    def __init__(self) -> None:
        self.began: list[tuple[int, bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return

    def start(self) -> None:
        return

    def during(self) -> None:
        return

    def tell_clock(self, began_ns: int, *, expected: bool = False) -> None:
        self.began.append((began_ns, expected))

    def stop(self) -> ServerObservation:
        return ServerObservation()


def test_the_run_s_clock_is_that_of_measuring_and_not_what_the_warm_up_took_for_it() -> None:
    def snapshot(stage: Stage, began_ns: int) -> Snapshot:
        return Snapshot(
            stage=stage,
            elapsed_s=0.0,
            seconds=1.0,
            targets=(),
            warmup=BenchStats(),
            in_flight=0,
            backing_off=0,
            client=ClientUsage(),
            began_ns=began_ns,
        )

    def follow(run: Run, saw: Callable[[Snapshot], None]) -> None:
        for stage, began_ns in (*[(Stage.WARMUP, 7)] * 2, *[(Stage.MEASURE, 9)] * 2, (Stage.DONE, 9)):
            saw(snapshot(stage, began_ns))

    told = _Told()
    seen: list[Snapshot] = []
    work = cast(BenchSession, SimpleNamespace(follow=follow, message=print))
    run = cast(Run, SimpleNamespace(result=SimpleNamespace(concurrency=1, server_side=None, wall=None)))
    follow_watched(work, run, cast(Watcher, told), LimitsReader(()), saw=seen.append)
    assert told.began == [(7, True), (9, False)]
    # Who has an eye on the run himself sees all of it, watched or not.
    assert len(seen) == 5
    follow_watched(work, run, None, saw=seen.append)
    assert len(seen) == 10


def test_the_run_s_clock_does_not_depend_on_when_word_of_it_came() -> None:
    before_ns = perf_counter_ns()
    watcher = watch_postgres([])
    watcher.start()
    started_ns = perf_counter_ns()
    # The watching began between the two, and word of a run that began earlier comes only now.
    began_ns = before_ns - 3_000_000_000
    watcher.tell_clock(began_ns)
    origin_s = watcher.stop().origin_s
    assert origin_s is not None
    assert (began_ns - started_ns) / 1e9 - 0.001 <= origin_s <= (began_ns - before_ns) / 1e9 + 0.001


def test_what_was_ready_in_the_warm_up_is_not_in_the_server_s_times(tmp_path: Path) -> None:
    # Longer than anything stands still, so that there are more of them than may be on one side only.
    _, (run,) = measured(
        tmp_path, "-c", "2", "-d", "200ms", "--warmup", "3s", "--query", "SELECT pg_sleep(0.02)"
    )
    result = load_result(tmp_path / "result.json").runs[0]
    side = result.server_side
    assert side is not None
    assert side.setup is not None
    assert side.setup.seen == begun(run)
    # Those that were under way when it ended count on one side only.
    assert abs(side.setup.histograms["total"].count - run["ok"]) <= 10 < run["warmup"]["ok"] - 10


def test_without_watching_nobody_asks_and_nothing_is_logged(server: EmbeddedPostgres, tmp_path: Path) -> None:
    outcome, (run,) = measured(
        tmp_path, "-u", server.url, "-c", "2", "-d", "100ms", "--warmup", "0", "--no-watch"
    )
    assert "server_side" not in run
    assert "server" not in outcome.stdout.splitlines()
    assert load(tmp_path / "result.json")["config"]["watch"] is False


def test_clients_that_wait_for_a_full_pool_are_seen_through_its_own_console(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, tmp_path: Path
) -> None:
    bouncer = start_pgbouncer(PgBouncerConfig(backend_port=server.port, default_pool_size=2))
    query = ("--query", "SELECT pg_sleep(0.03)", "-v")
    outcome, (run,) = measured(tmp_path, "-u", bouncer.url, "-c", "12", "-d", "4s", "--warmup", "0", *query)
    side = run["server_side"]
    # Before the run there is nobody, not even the watcher.
    assert side["timeline"][0]["lists"]["used_clients"] == 0
    looks = [look["pools"] for look in side["timeline"][1:-1] if look["pools"]]
    assert max(pools["cl_waiting"] for pools in looks) >= 4
    # The watcher itself waits at times, but not when it looks, unless it has just waited in vain: PgBouncer
    # sees that a client has gone when it is that one's turn.
    for before, look in pairwise(side["timeline"][:-1]):
        if before["states"] and look["pools"]:
            assert look["pools"]["cl_waiting"] + look["pools"]["cl_active"] <= 12
    assert max(pools["maxwait_us"] for pools in looks) > 0
    assert side["pooler_totals"]["query_count"] >= run["ok"]
    assert side["pooler_totals"]["wait_time"] > 0
    assert side["pooler_memory"].keys() == {"before", "during", "after"}
    assert any((look["cpu"] or {}).get("pooler") is not None for look in side["timeline"])
    assert side["limit"]["what"] in {"pool", "machine"}, side["limit"]
    assert "longest wait for a server connection in PgBouncer" in outcome.stdout


def no_console(server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer) -> PgBouncer:
    """A PgBouncer whose console is for somebody else."""
    config = PgBouncerConfig(backend_port=server.port, settings={"admin_users": "somebody"})
    return start_pgbouncer(config)


def test_a_console_that_is_for_others_is_a_note_and_its_process_is_seen_nevertheless(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, tmp_path: Path
) -> None:
    bouncer = no_console(server, start_pgbouncer)
    _, (run,) = measured(tmp_path, "-u", bouncer.url, *_GENTLE)
    side = run["server_side"]
    assert "the pooler has no console for user bench: --pgbouncer-admin names one" in side["notes"]
    assert all(not look["pools"] for look in side["timeline"])
    assert any((look["cpu"] or {}).get("pooler") is not None for look in side["timeline"])
    # One question is answered no, once.
    assert bouncer.log().count("closing because: not allowed") == 1


def test_a_console_that_is_named_is_asked(
    server: EmbeddedPostgres, start_pgbouncer: StartPgBouncer, tmp_path: Path
) -> None:
    with psycopg.connect(server.superuser_url, autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE somebody LOGIN; EXCEPTION WHEN OTHERS THEN END $$")
    config = PgBouncerConfig(
        backend_port=server.port,
        users={server.user: "", "somebody": ""},
        settings={"admin_users": "somebody"},
    )
    bouncer = start_pgbouncer(config)
    admin = bouncer.url.replace(f"{server.user}@", "somebody@")
    arguments = ("-u", bouncer.url, "--pgbouncer-admin", admin, *_GENTLE)
    _, (run,) = measured(tmp_path, *arguments)
    assert any(look["pools"].get("cl_active") is not None for look in run["server_side"]["timeline"])


def test_a_user_without_rights_is_told_what_it_cannot_see(server: EmbeddedPostgres, tmp_path: Path) -> None:
    url = server.url.replace(f"{server.user}@", "plain@", 1)
    _, (run,) = measured(tmp_path, "-u", url, *_GENTLE)
    side = run["server_side"]
    assert side["sessions"]["sessions"] == begun(run)
    assert [
        note
        for note in side["notes"]
        if note.startswith("user plain may not see the sessions of other users")
    ]


def test_a_server_that_is_not_there_is_watched_in_vain_and_the_run_is_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    url = "postgresql://nobody@127.0.0.1:1/none?sslmode=disable"
    outcome = run_tool("-q", "--no-save", "--json", str(path), "-u", url, "--keep-going", *_GENTLE)
    assert outcome.code == 1
    (run,) = load(path)["runs"]
    assert run["errors"].keys() == {"refused"}
    assert run["server_side"]["limit"]["words"] == "not known: no operation succeeded"
    assert len(run["server_side"]["notes"]) == 1


HERE = [
    "postgresql://u@localhost/db",
    "postgresql://u@127.0.0.9/db",
    "postgresql://u@[::1]/db",
    "postgresql://u@/db?host=/var/run/postgresql",
]
ELSEWHERE = [
    "postgresql://u@db.example.com/db",
    "postgresql://u@10.0.0.1/db",
    "postgresql://u@localhost,db.example.com/db",
    "postgresql://u@localhost/db?hostaddr=10.0.0.1",
]


@pytest.mark.parametrize(
    ("urls", "expected"),
    [([], True), (HERE, True), *(([url], False) for url in ELSEWHERE), ([HERE[0], ELSEWHERE[0]], False)],
)
def test_servers_on_this_machine_are_watched_unless_the_user_says_something_else(
    urls: list[str], expected: bool
) -> None:
    place = PostgresPlace(tuple(target(url) for url in urls), "--url")
    assert is_wanted(None, None, place) is expected
    assert is_wanted(True, None, place) is True
    assert is_wanted(False, None, place) is False
    # Who names a console wants it asked.
    assert is_wanted(None, target(HERE[0]), place) is True
    with pytest.raises(UsageError, match="--no-watch"):
        is_wanted(False, target(HERE[0]), place)
