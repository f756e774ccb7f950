"""pg-connection-load: how many idle connections can this server or pooler hold, and what does each cost?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

from collections.abc import Callable
from dataclasses import replace

import click

from pool_bench import __version__
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import Group
from pool_bench.cli.options.generators import GeneratorOptions, cluster_options
from pool_bench.cli.options.hold import HoldOptions, check_batches, hold_options
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

TOOL = "pg-connection-load"


@click.group(
    cls=Group,
    invoke_without_command=True,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 nothing could be opened, a threshold failed, or the run is suspect with "
    "--require-valid, 2 bad usage, 130 left by a second Ctrl-C.",
)
@url_option_to("use several in turn")
@hold_options(
    "SQL",
    query="SELECT 1",
    query_help="The keep-alive query.",
    watched="its slots and sessions, over a connection of its own, and its processes on this machine",
)
@driver_option
@click.option(
    "--reserve/--no-reserve",
    default=True,
    show_default=True,
    help="Leave the server's reserved slots, and five more, free for its operators.",
)
@pgbouncer_admin_option
@scram_cache_option
@cluster_options
@session_options()
@click.version_option(__version__, prog_name=TOOL)
@click.pass_context
def cli(
    ctx: click.Context,
    urls: tuple[str, ...],
    options: HoldOptions,
    driver: DriverName,
    reserve: bool,
    admin_url: str | None,
    scram_cache: bool,
    generators: GeneratorOptions,
    session: SessionOptions,
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
    check_batches(ctx, options.rate)
    check_source_driver(options.source_ips, driver, "wire")
    if not options.keepalive_query.strip():
        raise click.UsageError("--keepalive-query must not be empty")
    if admin_url is not None and not options.watch:
        raise click.UsageError("--pgbouncer-admin and --no-watch exclude each other")

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.hold import HoldPlan
        from pool_bench.cli.places.postgres import find_console, find_targets
        from pool_bench.drivers.network.source_addresses import check_sources

        place = find_targets(urls, application_name=TOOL)
        timeout_s = shortest_timeout(place.targets, options.connect_timeout_s)
        check_sources(options.source_ips, place.targets, here=generators.cluster is None)
        return HoldPlan(
            tool=TOOL,
            place=place,
            session=session,
            options=options,
            spec=generators.ask(
                replace(options.spec(place.targets, driver, timeout_s), scram_cache=scram_cache)
            ),
            generators=generators,
            reserve=reserve,
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
        ).run

    run_command(ctx, prepare)


cli.add_command(plot)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
