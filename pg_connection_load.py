"""pg-connection-load: how many idle connections can this server or pooler hold, and what does each cost?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

from collections.abc import Callable

import click

from pool_bench import __version__
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import Group
from pool_bench.cli.options.hold import (
    active_option,
    batch_options,
    check_batches,
    connections_option,
    holding_time_option,
    keepalive_options,
    patience_s,
    reconnect_option,
)
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    Output,
    by_address_option,
    check_source_driver,
    connect_timeout_option,
    driver_option,
    keep_going_option,
    name_option,
    output_options,
    pgbouncer_admin_option,
    require_valid_option,
    scram_cache_option,
    shortest_timeout,
    source_option,
    url_option,
    watch_held_option,
)
from pool_bench.cli.options.thresholds import Checks, threshold_options
from pool_bench.drivers.base import DriverName

TOOL = "pg-connection-load"


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 nothing could be opened, a threshold failed, or the run is suspect with "
    "--require-valid, 2 bad usage, 130 left by a second Ctrl-C.",
)
@url_option
@connections_option
@holding_time_option
@batch_options
@keepalive_options("SQL", query="SELECT 1", help_text="The keep-alive query.")
@active_option
@reconnect_option
@watch_held_option("its slots and sessions, over a connection of its own, and its processes on this machine")
@driver_option
@source_option
@by_address_option
@click.option(
    "--reserve/--no-reserve",
    default=True,
    show_default=True,
    help="Leave the server's reserved slots, and five more, free for its operators.",
)
@pgbouncer_admin_option
@connect_timeout_option("Bound on one connect, and on one keep-alive.")
@scram_cache_option
@name_option()
@threshold_options
@require_valid_option
@keep_going_option
@output_options
@click.version_option(__version__, prog_name=TOOL)
@click.pass_context
def cli(
    ctx: click.Context,
    urls: tuple[str, ...],
    connections: int,
    duration: float,
    batch_size: int,
    batch_pause: float,
    rate: float | None,
    open_concurrency: int,
    give_up: float | None,
    keepalive: float,
    keepalive_query: str,
    active: float,
    reconnect: bool,
    watch: bool,
    driver: DriverName,
    source_ips: tuple[str, ...],
    by_address: bool,
    reserve: bool,
    admin_url: str | None,
    connect_timeout: float,
    scram_cache: bool,
    name: str,
    checks: Checks,
    require_valid: bool,
    keep_going: bool,
    output: Output,
) -> None:
    """Open N PostgreSQL connections, hold them, watch them, and let go cleanly.

    \b
    pg-connection-load --connections 500
    pg-connection-load --url postgresql://app@db:6432/app -n 5000 --rate 500/s --duration 10m
    pg-connection-load -n 200 --active 5% --reconnect --duration 0
    pg-connection-load plot results/before.json results/after.json
    """
    if ctx.invoked_subcommand is not None:
        return
    check_batches(ctx, rate)
    check_source_driver(source_ips, driver, "wire")
    if not keepalive_query.strip():
        raise click.UsageError("--keepalive-query must not be empty")
    if admin_url is not None and not watch:
        raise click.UsageError("--pgbouncer-admin and --no-watch exclude each other")

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.hold import HoldPlan
        from pool_bench.cli.places.postgres import find_console, find_targets
        from pool_bench.drivers.network.source_addresses import check_sources
        from pool_bench.load.spec import HoldSpec

        place = find_targets(urls, application_name=TOOL)
        timeout_s = shortest_timeout(place.targets, connect_timeout)
        check_sources(source_ips, place.targets)
        return HoldPlan(
            tool=TOOL,
            name=name,
            place=place,
            asked=connections,
            spec=HoldSpec(
                targets=place.targets,
                connections=(),
                driver=driver,
                duration_s=duration,
                batch_size=batch_size,
                batch_pause_s=batch_pause,
                rate=rate,
                open_concurrency=open_concurrency,
                keepalive_s=keepalive,
                keepalive_query=keepalive_query,
                active=active,
                reconnect=reconnect,
                connect_timeout_s=timeout_s,
                give_up_s=patience_s(give_up, timeout_s),
                scram_cache=scram_cache,
                source_ips=source_ips,
                by_address=by_address,
            ),
            reserve=reserve,
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
            watch=watch,
            output=output,
            checks=checks,
            require_valid=require_valid,
            keep_going=keep_going,
        ).run

    run_command(ctx, prepare)


cli.add_command(plot)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
