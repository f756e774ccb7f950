"""Options of `all`."""

from dataclasses import dataclass
from pathlib import Path

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.cli.options.pool import MAX_CLIENTS
from pool_bench.cli.options.shared import verbose_option
from pool_bench.cli.options.types import Duration, OutputPath


@dataclass(frozen=True, slots=True, kw_only=True)
class AllOptions:
    """How much of each step.

    Attributes:
        clients: of the stress.
        size: connections of the pool.
        connections: to hold.
        duration_s: of each step but the first, seconds.
        directory, no_save, quiet, verbose: as `Output` has them.
    """

    clients: int
    size: int
    connections: int
    duration_s: float
    directory: Path
    no_save: bool
    quiet: bool
    verbose: bool


# The command gets them as one `AllOptions`, named `options`.
all_options = gathered(
    "options",
    AllOptions,
    click.option(
        "--clients",
        "-c",
        type=click.IntRange(min=1, max=MAX_CLIENTS),
        default=1000,
        show_default=True,
        help="Clients of the step stress.",
    ),
    click.option(
        "--size",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Connections of the pool; throughput has ten times as many clients, monitor twice as many.",
    ),
    click.option(
        "--connections",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        metavar="N",
        help="Connections that the step load holds.",
    ),
    click.option(
        "--duration",
        "-d",
        "duration_s",
        type=Duration(),
        default="5s",
        show_default=True,
        help="How long each step but the first measures.",
    ),
    click.option(
        "--output-dir",
        "directory",
        type=OutputPath(),
        default="results",
        show_default=True,
        help="Where results and pictures go.",
    ),
    click.option("--no-save", is_flag=True, help="Write nothing to --output-dir."),
    click.option("--quiet", "-q", is_flag=True, help="No line every second, only the summaries."),
    verbose_option,
)
