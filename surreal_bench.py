"""surreal-bench: what do connections to this SurrealDB cost, how many can it hold, what does a pool buy?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

import pool_bench.cli.early  # noqa: F401  # first: from here on Ctrl-C is one line

# isort: split

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import click

from pool_bench import __version__
from pool_bench.cli.commands.calibrate import calibrate_surreal
from pool_bench.cli.commands.plot import plot
from pool_bench.cli.entry import run_cli, run_command
from pool_bench.cli.help_pages import DefaultGroup
from pool_bench.cli.options.all import AllOptions, all_options
from pool_bench.cli.options.connect import ConnectOptions, connect_options
from pool_bench.cli.options.generators import GeneratorOptions, cluster_options
from pool_bench.cli.options.hold import HoldOptions, check_batches, hold_options
from pool_bench.cli.options.monitor import MonitorOptions, monitor_options
from pool_bench.cli.options.pool import (
    MAX_CLIENTS,
    Names,
    PoolOptions,
    Sizes,
    Timing,
    pool_options,
    timing_options,
)
from pool_bench.cli.options.rounds import SURREAL
from pool_bench.cli.options.serve import Served, serve_options
from pool_bench.cli.options.shared import (
    CONTEXT_SETTINGS,
    SessionOptions,
    check_source_driver,
    check_split_driver,
    session_options,
    watch_option,
)
from pool_bench.cli.options.size import SizeOptions, rounds_of, size_options
from pool_bench.cli.options.surreal import SurrealOptions, server_options, surreal_driver_option
from pool_bench.contenders.base import SURREAL_CONTENDER_NAMES
from pool_bench.drivers.base import DriverName
from pool_bench.load.spec import ScenarioName

TOOL = "surreal-bench"
_WATCHED: Final = "CPU, memory and connections of its process on this machine; the server is asked nothing"
_SCENARIOS: Final[tuple[ScenarioName, ...]] = ("query", "burst", "sustained", "churn", "stress")

_RESET_HELP: Final = "never: the reference pool restores nothing on return."
_query_option = click.option(
    "--query", metavar="SURQL", default="RETURN 1", show_default=True, help="What each operation runs."
)


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
@connect_options("SURQL", SURREAL, _WATCHED)
@surreal_driver_option
@cluster_options
@session_options("-n")
@click.pass_context
def connect(
    ctx: click.Context,
    server: SurrealOptions,
    options: ConnectOptions,
    driver: DriverName,
    generators: GeneratorOptions,
    session: SessionOptions,
) -> None:
    """Open a connection, sign in, select, query if asked to, close; with N workers, or at a rate.

    \b
    surreal-bench connect --concurrency 20 --query "RETURN 1"
    surreal-bench connect --auth token --rate 200/s
    surreal-bench connect --rounds 3 --interleave driver=surrealdb --interleave auth=token
    surreal-bench connect --find-max --slo "p99<50ms,errors<0.1%"
    surreal-bench connect --concurrency-min 1 --concurrency-max 32 --url http://db:8000
    """
    loop = options.loop()
    check_source_driver(options.source_ips, driver, "surreal")
    check_split_driver(options.by_address, driver)

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.connect import ConnectPlan
        from pool_bench.cli.places.surreal import find_surreal

        place = find_surreal(server)
        place.check_driver(driver)
        spec = generators.ask(replace(options.spec(place.targets, driver, loop), auth=server.auth))
        return ConnectPlan(
            tool=TOOL,
            place=place,
            session=session,
            options=options,
            loop=loop,
            watch=options.watch,
            spec=spec,
            variants=place.read_variants(options.interleave, spec),
            generators=generators,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@hold_options(
    "SURQL",
    query="",
    query_help="The keep-alive query. [default: none is run but the RPC method ping, or version by "
    "surrealdb]",
    watched=_WATCHED,
)
@surreal_driver_option
@cluster_options
@session_options()
@click.pass_context
def load(
    ctx: click.Context,
    server: SurrealOptions,
    options: HoldOptions,
    driver: DriverName,
    generators: GeneratorOptions,
    session: SessionOptions,
) -> None:
    """Open N connections, hold them idle, keep them alive, notice at once which are dropped, and let go.

    \b
    surreal-bench load --connections 1000 --auth token
    surreal-bench load --url ws://db:8000 -n 5000 --rate 200/s --duration 10m --reconnect
    surreal-bench load --connections 200 --driver surrealdb
    """
    check_batches(ctx, options.rate)
    check_source_driver(options.source_ips, driver, "surreal")
    check_split_driver(options.by_address, driver)

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.hold import HoldPlan
        from pool_bench.cli.places.surreal import find_surreal
        from pool_bench.drivers.network.source_addresses import check_sources

        place = find_surreal(server)
        place.check_driver(driver, holding=True)
        place.check_ca_file()
        check_sources(options.source_ips, place.targets)
        spec = options.spec(place.targets, driver, options.connect_timeout_s)
        return HoldPlan(
            tool=TOOL,
            place=place,
            session=session,
            options=options,
            spec=generators.ask(
                replace(spec, auth=server.auth, keepalive_query=spec.keepalive_query.strip())
            ),
            generators=generators,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@pool_options(
    pools=Names("pool", SURREAL_CONTENDER_NAMES, left_out=("purreal",)),
    pools_default="reference,shared,naive",
    pools_help="reference: this package's pool; shared: one connection for all clients; naive: a "
    "connection, with sign-in, for each query; purreal: that package's pool, where it is installed.",
    scenarios=_SCENARIOS,
    scenarios_default="query,burst,sustained,churn",
    clients=100,
    clients_help="Tasks that ask for connections.",
    size=10,
    reset_help=_RESET_HELP,
    query=_query_option,
)
@click.option(
    "--stress",
    type=Sizes(at_most=MAX_CLIENTS),
    default="1000",
    show_default=True,
    metavar="N,...",
    help="How many clients the scenario stress has.",
)
@timing_options("5s", 1)
@watch_option(_WATCHED)
@session_options("-n", keep_going=False)
@click.pass_context
def pool(
    ctx: click.Context,
    server: SurrealOptions,
    options: PoolOptions,
    stress: tuple[int, ...],
    timing: Timing,
    watch: bool | None,
    session: SessionOptions,
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

        for name in options.pools:
            check_installed(name)
        place = find_surreal(server)
        place.check_pool()
        place.check_ca_file()
        return PoolPlan(
            tool=TOOL,
            place=place,
            session=session,
            watch=watch,
            options=options,
            timing=timing,
            spec=options.spec(place.targets, timing),
            stress=stress,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@click.argument("clients", type=Sizes(at_most=MAX_CLIENTS), metavar="[N,...]", default="1000")
@click.option(
    "--size", type=click.IntRange(min=1), default=10, show_default=True, help="Connections of the pool."
)
@_query_option
@timing_options("5s", 1)
@watch_option(_WATCHED)
@session_options("-n", keep_going=False)
@click.pass_context
def stress(
    ctx: click.Context,
    server: SurrealOptions,
    clients: tuple[int, ...],
    size: int,
    query: str,
    timing: Timing,
    watch: bool | None,
    session: SessionOptions,
) -> None:
    """Put N clients before the reference pool, 1000 without a number: does it stand them?

    The exit code is 0 where all targets are held: p95 and p99 of waits, operations served, leaks, dead
    connections met, connections open after the close. --threshold on the same field changes a target. To
    compare with other pools: surreal-bench pool --scenario stress.

    \b
    surreal-bench stress 5000
    surreal-bench stress 1000,10000 --size 20 --threshold "phases.checkout.p99<100ms"
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.pool_stress import stress_plan
        from pool_bench.cli.places.surreal import find_surreal

        place = find_surreal(server)
        place.check_pool()
        place.check_ca_file()
        return stress_plan(
            tool=TOOL,
            place=place,
            session=session,
            clients=clients,
            size=size,
            query=query,
            timing=timing,
            watch=watch,
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@size_options(
    pools=("reference", "purreal"),
    clients=100,
    sizes="1..16",
    query=_query_option,
    reset_help=_RESET_HELP,
)
@timing_options("2s", 3)
@watch_option(_WATCHED)
@session_options("-n", keep_going=False)
@click.pass_context
def size(
    ctx: click.Context,
    server: SurrealOptions,
    options: SizeOptions,
    timing: Timing,
    watch: bool | None,
    session: SessionOptions,
) -> None:
    """Recommend a pool size for a load, or compare settings of the pool and name the winner.

    Sizes are swept and a law is fitted, as pool-bench size does. Settings such as 1-5,5-10 are measured in
    turn, by default in 5 rounds; the winner is the one that all others are behind, and where intervals do
    not part there is none.

    \b
    surreal-bench size --clients 200 --hold 2ms --sizes 1..32
    surreal-bench size --sizes 1-5,5-10,10-20 --rounds 5
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.pool_size import size_plan
        from pool_bench.cli.places.surreal import find_surreal

        place = find_surreal(server)
        place.check_pool()
        place.check_ca_file()
        return size_plan(
            tool=TOOL,
            place=place,
            session=session,
            watch=watch,
            options=options,
            timing=rounds_of(ctx, options.asked, timing),
        ).run

    run_command(ctx, prepare)


@cli.command()
@server_options
@monitor_options
@click.pass_context
def monitor(ctx: click.Context, server: SurrealOptions, options: MonitorOptions) -> None:
    """Show a live pool's statistics, and what can be seen of the server, once a second.

    A pool lives in its application's process, and can only be watched through what that shows: its
    Prometheus metrics. Without them a pool of this tool's own is shown.

    \b
    surreal-bench monitor --url ws://db:8000 --size 20
    surreal-bench monitor --metrics http://app:9090/metrics
    """
    if options.metrics is not None and server.urls:
        raise click.UsageError("--metrics and --url exclude each other")

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.monitor import monitor as watch_pool

        if options.metrics is not None:
            return partial(watch_pool, options)
        from pool_bench.cli.commands.monitor_surreal import demonstrate
        from pool_bench.cli.places.surreal import find_surreal

        return partial(watch_pool, options, partial(demonstrate, find_surreal(server), TOOL))

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


@cli.command(name="all")
@server_options
@all_options
@click.pass_context
def all_(ctx: click.Context, server: SurrealOptions, options: AllOptions) -> None:
    """Do connectivity, stress, monitor, throughput and load in turn, and say which passed.

    Each is what the command of that job does (check, stress, monitor, pool, load), with its summary and
    files. The exit code is 0 where all five passed.

    \b
    surreal-bench all
    surreal-bench all --url ws://db:8000 --clients 5000 --connections 500
    """

    def prepare() -> Callable[[], int]:
        from pool_bench.cli.commands.all_surreal import run_all
        from pool_bench.cli.places.surreal import find_surreal

        return partial(run_all, find_surreal(server), options, tool=TOOL)

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
cli.add_command(calibrate_surreal, "calibrate")


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
