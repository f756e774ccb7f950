"""Every command line in the documents is one that the commands take."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path

import pytest
from click.testing import CliRunner

from pool_bench.servers import EmbeddedPostgres
from tests.support.commands import load, only, run_tool
from tests.support.documents import ROOT, Block, blocks, name_of
from tests.support.options_page import TOOLS, tool

# Programs of others; what they are told is theirs to check.
OTHERS = ("bash", "dask", "eval", "export", "mypy", "node", "npm", "pip", "pytest", "ruff", "uv")
_ASSIGNMENT = re.compile(r"[A-Z_]\w*=.*")


def _lines(block: Block) -> Iterator[str]:
    """The command lines of a block, continued ones in one piece; of a session those behind a prompt."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if block.language == "console":
            if line.startswith("$ "):
                yield line.removeprefix("$ ")
        elif line.strip() and not line.lstrip().startswith("#"):
            yield line


LINES = list(
    dict.fromkeys((name_of(block.path), line) for block in blocks("sh", "console") for line in _lines(block))
)


def _words(line: str) -> list[str]:
    """A command with its arguments, without what the shell and uv take of it."""
    words = shlex.split(line, comments=True)
    words = list(takewhile(lambda word: word not in ("|", "&&"), words))
    # With the variable that asks for a shell's completion, no command line is read.
    while words and _ASSIGNMENT.fullmatch(words[0]) and "_COMPLETE=" not in words[0]:
        del words[0]
    if words[:2] == ["uv", "run"] or words[:1] == ["uvx"]:
        words = words[2:] if words[0] == "uv" else words[3:]
    return words


@pytest.fixture
def nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands end where they would begin: their options have been read and agree with each other."""
    monkeypatch.setattr("pool_bench.cli.entry.exit_code_of", lambda _action: 0)


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize(("document", "line"), LINES)
def test_a_command_line_is_understood(
    document: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *arguments = _words(line)
    if name in TOOLS:
        _make_files(arguments, tmp_path)
        monkeypatch.chdir(tmp_path)
        outcome = CliRunner().invoke(tool(name), arguments)
        assert outcome.exit_code == 0, outcome.output
    elif name == "python":
        assert _is_program(arguments), line
    else:
        assert name in OTHERS or "_COMPLETE=" in name, f"{document}: {line}"


def _is_program(arguments: list[str]) -> bool:
    """Whether there is such a file, or such a module."""
    first, *rest = arguments
    return find_spec(rest[0]) is not None if first == "-m" else (ROOT / first).is_file()


def _make_files(arguments: list[str], directory: Path) -> None:
    """Make the files that a command reads, where it looks whether they are there."""
    for word in arguments:
        if re.fullmatch(r"[\w/.-]+\.(json|pem)", word):
            (directory / word).parent.mkdir(exist_ok=True)
            (directory / word).write_text("{}")


@pytest.mark.parametrize("name", TOOLS)
def test_every_command_shows_its_help(name: str) -> None:
    shown = CliRunner().invoke(tool(name), ["--help"])
    assert shown.exit_code == 0
    assert shown.output.startswith("Usage: ")


def test_the_readmes_first_command_measures_an_embedded_server(tmp_path: Path) -> None:
    line = next(line for document, line in LINES if document == "README.md" and "-bench" in line)
    name, *arguments = _words(line)
    short = ("--duration", "200ms", "--warmup", "0s")
    outcome = run_tool(*arguments, *short, cwd=tmp_path, command=TOOLS[name])
    assert outcome.code == 0, outcome.stderr
    assert load(only(tmp_path / "results", "*.json"))["runs"][0]["ok"] > 0
    assert only(tmp_path / "results", "*.png").stat().st_size > 0


def test_the_documents_check_of_a_target_says_that_it_can_be_used(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    line = next(line for _, line in LINES if "pool-bench check" in line)
    name, *arguments = _words(line)
    place = arguments.index("-u") + 1
    arguments[place] = embedded.url
    assert run_tool(*arguments, cwd=tmp_path, command=TOOLS[name]).code == 0
