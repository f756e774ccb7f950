"""pg-connection-bench: how many connections per second can this server or pooler open and close?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

import os
from collections.abc import Callable
from typing import Literal

import click

from pool_bench import __version__
from pool_bench.cli.commands.calibrate import calibrate
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import Group
from pool_bench.cli.options.levels import concurrency_options, measuring_options
from pool_bench.cli.options.loop import RateOptions, loop_of, rate_options
from pool_bench.cli.options.rounds import check_rounds, rounds_options
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    Output,
    by_address_option,
    calibrate_option,
    connect_timeout_option,
    driver_option,
    keep_going_option,
    name_option,
    output_options,
    pgbouncer_admin_option,
    require_valid_option,
    resolve_option,
    scram_cache_option,
    shortest_timeout,
    url_option,
    watch_option,
)
from pool_bench.cli.options.thresholds import Checks, threshold_options
from pool_bench.drivers.base import DriverName

TOOL = "pg-connection-bench"


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 a run had no success, a threshold failed, or a run is suspect with "
    "--require-valid, 2 bad usage, "
    "130 left by a second Ctrl-C.",
)
@url_option
@concurrency_options
@rate_options
@measuring_options
@driver_option
@click.option("--query", metavar="SQL", help="Run this on each connection once it is ready.")
@connect_timeout_option("Bound on one operation, from the first packet to the close.")
@scram_cache_option
@resolve_option
@by_address_option
@name_option("-n")
@rounds_options()
@threshold_options
@watch_option(
    "over a connection of its own sessions, counters, PgBouncer's pools, and on this machine CPU and memory"
)
@pgbouncer_admin_option
@calibrate_option
@require_valid_option
@keep_going_option
@output_options
@click.version_option(__version__, prog_name=TOOL)
@click.pass_context
def cli(
    ctx: click.Context,
    urls: tuple[str, ...],
    concurrency: int | None,
    concurrency_min: int | None,
    concurrency_max: int | None,
    duration: float,
    warmup: float,
    grace: float,
    driver: DriverName,
    query: str | None,
    connect_timeout: float,
    scram_cache: bool,
    resolve: Literal["each", "once"],
    by_address: bool,
    name: str,
    wait_between_runs: float,
    calibrate_first: bool,
    require_valid: bool,
    keep_going: bool,
    rates: RateOptions,
    rounds: int,
    interleave: tuple[str, ...],
    checks: Checks,
    watch: bool | None,
    admin_url: str | None,
    output: Output,
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
    loop = loop_of(rates, duration, concurrency, concurrency_min, concurrency_max)
    check_rounds(rounds, interleave, find_max=rates.find_max, is_open=loop.profile is not None)

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.connect import ConnectPlan
        from pool_bench.cli.options.rounds import read_variants
        from pool_bench.cli.places.postgres import find_console, find_targets, read_url
        from pool_bench.load.spec import ConnectSpec

        place = find_targets(urls, application_name=TOOL)
        return ConnectPlan(
            tool=TOOL,
            name=name,
            place=place,
            spec=ConnectSpec(
                targets=place.targets,
                driver=driver,
                open_loop=loop.open_loop,
                warmup_s=warmup,
                duration_s=duration,
                grace_s=grace,
                connect_timeout_s=shortest_timeout(place.targets, connect_timeout),
                query=query,
                scram_cache=scram_cache,
                resolve_once=resolve == "once",
                by_address=by_address,
                seed=rates.seed_or_new,
            ),
            label=loop.label,
            find_max=loop.find_max(wait_between_runs),
            levels=loop.levels,
            pause_s=wait_between_runs,
            output=output,
            checks=checks,
            variants=read_variants(interleave, lambda url: read_url(url, os.environ, application_name=TOOL)),
            rounds=rounds,
            watch=watch,
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
            require_valid=require_valid,
            keep_going=keep_going,
            calibrate=calibrate_first,
        ).run

    run_command(ctx, prepare)


cli.add_command(plot)
cli.add_command(calibrate)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
