"""The command `calibrate` of `surreal-bench`: what this client costs by itself on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool_bench.cli.commands.calibrate import calibrate_options, run_calibration
from pool_bench.cli.entry import exit_code_of
from pool_bench.cli.help_pages import Command
from pool_bench.cli.options.surreal import auth_option
from pool_bench.targets.surreal import AuthMode

if TYPE_CHECKING:
    from pool_bench.load.calibrate import Protocol


@click.command(cls=Command)
@calibrate_options("SURQL")
@auth_option
@click.option(
    "--protocol",
    type=click.Choice(["ws", "http"]),
    default="ws",
    show_default=True,
    help="What connections speak: as with a ws:// URL, or with an http:// one.",
)
@click.pass_context
def calibrate(
    ctx: click.Context,
    concurrency: int,
    duration: float,
    query: str | None,
    path: Path | None,
    auth: AuthMode,
    protocol: "Protocol",
) -> None:
    """Measure this client itself: each driver against a server that answers at once.

    What it finds is the least that a run can show here: of a latency of 70 ms, 1 ms may be the client. The
    server hashes no password and the client checks no certificate.
    """
    ctx.exit(
        exit_code_of(
            lambda: run_calibration(
                "surreal", concurrency, duration, query, path, auth=auth, protocol=protocol
            )
        )
    )
