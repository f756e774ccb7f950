"""`pool-bench plot`: pictures of result files."""

from pathlib import Path

import click

from pool_bench.report.files import check_writable
from pool_bench.report.loaded import load_result
from pool_bench.report.plots import plot_format as format_of
from pool_bench.report.plots import save_plot


def draw_files(files: tuple[Path, ...], output: Path | None, file_format: str) -> int:
    """Draw `files` to `output`, or beside the first of them; returns the exit code.

    Raises:
        UsageError: a file cannot be read, or the picture cannot be written.
    """
    path = output
    if path is None:
        path = files[0].with_suffix(f".{file_format}")
        if len(files) > 1:
            path = files[0].with_name(f"{files[0].stem}_and_{len(files) - 1}_more.{file_format}")
    elif not path.suffix:
        path = path.with_suffix(f".{file_format}")
    format_of(path, option="--output-name")
    check_writable(path, option="--output-name")
    save_plot(path, [load_result(file) for file in files])
    click.echo(f"wrote {path}")
    return 0
