"""Processes whose modules are there already: commands and servers of known behaviour.

Most of what a short run costs is Python's import of numpy, click and matplotlib, which hundreds of tests need
not repeat: a server process has imported them once, and the others are forks of it, as are the generators of
commands (`forked_modules.py`). A command's arguments, environment, directory, output and end are its own all
the same; what is read from the environment at import is that of the tests.
"""

import multiprocessing as mp
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from unittest.mock import patch

from tests.support.forked_modules import forking_modules

context: Final = mp.get_context("forkserver")
context.set_forkserver_preload(["tests.support.forkserver_imports"])


class NeverEndedError(Exception):
    """A command was still running when its time was up."""


def ensure_running() -> None:
    """Start the server process, unless it runs."""
    forkserver.ensure_running()


def run_warm(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    cwd: Path | None,
    timeout_s: float,
    constants: Mapping[str, float],
) -> tuple[int, str, str]:
    """Run `main()` of a module as a command of its own.

    Args:
        constants: what constants of modules, by their full names, are in that command.

    Returns:
        Exit code, stdout and stderr.

    Raises:
        NeverEndedError: it did not end within `timeout_s` seconds; it has been killed.
    """
    with TemporaryDirectory() as place:
        streams = Path(place, "stdout"), Path(place, "stderr")
        process = context.Process(
            target=_command,
            args=(
                module,
                list(arguments),
                dict(env),
                str(cwd or Path.cwd()),
                [str(s) for s in streams],
                dict(constants),
            ),
        )
        process.start()
        try:
            process.join(timeout_s)
            code = process.exitcode
        finally:
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        stdout, stderr = (stream.read_text() if stream.exists() else "" for stream in streams)
    if code is None:
        raise NeverEndedError(f"{module} {' '.join(arguments)}: {stdout}{stderr}")
    return code, stdout, stderr


def _command(
    module: str,
    arguments: list[str],
    env: dict[str, str],
    cwd: str,
    streams: list[str],
    constants: dict[str, float],
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, (name, path) in enumerate(zip(("stdout", "stderr"), streams, strict=True), 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, os.fdopen(number, "w", buffering=1 if number == 2 else -1, closefd=False))
    sys.argv = [f"{module}.py", *arguments]
    with ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(patch(name, value))
        stack.enter_context(forking_modules())
        import_module(module).main()
