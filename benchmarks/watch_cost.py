"""Does watching the server disturb the run? Throughput with and without it, in turn, and their ratio.

Against the embedded PostgreSQL, whose log of set-up times is part of the watching, and against PgBouncer,
whose console is asked.

    uv run python benchmarks/watch_cost.py --rounds 15
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import click

from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres

Place = Literal["embedded", "pgbouncer"]
PLACES: tuple[Place, ...] = ("embedded", "pgbouncer")
WAYS = ("--no-watch", "--watch")


@contextmanager
def target(place: Place) -> Iterator[tuple[str, ...]]:
    """The options that lead to it; the embedded server is the command's own."""
    if place == "embedded":
        yield ()
        return
    with EmbeddedPostgres() as server, PgBouncer(PgBouncerConfig(backend_port=server.port)) as bouncer:
        yield ("--url", bouncer.url)


def run(way: str, where: tuple[str, ...], seconds: int, concurrency: int) -> float:
    """Connections per second of one run."""
    command = [
        sys.executable,
        "-m",
        "pg_connection_bench",
        "--no-save",
        "--quiet",
        "--json",
        "-",
        way,
        *where,
    ]
    command += ["--duration", f"{seconds}s", "--concurrency", str(concurrency)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rate: float = json.loads(done.stdout)["runs"][0]["throughput"]
    return rate


@click.command()
@click.option("--rounds", default=10, show_default=True, help="Runs with and without watching, each.")
@click.option("--seconds", default=4, show_default=True, help="Length of a run.")
@click.option("--concurrency", default=20, show_default=True, help="Workers.")
def main(rounds: int, seconds: int, concurrency: int) -> None:
    """Measure what watching costs."""
    for place in PLACES:
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        with target(place) as where:
            for index in range(rounds):
                # Neither always goes first.
                for way in WAYS if index % 2 else reversed(WAYS):
                    rates[way].append(run(way, where, seconds, concurrency))
        off, on = (statistics.median(rates[way]) for way in WAYS)
        pairs = [watched / alone for alone, watched in zip(rates[WAYS[0]], rates[WAYS[1]], strict=True)]
        click.echo(
            f"{place}: {off:,.0f}/s without, {on:,.0f}/s with watching; ratio of medians {on / off:.3f}, "
            f"median of {rounds} ratios {statistics.median(pairs):.3f} "
            f"({min(pairs):.3f} to {max(pairs):.3f})"
        )


if __name__ == "__main__":
    main()
