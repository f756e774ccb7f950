"""Resident size after 50 thousand and after 5 million recorded operations.

Feeds the path that every operation takes, recorder to histograms to a snapshot that is pickled,
sent, merged into the run's result and shown, at 10,000 operations a simulated second; prints the
resident size along the way.

    uv run python benchmarks/memory.py
"""

import io
import pickle

import click
import numpy as np
import psutil

from pool_bench.errors import Phase
from pool_bench.report.live.lines import OperationLineView
from pool_bench.stats.operations import BenchStats, ClientUsage, Interval, Recorder
from pool_bench.stats.runs import RunResult, Snapshot, Stage

PHASES = (Phase.TCP, Phase.AUTH, Phase.READY, Phase.CLOSE)
PER_SECOND = 10_000


@click.command()
@click.option("--operations", default=5_000_000, show_default=True, help="How many to record.")
def main(operations: int) -> None:
    """Record and print the resident size."""
    process = psutil.Process()
    rng = np.random.default_rng(1)
    rows = [tuple(row) for row in rng.lognormal(14, 1, (PER_SECOND, len(PHASES) + 1)).astype(int).tolist()]
    recorder = Recorder(PHASES)
    result = RunResult("memory", 50, "wire", ("nowhere",))
    view = OperationLineView(io.StringIO())
    first = 0
    for second in range(1, operations // PER_SECOND + 1):
        for row in rows:
            recorder.ok(row)
        stats = recorder.take()
        stats.intervals.append(Interval(second, 1.0, stats.ok, 0, 50, 1.0, 0.5, stats.latency))
        usage = ClientUsage(cpu_s=0.5, wall_s=1.0)
        snapshot = Snapshot(Stage.MEASURE, second, 1.0, (stats,), BenchStats(), 50, 0, usage)
        received: Snapshot = pickle.loads(pickle.dumps(snapshot))  # noqa: S301  # made a line above
        result.total.merge(received.targets[0])
        result.total.intervals.seal(keep=2)
        result.client.merge(received.client)
        view.update(received)
        done = second * PER_SECOND
        if done in (50_000, 500_000, 1_000_000, operations):
            resident = process.memory_info().rss
            first = first or resident
            print(f"{done:>10,} operations: {resident / 1e6:6.1f} MB ({(resident - first) / 1e6:+.1f} MB)")
    if result.total.ok != operations:
        raise click.ClickException(f"recorded {result.total.ok}, not {operations}")


if __name__ == "__main__":
    main()
