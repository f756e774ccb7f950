"""What cannot be printed costs no result: full disks, closed streams, poor encodings, idle readers."""

import io
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pool_bench.cli import outlets as module
from pool_bench.cli.outlets import Outlet, deliver, outlets, stalled
from pool_bench.servers.postgres import EmbeddedPostgres
from tests.support.commands import COMMAND, environment

RUN = ("-c", "2", "-d", "100ms", "--warmup", "0s", "--no-watch", "--plot-format", "svg")


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A pipe's end to read from, and a text stream into it."""
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="utf-8") as stream:
        yield read, stream
    with suppress(OSError):
        os.close(read)


def ran(url: str, *, place: Path, shell: str, env: dict[str, str] | None = None) -> int:
    """Run the command in `place` with the redirections of `shell`; its exit code."""
    command = " ".join((f"{sys.executable} -m {COMMAND}", *RUN, "--url", shlex.quote(url), shell))
    return subprocess.run(["sh", "-c", command], cwd=place, env=environment(env), timeout=200).returncode


def saved(place: Path) -> list[str]:
    return sorted(path.suffix for path in (place / "results").iterdir())


def test_what_a_full_disk_takes_is_lost_without_an_error() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        outlet = Outlet(full, tells_gone=True)
        print("a summary", file=outlet, flush=True)
        print("more of it", file=outlet, flush=True)
        assert outlet.lost
        assert outlet.failure is not None


def test_a_reader_that_has_gone_is_told_once(pipe: tuple[int, io.TextIOWrapper]) -> None:
    read, stream = pipe
    os.close(read)
    outlet = Outlet(stream, tells_gone=True)
    with pytest.raises(BrokenPipeError):
        print("a line", file=outlet, flush=True)
    print("another", file=outlet, flush=True)
    silent = Outlet(stream, tells_gone=False)
    print("a line", file=silent, flush=True)


def test_a_reader_that_does_not_read_holds_up_nobody_and_misses_nothing(
    pipe: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    read, stream = pipe
    outlet = Outlet(stream, tells_gone=True)
    text = "x" * 300_000
    print(text, file=outlet, flush=True)
    assert stalled(outlet)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(_read(read, len(text) + 1)))
    reader.start()
    assert outlet.drain()
    reader.join()
    assert received == [f"{text}\n".encode()]
    assert not stalled(outlet)


def test_a_result_waits_for_its_reader(
    pipe: tuple[int, io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    read, stream = pipe
    outlet = Outlet(stream, tells_gone=True)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(_read(read, 300_000)))
    timer = threading.Timer(0.1, reader.start)
    timer.start()
    assert deliver(outlet, "y" * 300_000) is None
    timer.join()
    reader.join()
    assert received == [b"y" * 300_000]


def test_what_was_never_flushed_arrives_at_the_end(pipe: tuple[int, io.TextIOWrapper]) -> None:
    read, stream = pipe
    outlet = Outlet(stream, tells_gone=True)
    outlet.write("a result")
    assert outlet.drain(60.0)
    assert os.read(read, 100) == b"a result"


def test_an_encoding_without_blocks_gets_letters() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="ascii") as stream:
        print("12 µs · ██▌ ▁▇ … ü", file=Outlet(stream, tells_gone=True), flush=True)
    with os.fdopen(read, encoding="ascii") as result:
        assert result.read() == "12 us - ### _# ... ?\n"


def test_a_terminal_gets_colours_and_no_other_control_characters() -> None:
    parent, child = os.openpty()
    with os.fdopen(child, "w", encoding="utf-8") as stream:
        outlet = Outlet(stream, tells_gone=True)
        print("\x1b[31mred\x1b[0m\x1b]0;title\x07 \x9b31m\x08end", file=outlet, flush=True)
        assert os.read(parent, 1000) == b"\x1b[31mred\x1b[0m]0;title 31mend\r\n"
    os.close(parent)


def test_streams_that_a_test_captures_are_left_alone() -> None:
    before = sys.stdout
    with outlets() as streams:
        assert streams is None
        assert sys.stdout is before


@pytest.mark.parametrize(
    ("shell", "code"),
    [(">/dev/full", 0), (">&- 2>&-", 0), (">/dev/full --no-save", 1), (">/dev/full --json -", 1)],
)
def test_the_result_and_the_exit_code_survive_a_stdout_that_cannot_be_written(
    tmp_path: Path, embedded: EmbeddedPostgres, shell: str, code: int
) -> None:
    (tmp_path / "spare").mkdir()
    assert ran(embedded.url, place=tmp_path, shell=shell, env={"TMPDIR": str(tmp_path / "spare")}) == code
    rescued = list((tmp_path / "spare").glob("pg-connection-bench_*.json"))
    if "--json" in shell:
        assert len(rescued) == 1
        assert saved(tmp_path) == [".svg"]
    elif "--no-save" not in shell:
        assert saved(tmp_path) == [".json", ".svg"]


def test_a_run_ends_and_is_saved_although_nobody_reads_its_lines(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    read, write = os.pipe()
    # The smallest pipe there is: a page.
    import fcntl

    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"x" * 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", COMMAND, *RUN, "--url", embedded.url],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(),
        text=True,
    )
    os.close(write)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any(line.startswith("wrote ") and line.endswith(".svg\n") for line in lines)
    assert process.poll() is None, "the summary was thrown away instead of waiting for its reader"
    received = _read(read, None)
    assert process.wait(60) == 0
    process.stderr.close()
    os.close(read)
    assert "conn/s" in received.decode()
    assert saved(tmp_path) == [".json", ".svg"]


def _read(descriptor: int, count: int | None) -> bytes:
    """Read `count` bytes, or all there are."""
    received = bytearray()
    while count is None or len(received) < count:
        data = os.read(descriptor, 65536)
        if not data:
            break
        received += data
    return bytes(received)
