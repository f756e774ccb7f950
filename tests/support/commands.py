"""Runs the commands as a user would, each in a process of its own."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from tests.support.forkserver import run_warm

COMMAND = "pg_connection_bench"
LOAD_COMMAND = "pg_connection_load"
# Nobody listens there, nor ever will: the port is privileged, and none that the system hands out to others.
NOWHERE = "postgresql://u@127.0.0.1:1/db?sslmode=disable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def error_lines(self) -> list[str]:
        """What stderr says, line by line."""
        return self.stderr.splitlines()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anything that names a target."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PG") and k != "DATABASE_URL"}
    return env | dict(extra or {})


def found_by(module: str, arguments: object, *prefix: str) -> dict[str, Any]:
    """What a module of the tests found that was run on `arguments` in a process of its own."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", module, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_tool(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    command: str = COMMAND,
    constants: Mapping[str, float] | None = None,
) -> Outcome:
    """Run it to its end, with constants of modules changed for it."""
    return Outcome(*run_warm(command, arguments, environment(env), cwd, 200, constants or {}))


def run_here(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    command: str = COMMAND,
) -> Outcome:
    """Run it in this very process: the cheapest way for usage errors, and for what a test has patched."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(env), clear=True),
        patch.object(sys, "argv", [f"{command}.py", *arguments]),
        chdir(cwd or Path.cwd()),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as left,
    ):
        import_module(command).main()
    assert isinstance(left.value.code, int)
    return Outcome(left.value.code, stdout.getvalue(), stderr.getvalue())


class Started:
    """The command under way; its output goes through files, so that nothing blocks."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        command: str = COMMAND,
    ) -> None:
        self._out = (directory / "stdout").open("w+")
        self._err = (directory / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", command, *arguments],
            stdout=self._out,
            stderr=self._err,
            stdin=subprocess.DEVNULL,
            env=environment(env),
            cwd=directory,
        )

    def stdout(self) -> str:
        """What it has printed so far."""
        return Path(self._out.name).read_text()

    def stderr(self) -> str:
        """What it has said so far."""
        return Path(self._err.name).read_text()

    def wait_for(self, pattern: str, seconds: float = 60) -> "re.Match[str]":
        """Wait until stdout or stderr matches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = re.search(pattern, self.stdout() + self.stderr(), re.MULTILINE)
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} never came: {self.stdout()}{self.stderr()}")

    def family(self) -> list[psutil.Process]:
        """All processes that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def titles(self) -> list[list[str]]:
        """The command lines of it and of all processes that it has started, as others see them."""
        titles = []
        for one in (psutil.Process(self.process.pid), *self.family()):
            with suppress(psutil.Error):  # one that has ended shows nothing
                titles.append(one.cmdline())
        return titles

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to its process group, as `timeout` does."""
        group = os.getpgid(self.process.pid)
        members = []
        for one in self.family():
            with suppress(ProcessLookupError):  # backends come and go
                if os.getpgid(one.pid) == group:
                    members.append(one.pid)
        assert members, "a generator at least"
        for pid in (*members, self.process.pid):
            os.kill(pid, number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def finish(self, seconds: float = 60) -> Outcome:
        """Wait for its end."""
        try:
            code = self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._out.close()
            self._err.close()
        return Outcome(code, self.stdout(), self.stderr())


def load(path: Path) -> dict[str, Any]:
    """A result file as plain JSON."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def only(directory: Path, pattern: str) -> Path:
    """The one file in `directory` that matches."""
    (path,) = directory.glob(pattern)
    return path


def all_gone(processes: Sequence[psutil.Process], seconds: float = 30) -> bool:
    """Whether all of them end in time."""
    _, alive = psutil.wait_procs(list(processes), timeout=seconds)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
