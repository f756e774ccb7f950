"""The command `calibrate`: what this client costs by itself on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool_bench.cli.entry import run_command
from pool_bench.cli.help_pages import Command
from pool_bench.cli.options.gathering import Decorator, gathered
from pool_bench.cli.options.surreal import auth_option
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK, Duration, OutputPath
from pool_bench.drivers.base import SURREAL_DRIVER_NAMES, DriverName
from pool_bench.targets.surreal import AuthMode

if TYPE_CHECKING:
    from pool_bench.load.calibrate import Protocol
    from pool_bench.targets.postgres import SslMode

_TOOL = "calibrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What to measure: workers, how long each, which query; and where the result goes."""

    concurrency: int
    duration_s: float
    query: str | None
    json: Path | None


def _options(language: str) -> Decorator[Callable[..., None]]:
    """The command gets them as one `CalibrateOptions`, named `options`; queries are in `language`."""
    return gathered(
        "options",
        CalibrateOptions,
        click.option(
            "--concurrency",
            "-c",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            metavar="N",
            help="Workers, beside the one that shows what an operation costs without any waiting.",
        ),
        click.option(
            "--duration",
            "-d",
            "duration_s",
            type=Duration(),
            default="1s",
            show_default=True,
            help="How long to measure each.",
        ),
        click.option(
            "--query", metavar=language, help="Run this on each connection; the answer is always the same."
        ),
        click.option("--json", type=OutputPath(), metavar="FILE|-", help="Result file, or - for stdout."),
    )


@click.command(cls=Command)
@_options("SQL")
@click.option("--tls", is_flag=True, help="Through TLS, as with sslmode=require.")
@click.pass_context
def calibrate(ctx: click.Context, options: CalibrateOptions, tls: bool) -> None:
    """Measure this client itself: each driver against a server that answers at once.

    What it finds is the least that a run can show here: of a latency of 2.0 ms, 0.15 ms may be the client.
    """
    sslmode: SslMode = "require" if tls else "disable"
    run_command(ctx, lambda: partial(run_calibration, "wire", options, sslmode=sslmode))


@click.command(cls=Command)
@_options("SURQL")
@auth_option
@click.option(
    "--protocol",
    type=click.Choice(["ws", "http"]),
    default="ws",
    show_default=True,
    help="What connections speak: as with a ws:// URL, or with an http:// one.",
)
@click.pass_context
def calibrate_surreal(
    ctx: click.Context, options: CalibrateOptions, auth: AuthMode, protocol: "Protocol"
) -> None:
    """Measure this client itself: each driver against a server that answers at once.

    What it finds is the least that a run can show here: of a latency of 70 ms, 1 ms may be the client. The
    server hashes no password and the client checks no certificate.
    """
    run_command(ctx, lambda: partial(run_calibration, "surreal", options, auth=auth, protocol=protocol))


def run_calibration(
    driver: DriverName,
    options: CalibrateOptions,
    *,
    auth: AuthMode = "signin",
    protocol: "Protocol" = "ws",
    sslmode: "SslMode" = "disable",
) -> int:
    """Measure this client and show it.

    Args:
        driver: one of those to measure, all of which speak to the same sort of server.
        options: what to measure, and where the result goes.
        auth: how drivers of SurrealDB sign in.
        protocol: what they speak.
        sslmode: how drivers of PostgreSQL come to the server.

    Returns:
        The exit code.

    Raises:
        UsageError: the result cannot be written there.
        ServerStartError, GeneratorError: it could not be measured.
    """
    import sys
    from datetime import UTC, datetime

    from pool_bench.cli.limits import raise_file_limit
    from pool_bench.cli.signals import LeaveNow, stop_on_signals
    from pool_bench.cli.status import notify
    from pool_bench.load import calibrate as load
    from pool_bench.report.summary.calibration import calibration_table
    from pool_bench.report.text import colour_wanted
    from pool_bench.results import write as results
    from pool_bench.results.files import check_writable
    from pool_bench.results.session import Session

    path = options.json
    on_stdout = path is not None and str(path) == "-"
    if path is not None and not on_stdout:
        check_writable(path, option="--json")
    raise_file_limit(options.concurrency, option="--concurrency")
    session = Session(_TOOL, "", datetime.now(UTC), (), ())
    session.config = {
        "concurrency": options.concurrency,
        "duration_s": options.duration_s,
        "query": options.query,
    }
    if driver in SURREAL_DRIVER_NAMES:
        session.config |= {"auth": auth, "protocol": protocol}
    else:
        session.config["sslmode"] = sslmode
    try:
        with stop_on_signals(notify) as stop:
            session.calibration = load.calibrate(
                load.settings_for(driver, (options.concurrency,), auth=auth),
                stop,
                seconds=options.duration_s,
                query=options.query,
                auth=auth,
                protocol=protocol,
                sslmode=sslmode,
                begin=lambda driver, level: notify(f"calibrating {driver} at concurrency {level:,}"),
            )
            session.interrupted = stop.requested
    except LeaveNow:
        return EXIT_LEFT
    session.finished_at = datetime.now(UTC)
    text = sys.stderr if on_stdout else sys.stdout
    print(calibration_table(session.calibration, colour=colour_wanted(text)), file=text)
    content = results.session_to_json(session)
    if on_stdout:
        sys.stdout.write(results.dumps(content).decode("utf-8"))
    elif path is not None:
        results.write_json(path, content)
        notify(f"wrote {path}")
    return EXIT_OK if session.calibration.floors else EXIT_FAILED
