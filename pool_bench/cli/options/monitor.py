"""Options of the commands that watch a pool, the same in `pool-bench` and `surreal-bench`."""

from dataclasses import dataclass
from typing import Final

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.cli.options.pool import MAX_CLIENTS
from pool_bench.cli.options.types import Duration

WITHOUT_METRICS: Final = "a demonstration, a pool of this tool's own against --url"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorOptions:
    """What to watch, and for how long.

    Attributes:
        metrics: URL of Prometheus metrics, None for a pool of our own.
        size, clients: of that one.
        interval_s: seconds between two looks.
        duration_s: how long, seconds; 0 until stopped.
    """

    metrics: str | None
    size: int
    clients: int
    interval_s: float
    duration_s: float


# The command gets them as one `MonitorOptions`, named `options`.
monitor_options = gathered(
    "options",
    MonitorOptions,
    click.option(
        "--metrics",
        metavar="URL",
        help="An application's Prometheus metrics, http://host:port/metrics, with the pools it registered "
        f"(pool_bench.pool.metrics). Without it: {WITHOUT_METRICS}.",
    ),
    click.option(
        "--size",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        help="Size of the demonstration's pool.",
    ),
    click.option(
        "--clients",
        "-c",
        type=click.IntRange(min=0, max=MAX_CLIENTS),
        default=20,
        show_default=True,
        help="Clients of the demonstration; 0 to look on without a load.",
    ),
    click.option(
        "--interval",
        "interval_s",
        type=Duration(),
        default="1s",
        show_default=True,
        help="Time between two looks.",
    ),
    click.option(
        "--duration",
        "-d",
        "duration_s",
        type=Duration(zero=True),
        default="0",
        show_default=True,
        help="How long to watch; 0 until Ctrl-C.",
    ),
)
