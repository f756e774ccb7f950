"""Does the live view disturb what it shows? Loop lag and throughput with and without it.

Runs the command in turn on a pseudo-terminal (Rich live view), with its output in a pipe (a line a
second) and with --quiet, against PgBouncer over the embedded PostgreSQL, and prints medians.

    uv run python benchmarks/view_cost.py
"""

import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Literal

import click

from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
from pool_bench.servers.postgres import EmbeddedPostgres

View = Literal["live view", "lines", "quiet"]
VIEWS: tuple[View, ...] = ("live view", "lines", "quiet")


def run(view: View, url: str, seconds: int) -> dict[str, float]:
    """One run with one view; its figures from the result file."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "result.json"
        command = [
            sys.executable,
            "-m",
            "pg_connection_bench",
            "--url",
            url,
            "--concurrency",
            "20",
            "--no-save",
        ]
        command += ["--duration", f"{seconds}s", "--json", str(result)]
        if view == "live view":
            on_terminal(command)
        else:
            command += ["--quiet"] if view == "quiet" else []
            subprocess.run(command, check=True, capture_output=True)
        figures = json.loads(result.read_text())["runs"][0]
    lag = figures["client"]["loop_lag_ms"]
    return {"conn/s": figures["throughput"], "lag p50 ms": lag["p50"], "lag p99 ms": lag["p99"]}


def on_terminal(command: list[str]) -> None:
    """Run `command` on a pseudo-terminal whose output is read and thrown away."""
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    tool = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=env)
    os.close(theirs)
    reader = threading.Thread(target=_drain, args=(ours,))
    reader.start()
    code = tool.wait()
    reader.join()
    os.close(ours)
    if code:
        raise click.ClickException(f"the run on a terminal ended with {code}")


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            continue
    except OSError:
        return  # Linux reports the end of a pseudo-terminal as an error


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=5, show_default=True)
def main(rounds: int, seconds: int) -> None:
    """Alternate the views and print medians."""
    samples: dict[View, list[dict[str, float]]] = {view: [] for view in VIEWS}
    with EmbeddedPostgres() as postgres, PgBouncer(PgBouncerConfig(backend_port=postgres.port)) as bouncer:
        url = f"postgresql://bench@127.0.0.1:{bouncer.port}/postgres?sslmode=disable"
        for number in range(rounds):
            for view in VIEWS if number % 2 == 0 else reversed(VIEWS):
                samples[view].append(run(view, url, seconds))
    names = list(samples["quiet"][0])
    print(f"{'':10}" + "".join(f"{name:>12}" for name in names))
    for view, taken in samples.items():
        medians = [statistics.median(sample[name] for sample in taken) for name in names]
        print(f"{view:10}" + "".join(f"{value:>12,.2f}" for value in medians))


if __name__ == "__main__":
    main()
