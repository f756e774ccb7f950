"""How commands are entered and left: what each does before its own work, and what becomes of errors."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from pool_bench.cli.argv import mask_process_title
from pool_bench.cli.early import disarm
from pool_bench.cli.options.types import EXIT_FAILED, EXIT_LEFT, EXIT_OK, EXIT_USAGE
from pool_bench.cli.outlets import outlets
from pool_bench.cli.status import busy
from pool_bench.errors import PoolBenchError, UsageError, reason_of


def run_cli(command: click.Command, prog_name: str) -> NoReturn:
    """Run a Click command as a console script: usage errors are one line, and exit code 2."""
    if f"_{prog_name}_COMPLETE".replace("-", "_").upper() in os.environ:
        # Click's answer to a shell that completes a line is bytes, which outlets do not take.
        sys.exit(_run(command, prog_name))
    code = EXIT_LEFT
    # numpy's threads for matrices, which we have none of, cost each of our processes 60 ms of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
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


def run_command(ctx: click.Context, prepare: Callable[[], Callable[[], int]]) -> NoReturn:
    """Leave a command with the exit code of what `prepare` makes ready.

    Args:
        prepare: imports what the command needs, which takes its time, and returns what is to be run.
    """

    def run() -> int:
        # Before the imports: whoever looks meanwhile must not see a password.
        mask_process_title()
        with busy("loading", only_terminals=True), _nothing_collected():
            action = prepare()
        return action()

    ctx.exit(exit_code_of(run))


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Let imports make objects that stay, which the garbage collector would look through again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()
            gc.enable()
