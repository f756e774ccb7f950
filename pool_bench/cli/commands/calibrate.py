"""The command `calibrate`: what this client costs by itself on this machine."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool_bench.cli.entry import exit_code_of
from pool_bench.cli.help_pages import Command
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK, Duration, OutputPath
from pool_bench.drivers.base import SURREAL_DRIVER_NAMES, DriverName
from pool_bench.targets.surreal import AuthMode

if TYPE_CHECKING:
    from pool_bench.load.calibrate import Protocol
    from pool_bench.targets.postgres import SslMode

_TOOL = "calibrate"


def calibrate_options(language: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options of a command `calibrate`, whose queries are in `language`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--concurrency",
            "-c",
            type=click.IntRange(min=1),
            default=10,
            show_default=True,
            metavar="N",
            help="Workers, beside the one that shows what an operation costs without any waiting.",
        )
        @click.option(
            "--duration",
            "-d",
            type=Duration(),
            default="1s",
            show_default=True,
            help="How long to measure each.",
        )
        @click.option(
            "--query", metavar=language, help="Run this on each connection; the answer is always the same."
        )
        @click.option(
            "--json", "path", type=OutputPath(), metavar="FILE|-", help="Result file, or - for stdout."
        )
        @wraps(command)
        def with_options(*args: object, **kwargs: object) -> None:
            command(*args, **kwargs)

        return with_options

    return add


@click.command(cls=Command)
@calibrate_options("SQL")
@click.option("--tls", is_flag=True, help="Through TLS, as with sslmode=require.")
@click.pass_context
def calibrate(
    ctx: click.Context, concurrency: int, duration: float, query: str | None, path: Path | None, tls: bool
) -> None:
    """Measure this client itself: each driver against a server that answers at once.

    What it finds is the least that a run can show here: of a latency of 2.0 ms, 0.15 ms may be the client.
    """
    sslmode: SslMode = "require" if tls else "disable"
    ctx.exit(
        exit_code_of(lambda: run_calibration("wire", concurrency, duration, query, path, sslmode=sslmode))
    )


def run_calibration(
    driver: DriverName,
    concurrency: int,
    duration_s: float,
    query: str | None,
    json_path: Path | None,
    *,
    auth: AuthMode = "signin",
    protocol: "Protocol" = "ws",
    sslmode: "SslMode" = "disable",
) -> int:
    """Measure this client and show it.

    Args:
        driver: one of those to measure, all of which speak to the same sort of server.
        concurrency: workers, beside the one that is alone.
        duration_s: how long to measure each driver, seconds.
        query: run on each connection; None for none.
        json_path: where the result goes, `-` for stdout, None for nowhere.
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

    on_stdout = json_path is not None and str(json_path) == "-"
    if json_path is not None and not on_stdout:
        check_writable(json_path, option="--json")
    raise_file_limit(concurrency, option="--concurrency")
    session = Session(_TOOL, "", datetime.now(UTC), (), ())
    session.config = {"concurrency": concurrency, "duration_s": duration_s, "query": query}
    if driver in SURREAL_DRIVER_NAMES:
        session.config |= {"auth": auth, "protocol": protocol}
    else:
        session.config["sslmode"] = sslmode
    try:
        with stop_on_signals(notify) as stop:
            session.calibration = load.calibrate(
                load.settings_for(driver, (concurrency,), auth=auth),
                stop,
                seconds=duration_s,
                query=query,
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
    elif json_path is not None:
        results.write_json(json_path, content)
        notify(f"wrote {json_path}")
    return EXIT_OK if session.calibration.floors else EXIT_FAILED
