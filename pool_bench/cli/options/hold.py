"""Options of the commands that hold connections, with the same names, defaults and words."""

from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar

import click

from pool_bench.cli.options.types import Duration, Rate, Share

_GIVE_UP_S: Final = 60.0

_Function = TypeVar("_Function", bound=Callable[..., object])


def batch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of how fast connections are opened."""

    @click.option(
        "--batch-size",
        "-b",
        type=click.IntRange(min=1),
        default=20,
        show_default=True,
        metavar="N",
        help="Open so many together, and the next ones when all of them are open or have failed.",
    )
    @click.option(
        "--batch-pause",
        "-p",
        type=Duration(zero=True),
        default="0s",
        show_default=True,
        help="Pause between two batches.",
    )
    @click.option(
        "--rate", type=Rate(), metavar="RATE", help="Open at a steady rate (200/s), not in batches."
    )
    @click.option(
        "--open-concurrency",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        metavar="N",
        help="Connects under way at once, at most.",
    )
    @click.option(
        "--give-up",
        type=Duration(zero=True),
        metavar="DURATION",
        help="End the opening where for so long connections were tried and none opened, and hold those that "
        "are open; 0 for never. [default: 60s, or twice --connect-timeout where that is longer]",
    )
    @wraps(command)
    def with_batches(*args: object, **kwargs: object) -> None:
        command(*args, **kwargs)

    return with_batches


def patience_s(give_up: float | None, connect_timeout_s: float) -> float:
    """After how long without a new connection opening ends, seconds; `give_up` is what the user said.

    Where he said nothing, as long as two connects may take: one that ends in time is not cut short.
    """
    return max(_GIVE_UP_S, 2 * connect_timeout_s) if give_up is None else give_up


def check_batches(ctx: click.Context, rate: float | None) -> None:
    """Make sure that `batch_options` go together.

    Raises:
        UsageError: Click's own; they do not.
    """
    batches = [f"--{name.replace('_', '-')}" for name in ("batch_size", "batch_pause") if _given(ctx, name)]
    if rate is not None and batches:
        raise click.UsageError(f"--rate and {' and '.join(batches)} exclude each other")


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


connections_option = click.option(
    "--connections",
    "-n",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="How many to hold, over all URLs together.",
)

holding_time_option = click.option(
    "--duration",
    "-d",
    type=Duration(zero=True),
    default="60s",
    show_default=True,
    help="How long to hold them once they are open; 0 until Ctrl-C.",
)


def keepalive_options(language: str, *, query: str, help_text: str) -> Callable[[_Function], _Function]:
    """`--keepalive` and `--keepalive-query`.

    Args:
        language: what the query is in.
        query: the default one.
        help_text: what `--keepalive-query` says.
    """

    def add(command: _Function) -> _Function:
        command = click.option(
            "--keepalive-query",
            metavar=language,
            default=query,
            show_default=bool(query),
            help=help_text,
        )(command)
        return click.option(
            "--keepalive",
            "-k",
            type=Duration(zero=True),
            default="30s",
            show_default=True,
            help="Run the keep-alive query on each connection once in this time, evenly spread; 0 for never.",
        )(command)

    return add


active_option = click.option(
    "--active",
    type=Share(),
    default="0%",
    show_default=True,
    help="Share of the connections that run the keep-alive query without a pause, beside the idle ones.",
)

reconnect_option = click.option(
    "--reconnect/--no-reconnect",
    default=False,
    show_default=True,
    help="Replace a connection that was dropped, with growing pauses while that fails.",
)
