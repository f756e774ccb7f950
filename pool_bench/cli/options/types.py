"""Option types that several commands share, and the exit codes."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

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
        zero: whether 0 is allowed.
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
            self.fail("must be greater than 0", param, ctx)
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
            self.fail("must not be empty", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        """Let the shell complete file names."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]
