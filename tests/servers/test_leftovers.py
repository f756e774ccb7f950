"""What killed keepers and killed commands leave: all of it goes, and nothing else."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

import pool_bench
from pool_bench.servers import leftovers as remains
from pool_bench.servers.kept import Keeper, Readiness, StopStep
from pool_bench.servers.template import VARIABLE
from tests.support.leftovers import assert_nothing_left, is_running, processes_of

pytestmark = pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="needs Linux's /proc")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")

_STARTING = """
import signal, sys
from pathlib import Path
from pool_bench.servers.postgres import EmbeddedPostgres

server = EmbeddedPostgres()
server.start()
Path(sys.argv[1]).touch()
signal.pause()
"""


@dataclass(frozen=True)
class _SharedMemory:
    """What a process has mapped."""

    segments: frozenset[int]
    files: frozenset[Path]

    @classmethod
    def of(cls, pid: int) -> "_SharedMemory":
        segments, files = set(), set()
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                _, _, _, _, inode, *path = line.split(None, 5)
                if path and path[0].startswith("/SYSV"):
                    segments.add(int(inode))
                elif path and path[0].startswith("/dev/shm/"):
                    files.add(Path(path[0]))
        return cls(frozenset(segments), frozenset(files))

    def __or__(self, other: "_SharedMemory") -> "_SharedMemory":
        return _SharedMemory(self.segments | other.segments, self.files | other.files)

    def left(self) -> list[str]:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        segments = {int(line.split()[1]) for line in lines}
        return [
            *(f"segment {number}" for number in self.segments & segments),
            *(str(path) for path in self.files if path.exists()),
        ]


@dataclass
class _Program:
    """A Python that starts a server, with a directory for temporary files of its own."""

    process: "subprocess.Popen[bytes]"
    place: Path
    started: Path

    @property
    def directory(self) -> Path:
        return next(self.place.glob("pool-bench-*"))

    def servers(self) -> list[psutil.Process]:
        """The processes of the server, from the oldest."""
        found = next(self.place.glob("pool-bench-*"), None)
        return [] if found is None else sorted(processes_of(found), key=lambda each: each.create_time())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def kill_keeper(self) -> None:
        (keeper,) = psutil.Process(self.process.pid).children()
        # First, or it would do its work.
        keeper.suspend()
        self.kill()
        keeper.kill()
        while is_running(keeper.pid):
            time.sleep(0.005)


@pytest.fixture
def programs() -> Iterator[list[_Program]]:
    """Programs that are killed after the test, with all that they left."""
    made: list[_Program] = []
    yield made
    for program in made:
        with suppress(ProcessLookupError):
            program.kill()
        deadline = time.monotonic() + 60
        while list(program.place.iterdir()) and time.monotonic() < deadline:
            remains.tidy(program.place)
            time.sleep(0.02)
        shutil.rmtree(program.place.parent)


def _start(programs: list[_Program], *, cache: str | None = None) -> _Program:
    # Below /tmp, so that a socket's path fits, and open to the server's account.
    place = Path(tempfile.mkdtemp(dir="/tmp")) / "tmp"
    place.mkdir()
    for path in (place.parent, place):
        path.chmod(0o755)
    started = place.parent / "started"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(pool_bench.__file__).parents[1]),
        "TMPDIR": str(place),
        **({} if cache is None else {VARIABLE: cache}),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _STARTING, str(started)],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    programs.append(_Program(process, place, started))
    return programs[-1]


def _stopped_in_initdb(programs: list[_Program]) -> tuple[_Program, _SharedMemory]:
    """A program whose initdb was stopped while a PostgreSQL of it has shared memory."""
    for _ in range(10):
        program = _start(programs, cache="off")
        while not program.started.exists():
            assert program.process.poll() is None
            for process in program.servers():
                with suppress(psutil.NoSuchProcess):
                    if not _SharedMemory.of(process.pid).segments:
                        continue
                    process.suspend()
                    # A dead one has let go of everything.
                    memory = _SharedMemory.of(process.pid)
                    if memory.segments and process.cmdline()[1] in ("--boot", "--check", "--single"):
                        return program, memory
                    process.resume()
        program.kill()
    pytest.fail("initdb was never seen with shared memory")


def _started(programs: list[_Program]) -> tuple[_Program, _SharedMemory]:
    program = _start(programs)
    while not program.started.exists():
        assert program.process.poll() is None
        time.sleep(0.01)
    return program, _memory_of_all(program.servers())


def _memory_of_all(servers: list[psutil.Process]) -> _SharedMemory:
    """What a server has once it shares its statistics, in a file that another file names."""
    memory = _SharedMemory.of(servers[0].pid)
    assert memory.segments
    deadline = time.monotonic() + 60
    while len(memory.files) < 2 and time.monotonic() < deadline:
        for server in servers:
            memory |= _SharedMemory.of(server.pid)
    assert len(memory.files) >= 2
    return memory


def _tidied(program: _Program, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start and stop another kept program in the same place; what was there before."""
    directory = program.directory
    monkeypatch.setattr(tempfile, "tempdir", str(program.place))
    Keeper("Shell").close()
    return directory


def _wait_for_none_left(memory: _SharedMemory) -> None:
    deadline = time.monotonic() + 60
    while (left := memory.left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


# -- the command is killed -------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", ["the command", "its process group"])
def test_a_command_killed_during_initdb_leaves_no_shared_memory(programs: list[_Program], whom: str) -> None:
    program, memory = _stopped_in_initdb(programs)
    directory = program.directory
    if whom == "the command":
        program.process.kill()
    else:
        program.kill()
    assert_nothing_left(directory)
    _wait_for_none_left(memory)


def test_a_command_killed_beside_a_crashed_server_leaves_no_shared_memory(programs: list[_Program]) -> None:
    program, memory = _started(programs)
    directory = program.directory
    program.servers()[0].kill()
    program.process.kill()
    assert_nothing_left(directory)
    _wait_for_none_left(memory)


# -- the keeper is killed --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["in initdb", "started", "crashed"])
def test_the_next_start_tidies_what_a_killed_keeper_left(
    programs: list[_Program], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, memory = (_stopped_in_initdb if state == "in initdb" else _started)(programs)
    servers = program.servers()
    program.kill_keeper()
    if state == "crashed":
        servers[0].kill()
        for server in servers:
            server.wait(60)
    else:
        assert all(is_running(server.pid) for server in servers)
    assert memory.left()
    directory = _tidied(program, monkeypatch)
    assert not directory.exists()
    assert_nothing_left(directory, [server.pid for server in servers])
    assert memory.left() == []
    assert list(program.place.iterdir()) == []


def test_a_server_whose_user_lives_is_left_alone_though_its_keeper_was_killed(
    programs: list[_Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, memory = _started(programs)
    (keeper,) = psutil.Process(program.process.pid).children()
    keeper.kill()
    while is_running(keeper.pid):
        time.sleep(0.005)
    servers = program.servers()
    directory = _tidied(program, monkeypatch)
    assert directory.exists()
    assert servers
    assert all(is_running(server.pid) for server in servers)
    # As soon as that has gone as well it is nobody's.
    program.kill()
    _tidied(program, monkeypatch)
    assert_nothing_left(directory, [server.pid for server in servers])
    assert memory.left() == []


def test_a_server_that_is_in_use_is_left_alone(
    programs: list[_Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, memory = _started(programs)
    servers = program.servers()
    assert _tidied(program, monkeypatch).exists()
    assert all(is_running(server.pid) for server in servers)
    assert len(memory.left()) == len(memory.segments) + len(memory.files)


def test_a_parent_removes_the_shared_memory_of_a_server_whose_keeper_was_killed() -> None:
    from pool_bench.servers.postgres import EmbeddedPostgres

    server = EmbeddedPostgres()
    server.start()
    directory = server.directory
    memory = _memory_of_all([psutil.Process(server.pid), *psutil.Process(server.pid).children()])
    os.kill(server.kept.pid, signal.SIGKILL)
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    assert_nothing_left(directory)
    assert memory.left() == []


# -- what is not ours ------------------------------------------------------------------------------------


@pytest.fixture
def abandoned(tmp_path: Path) -> Path:
    """A directory as a killed keeper leaves it, in one that has nothing else."""
    directory = tmp_path / f"pool-bench-shell-{os.urandom(6).hex()}"
    script = (
        "import os, sys; from pathlib import Path; from pool_bench.servers import leftovers as remains;"
        "path = Path(sys.argv[1]); path.mkdir(0o700); remains.mark(path, os.geteuid())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(pool_bench.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script, str(directory)], env=environment, check=True)
    return directory


def _rewrite(marker: Path, **changes: object) -> None:
    marker.write_text(json.dumps(json.loads(marker.read_text()) | changes))


def test_a_directory_that_its_marker_proves_ours_is_removed(abandoned: Path) -> None:
    (abandoned / "data").mkdir()
    (abandoned / "data" / "file").touch()
    remains.tidy(abandoned.parent)
    assert not abandoned.exists()


def test_a_directory_of_an_earlier_run_of_the_machine_is_removed(abandoned: Path) -> None:
    # The number of its keeper belongs to somebody else by now.
    _rewrite(abandoned / remains.MARKER, boot="another", keeper=os.getpid(), started=1)
    remains.tidy(abandoned.parent)
    assert not abandoned.exists()


def test_a_directory_without_a_marker_is_left_alone(abandoned: Path) -> None:
    (abandoned / remains.MARKER).unlink()
    remains.tidy(abandoned.parent)
    assert abandoned.exists()


def test_a_directory_of_another_name_is_left_alone(abandoned: Path) -> None:
    for name in ("pool-bench-results", "pool-bench-shell-0123", f"x{abandoned.name}"):
        other = abandoned.rename(abandoned.with_name(name))
        remains.tidy(abandoned.parent)
        assert other.exists()
        other.rename(abandoned)


def test_a_link_to_a_directory_of_ours_is_left_alone(abandoned: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    abandoned.rename(elsewhere)
    abandoned.symlink_to(elsewhere)
    remains.tidy(abandoned.parent)
    assert abandoned.is_symlink()
    assert (elsewhere / remains.MARKER).exists()


def test_links_in_a_directory_of_ours_are_not_followed(abandoned: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "postmaster.pid").touch()
    (abandoned / "data").symlink_to(kept)
    remains.tidy(abandoned.parent)
    assert not abandoned.exists()
    assert (kept / "postmaster.pid").exists()


@pytest.mark.parametrize("kind", ["copied", "link", "second name", "open to others", "fifo", "nonsense"])
def test_a_marker_that_proves_nothing_is_not_believed(abandoned: Path, tmp_path: Path, kind: str) -> None:
    marker, aside = abandoned / remains.MARKER, tmp_path / "aside"
    if kind == "copied":
        # That of another directory.
        _rewrite(marker, inode=[abandoned.stat().st_dev, tmp_path.stat().st_ino])
    elif kind == "link":
        marker.rename(aside)
        marker.symlink_to(aside)
    elif kind == "second name":
        aside.hardlink_to(marker)
    elif kind == "open to others":
        marker.chmod(0o622)
    elif kind == "fifo":
        marker.unlink()
        os.mkfifo(marker, 0o600)
    else:
        marker.write_text("[1]")
    remains.tidy(abandoned.parent)
    assert abandoned.exists()


def test_a_directory_whose_keeper_lives_is_left_alone_though_its_lock_is_free(abandoned: Path) -> None:
    # As on a file system without locks.
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    _rewrite(abandoned / remains.MARKER, keeper=os.getpid(), started=started)
    remains.tidy(abandoned.parent)
    assert abandoned.exists()
    # Another process that came to have the number is not the keeper.
    _rewrite(abandoned / remains.MARKER, keeper=os.getpid(), started=started - 1)
    remains.tidy(abandoned.parent)
    assert not abandoned.exists()


@root
@pytest.mark.parametrize("whose", ["directory", "marker"])
def test_what_another_user_made_is_left_alone(abandoned: Path, whose: str) -> None:
    path = abandoned if whose == "directory" else abandoned / remains.MARKER
    os.chown(path, 65534, 65534)
    remains.tidy(abandoned.parent)
    assert abandoned.exists()


def test_neither_processes_nor_memory_of_others_go_because_a_postmaster_file_names_them(
    abandoned: Path, tmp_path: Path
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.shmget(0, 4096, 0o1600)
    assert number >= 0
    with subprocess.Popen(["/bin/sleep", "300"], cwd=tmp_path, start_new_session=True) as stranger:
        try:
            data = abandoned / "data"
            data.mkdir()
            # Another's process is named as the maker of a segment that is somebody else's again.
            lines = [str(stranger.pid), str(data), "0", "5432", str(abandoned), "", f"0 {number}", "ready"]
            (data / "postmaster.pid").write_text("\n".join(lines))
            remains.tidy(abandoned.parent)
            assert not abandoned.exists()
            assert stranger.poll() is None
            assert _SharedMemory(frozenset({number}), frozenset()).left()
        finally:
            stranger.kill()
            libc.shmctl(number, 0, None)


def test_who_looks_around_in_an_abandoned_directory_at_a_terminal_is_not_ended(abandoned: Path) -> None:
    terminal, other_end = os.openpty()
    # Takes the terminal for its own, as a shell has it.
    script = "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); print(1); signal.pause()"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        cwd=abandoned,
        stdin=other_end,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as reader:
        try:
            assert reader.stdout is not None
            assert reader.stdout.readline()
            remains.tidy(abandoned.parent)
            assert not abandoned.exists()
            assert reader.poll() is None
        finally:
            reader.kill()
            os.close(terminal)
            os.close(other_end)


def test_a_program_without_a_terminal_that_worked_there_is_ended(abandoned: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "300"], cwd=abandoned, start_new_session=True) as left:
        try:
            remains.tidy(abandoned.parent)
            assert left.wait(60) == -signal.SIGKILL
            assert not abandoned.exists()
        finally:
            left.kill()


def test_a_kept_server_has_a_marker_whose_lock_is_taken() -> None:
    kept = Keeper("Shell")
    try:
        kept.start(
            ["/bin/sh", "-c", "echo up; exec sleep 300"],
            ready=Readiness(file=kept.log, pattern="up"),
            stop=[StopStep(10, signal="SIGTERM")],
            timeout_s=60,
        )
        remains.tidy(kept.directory.parent)
        assert kept.directory.exists()
        content = json.loads((kept.directory / remains.MARKER).read_text())
        assert content["keeper"] == kept.pid
    finally:
        kept.close()
