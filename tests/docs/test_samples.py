"""The Python in the documents, run as a reader would run it, and the examples."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pool_bench.servers import EmbeddedPostgres, EmbeddedSurreal
from tests.support.commands import environment
from tests.support.documents import EXAMPLES, ROOT, Block, blocks

RESULT = ROOT / "tests" / "results" / "golden" / "connect.json"
# What each program has to print, besides ending well.
PRINTS = {
    "using_the_pool.py": "1,000 tasks were served by 10 connections",
    "watching_the_pool.py": "pool_size{",
    "comparing_two_pools.py": "overtaken",
    "leasing_clients.py": "500 tasks were served by",
    "watching_clients.py": "pool_size{",
    "comparing_sizes.py": "16 connections",
}


def _run(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_sample_runs_as_it_stands(block: Block, tmp_path: Path) -> None:
    shutil.copy(RESULT, tmp_path / "result.json")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    program = tmp_path / "sample.py"
    # A port that somebody may have on this machine.
    program.write_text(block.text.replace("9090", str(port)), encoding="utf-8")
    _run(tmp_path, program.name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_at_a_server_that_is_named_and_without_one(
    path: Path, tmp_path: Path, embedded: EmbeddedPostgres, surreal: EmbeddedSurreal
) -> None:
    named = (
        (surreal.url, surreal.user, surreal.password) if path.parent.name == "surreal" else (embedded.url,)
    )
    # One of each kind is enough to see that a server is started where none is named.
    alone = path.name in ("using_the_pool.py", "leasing_clients.py")
    program = tmp_path / path.name
    # Those that compare have measured enough to be seen to work after a tenth of a second of each.
    pattern = re.compile(r"^(.*\bSECONDS = .*, )[\d.]+$", re.MULTILINE)
    quick, lines = pattern.subn(r"\g<1>0.1", path.read_text(encoding="utf-8"))
    assert lines == path.name.startswith("comparing_")
    program.write_text(quick, encoding="utf-8")
    assert PRINTS[path.name] in _run(tmp_path, program.name, *(() if alone else named))
