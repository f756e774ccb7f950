"""What holding connections costs the client: wire and asyncpg, each against PgBouncer over PostgreSQL.

Opens, holds and closes connections of each driver in a generator process of its own, in alternating
rounds, and prints medians: client memory for each connection, CPU while merely holding, the rate of
opening, what was dropped, and what was left on the pooler and on the server afterwards.

    uv run python benchmarks/hold.py
"""

import sys
import time
from dataclasses import dataclass
from statistics import median

import click
import psycopg

from pool_bench.cli.limits import raise_file_limit
from pool_bench.drivers.base import DriverName
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import HoldSpec
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.targets.postgres import parse_target

# Files of the pooler and of the generator beside the connections.
SPARE_FILES = 200
GONE_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """One driver, once."""

    held: int
    bytes_each: float
    cpu_share: float
    opened_per_s: float
    dropped: int
    failed: int
    forced: int
    close_s: float
    left: int


def files_allowed() -> int:
    """The hard limit on open files of one process."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def left_behind(pooler_url: str, server_url: str) -> int:
    """Connections of the benchmark that the pooler or the server still has once they had time to go."""
    deadline = time.monotonic() + GONE_WAIT_S
    while True:
        with psycopg.connect(pooler_url, autocommit=True, dbname="pgbouncer") as console:
            rows = console.execute("SHOW CLIENTS").fetchall()
        with psycopg.connect(server_url, autocommit=True) as server:
            (backends,) = server.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hold-benchmark'"
            ).fetchone() or (0,)
        left = len(rows) - 1 + int(backends)
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def measure(pooler: PgBouncer, server: EmbeddedPostgres, driver: DriverName, spec: HoldSpec) -> Round:
    """Open, hold, close."""
    switch = StopSwitch()
    run = Run(spec, driver, switch)
    try:
        for _ in run.snapshots():
            continue
    finally:
        switch.close()
    hold = run.result.hold
    if hold is None:
        raise AssertionError("the run held nothing")
    return Round(
        held=hold.held_peak,
        bytes_each=hold.client_bytes_each or 0.0,
        cpu_share=hold.hold_cpu_share or 0.0,
        opened_per_s=hold.opened / hold.open_s,
        dropped=hold.dropped,
        failed=run.result.total.failed,
        forced=hold.forced,
        close_s=hold.close_s,
        left=left_behind(pooler.url, server.url),
    )


@click.command()
@click.option("--connections", default=15_000, show_default=True, help="How many wire holds.")
@click.option("--compared", default=2_000, show_default=True, help="How many asyncpg holds.")
@click.option("--seconds", default=10.0, show_default=True, help="How long they are held.")
@click.option("--rounds", default=3, show_default=True)
def main(connections: int, compared: int, seconds: float, rounds: int) -> None:
    """Measure and print a table."""
    allowed = files_allowed() - SPARE_FILES
    if connections > allowed:
        print(f"holding {allowed:,} instead of {connections:,}: the hard limit on open files is lower")
        connections = allowed
    raise_file_limit(connections, option="--connections")
    plan: tuple[tuple[DriverName, int], ...] = (
        ("wire", connections),
        ("wire", min(compared, connections)),
        ("asyncpg", min(compared, connections)),
    )
    results: dict[tuple[DriverName, int], list[Round]] = {setting: [] for setting in plan}
    with (
        EmbeddedPostgres(PostgresConfig(max_connections=100)) as server,
        PgBouncer(PgBouncerConfig(backend_port=server.port, max_client_conn=connections + 100)) as pooler,
    ):
        url = f"{pooler.url}{'&' if '?' in pooler.url else '?'}sslmode=disable"
        target = parse_target(
            url, env={"PGAPPNAME": "hold-benchmark"}, default_user="postgres", default_host="127.0.0.1"
        )
        for number in range(rounds):
            for driver, count in plan if number % 2 == 0 else reversed(plan):
                spec = HoldSpec(
                    targets=(target,),
                    connections=(count,),
                    driver=driver,
                    duration_s=seconds,
                    batch_size=count,
                    open_concurrency=50,
                    close_s=30.0,
                )
                results[driver, count].append(measure(pooler, server, driver, spec))
    print(
        f"{'driver':8} {'held':>7} {'KB each':>8} {'CPU holding':>12} {'opened/s':>9} {'dropped':>8}", end=""
    )
    print(f" {'failed':>7} {'forced':>7} {'closed in':>10} {'left':>5}")
    for (driver, _), several in results.items():
        print(
            f"{driver:8} {median(one.held for one in several):>7,.0f}"
            f" {median(one.bytes_each for one in several) / 1024:>8.2f}"
            f" {median(one.cpu_share for one in several):>12.2%}"
            f" {median(one.opened_per_s for one in several):>9,.0f}"
            f" {sum(one.dropped for one in several):>8}"
            f" {sum(one.failed for one in several):>7}"
            f" {sum(one.forced for one in several):>7}"
            f" {median(one.close_s for one in several):>8.2f} s"
            f" {sum(one.left for one in several):>5}"
        )


if __name__ == "__main__":
    main()
