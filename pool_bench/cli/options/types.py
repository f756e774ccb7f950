"""Option types and the error handling that the commands share."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from pool_bench.cli.early import disarm
from pool_bench.cli.outlets import outlets
from pool_bench.errors import PoolBenchError, UsageError, reason_of
from pool_bench.units import parse_duration, parse_rate, parse_share

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_LEFT = 130


class Duration(click.ParamType[float]):
    """Seconds, written `500ms`, `30s`, `5m`, `1h30m` or as a bare number of seconds.

    Args:
        zero: whether nought is allowed.
    """

    name = "duration"

    def __init__(self, *, zero: bool = False) -> None:
        self._zero = zero

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; the default may be a number already."""
        try:
            seconds = parse_duration(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds == 0 and not self._zero:
            self.fail("it must be more than nought", param, ctx)
        return seconds


class Rate(click.ParamType[float]):
    """Operations a second, written `200/s`, `90/m` or as a bare number."""

    name = "rate"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; the default may be a number already."""
        try:
            return parse_rate(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Share(click.ParamType[float]):
    """A share from 0 to 1, written `5%` or `0.05`."""

    name = "share"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text; the default may be a number already."""
        try:
            return parse_share(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OutputPath(click.ParamType[Path]):
    """A path to write to, as a `Path`."""

    name = "file"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read the text."""
        if not str(value):
            self.fail("it must not be empty", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Let the shell complete file names."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


def run_cli(command: click.Command, prog_name: str) -> NoReturn:
    """Run a Click command as a console script: usage errors are one line, and exit code 2."""
    if f"_{prog_name}_COMPLETE".replace("-", "_").upper() in os.environ:
        # Click's answer to a shell that completes a line is bytes, which outlets do not take.
        sys.exit(_run(command, prog_name))
    code = EXIT_LEFT
    # Ctrl-C while a reader is waited for leaves without it.
    with suppress(KeyboardInterrupt), outlets() as streams:
        code = _run(command, prog_name)
        if streams is not None and code == EXIT_OK and not streams[0].drain() and not streams[0].expendable:
            click.echo(f"error: cannot write to stdout: {reason_of(streams[0].failure)}", err=True)
            code = EXIT_FAILED
    sys.exit(code)


def _run(command: click.Command, prog_name: str) -> int:
    try:
        code: int = command.main(prog_name=prog_name, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {' '.join(error.format_message().split())} (see {prog_name} --help)", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("left", err=True)
        return EXIT_LEFT
    return code


def exit_code_of(action: Callable[[], int]) -> int:
    """Run `action` and return its exit code, errors made one line on stderr."""
    disarm()
    try:
        return action()
    except UsageError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_USAGE
    except PoolBenchError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    except BrokenPipeError:
        return EXIT_FAILED  # the reader has gone (`| head`)
