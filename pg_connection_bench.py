"""pg-connection-bench: how many connections per second can this server or pooler open and close?

Options, wiring and exit codes; everything else is in `pool_bench/`. Heavy imports stay inside the
functions that need them, so that `--help` answers at once.
"""

from pathlib import Path
from typing import Literal

import click

from pool_bench import __version__
from pool_bench.cli.params import Duration, OutputPath, guard, run_cli
from pool_bench.drivers.base import DRIVER_NAMES, DriverName

TOOL = "pg-connection-bench"

PlotFormat = Literal["png", "svg"]


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 fine, 1 a run had no success, 2 bad usage, 130 left by a second Ctrl-C.",
)
@click.option(
    "--url",
    "-u",
    "urls",
    multiple=True,
    metavar="URL",
    help="PostgreSQL URL, postgresql://user@host:port/database?sslmode=...; repeat it to use several "
    "round-robin. Without it: DATABASE_URL, else PGHOST, PGHOSTADDR or PGPORT, else an embedded "
    "PostgreSQL is started, used and removed.",
)
@click.option("--concurrency", "-c", type=click.IntRange(min=1), metavar="N", help="Workers. [default: 10]")
@click.option(
    "--concurrency-min",
    type=click.IntRange(min=1),
    metavar="A",
    help="Sweep: begin with A workers and double up to --concurrency-max.",
)
@click.option("--concurrency-max", type=click.IntRange(min=1), metavar="B", help="Sweep: end with B workers.")
@click.option(
    "--duration",
    "-d",
    type=Duration(zero=True),
    default="10s",
    show_default=True,
    help="How long to measure each setting; 0 until Ctrl-C.",
)
@click.option(
    "--warmup",
    type=Duration(zero=True),
    default="1s",
    show_default=True,
    help="Operations begun in this time before measuring do not count.",
)
@click.option(
    "--grace",
    type=Duration(zero=True),
    default="5s",
    show_default=True,
    help="How long operations under way at the end may take to finish; what is left is `unfinished`.",
)
@click.option(
    "--driver",
    type=click.Choice(DRIVER_NAMES),
    default="wire",
    show_default=True,
    help="How connections are opened: wire (this tool's own, cheapest, sees every phase), or what an "
    "application using asyncpg or psycopg pays.",
)
@click.option("--query", metavar="SQL", help="Run this on each connection once it is ready.")
@click.option(
    "--connect-timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Bound on one operation, from the first packet to the close.",
)
@click.option(
    "--scram-cache/--no-scram-cache",
    default=True,
    show_default=True,
    help="Keep SCRAM keys between connections, as poolers do; without, each pays for PBKDF2. [wire]",
)
@click.option(
    "--resolve",
    type=click.Choice(["each", "once"]),
    default="each",
    show_default=True,
    help="Look host names up for each connection, or once before the run. [wire]",
)
@click.option(
    "--name", "-n", default="", metavar="TEXT", help="A name for the result, for files and legends."
)
@click.option(
    "--wait-between-runs",
    type=Duration(zero=True),
    default="2s",
    show_default=True,
    help="Pause between the levels of a sweep.",
)
@click.option(
    "--output-dir",
    type=OutputPath(),
    default="results",
    show_default=True,
    help="Where result and picture go.",
)
@click.option(
    "--json", "json_path", type=OutputPath(), metavar="FILE|-", help="Result file, or - for stdout."
)
@click.option("--plot", "plot_path", type=OutputPath(), metavar="FILE.png|svg", help="Picture file.")
@click.option(
    "--plot-format",
    type=click.Choice(["png", "svg"]),
    default="png",
    show_default=True,
    help="Format of a picture in --output-dir.",
)
@click.option("--no-save", is_flag=True, help="Write nothing to --output-dir.")
@click.option("--quiet", "-q", is_flag=True, help="No line every second, only the summary.")
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
    name: str,
    wait_between_runs: float,
    output_dir: Path,
    json_path: Path | None,
    plot_path: Path | None,
    plot_format: PlotFormat,
    no_save: bool,
    quiet: bool,
) -> None:
    """Open and close PostgreSQL connections as fast as the server lets N workers, and say what it costs.

    \b
    pg-connection-bench --concurrency 50
    pg-connection-bench --url postgresql://app@db:6432/app --duration 30s
    pg-connection-bench --concurrency-min 1 --concurrency-max 64 --driver asyncpg
    pg-connection-bench plot results/before.json results/after.json
    """
    if ctx.invoked_subcommand is not None:
        return
    levels = _levels(concurrency, concurrency_min, concurrency_max)
    given = ctx.get_parameter_source("connect_timeout") is not click.core.ParameterSource.DEFAULT

    def run() -> int:
        from pool_bench.cli.title import hide_secrets

        # Before the imports below, which take their time.
        hide_secrets()
        from pool_bench.cli.locate import find_targets
        from pool_bench.cli.measure import Benchmark, measure
        from pool_bench.cli.output import Output
        from pool_bench.load.spec import ConnectSpec

        place = find_targets(urls, application_name=TOOL)
        limits = [t.connect_timeout_s for t in place.targets if t.connect_timeout_s is not None]
        return measure(
            Benchmark(
                tool=TOOL,
                name=name,
                place=place,
                spec=ConnectSpec(
                    targets=place.targets,
                    driver=driver,
                    warmup_s=warmup,
                    duration_s=duration,
                    grace_s=grace,
                    connect_timeout_s=connect_timeout if given or not limits else min(limits),
                    query=query,
                    scram_cache=scram_cache,
                    resolve_once=resolve == "once",
                ),
                levels=levels,
                pause_s=wait_between_runs,
                output=Output(
                    json=json_path,
                    plot=plot_path,
                    plot_format=plot_format,
                    directory=output_dir,
                    save=not no_save,
                    quiet=quiet,
                ),
            )
        )

    ctx.exit(guard(run))


def _levels(concurrency: int | None, low: int | None, high: int | None) -> tuple[int, ...]:
    """The concurrency of each run: one, or doubling from `low` to `high`, both included."""
    if low is None and high is None:
        return (10 if concurrency is None else concurrency,)
    if concurrency is not None:
        raise click.UsageError("--concurrency and --concurrency-min/--concurrency-max exclude each other")
    if low is None or high is None:
        raise click.UsageError("--concurrency-min and --concurrency-max belong together")
    if low > high:
        raise click.UsageError(f"--concurrency-min {low} is above --concurrency-max {high}")
    levels = []
    while low < high:
        levels.append(low)
        low *= 2
    return (*levels, high)


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--output-name", "-o", "output", type=OutputPath(), metavar="FILE.png|svg", help="Picture file."
)
@click.option(
    "--plot-format",
    type=click.Choice(["png", "svg"]),
    default="png",
    show_default=True,
    help="Format of the picture where --output-name does not say.",
)
@click.pass_context
def plot(ctx: click.Context, files: tuple[Path, ...], output: Path | None, plot_format: PlotFormat) -> None:
    """Draw one result file, or several over each other.

    Histograms share their buckets, percentiles stand side by side, sweeps become curves. Without
    --output-name the picture goes beside the first file.
    """

    def run() -> int:
        from pool_bench.report.files import check_writable
        from pool_bench.report.loaded import load_result
        from pool_bench.report.plots import plot_format as format_of
        from pool_bench.report.plots import save_plot

        path = output
        if path is None:
            path = files[0].with_suffix(f".{plot_format}")
            if len(files) > 1:
                path = files[0].with_name(f"{files[0].stem}_and_{len(files) - 1}_more.{plot_format}")
        elif not path.suffix:
            path = path.with_suffix(f".{plot_format}")
        format_of(path, option="--output-name")
        check_writable(path, option="--output-name")
        save_plot(path, [load_result(file) for file in files])
        click.echo(f"wrote {path}")
        return 0

    ctx.exit(guard(run))


def main() -> None:
    """The console script."""
    run_cli(cli, TOOL)


if __name__ == "__main__":
    main()
