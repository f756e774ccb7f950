"""surreal-bench: what do connections to this SurrealDB cost, how many can it hold, what does a pool buy?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

from collections.abc import Callable
from functools import partial
from typing import Literal

import click

from pool_bench import __version__
from pool_bench.cli.commands.calibrate_surreal import calibrate
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import DefaultGroup
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
from pool_bench.cli.options.levels import concurrency_options, measuring_options
from pool_bench.cli.options.loop import RateOptions, loop_of, rate_options
from pool_bench.cli.options.pool import timing_options
from pool_bench.cli.options.rounds import SURREAL, check_rounds, rounds_options
from pool_bench.cli.options.serve import Served, serve_options
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    Output,
    by_address_option,
    calibrate_option,
    check_source_driver,
    check_split_driver,
    connect_timeout_option,
    keep_going_option,
    name_option,
    output_options,
    require_valid_option,
    resolve_option,
    source_option,
    watch_held_option,
    watch_option,
)
from pool_bench.cli.options.surreal import SurrealOptions, server_options, surreal_driver_option
from pool_bench.cli.options.surreal_pool import PoolOptions, pool_options
from pool_bench.cli.options.thresholds import Checks, threshold_options
from pool_bench.drivers.base import DriverName

TOOL = "surreal-bench"


@click.group(
    cls=DefaultGroup,
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit codes: 0 fine, 1 a run had no success, a threshold failed, or a run is suspect with "
    "--require-valid, 2 bad usage, 130 left by a second Ctrl-C.",
)
@click.version_option(__version__, prog_name=TOOL)
def cli() -> None:
    """Measure SurrealDB's connections. Without a command: connect.

    \b
    surreal-bench --concurrency 20
    surreal-bench connect --url ws://db:8000 --user root --auth token
    surreal-bench load --connections 1000 --duration 5m
    surreal-bench check --url wss://db.example
    """


@cli.command()
@server_options
@concurrency_options
@rate_options
@measuring_options
@surreal_driver_option
@click.option("--query", metavar="SURQL", help="Run this on each connection once it is ready.")
@connect_timeout_option("Bound on one operation, from the first packet to the close.")
@resolve_option
@by_address_option
@name_option("-n")
@rounds_options(SURREAL)
@threshold_options
@watch_option("CPU, memory and connections of its process on this machine; the server is asked nothing")
@calibrate_option
@require_valid_option
@keep_going_option
@output_options
@click.pass_context
def connect(
    ctx: click.Context,
    server: SurrealOptions,
    concurrency: int | None,
    concurrency_min: int | None,
    concurrency_max: int | None,
    rates: RateOptions,
    duration: float,
    warmup: float,
    grace: float,
    driver: DriverName,
    query: str | None,
    connect_timeout: float,
    resolve: Literal["each", "once"],
    by_address: bool,
    name: str,
    wait_between_runs: float,
    rounds: int,
    interleave: tuple[str, ...],
    checks: Checks,
    watch: bool | None,
    calibrate_first: bool,
    require_valid: bool,
    keep_going: bool,
    output: Output,
) -> None:
    """Open a connection, sign in, select, query if asked to, close; with N workers, or at a rate.

    \b
    surreal-bench connect --concurrency 20 --query "RETURN 1"
    surreal-bench connect --auth token --rate 200/s
    surreal-bench connect --rounds 3 --interleave driver=surrealdb --interleave auth=token
    surreal-bench connect --find-max --slo "p99<50ms,errors<0.1%"
    surreal-bench connect --concurrency-min 1 --concurrency-max 32 --url http://db:8000
    """
    loop = loop_of(rates, duration, concurrency, concurrency_min, concurrency_max)
    check_rounds(rounds, interleave, find_max=rates.find_max, is_open=loop.profile is not None)
    check_split_driver(by_address, driver)

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.connect import ConnectPlan
        from pool_bench.cli.places.surreal import find_surreal
        from pool_bench.load.spec import ConnectSpec

        place = find_surreal(server)
        place.check_driver(driver)
        spec = ConnectSpec(
            targets=place.targets,
            driver=driver,
            open_loop=loop.open_loop,
            auth=place.options.auth,
            warmup_s=warmup,
            duration_s=duration,
            grace_s=grace,
            connect_timeout_s=connect_timeout,
            query=query,
            resolve_once=resolve == "once",
            by_address=by_address,
            seed=rates.seed_or_new,
        )
        return ConnectPlan(
            tool=TOOL,
            name=name,
            place=place,
            spec=spec,
            label=loop.label,
            find_max=loop.find_max(wait_between_runs),
            levels=loop.levels,
            pause_s=wait_between_runs,
            output=output,
            checks=checks,
            variants=place.read_variants(interleave, spec),
            rounds=rounds,
            watch=watch,
            require_valid=require_valid,
            keep_going=keep_going,
            calibrate=calibrate_first,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@connections_option
@holding_time_option
@batch_options
@keepalive_options(
    "SURQL",
    query="",
    help_text="The keep-alive query. [default: none is run but the RPC method ping, or version by surrealdb]",
)
@active_option
@reconnect_option
@watch_held_option("CPU, memory and connections of its process on this machine; the server is asked nothing")
@surreal_driver_option
@source_option
@by_address_option
@connect_timeout_option("Bound on one connect, and on one keep-alive.")
@name_option()
@threshold_options
@require_valid_option
@keep_going_option
@output_options
@click.pass_context
def load(
    ctx: click.Context,
    server: SurrealOptions,
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
    connect_timeout: float,
    name: str,
    checks: Checks,
    require_valid: bool,
    keep_going: bool,
    output: Output,
) -> None:
    """Open N connections, hold them idle, keep them alive, notice at once which are dropped, and let go.

    \b
    surreal-bench load --connections 1000 --auth token
    surreal-bench load --url ws://db:8000 -n 5000 --rate 200/s --duration 10m --reconnect
    surreal-bench load --connections 200 --driver surrealdb
    """
    check_batches(ctx, rate)
    check_source_driver(source_ips, driver, "surreal")
    check_split_driver(by_address, driver)

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.hold import HoldPlan
        from pool_bench.cli.places.surreal import find_surreal
        from pool_bench.drivers.network.source_addresses import check_sources
        from pool_bench.load.spec import HoldSpec

        place = find_surreal(server)
        place.check_driver(driver, holding=True)
        place.check_ca_file()
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
                auth=place.options.auth,
                duration_s=duration,
                batch_size=batch_size,
                batch_pause_s=batch_pause,
                rate=rate,
                open_concurrency=open_concurrency,
                keepalive_s=keepalive,
                keepalive_query=keepalive_query.strip(),
                active=active,
                reconnect=reconnect,
                connect_timeout_s=connect_timeout,
                give_up_s=patience_s(give_up, connect_timeout),
                source_ips=source_ips,
                by_address=by_address,
            ),
            reserve=False,
            admin=None,
            watch=watch,
            output=output,
            checks=checks,
            require_valid=require_valid,
            keep_going=keep_going,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@pool_options
@timing_options("5s", 1)
@name_option("-n")
@output_options
@click.pass_context
def pool(
    ctx: click.Context,
    server: SurrealOptions,
    asked: PoolOptions,
    timeout: float,
    duration: float,
    warmup: float,
    grace: float,
    rounds: int,
    name: str,
    output: Output,
) -> None:
    """Put the reference pool beside one shared connection and a connection for each query.

    All of them lend the official client. Rates are medians over the rounds, with the extremes beside them.

    \b
    surreal-bench pool --clients 100 --size 10
    surreal-bench pool --scenario stress --stress 1000,5000 --pool reference,shared
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.pools import PoolPlan
        from pool_bench.cli.places.surreal import find_surreal
        from pool_bench.contenders import check_installed
        from pool_bench.load.spec import PoolSpec

        for one in asked.pools:
            check_installed(one)
        place = find_surreal(server)
        place.check_pool()
        place.check_ca_file()
        return PoolPlan(
            tool=TOOL,
            name=name,
            place=place,
            pools=asked.pools,
            scenarios=asked.scenarios,
            spec=PoolSpec(
                targets=place.targets,
                pool=asked.pools[0],
                scenario=asked.scenarios[0],
                clients=asked.clients,
                size=asked.size,
                timeout_s=timeout,
                reset=asked.reset,
                warmup_s=warmup,
                duration_s=duration,
                grace_s=grace,
            ),
            query=asked.query,
            hold_s=asked.hold_s,
            rounds=rounds,
            outage_s=0.0,
            output=output,
            stress=asked.stress,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@click.pass_context
def check(ctx: click.Context, server: SurrealOptions) -> None:
    """Say in words, in less than five seconds, whether this SurrealDB can be used.

    \b
    surreal-bench check --url ws://db:8000 --user root --namespace app --database app
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.check import check as check_place
        from pool_bench.cli.places.surreal import find_surreal

        place = find_surreal(server)
        place.check_ca_file()
        return partial(check_place, place, tool=TOOL)

    run_command(ctx, prepare)


@cli.command()
@serve_options
@click.pass_context
def serve(ctx: click.Context, served: Served) -> None:
    """Serve the embedded SurrealDB engine over WebSocket and HTTP until Ctrl-C; for local use.

    \b
    SURREAL_PASS=secret surreal-bench serve --bind 127.0.0.1:8000 --user root
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.serve import serve_forever

        return partial(serve_forever, served)

    run_command(ctx, prepare)


cli.add_command(plot)
cli.add_command(calibrate)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
