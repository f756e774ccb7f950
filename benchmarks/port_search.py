"""What connects cost beside many held connections, where the kernel has to search for a free local port.

Holds connections to a PgBouncer by plain sockets, until all local ports that the kernel hands out first are
taken, and measures `pg-connection-bench` (driver `wire`) beside them and beside none; prints medians of
connections per second and of the `tcp` phase's p50, and their ratios. `--other` lets another checkout take
part, by the interpreter of its environment, in turn with this one.

    uv run python benchmarks/port_search.py --other ../before/.venv/bin/python
"""

import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from pool_bench.cli.limits import local_ports, raise_file_limit
from pool_bench.pgwire.events import Startup
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig

# Of the local ports: all of the parity that is handed out first, and a few more.
HELD_SHARE = 0.5066
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: successful connections per second, median of the `tcp` phase in us."""

    rate: float
    tcp_us: float


@contextmanager
def held(bouncer: PgBouncer, count: int) -> Iterator[None]:
    """So many sessions on the pooler, opened without any narrowing of the search."""
    startup = Startup({"user": "bench", "database": "postgres"}).encoded
    socks = []
    try:
        for _ in range(count):
            sock = socket.create_connection((bouncer.host, bouncer.port), timeout=30)
            socks.append(sock)
            sock.sendall(startup)
            answer = b""
            while not answer.endswith(b"Z\0\0\0\x05I"):
                got = sock.recv(8192)
                if not got:
                    raise click.ClickException(f"the pooler let only {len(socks) - 1:,} in: {answer!r}")
                answer += got
        yield
    finally:
        for sock in socks:
            # A reset leaves nothing that would keep the port from the next round.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()


def measure(python: str, url: str, concurrency: int, seconds: int) -> Sample:
    """`pg-connection-bench` of an environment."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [python, "-m", "pg_connection_bench", "--quiet", "--no-watch", "--url", url]
        command += ["--concurrency", str(concurrency), "--duration", f"{seconds}s"]
        command += ["--json", str(result), "--output-dir", directory]
        # From a directory without sources: -m prefers those of the present one to the environment's.
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=directory)
        if done.returncode:
            raise click.ClickException(done.stderr + done.stdout)
        run = json.loads(result.read_text())["runs"][0]
    if run["failed"] or run["unfinished"]:
        raise click.ClickException(f"{run['errors']}, {run['unfinished']} unfinished")
    return Sample(run["throughput"], run["phases_ms"]["tcp"]["p50"] * 1000)


@click.command()
@click.option(
    "--connections", type=int, help="How many are held; half of the local ports and a few if not said."
)
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=3, show_default=True, help="How long, each time.")
@click.option("--concurrency", default=20, show_default=True, help="Connections under way at once.")
@click.option(
    "--other",
    type=click.Path(exists=True, dir_okay=False),
    help="Python of another checkout's environment, which takes part.",
)
def main(connections: int | None, rounds: int, seconds: int, concurrency: int, other: str | None) -> None:
    """Measure in turn and print a table."""
    count = connections or round((local_ports() or 0) * HELD_SHARE)
    raise_file_limit(count + concurrency + 100, option="--connections")
    pythons = {"this": sys.executable}
    if other:
        # Not resolved: the interpreter of an environment is a link whose place says which it is.
        pythons["other"] = str(Path(other).absolute())
    samples: dict[tuple[str, int], list[Sample]] = {
        (name, held): [] for name in pythons for held in (0, count)
    }
    with EmbeddedPostgres(PostgresConfig(max_connections=100)) as postgres:
        config = PgBouncerConfig(backend_port=postgres.port, max_client_conn=count + concurrency + 100)
        with (
            PgBouncer(config) as bouncer,
            click.progressbar(length=rounds * len(samples), label="measuring", file=sys.stderr) as progress,
        ):
            for number in range(rounds):
                names = list(pythons) if number % 2 == 0 else list(reversed(pythons))
                for beside in (0, count):
                    with held(bouncer, beside):
                        for name in names:
                            samples[name, beside].append(
                                measure(pythons[name], bouncer.url, concurrency, seconds)
                            )
                            progress.update(1)
    show(samples, list(pythons), count)


def show(samples: dict[tuple[str, int], list[Sample]], names: list[str], count: int) -> None:
    """Print medians and ratios."""
    rates = {key: statistics.median(one.rate for one in taken) for key, taken in samples.items()}
    tcps = {key: statistics.median(one.tcp_us for one in taken) for key, taken in samples.items()}
    print(f"\n{'':8}{'held':>8}{'conn/s':>9}{'min-max':>17}{'tcp p50 us':>12}{'x beside none':>15}")
    for (name, beside), taken in samples.items():
        span = f"{min(s.rate for s in taken):,.0f}-{max(s.rate for s in taken):,.0f}"
        times = tcps[name, beside] / tcps[name, 0]
        line = f"{name:8}{beside:>8,}{rates[name, beside]:>9,.0f}{span:>17}"
        print(f"{line}{tcps[name, beside]:>12.1f}{times:>15.2f}")
    if len(names) > 1:
        for beside in (0, count):
            this, other = rates["this", beside], rates["other", beside]
            print(f"beside {beside:,}: this is {this / other:.2f} x other in conn/s")


if __name__ == "__main__":
    main()
