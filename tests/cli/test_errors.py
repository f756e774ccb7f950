"""What cannot be is one line and an exit code, before anything is started, opened or written."""

import re
import shlex
import socket
from pathlib import Path

import pytest

from tests.support.commands import run_here

MODULES = {
    "pg-connection-bench": "pg_connection_bench",
    "pg-connection-load": "pg_connection_load",
    "surreal-bench": "surreal_bench",
    "pool-bench": "pool_bench.__main__",
}
ROWS = re.findall(
    r"^\$ (.+)\n(\d): (.+)$", (Path(__file__).parent / "errors.txt").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("command_line", "code", "line"), ROWS, ids=[row[0] for row in ROWS])
def test_bad_input_is_one_line_and_an_exit_code(
    command_line: str, code: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr("pool_bench.servers.kept.KeptServer.start", start)
    (tmp_path / "FILE").write_text("not a directory, nor JSON")
    tool, *arguments = shlex.split(command_line)
    # An address of its own, as other tests look for nobody at the usual one; a connection would be noticed.
    with socket.create_server(("127.0.0.9", 0)) as listener:
        url = f"postgresql://127.0.0.9:{listener.getsockname()[1]}/"
        env = {} if tool == "surreal-bench" else {"DATABASE_URL": url}
        outcome = run_here(*arguments, cwd=tmp_path, env=env, command=MODULES[tool])
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    expected = re.escape(f"error: {line}").replace(re.escape("..."), ".*")
    assert outcome.code == int(code), outcome.stderr
    assert re.fullmatch(rf"{expected}(?: \(see {tool} --help\))?\n", outcome.stderr), outcome.stderr
    assert outcome.stdout == ""
    assert "s3cr3t" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
