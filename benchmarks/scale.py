"""What several generator processes add, and what they cost: connections a second, CPU each, merging.

The driver `wire` against servers that answer at once (`servers/scripted`), which have processes of their own
on the same cores. Each number of processes in turn, round after round in changing order; prints medians, and
ratios of medians to one process. The parent's share is its CPU time while it merges and draws, over the run's
length. Where generators and servers together fill the cores, the rate says what these can do, and only the
CPU time for each connection what a further process costs.

    uv run python benchmarks/scale.py
    uv run python benchmarks/scale.py --processes 1 --processes 2 --rounds 7 --servers 1
    uv run python benchmarks/scale.py --processes 2 --cluster 2
"""

import io
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import click

from pool_bench.load.child import Crew
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.report.live.view import make_view
from pool_bench.servers.scripted.server import ScriptedPostgres
from pool_bench.stats.runs import Stage
from pool_bench.targets import Target, from_url


@dataclass(frozen=True, slots=True)
class Round:
    """One run.

    Connections a second; ms from a snapshot's end until it was here; client CPU for each connection (us);
    CPU share of the parent, and of the servers.
    """

    rate: float
    behind_ms: float
    cpu_us: float
    parent: float
    servers: float


def measure(
    processes: int,
    targets: tuple[Target, ...],
    servers: list[ScriptedPostgres],
    concurrency: int,
    seconds: float,
    crew: Crew | None = None,
) -> Round:
    """One run with so many processes, on this machine or behind the workers of `crew`."""
    spec = ConnectSpec(
        targets=targets,
        concurrency=concurrency,
        warmup_s=0.5,
        duration_s=seconds,
        processes=processes,
    )
    stop = StopSwitch()
    view = make_view(io.StringIO(), stream_is_terminal=False, targets=list(map(str, targets)))
    behind_ms: list[float] = []
    before = sum(server.truth().cpu_s for server in servers)
    run = Run(spec, f"{processes} processes", stop, crew)
    view.begin_run(run.result.label, 1, 1, spec.duration_s, spec.warmup_s)
    try:
        snapshots = run.snapshots()
        next(snapshots)
        began_s, cpu_s = time.monotonic(), time.process_time()
        for snapshot in snapshots:
            if snapshot.stage is Stage.MEASURE:
                behind_ms.append(
                    (time.perf_counter_ns() - snapshot.began_ns) / 1e6 - snapshot.elapsed_s * 1e3
                )
            view.update(snapshot)
            if snapshot.final:
                break
        parent = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
        for _ in snapshots:
            continue
    finally:
        view.close()
        stop.close()
    result = run.result
    if result.total.failed or result.interrupted:
        raise click.ClickException(f"{processes} processes: {result.total.errors}")
    used = sum(server.truth().cpu_s for server in servers) - before
    return Round(
        rate=result.throughput,
        behind_ms=median(behind_ms),
        cpu_us=result.cpu_us_per_op or 0.0,
        parent=parent,
        servers=used / (result.duration_s + result.warmup_s),
    )


@contextmanager
def cluster(workers: int) -> Iterator[Crew]:
    """A cluster on this machine."""
    from pool_bench.load.cluster.opening import gathered_crew

    with gathered_crew(workers, pin=False, source_ips=(), say=click.echo) as crew:
        yield crew


@click.command()
@click.option("--processes", "counts", multiple=True, type=int, default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--concurrency", default=64, show_default=True)
@click.option("--servers", "server_count", default=2, show_default=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--cluster", "workers", default=0, show_default=True, help="Local workers of a cluster, too.")
def main(
    counts: tuple[int, ...], rounds: int, concurrency: int, server_count: int, seconds: float, workers: int
) -> None:
    """Measure and print."""
    found: dict[int, list[Round]] = {count: [] for count in counts}
    clustered: list[Round] = []
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedPostgres()) for _ in range(server_count)]
        targets = tuple(from_url(server.url("sslmode=disable")) for server in servers)
        crew = stack.enter_context(cluster(workers)) if workers else None
        for number in range(rounds):
            if crew is not None and number % 2:
                clustered.append(measure(workers, targets, servers, concurrency, seconds, crew))
            for count in counts if number % 2 else reversed(counts):
                found[count].append(measure(count, targets, servers, concurrency, seconds))
            if crew is not None and not number % 2:
                clustered.append(measure(workers, targets, servers, concurrency, seconds, crew))
    click.echo(
        f"{rounds} rounds of {seconds:g} s, {concurrency} workers, {server_count} null servers; medians"
    )
    click.echo("processes   conn/s  x one  client us  x one  parent  servers")
    one = found[counts[0]]
    for count, rows in found.items():
        rate, cpu = median(row.rate for row in rows), median(row.cpu_us for row in rows)
        base_rate, base_cpu = median(row.rate for row in one), median(row.cpu_us for row in one)
        parent, used = median(row.parent for row in rows), median(row.servers for row in rows)
        click.echo(
            f"{count:>9} {rate:>8,.0f} {rate / base_rate:>6.2f} {cpu:>10.1f} {cpu / base_cpu:>6.2f}"
            f" {parent:>7.1%} {used:>8.2f}"
        )
    if clustered and workers in found:
        rate, base = (median(row.rate for row in rows) for rows in (clustered, found[workers]))
        lag, own = (median(row.behind_ms for row in rows) for rows in (clustered, found[workers]))
        click.echo(
            f"cluster of {workers} local workers: {rate:,.0f} conn/s, x {workers} processes "
            f"{rate / base:.2f}, snapshots {lag:.1f} ms behind (processes: {own:.1f})"
        )


if __name__ == "__main__":
    main()
