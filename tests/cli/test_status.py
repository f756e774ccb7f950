"""What a command says while nothing else shows that it is alive."""

import os
import pty
import re
import sys
from contextlib import nullcontext, redirect_stderr, suppress
from io import StringIO
from pathlib import Path

import pytest

from pool_bench.cli import status
from pool_bench.cli.status import notify
from pool_bench.results.write import session_to_json, write_json
from tests.support.commands import environment, run_tool
from tests.support.results.runs import session_of, typical_run

ERASE = "\r\x1b[K"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_it_in_place_and_has_nothing_left_of_it() -> None:
    with redirect_stderr(Terminal()) as terminal:
        with status.busy("drawing a picture"):
            assert terminal.getvalue() == f"{ERASE}drawing a picture ..."
        assert terminal.getvalue().endswith(ERASE)
        assert "\n" not in terminal.getvalue()


def test_what_is_said_meanwhile_has_a_line_of_its_own() -> None:
    with redirect_stderr(Terminal()) as terminal, status.busy("starting"):
        notify("stopping")
    assert terminal.getvalue() == f"{ERASE}starting ...{ERASE}stopping\n"


def test_elsewhere_it_is_a_line_or_nothing() -> None:
    with redirect_stderr(StringIO()) as stream:
        with status.busy("loading", only_terminals=True):
            pass
        with status.entered("starting", nullcontext("server")) as server:
            assert server == "server"
    assert stream.getvalue() == "starting ...\n"


def test_it_goes_although_what_it_was_for_fails() -> None:
    with redirect_stderr(Terminal()) as terminal:
        with pytest.raises(ValueError, match="no"), status.busy("starting"):
            raise ValueError("no")
        assert terminal.getvalue().endswith(ERASE)


def test_in_a_pipe_a_picture_is_announced_before_it_is_there(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", session_to_json(session_of(typical_run())))
    outcome = run_tool("plot", "r.json", "-o", "r.svg", cwd=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "drawing r.svg ...\n")
    assert outcome.stdout == "wrote r.svg\n"


def test_a_terminal_sees_something_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    # Behind its back nothing is there to be imported: whatever is shown was shown before that.
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy was imported')\n")
    pid, descriptor = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        command = [sys.executable, "-m", "pg_connection_bench", "-c", "1", "-d", "1s", "--no-save"]
        os.execve(  # noqa: S606
            sys.executable, command, environment({"PYTHONPATH": str(tmp_path), "TERM": "xterm"})
        )
    shown = b""
    with suppress(OSError):
        while data := os.read(descriptor, 4096):
            shown += data
    os.waitpid(pid, 0)
    os.close(descriptor)
    assert re.match(rb"\r\x1b\[Kloading \.\.\.\r\x1b\[K", shown), shown
    assert b"numpy was imported" in shown
