"""Connections held by several generator processes from several source addresses, through PgBouncer.

Opens, holds and closes once for each number of processes, and prints what was held, dropped and left open,
the rate of opening, and the client's memory and CPU. Where one PgBouncer may not have descriptors enough,
several take an even share each.

    uv run python benchmarks/scale_hold.py
    uv run python benchmarks/scale_hold.py --connections 2000 --processes 4 --seconds 3
"""

from contextlib import ExitStack
from math import ceil

import click
from hold import SPARE_FILES, files_allowed, left_behind

from pool_bench.cli.limits import raise_file_limit
from pool_bench.load.run import Run, StopSwitch
from pool_bench.load.spec import HoldSpec
from pool_bench.servers import EmbeddedPostgres, PgBouncer, PgBouncerConfig
from pool_bench.targets import from_url


def measure(spec: HoldSpec, poolers: list[PgBouncer], server: EmbeddedPostgres) -> str:
    """Open, hold, close; a row of the table."""
    switch = StopSwitch()
    run = Run(spec, f"{spec.processes} processes", switch)
    try:
        for _ in run.snapshots():
            continue
    finally:
        switch.close()
    hold = run.result.hold
    if hold is None:
        raise AssertionError("the run held nothing")
    left = sum(left_behind(pooler.url, server.url) for pooler in poolers)
    return (
        f"{spec.processes:>9} {hold.held_peak:>7,} {run.result.total.failed:>7} {hold.dropped:>8}"
        f" {hold.closed:>7,} {hold.forced:>7} {left:>5} {hold.opened / hold.open_s:>9,.0f}"
        f" {(hold.client_bytes_each or 0) / 1024:>8.2f} {hold.hold_cpu_share or 0:>12.2%}"
        f" {hold.close_s:>8.2f} s"
    )


@click.command()
@click.option("--connections", default=20_000, show_default=True)
@click.option("--processes", "counts", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--source-ip", "sources", multiple=True, default=("127.0.0.2", "127.0.0.3"), show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="How long they are held.")
def main(connections: int, counts: tuple[int, ...], sources: tuple[str, ...], seconds: float) -> None:
    """Measure and print a table."""
    allowed = files_allowed() - SPARE_FILES
    shares = ceil(connections / allowed)
    counts = tuple(count for count in counts if connections / count <= allowed)
    raise_file_limit(min(connections, allowed), option="--connections")
    each = ceil(connections / shares)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres())
        config = PgBouncerConfig(backend_port=server.port, max_client_conn=each + 100)
        poolers = [stack.enter_context(PgBouncer(config)) for _ in range(shares)]
        targets = tuple(from_url(f"{pooler.url}&application_name=hold-benchmark") for pooler in poolers)
        click.echo(f"{connections:,} connections from {', '.join(sources)} through {shares} PgBouncer")
        click.echo(
            "processes    held  failed  dropped  closed  forced  left  opened/s  KB each  CPU holding"
            "  closed in"
        )
        for count in counts:
            spec = HoldSpec(
                targets=targets,
                connections=tuple(
                    connections // shares + (number < connections % shares) for number in range(shares)
                ),
                duration_s=seconds,
                open_concurrency=50,
                close_s=30.0,
                source_ips=sources,
                processes=count,
            )
            click.echo(measure(spec, poolers, server))


if __name__ == "__main__":
    main()
