"""Options of the commands that hold connections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.shared import (
    by_address_option,
    connect_timeout_option,
    source_option,
    watch_held_option,
)
from pool_bench.cli.options.types import Duration, Rate, Share
from pool_bench.drivers.base import DriverName

if TYPE_CHECKING:
    from pool_bench.load.spec import HoldSpec
    from pool_bench.targets import Target

_GIVE_UP_S: Final = 60.0
_BATCHES: Final = (("--batch-size", "batch_size"), ("--batch-pause", "batch_pause_s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOptions:
    """What the user said.

    Attributes:
        connections: how many to hold, over all targets together.
        give_up: as `HoldSpec.give_up_s`; None leaves it to `patience_s`.
        watch: whether the server is watched.
    All others are as `HoldSpec` has them.
    """

    connections: int
    duration_s: float
    batch_size: int
    batch_pause_s: float
    rate: float | None
    open_concurrency: int
    give_up: float | None
    keepalive_s: float
    keepalive_query: str
    active: float
    reconnect: bool
    watch: bool
    source_ips: tuple[str, ...]
    by_address: bool
    connect_timeout_s: float

    def spec(self, targets: "tuple[Target, ...]", driver: DriverName, connect_timeout_s: float) -> "HoldSpec":
        """The settings of the run.

        Args:
            targets: where to.
            driver: how connections are opened.
            connect_timeout_s: bound on one connect, as the options and the targets say it, seconds.
        """
        from pool_bench.load.spec import HoldSpec

        return HoldSpec(
            targets=targets,
            connections=(),
            driver=driver,
            duration_s=self.duration_s,
            batch_size=self.batch_size,
            batch_pause_s=self.batch_pause_s,
            rate=self.rate,
            open_concurrency=self.open_concurrency,
            keepalive_s=self.keepalive_s,
            keepalive_query=self.keepalive_query,
            active=self.active,
            reconnect=self.reconnect,
            connect_timeout_s=connect_timeout_s,
            give_up_s=patience_s(self.give_up, connect_timeout_s),
            source_ips=self.source_ips,
            by_address=self.by_address,
        )


def hold_options(
    language: str, *, query: str, query_help: str, watched: str
) -> Decorator[Callable[..., None]]:
    """Add them; the command gets them as one `HoldOptions`, named `options`.

    Args:
        language: what the keep-alive query is in.
        query: the default one.
        query_help: what `--keepalive-query` says.
        watched: what `--watch` looks at.
    """
    return gathered(
        "options",
        HoldOptions,
        click.option(
            "--connections",
            "-n",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            metavar="N",
            help="How many to hold, over all URLs together.",
        ),
        click.option(
            "--duration",
            "duration_s",
            "-d",
            type=Duration(zero=True),
            default="60s",
            show_default=True,
            help="How long to hold them once they are open; 0 until Ctrl-C.",
        ),
        click.option(
            "--batch-size",
            "-b",
            type=click.IntRange(min=1),
            default=20,
            show_default=True,
            metavar="N",
            help="Open this many together, and the next ones when all of them are open or have failed.",
        ),
        click.option(
            "--batch-pause",
            "batch_pause_s",
            "-p",
            type=Duration(zero=True),
            default="0s",
            show_default=True,
            help="Pause between two batches.",
        ),
        click.option(
            "--rate", type=Rate(), metavar="RATE", help="Open at a steady rate (200/s), not in batches."
        ),
        click.option(
            "--open-concurrency",
            type=click.IntRange(min=1),
            default=50,
            show_default=True,
            metavar="N",
            help="Connects under way at once, at most.",
        ),
        click.option(
            "--give-up",
            type=Duration(zero=True),
            metavar="DURATION",
            help="End the opening where connections were tried for this long and none opened, and hold those "
            "that are open; 0 for never. [default: 60s, or twice --connect-timeout where that is longer]",
        ),
        click.option(
            "--keepalive",
            "-k",
            "keepalive_s",
            type=Duration(zero=True),
            default="30s",
            show_default=True,
            help="Run the keep-alive query on each connection once in this time, evenly spread; 0 for never.",
        ),
        click.option(
            "--keepalive-query",
            metavar=language,
            default=query,
            show_default=bool(query),
            help=query_help,
        ),
        click.option(
            "--active",
            type=Share(),
            default="0%",
            show_default=True,
            help="Share of the connections that run the keep-alive query without a pause, beside the idle "
            "ones.",
        ),
        click.option(
            "--reconnect/--no-reconnect",
            default=False,
            show_default=True,
            help="Replace a connection that was dropped, with growing pauses while that fails.",
        ),
        watch_held_option(watched),
        source_option,
        by_address_option,
        connect_timeout_option("Bound on one connect, and on one keep-alive."),
    )


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
    batches = [option for option, name in _BATCHES if _given(ctx, name)]
    if rate is not None and batches:
        raise click.UsageError(f"--rate and {' and '.join(batches)} exclude each other")


def _given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
