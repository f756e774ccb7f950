"""What is left of a server that could not end by itself: its processes, its shared memory, its directory.

PostgreSQL removes its shared memory when it ends; killed, or during `initdb`, it does not: a System V segment
and a file in /dev/shm stay until the machine restarts. And where the keeper was killed as well, so do the
server and its directory, until the next start of any server tidies (`tidy`).

What is removed is ours beyond doubt:

* A directory: of our name, private, with a marker file that only our own account can have written, that names
  this very directory, and whose lock nobody holds. Keeper and parent hold it as long as they live.
* A process: it works in that directory, belongs to the directory's owner and has no terminal.
* Shared memory: one of those processes had it mapped or made it, or the data directory's postmaster.pid names
  it, and nobody has it mapped any more.

Linux only; elsewhere nothing is done. Standard library only, since the keeper runs without site-packages.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import ctypes

MARKER: Final = "keeper.json"
DIRECTORY_NAME: Final = re.compile(r"pool-bench-[a-z]+-[0-9a-f]{12}")

_QUIT_WAIT_S: Final = 10.0
_END_WAIT_S: Final = 10.0
_POLL_S: Final = 0.005
_MOST_MARKER_BYTES: Final = 4096

_PROCESSES: Final = Path("/proc")
# Places in what `_fields` returns, after proc_pid_stat(5).
_TERMINAL: Final = 4
_STARTED: Final = 19
# Nobody may ever collect a dead one.
_ENDED: Final = (None, "Z", "X")

_SHARED_FILES: Final = "/dev/shm/PostgreSQL."  # noqa: S108 - the name that PostgreSQL gives them
# The start of PGShmemHeader (src/include/storage/pg_shmem.h): magic, creator, sizes, and which file dynamic
# shared memory begins with.
_SEGMENT_HEADER: Final = struct.Struct("=iiQQI")
_SEGMENT_MAGIC: Final = 679834894
# That file, dsm_control_header in src/backend/storage/ipc/dsm.c: magic, entries used, entries; then for each
# its handle, how many use it, and more.
_CONTROL_HEADER: Final = struct.Struct("=III")
_CONTROL_ITEM: Final = struct.Struct("=II")
_CONTROL_MAGIC: Final = 0x9A503D32
_CONTROL_HEADER_BYTES: Final = 16
_CONTROL_ITEM_BYTES: Final = 40
_MOST_CONTROL_BYTES: Final = 1 << 24
_IPC_RMID: Final = 0
_SHM_RDONLY: Final = 0o10000


class _Segment(NamedTuple):
    """A line of /proc/sysvipc/shm."""

    key: int
    number: int
    creator: int
    users: int
    owner: int


class _Memory:
    """The shared memory that is to go, by what proves it ours."""

    def __init__(self, owner: int) -> None:
        self._owner = owner
        self._creators: set[int] = set()
        self._numbers: set[int] = set()
        self._recorded: set[tuple[int, int, int]] = set()
        self._files: set[Path] = set()

    def take_from(self, pid: int) -> None:
        """Note what a process has, or has made."""
        self._creators.add(pid)
        with contextlib.suppress(OSError), (_PROCESSES / str(pid) / "maps").open() as lines:
            for line in lines:
                fields = line.split(None, 5)
                path = fields[5].strip() if len(fields) == 6 else ""
                if path.startswith("/SYSV"):
                    # proc(5) has the segment's number in the place of an inode's.
                    self._numbers.add(int(fields[4]))
                elif path.startswith(_SHARED_FILES):
                    self._files.add(Path(path.removesuffix(" (deleted)")))

    def take_recorded(self, data: Path) -> None:
        """Note what the postmaster.pid of a data directory names in its seventh line: key and number."""
        lines = _postmaster_lines(data)
        with contextlib.suppress(ValueError, IndexError):
            key, number = lines[6].split()
            # The number of a process is negative where that is no postmaster.
            self._recorded.add((int(key), int(number), abs(int(lines[0]))))

    def remove(self) -> None:
        """Remove all of it that nobody uses."""
        for segment in _segments():
            known = (
                segment.creator in self._creators
                or segment.number in self._numbers
                or (segment.key, segment.number, segment.creator) in self._recorded
            )
            if known and segment.users == 0 and segment.owner == self._owner:
                self._files |= _control_file(segment.number)
                _libc().shmctl(segment.number, _IPC_RMID, None)
        for path in self._files | {named for file in self._files for named in _named_by(file)}:
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == self._owner:
                    path.unlink()


def end(directory: Path, *, quit_first: bool) -> bool:
    """End every process that works in a server's directory, and remove their shared memory.

    Args:
        directory: the server's; its owner is theirs.
        quit_first: ask a postmaster to quit, and wait up to 10 s, before it is killed.

    Returns:
        Whether no process is left.
    """
    try:
        root = directory.resolve(strict=True)
        owner = root.stat().st_uid
    except OSError:
        return True
    data = root / "data"
    memory = _Memory(owner)
    if quit_first:
        _ask_postmaster(root, owner, data)
    memory.take_recorded(data)
    deadline = time.monotonic() + _END_WAIT_S
    while (processes := list(_processes(root, owner))) and time.monotonic() < deadline:
        # Stopped first, so that none makes anything more after it was looked at.
        for pid in processes:
            _send(pid, signal.SIGSTOP)
        while any(_state(pid) not in ("T", "t", *_ENDED) for pid in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        for pid in processes:
            memory.take_from(pid)
        for pid in processes:
            _send(pid, signal.SIGKILL)
        while set(_processes(root, owner)) & set(processes) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    memory.remove()
    return not processes


def tidy(parent: Path) -> None:
    """End and remove what is left in `parent` of servers whose keeper and whose user were killed."""
    if not _PROCESSES.is_dir():
        return
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            if DIRECTORY_NAME.fullmatch(path.name):
                _tidy_directory(path)


def mark(directory: Path, owner: int) -> int:
    """Write the marker of a new directory, and hold its lock.

    Args:
        directory: just made, by us.
        owner: the account that it is going to belong to.

    Returns:
        A descriptor that has the lock as long as it is open.
    """
    place = directory.lstat()
    content = {
        "inode": [place.st_dev, place.st_ino],
        "owner": owner,
        "keeper": os.getpid(),
        "started": _start_time(os.getpid()),
        "boot": _boot(),
    }
    handle = os.open(directory / MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(handle, fcntl.LOCK_SH)
    os.write(handle, json.dumps(content).encode())
    return handle


def hold(directory: Path) -> int:
    """Hold the lock of a directory's marker as well as its keeper.

    Raises:
        OSError: there is no marker.
    """
    handle = os.open(directory / MARKER, os.O_RDONLY | os.O_NOFOLLOW)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def _tidy_directory(path: Path) -> None:
    with contextlib.ExitStack() as handles, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        handles.callback(os.close, directory)
        # Whoever owns the directory may have put something else there, which must not make us wait.
        marker = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        handles.callback(os.close, marker)
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Only now: another may have removed it while we came.
        if not _is_our_marker(os.fstat(marker)):
            return
        content = json.loads(os.read(marker, _MOST_MARKER_BYTES))
        place = os.fstat(directory)
        if content["inode"] != [place.st_dev, place.st_ino] or content["owner"] != place.st_uid:
            return
        if stat.S_IMODE(place.st_mode) != 0o700:
            return
        # After the machine's restart numbers of processes and segments mean others.
        same_boot = content["boot"] == _boot()
        keeper = content["keeper"]
        if same_boot and content["started"] == _start_time(keeper) and _state(keeper) not in _ENDED:
            return
        if not same_boot or end(path, quit_first=True):
            shutil.rmtree(path, ignore_errors=True)


def _is_our_marker(status: os.stat_result) -> bool:
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and status.st_nlink == 1
        and stat.S_IMODE(status.st_mode) == 0o600
    )


def _ask_postmaster(root: Path, owner: int, data: Path) -> None:
    """Tell a postmaster to quit at once, which takes its children and its shared memory along."""
    try:
        pid = int(_postmaster_lines(data)[0])
    except (ValueError, IndexError):
        return
    if pid in _processes(root, owner):
        _send(pid, signal.SIGQUIT)
        deadline = time.monotonic() + _QUIT_WAIT_S
        while list(_processes(root, owner)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _postmaster_lines(data: Path) -> list[str]:
    # The directory may belong to another account: its links are not for us to follow.
    with contextlib.suppress(OSError):
        handle = os.open(data / "postmaster.pid", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_MARKER_BYTES).splitlines()
    return []


def _processes(root: Path, owner: int) -> Iterator[int]:
    """The processes that work in a directory, without those somebody looks around with at a terminal."""
    for process in _PROCESSES.iterdir() if _PROCESSES.is_dir() else ():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(process.name)
            if not (process / "cwd").readlink().is_relative_to(root):
                continue
            if process.stat().st_uid == owner and _fields(pid)[_TERMINAL] == "0":
                yield pid


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, the state.

    Raises:
        OSError: there is no such process.
    """
    text = (_PROCESSES / str(pid) / "stat").read_text(errors="replace")
    # A process may be called anything, so its name ends at the last bracket.
    return text[text.rindex(")") + 2 :].split()


def _state(pid: int) -> str | None:
    try:
        return _fields(pid)[0]
    except (OSError, ValueError, IndexError):
        return None


def _start_time(pid: int) -> int:
    """When a process started, in clock ticks since the machine did; -1 where there is none."""
    try:
        return int(_fields(pid)[_STARTED])
    except (OSError, ValueError, IndexError):
        return -1


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _segments() -> list[_Segment]:
    found = []
    with contextlib.suppress(OSError, ValueError), Path("/proc/sysvipc/shm").open() as lines:
        names = next(lines, "").split()
        columns = [names.index(name) for name in ("key", "shmid", "cpid", "nattch", "uid")]
        for line in lines:
            values = line.split()
            found.append(_Segment(*(int(values[column]) for column in columns)))
    return found


def _control_file(number: int) -> set[Path]:
    """The file that a PostgreSQL's segment says its dynamic shared memory begins with."""
    import ctypes

    libc = _libc()
    address = libc.shmat(number, None, _SHM_RDONLY)
    if address in (None, ctypes.c_void_p(-1).value):
        return set()
    try:
        magic, _creator, _size, _free, handle = _SEGMENT_HEADER.unpack(
            ctypes.string_at(address, _SEGMENT_HEADER.size)
        )
    finally:
        libc.shmdt(ctypes.c_void_p(address))
    return {Path(f"{_SHARED_FILES}{handle}")} if magic == _SEGMENT_MAGIC else set()


def _named_by(file: Path) -> set[Path]:
    """The files that one lists, if it is what a PostgreSQL's dynamic shared memory begins with."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as source:
            content = source.read(_MOST_CONTROL_BYTES)
        magic, items, _most = _CONTROL_HEADER.unpack_from(content)
        if magic != _CONTROL_MAGIC:
            return set()
        starts = range(_CONTROL_HEADER_BYTES, len(content) - _CONTROL_ITEM_BYTES + 1, _CONTROL_ITEM_BYTES)
        found = [_CONTROL_ITEM.unpack_from(content, start) for start in starts[:items]]
    except (OSError, struct.error):
        return set()
    return {Path(f"{_SHARED_FILES}{name}") for name, users in found if users}


def _libc() -> "ctypes.CDLL":
    import ctypes

    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
    return libc
