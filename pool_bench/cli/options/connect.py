"""Options of the commands that open and close connections."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.loop import Loop, RateOptions, loop_of, rate_options
from pool_bench.cli.options.rounds import Settings, check_rounds, rounds_options
from pool_bench.cli.options.shared import (
    by_address_option,
    calibrate_option,
    connect_timeout_option,
    grace_option,
    resolve_option,
    source_option,
    warmup_option,
    watch_option,
)
from pool_bench.cli.options.types import Duration
from pool_bench.drivers.base import DriverName

if TYPE_CHECKING:
    from pool_bench.load.spec import ConnectSpec
    from pool_bench.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """What the user said; None for what is left open.

    Attributes:
        concurrency, concurrency_min, concurrency_max: workers, as `levels_of` takes them.
        rates: of an open loop.
        duration_s, warmup_s, grace_s: as `ConnectSpec` has them.
        pause_s: between runs, seconds.
        query: run on each connection.
        connect_timeout_s: bound on one operation, seconds.
        resolve: how often names are looked up.
        by_address: results by address also where there is only one.
        source_ips: local addresses to connect from in turn.
        rounds: how often each setting is measured.
        interleave: settings measured in turn with these.
        watch: watch the server; None: where it is on this machine.
        calibrate: measure what the client costs by itself first.
    """

    concurrency: int | None
    concurrency_min: int | None
    concurrency_max: int | None
    rates: RateOptions
    duration_s: float
    warmup_s: float
    grace_s: float
    pause_s: float
    query: str | None
    connect_timeout_s: float
    resolve: Literal["each", "once"]
    by_address: bool
    source_ips: tuple[str, ...]
    rounds: int
    interleave: tuple[str, ...]
    watch: bool | None
    calibrate: bool

    def loop(self) -> Loop:
        """The loop that they ask for.

        Raises:
            click.UsageError: they contradict each other.
        """
        loop = loop_of(
            self.rates, self.duration_s, self.concurrency, self.concurrency_min, self.concurrency_max
        )
        is_open = loop.profile is not None
        check_rounds(self.rounds, self.interleave, find_max=self.rates.find_max, is_open=is_open)
        return loop

    def spec(self, targets: "tuple[Target, ...]", driver: DriverName, loop: Loop) -> "ConnectSpec":
        """The settings of every run."""
        from pool_bench.load.spec import ConnectSpec

        return ConnectSpec(
            targets=targets,
            driver=driver,
            open_loop=loop.open_loop,
            warmup_s=self.warmup_s,
            duration_s=self.duration_s,
            grace_s=self.grace_s,
            connect_timeout_s=self.connect_timeout_s,
            query=self.query,
            resolve_once=self.resolve == "once",
            by_address=self.by_address,
            source_ips=self.source_ips,
            seed=self.rates.seed_or_new,
        )


def connect_options(language: str, settings: Settings, watched: str) -> Decorator[Callable[..., None]]:
    """Add them; the command gets them as one `ConnectOptions`, named `options`.

    Args:
        language: what queries are in.
        settings: what `--interleave` may change.
        watched: what `--watch` looks at.
    """
    return gathered(
        "options",
        ConnectOptions,
        click.option(
            "--concurrency", "-c", type=click.IntRange(min=1), metavar="N", help="Workers. [default: 10]"
        ),
        click.option(
            "--concurrency-min",
            type=click.IntRange(min=1),
            metavar="A",
            help="Sweep: begin with A workers and double up to --concurrency-max.",
        ),
        click.option(
            "--concurrency-max", type=click.IntRange(min=1), metavar="B", help="Sweep: end with B workers."
        ),
        rate_options,
        click.option(
            "--duration",
            "duration_s",
            "-d",
            type=Duration(zero=True),
            default="10s",
            show_default=True,
            help="How long to measure each setting; 0 until Ctrl-C.",
        ),
        warmup_option,
        grace_option,
        click.option(
            "--wait-between-runs",
            "pause_s",
            type=Duration(zero=True),
            default="2s",
            show_default=True,
            help="Pause between the runs of a session, or the trials of --find-max.",
        ),
        click.option("--query", metavar=language, help="Run this on each connection once it is ready."),
        connect_timeout_option("Bound on one operation, from the first packet to the close."),
        resolve_option,
        by_address_option,
        source_option,
        rounds_options(settings),
        watch_option(watched),
        calibrate_option,
    )
