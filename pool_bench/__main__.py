"""pool-bench: which connection pool, which size, and what does it do under pressure?

Options, wiring and exit codes; everything else is below. Heavy imports stay inside the functions that need
them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import click

from pool_bench import __version__
from pool_bench.cli.commands.calibrate import calibrate
from pool_bench.cli.commands.compare import compare
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import Group
from pool_bench.cli.options.generators import GeneratorOptions, generator_options
from pool_bench.cli.options.loop import MAX_IN_FLIGHT
from pool_bench.cli.options.monitor import MonitorOptions, monitor_options
from pool_bench.cli.options.pool import (
    Names,
    PoolOptions,
    PoolRateOptions,
    Timing,
    any_url_option,
    pool_options,
    pool_rate_options,
    prepared_option,
    timing_options,
    url_option,
    urls_option,
)
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    SessionOptions,
    pgbouncer_admin_option,
    session_options,
    watch_option,
)
from pool_bench.cli.options.size import SizeOptions, rounds_of, size_options
from pool_bench.cli.options.types import Duration
from pool_bench.contenders.base import CONTENDER_NAMES
from pool_bench.load.spec import OPEN_SCENARIOS, SCENARIO_NAMES, ScenarioName
from pool_bench.targets.surreal import names_surreal

TOOL = "pool-bench"
_watch_option = watch_option(
    "over a connection of its own sessions, counters, PgBouncer's pools, and on this machine CPU and memory"
)


@click.group(
    cls=Group,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 a run had no success, a threshold failed, or a run is suspect with "
    "--require-valid, 2 bad usage, 130 left by a second Ctrl-C.",
)
@click.version_option(__version__, prog_name=TOOL)
def cli() -> None:
    """Put connection pools under load, side by side.

    \b
    pool-bench run --pool reference,asyncpg --scenario churn,query --clients 1000 --size 20
    pool-bench run --scenario all --rounds 3 --duration 2s
    pool-bench size --clients 200 --hold 2ms --sizes 1..64
    pool-bench check --url postgresql://app@db:6432/app
    """


@cli.command()
@url_option
@pool_options(
    pools=Names("pool", CONTENDER_NAMES, left_out=("naive",)),
    pools_default="reference,asyncpg,psycopg,sqlalchemy",
    pools_help="The pools, or all; naive is none at all: a connection for each query. By default those that "
    "are installed.",
    scenarios=SCENARIO_NAMES,
    scenarios_default="churn,query,burst",
    clients=1000,
    clients_help="Tasks that ask for connections. [stress has 1,000 and 10,000, naive as many as --size]",
    size=20,
    reset_help="What happens to a connection that comes back: what each pool does by itself, one round trip "
    "that resets the session in all of them, or nothing in any.",
    query=click.option(
        "--query", metavar="SQL", help="What each operation runs; churn runs nothing. [default: SELECT 1]"
    ),
)
@click.option(
    "--outage",
    type=Duration(zero=True),
    default="1s",
    show_default=True,
    help="How long the server stays away in reconnect, beside its stopping and starting.",
)
@prepared_option
@pool_rate_options
@timing_options("5s", 5)
@generator_options
@_watch_option
@pgbouncer_admin_option
@session_options("-n", keep_going=False)
@click.pass_context
def run(
    ctx: click.Context,
    url: str | None,
    options: PoolOptions,
    outage: float,
    prepared: bool,
    rates: PoolRateOptions,
    timing: Timing,
    generators: GeneratorOptions,
    watch: bool | None,
    admin_url: str | None,
    session: SessionOptions,
) -> None:
    """Measure pools under the same loads, in turn, each time in a fresh process.

    Every pool gets as many connections, and otherwise keeps its own defaults; the summary says what each
    does on checkout and on return. Rates are medians over the rounds, with the extremes beside them.
    """
    arrivals = rates.profile(timing.duration_s)
    if arrivals is not None:
        if "naive" in options.pools:
            raise click.UsageError(
                "--rate and --pool naive exclude each other: see pg-connection-bench --rate"
            )
        options = replace(
            options,
            scenarios=_open_scenarios(ctx, options.scenarios),
            clients=rates.max_in_flight or MAX_IN_FLIGHT,
        )

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.pools import PoolPlan
        from pool_bench.cli.places.postgres import find_console, find_targets
        from pool_bench.contenders import ALWAYS_PREPARE, check_installed, is_installed
        from pool_bench.load.spec import OpenLoop

        chosen = options.pools
        if ctx.get_parameter_source("pools") is click.core.ParameterSource.DEFAULT:
            # Those that the user did not name need not be there.
            able = (pool for pool in chosen if prepared or pool not in ALWAYS_PREPARE)
            chosen = tuple(pool for pool in able if is_installed(pool))
        for pool in chosen:
            check_installed(pool)
        place = find_targets(() if url is None else (url,), application_name=TOOL)
        wanted = replace(options, pools=chosen)
        open_loop = None
        if arrivals is not None:
            open_loop = OpenLoop(profile=arrivals, spacing=rates.spacing or "constant")
        return PoolPlan(
            tool=TOOL,
            place=place,
            session=session,
            watch=watch,
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
            options=wanted,
            timing=timing,
            spec=generators.ask(
                replace(
                    wanted.spec(place.targets, timing),
                    prepared=prepared,
                    seed=rates.seed_or_new,
                    open_loop=open_loop,
                )
            ),
            generators=generators,
            span="" if arrivals is None else rates.label,
            outage_s=outage,
        ).run

    run_command(ctx, prepare)


def _open_scenarios(ctx: click.Context, scenarios: tuple[ScenarioName, ...]) -> tuple[ScenarioName, ...]:
    """The scenarios of an open loop: those named, or those of the default that can be.

    Raises:
        click.UsageError: one that was named brings clients of its own, or so does `--clients`.
    """
    default = click.core.ParameterSource.DEFAULT
    if ctx.get_parameter_source("clients") is not default:
        raise click.UsageError(
            "--rate and --clients exclude each other: operations come when they are due, "
            "at most --max-in-flight at once"
        )
    fit = tuple(name for name in scenarios if name in OPEN_SCENARIOS)
    if len(fit) < len(scenarios) and ctx.get_parameter_source("scenarios") is not default:
        other = next(name for name in scenarios if name not in OPEN_SCENARIOS)
        raise click.UsageError(
            f"--rate goes with --scenario {', '.join(OPEN_SCENARIOS)}: {other} says itself when clients come"
        )
    return fit


@cli.command()
@url_option
@size_options(
    pools=tuple(name for name in CONTENDER_NAMES if name != "naive"),
    clients=200,
    sizes="1..64",
    query=click.option(
        "--query", metavar="SQL", default="SELECT 1", show_default=True, help="What each operation runs."
    ),
    reset_help="What happens to a connection that comes back: see run.",
)
@prepared_option
@timing_options("2s", 3)
@_watch_option
@pgbouncer_admin_option
@session_options("-n", keep_going=False)
@click.pass_context
def size(
    ctx: click.Context,
    url: str | None,
    options: SizeOptions,
    prepared: bool,
    timing: Timing,
    watch: bool | None,
    admin_url: str | None,
    session: SessionOptions,
) -> None:
    """Recommend a pool size for a load: sweep sizes, fit the Universal Scalability Law, find the knee.

    The recommendation is the smallest size with 95% of the best throughput, with the interval that the
    rounds allow; where they allow none, that is what it says. Settings such as 1-5,5-10 are compared with
    each other instead, by default in 5 rounds, and the winner is the one that all others are behind.
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.pool_size import size_plan
        from pool_bench.cli.places.postgres import find_console, find_targets

        place = find_targets(() if url is None else (url,), application_name=TOOL)
        return size_plan(
            tool=TOOL,
            place=place,
            session=session,
            watch=watch,
            admin=None if admin_url is None else find_console(admin_url, application_name=TOOL),
            options=options,
            timing=rounds_of(ctx, options.asked, timing),
            prepared=prepared,
        ).run

    run_command(ctx, prepare)


@cli.command()
@urls_option
@click.pass_context
def check(ctx: click.Context, urls: tuple[str, ...]) -> None:
    """Say step by step, in under five seconds, whether a target can be used, and if not, what to do."""

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.check import check as check_place
        from pool_bench.cli.places.postgres import find_targets

        return partial(check_place, find_targets(urls, application_name=TOOL), tool=TOOL)

    run_command(ctx, prepare)


@cli.command()
@any_url_option
@monitor_options
@click.pass_context
def monitor(ctx: click.Context, url: str | None, options: MonitorOptions) -> None:
    """Show a live pool's statistics: a table on a terminal, elsewhere a line a second.

    A pool lives in its application's process, and can only be watched through what that shows: its
    Prometheus metrics. Beside a demonstration against SurrealDB its server is looked at, too.
    """
    if options.metrics is not None and url is not None:
        raise click.UsageError("--metrics and --url exclude each other")

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.monitor import monitor as watch_pool

        if options.metrics is not None:
            return partial(watch_pool, options)
        if url is not None and names_surreal(url):
            from pool_bench.cli.commands.monitor_surreal import demonstrate as demonstrate_surreal
            from pool_bench.cli.options.surreal import SurrealOptions
            from pool_bench.cli.places.surreal import find_surreal

            surreal = find_surreal(SurrealOptions(urls=(url,)))
            return partial(watch_pool, options, partial(demonstrate_surreal, surreal, TOOL))
        from pool_bench.cli.commands.monitor_postgres import demonstrate
        from pool_bench.cli.places.postgres import find_targets

        place = find_targets(() if url is None else (url,), application_name=TOOL)
        return partial(watch_pool, options, partial(demonstrate, place, TOOL))

    run_command(ctx, prepare)


cli.add_command(plot)
cli.add_command(compare)
cli.add_command(calibrate)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
