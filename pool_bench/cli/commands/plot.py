"""`plot`: the picture of one result file, or of several over each other."""

from pathlib import Path

import click

from pool_bench.cli.entry import run_command
from pool_bench.cli.help_pages import Command
from pool_bench.cli.options.shared import PlotFormat, plot_format_option
from pool_bench.cli.options.types import OutputPath
from pool_bench.cli.status import busy


@click.command(cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--output-name", "-o", "output", type=OutputPath(), metavar="FILE.png|svg", help="Picture file."
)
@plot_format_option
@click.pass_context
def plot(ctx: click.Context, files: tuple[Path, ...], output: Path | None, plot_format: PlotFormat) -> None:
    """Draw one result file, or several over each other.

    Histograms share their buckets, percentiles stand side by side, sweeps become curves. Without
    --output-name the picture goes beside the first file.
    """

    def draw() -> int:
        from pool_bench.report.plot.figures import save_plot
        from pool_bench.report.plot.formats import plot_format as format_of
        from pool_bench.results.files import check_writable
        from pool_bench.results.read import load_result

        path = output
        if path is None:
            path = files[0].with_suffix(f".{plot_format}")
            if len(files) > 1:
                path = files[0].with_name(f"{files[0].stem}_and_{len(files) - 1}_more.{plot_format}")
        elif not path.suffix:
            path = path.with_suffix(f".{plot_format}")
        format_of(path, option="--output-name")
        check_writable(path, option="--output-name")
        results = [load_result(file) for file in files]
        with busy(f"drawing {path}"):
            save_plot(path, results)
        click.echo(f"wrote {path}")
        return 0

    run_command(ctx, lambda: draw)
