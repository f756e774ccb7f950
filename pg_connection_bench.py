"""pg-connection-bench: how many connections per second can this server or pooler open and close?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

import os
from collections.abc import Callable
from dataclasses import replace

import click

from pool_bench import __version__
from pool_bench.cli.commands.calibrate import calibrate
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import Group
from pool_bench.cli.options.connect import ConnectOptions, connect_options
from pool_bench.cli.options.generators import GeneratorOptions, cluster_options
from pool_bench.cli.options.rounds import POSTGRES
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    SessionOptions,
    check_source_driver,
    driver_option,
    pgbouncer_admin_option,
    scram_cache_option,
    session_options,
    shortest_timeout,
    url_option_to,
)
from pool_bench.drivers.base import DriverName

TOOL = "pg-connection-bench"


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 a run had no success, a threshold failed, or a run is suspect with "
    "--require-valid, 2 bad usage, 130 left by a second Ctrl-C.",
)
@url_option_to("use several in turn")
@connect_options(
    "SQL",
    POSTGRES,
    "over a connection of its own sessions, counters, PgBouncer's pools, and on this machine CPU and memory",
)
@driver_option
@scram_cache_option
@pgbouncer_admin_option
@cluster_options
@session_options("-n")
@click.version_option(__version__, prog_name=TOOL)
@click.pass_context
def cli(
    ctx: click.Context,
    urls: tuple[str, ...],
    options: ConnectOptions,
    driver: DriverName,
    scram_cache: bool,
    admin_url: str | None,
    generators: GeneratorOptions,
    session: SessionOptions,
) -> None:
    """Open and close PostgreSQL connections, and say how fast that goes and what it costs.

    A closed loop (--concurrency) goes as fast as the server lets N workers. An open loop (--rate) begins
    connections when they are due, as users do, and so also sees what a server that stalls does to them.

    \b
    pg-connection-bench --concurrency 50
    pg-connection-bench --url postgresql://app@db:6432/app --duration 30s
    pg-connection-bench --concurrency-min 1 --concurrency-max 64 --driver asyncpg
    pg-connection-bench --rate 500/s --arrivals poisson --duration 30s
    pg-connection-bench --find-max --slo "p99<50ms,errors<0.1%"
    pg-connection-bench plot results/before.json results/after.json
    """
    if ctx.invoked_subcommand is not None:
        return
    loop = options.loop()
    check_source_driver(options.source_ips, driver, "wire")

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.connect import ConnectPlan
        from pool_bench.cli.options.rounds import read_variants
        from pool_bench.cli.places.postgres import find_console, find_targets, read_url

        place = find_targets(urls, application_name=TOOL)
        return ConnectPlan(
            tool=TOOL,
            place=place,
            session=session,
            options=options,
            loop=loop,
            watch=options.watch,
            spec=generators.ask(
                replace(
                    options.spec(place.targets, driver, loop),
                    connect_timeout_s=shortest_timeout(place.targets, options.connect_timeout_s),
                    scram_cache=scram_cache,
                )
            ),
            generators=generators,
            variants=read_variants(
                options.interleave, lambda url: read_url(url, os.environ, application_name=TOOL)
            ),
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
        ).run

    run_command(ctx, prepare)


cli.add_command(plot)
cli.add_command(calibrate)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
