"""Options of the commands that open and close connections: how many at once, and for how long."""

from collections.abc import Callable
from functools import wraps

import click

from pool_bench.cli.options.types import Duration


def concurrency_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `levels_of` reads."""

    @click.option(
        "--concurrency", "-c", type=click.IntRange(min=1), metavar="N", help="Workers. [default: 10]"
    )
    @click.option(
        "--concurrency-min",
        type=click.IntRange(min=1),
        metavar="A",
        help="Sweep: begin with A workers and double up to --concurrency-max.",
    )
    @click.option(
        "--concurrency-max", type=click.IntRange(min=1), metavar="B", help="Sweep: end with B workers."
    )
    @wraps(command)
    def with_concurrency(*args: object, **kwargs: object) -> None:
        command(*args, **kwargs)

    return with_concurrency


def measuring_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--duration`, `--warmup`, `--grace` and `--wait-between-runs`."""

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
        "--wait-between-runs",
        type=Duration(zero=True),
        default="2s",
        show_default=True,
        help="Pause between the runs of a session, or the trials of --find-max.",
    )
    @wraps(command)
    def with_times(*args: object, **kwargs: object) -> None:
        command(*args, **kwargs)

    return with_times


def levels_of(concurrency: int | None, low: int | None, high: int | None) -> tuple[int, ...]:
    """One level, ten where none was said, or doubling from `low` to `high`, both included.

    Raises:
        UsageError: Click's own; the options do not go together.
    """
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
