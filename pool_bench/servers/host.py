"""What this machine offers a server: an account that is not root, a free port, a place for its files.

As root nothing outside the server's own directory is changed: no account is created, no mode altered. The
server runs as `nobody`, and where that account could not reach the usual temporary directory another is used.
"""

import os
import random
import socket
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pool_bench.errors import ServerStartError

LOOPBACK: Final = "127.0.0.1"

# sun_path holds 108 bytes on Linux and 104 on macOS and the BSDs, the final zero included.
_MAX_SOCKET_PATH: Final = 107 if sys.platform.startswith("linux") else 103
# A file system in memory, on Linux: shm_overview(7). Containers have next to nothing there by default.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the directory made there is 0700 and random
# What a server may write in a run (its WAL takes up to 1 GB), several times over.
_ENOUGH_MEMORY_BYTES: Final = 4 << 30
# Where temporary files go if nobody says so.
_USUAL_PLACE: Final = Path("/tmp")  # noqa: S108
# Nothing else of our environment reaches a server: another account could read it there, and it may hold
# secrets (DATABASE_URL, PGPASSWORD) or settings that PostgreSQL obeys (PGOPTIONS, PGDATA).
_INHERITED_VARIABLES: Final = (
    "PATH",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SYSTEMROOT",
    "TEMP",
)


@dataclass(frozen=True, slots=True)
class Account:
    """The system account a server runs as, where that is not our own."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for servers: `nobody` when we are root, as they refuse to be; None for ourselves."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(entry.pw_uid, entry.pw_gid)


def check_known(account: Account | None) -> None:
    """See that an account, or our own, has an entry in the password database, as PostgreSQL's programs want.

    Raises:
        ServerStartError: it has none, as in containers that are started with just any user id.
    """
    if not hasattr(os, "geteuid"):
        return
    import pwd

    uid = os.geteuid() if account is None else account.uid
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ServerStartError(
            f"an embedded PostgreSQL needs a user that the system knows, and user id {uid} has no "
            "entry in its password database: run as another user, or measure a server of your own (--url)"
        ) from None


def is_reachable(path: Path, account: Account | None) -> bool:
    """Whether an account may read `path` (and list or run it, if it is a directory or a program).

    Only mode bits are looked at: access control lists may make this answer too strict, never too lax.
    """
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
        wanted = os.R_OK
        if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o111:
            wanted |= os.X_OK
        if account is None:
            return os.access(resolved, wanted)
        # The symbolic link's own way there must be open as well.
        ways = {*path.absolute().parents, *resolved.parents}
        return _permits(status, account, wanted) and all(
            _permits(way.stat(), account, os.X_OK) for way in ways
        )
    except OSError:
        return False


def _permits(status: os.stat_result, account: Account, wanted: int) -> bool:
    if status.st_uid == account.uid:
        granted = status.st_mode >> 6
    elif status.st_gid == account.gid:
        granted = status.st_mode >> 3
    else:
        granted = status.st_mode
    return granted & wanted == wanted


def free_port() -> int:
    """A loopback TCP port on which nothing listens now.

    Outside the range from which the kernel takes the ports of outgoing connections, if there is room: while a
    server restarts, a generator's own connection could otherwise occupy the port, or even connect to itself.
    """
    first, last = _ephemeral_ports()
    spans = [span for span in ((20_000, first - 1), (last + 1, 65_535)) if span[1] - span[0] >= 1000]
    # Not the seeded global generator: two runs with the same seed must not fight for the same ports.
    choice = random.SystemRandom()
    for _ in range(50 if spans else 0):
        port = choice.randint(*choice.choice(spans))
        if _can_bind(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    return int(port)


def _ephemeral_ports() -> tuple[int, int]:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(first), int(last)
    except (OSError, ValueError):
        # IANA's range, which macOS, the BSDs and Windows use.
        return 49_152, 65_535


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":
            # As servers do; without it a port counts as taken while old connections are in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def server_environment() -> dict[str, str]:
    """The environment of a server: C locale, our time zone and search paths, nothing else."""
    inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
    return inherited | {"LC_ALL": "C"}


def directory_parent(account: Account | None, longest_path: int) -> Path:
    """Where to create a server's directory: the first of the usual places its account can enter.

    In memory, where there is plenty and nobody has said where temporary files go: a new database is about a
    thousand small files, which a disk's file system takes up to a second of CPU time to make and to remove.

    Args:
        account: who has to get there.
        longest_path: bytes that the longest path of a socket adds to the parent's.
    """
    places = [Path(tempfile.gettempdir()).absolute()]
    if places == [_USUAL_PLACE] and _has_room_in_memory():
        places.insert(0, _MEMORY)
    if os.name == "posix":
        places += [_USUAL_PLACE, Path("/var/tmp")]  # noqa: S108 - the directory made there is 0700 and random
    usable = [place for place in places if os.access(place, os.W_OK) and is_reachable(place, account)]
    if not usable:
        # A directory that may be entered but not listed serves as well; let the server say what it lacks.
        usable = places
    for place in usable:
        if len(os.fsencode(place)) + longest_path <= _MAX_SOCKET_PATH:
            return place
    return usable[0]


def _has_room_in_memory() -> bool:
    """Whether files in memory may be large, and may be run, as programs that had to be copied are."""
    try:
        system = os.statvfs(_MEMORY)
    except (OSError, AttributeError):
        return False
    return system.f_bavail * system.f_frsize >= _ENOUGH_MEMORY_BYTES and not system.f_flag & os.ST_NOEXEC


def fits_socket(path: Path) -> bool:
    """Whether a Unix socket can have this path; the kernel limits its length, and Windows has none."""
    return os.name == "posix" and len(os.fsencode(path)) <= _MAX_SOCKET_PATH
