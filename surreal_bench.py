"""surreal-bench: what do connections to this SurrealDB cost, how many can it hold, what does a pool buy?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pool_bench import __version__
from pool_bench.cli.hold_options import (
    active_option,
    batch_options,
    check_batches,
    connections_option,
    holding_time_option,
    reconnect_option,
)
from pool_bench.cli.levels import concurrency_options, measuring_options
from pool_bench.cli.open_loop import RateOptions, loop_of, rate_options
from pool_bench.cli.options import (
    CONTEXT_SETTINGS,
    Output,
    connect_timeout_option,
    name_option,
    output_options,
    plot,
    require_valid_option,
)
from pool_bench.cli.params import Duration, OutputPath, guard, run_cli
from pool_bench.cli.pool_options import Names, Sizes, timing_options
from pool_bench.cli.surreal_options import DefaultGroup, server_options
from pool_bench.cli.thresholds import Checks, threshold_options
from pool_bench.contenders.base import RESET_MODES, SURREAL_CONTENDER_NAMES, ContenderName, ResetMode
from pool_bench.load.pool_spec import ScenarioName

if TYPE_CHECKING:
    from pool_bench.cli.surreal_place import Server

TOOL = "surreal-bench"
_SCENARIOS: tuple[ScenarioName, ...] = ("query", "burst", "sustained", "churn", "stress")


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
@click.option(
    "--driver",
    type=click.Choice(["surreal", "surrealdb"]),
    default="surreal",
    show_default=True,
    help="How connections are opened: surreal (this tool's own, sees every phase), or what an application "
    "using the official client surrealdb pays.",
)
@click.option("--query", metavar="SURQL", help="Run this on each connection once it is ready.")
@connect_timeout_option("Bound on one operation, from the first packet to the close.")
@name_option("-n")
@threshold_options
@require_valid_option
@output_options
@click.pass_context
def connect(
    ctx: click.Context,
    make_server: "Callable[[], Server]",
    concurrency: int | None,
    concurrency_min: int | None,
    concurrency_max: int | None,
    rates: RateOptions,
    duration: float,
    warmup: float,
    grace: float,
    driver: Literal["surreal", "surrealdb"],
    query: str | None,
    connect_timeout: float,
    name: str,
    wait_between_runs: float,
    checks: Checks,
    require_valid: bool,
    output: Output,
) -> None:
    """Open a connection, sign in, select, query if asked to, close; with N workers, or at a rate.

    \b
    surreal-bench connect --concurrency 20 --query "RETURN 1"
    surreal-bench connect --auth token --rate 200/s
    surreal-bench connect --find-max --slo "p99<50ms,errors<0.1%"
    surreal-bench connect --concurrency-min 1 --concurrency-max 32 --url http://db:8000
    """
    loop = loop_of(rates, duration, concurrency, concurrency_min, concurrency_max)

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        # Before the imports below, which take their time.
        hide_secrets()
        from pool_bench.cli.measure import Benchmark, measure
        from pool_bench.cli.surreal_place import find_surreal
        from pool_bench.load.spec import ConnectSpec

        place = find_surreal(make_server())
        place.check_driver(driver)
        return measure(
            Benchmark(
                tool=TOOL,
                name=name,
                place=place,
                spec=ConnectSpec(
                    targets=place.targets,
                    driver=driver,
                    open_loop=loop.open_loop,
                    auth=place.server.auth,
                    warmup_s=warmup,
                    duration_s=duration,
                    grace_s=grace,
                    connect_timeout_s=connect_timeout,
                    query=query,
                    seed=rates.seed_or_new,
                ),
                label=loop.label,
                find_max=loop.find_max(wait_between_runs),
                levels=loop.levels,
                pause_s=wait_between_runs,
                output=output,
                checks=checks,
                require_valid=require_valid,
            )
        )

    ctx.exit(guard(run))


@cli.command()
@server_options
@connections_option
@holding_time_option
@batch_options
@click.option(
    "--keepalive",
    "-k",
    type=Duration(zero=True),
    default="30s",
    show_default=True,
    help="Ask each connection something once in this time, evenly spread; 0 for never.",
)
@click.option(
    "--keepalive-query",
    metavar="SURQL",
    default="",
    help="What to ask. [default: the RPC method ping, which runs no query]",
)
@active_option
@reconnect_option
@connect_timeout_option("Bound on one connect, and on one keep-alive.")
@name_option()
@threshold_options
@require_valid_option
@output_options
@click.pass_context
def load(
    ctx: click.Context,
    make_server: "Callable[[], Server]",
    connections: int,
    duration: float,
    batch_size: int,
    batch_pause: float,
    rate: float | None,
    open_concurrency: int,
    keepalive: float,
    keepalive_query: str,
    active: float,
    reconnect: bool,
    connect_timeout: float,
    name: str,
    checks: Checks,
    require_valid: bool,
    output: Output,
) -> None:
    """Open N connections, hold them idle, keep them alive, notice at once which are dropped, and let go.

    
    surreal-bench load --connections 1000 --auth token
    surreal-bench load --url ws://db:8000 -n 5000 --rate 200/s --duration 10m --reconnect
    """
    check_batches(ctx, rate)

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        # Before the imports below, which take their time.
        hide_secrets()
        from pool_bench.cli.hold import Holding, hold
        from pool_bench.cli.surreal_place import find_surreal
        from pool_bench.load.spec import HoldSpec

        place = find_surreal(make_server())
        return hold(
            Holding(
                tool=TOOL,
                name=name,
                place=place,
                connections=connections,
                spec=HoldSpec(
                    targets=place.targets,
                    connections=(),
                    driver="surreal",
                    auth=place.server.auth,
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
                ),
                reserve=False,
                admin=None,
                output=output,
                checks=checks,
                require_valid=require_valid,
            )
        )

    ctx.exit(guard(run))


@cli.command()
@server_options
@click.option(
    "--pool",
    "-p",
    "pools",
    type=Names(SURREAL_CONTENDER_NAMES, left_out=("purreal",)),
    default="reference,shared,naive",
    show_default=True,
    help="reference: this package's pool; shared: one connection for all clients; naive: a connection, with "
    "sign-in, for each query; purreal: that package's pool, where it is installed.",
)
@click.option(
    "--scenario",
    "-s",
    "scenarios",
    type=Names(_SCENARIOS),
    default="query,burst,sustained,churn",
    show_default=True,
    help=f"The loads, of {', '.join(_SCENARIOS)}; or all.",
)
@click.option(
    "--clients",
    "-c",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Tasks that ask for connections.",
)
@click.option(
    "--stress",
    "stress_clients",
    type=Sizes(),
    default="1000",
    show_default=True,
    metavar="N,...",
    help="How many clients the scenario stress has.",
)
@click.option(
    "--size",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Connections of each pool, no more and no fewer.",
)
@click.option(
    "--hold",
    type=Duration(zero=True),
    default=None,
    metavar="DURATION",
    help="How long an operation keeps its connection after the query. [default: 1ms in sustained, else 0]",
)
@click.option(
    "--query", metavar="SURQL", default="RETURN 1", show_default=True, help="What each operation runs."
)
@click.option(
    "--reset",
    type=click.Choice(RESET_MODES),
    default="own",
    show_default=True,
    help="never: the reference pool restores nothing on return.",
)
@timing_options("5s", 1)
@name_option("-n")
@output_options
@click.pass_context
def pool(
    ctx: click.Context,
    make_server: "Callable[[], Server]",
    pools: tuple[ContenderName, ...],
    scenarios: tuple[ScenarioName, ...],
    clients: int,
    stress_clients: tuple[int, ...],
    size: int,
    hold: float | None,
    query: str,
    reset: ResetMode,
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

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        # Before the imports below, which take their time.
        hide_secrets()
        from pool_bench.cli.pool_run import PoolBenchmark, measure_pools
        from pool_bench.cli.surreal_place import find_surreal
        from pool_bench.contenders import check_installed
        from pool_bench.load.pool_spec import PoolSpec

        for one in pools:
            check_installed(one)
        place = find_surreal(make_server())
        place.check_pool()
        return measure_pools(
            PoolBenchmark(
                tool=TOOL,
                name=name,
                place=place,
                pools=pools,
                scenarios=scenarios,
                spec=PoolSpec(
                    targets=place.targets,
                    pool=pools[0],
                    scenario=scenarios[0],
                    clients=clients,
                    size=size,
                    timeout_s=timeout,
                    reset=reset,
                    warmup_s=warmup,
                    duration_s=duration,
                    grace_s=grace,
                ),
                query=query,
                hold_s=hold,
                rounds=rounds,
                outage_s=0.0,
                output=output,
                stress=stress_clients,
            )
        )

    ctx.exit(guard(run))


@cli.command()
@server_options
@click.pass_context
def check(ctx: click.Context, make_server: "Callable[[], Server]") -> None:
    """Say in words, in less than five seconds, whether this SurrealDB can be used.

    
    surreal-bench check --url ws://db:8000 --user root --namespace app --database app
    """

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        hide_secrets()
        from pool_bench.cli.surreal_check import check as check_server
        from pool_bench.cli.surreal_place import find_surreal

        return check_server(find_surreal(make_server()))

    ctx.exit(guard(run))


@cli.command()
@click.option(
    "--bind", default="127.0.0.1:8000", show_default=True, metavar="ADDRESS:PORT", help="Where to listen."
)
@click.option("--user", default="root", show_default=True, metavar="NAME", help="The root user to make.")
@click.option(
    "--pass",
    "password",
    metavar="PASSWORD",
    help="Its password; better from SURREAL_PASS: others may read a command line. [default: root]",
)
@click.option(
    "--path",
    type=OutputPath(),
    metavar="DIRECTORY",
    help="A SurrealKV store to keep the data in. [default: in memory, gone afterwards]",
)
@click.option("--certificate", type=OutputPath(), metavar="FILE", help="PEM file, for wss:// and https://.")
@click.option("--key", type=OutputPath(), metavar="FILE", help="PEM file of its key.")
@click.option("--namespace", default="bench", show_default=True, metavar="NAME", help="Namespace to make.")
@click.option("--database", default="bench", show_default=True, metavar="NAME", help="Database to make.")
@click.pass_context
def serve(
    ctx: click.Context,
    bind: str,
    user: str,
    password: str | None,
    path: Path | None,
    certificate: Path | None,
    key: Path | None,
    namespace: str,
    database: str,
) -> None:
    """Serve the embedded SurrealDB engine over WebSocket and HTTP until Ctrl-C; for local use.

    
    SURREAL_PASS=secret surreal-bench serve --bind 127.0.0.1:8000 --user root
    """

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        hide_secrets()
        from pool_bench.cli.surreal_serve import Served, serve_forever

        return serve_forever(
            Served(
                bind=bind,
                user=user,
                password=password,
                path=path,
                certificate=certificate,
                key=key,
                namespace=namespace,
                database=database,
            )
        )

    ctx.exit(guard(run))


cli.add_command(plot)


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
