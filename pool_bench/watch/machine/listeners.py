"""Which processes of this machine accept the connections to a port.

The kernel is asked for sockets that listen (sock_diag(7)), and nothing else: a client that opens thousands of
connections a second leaves tens of thousands in TIME_WAIT, and reading them all costs a second of CPU.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pool_bench.watch.machine.processes import UnseenError
from pool_bench.watch.machine.queues import listening_on

if TYPE_CHECKING:
    import psutil

_PROC: Final = Path("/proc")
_UCRED_BYTES: Final = 12


def owners(inodes: Iterable[int], proc: Path = _PROC) -> list[int]:
    """The processes that have one of these sockets open, as far as we may look, without their children.

    What a process has forked may have the socket as well, and is passed over.
    """
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return []
    open_in = []
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        # As strings: a Path for each descriptor costs about as much as all the rest of the search.
        directory = f"{proc}/{pid}/fd"
        with suppress(OSError):
            for name in os.listdir(directory):  # noqa: PTH208
                if os.readlink(f"{directory}/{name}") in wanted:  # noqa: PTH115
                    open_in.append(pid)
                    break
    return [pid for pid in open_in if _parent_of(pid, proc) not in open_in]


def _parent_of(pid: int, proc: Path) -> int | None:
    try:
        stat = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name, in brackets, may have any character.
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def listening_pids(port: int, accepts: Callable[[str], bool] = lambda _address: True) -> set[int | None]:
    """The processes that listen on a TCP port, None for those that are not to be seen; none: nobody does.

    Args:
        accepts: whether a socket that listens at an address is one that is meant.

    Raises:
        UnseenError: this account may not look.
    """
    try:
        inodes = [one.inode for one in listening_on(port) if accepts(one.address)]
    except OSError:
        return _all_listening(port, accepts)
    return set(owners(inodes)) or ({None} if inodes else set())


def _all_listening(port: int, accepts: Callable[[str], bool]) -> set[int | None]:
    """The same where the kernel cannot be asked for a port."""
    import psutil

    try:
        listening = psutil.net_connections("tcp")
    except psutil.Error as error:
        raise UnseenError("no permission to look for processes") from error
    return {
        one.pid
        for one in listening
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port and accepts(one.laddr[0])
    }


def listeners(fd: int | None, what: str) -> "list[psutil.Process]":
    """The processes that accept connections where a socket has one; several may share a port.

    Args:
        fd: of a connected socket; None where its other end is not on this machine.
        what: what they are to a person, such as `PgBouncer`.

    Raises:
        UnseenError: they are not on this machine, or belong to another account.
    """
    import psutil

    if fd is None or sys.platform == "win32":
        raise UnseenError(f"{what} is not on this machine")
    pids: set[int | None]
    with socket.socket(fileno=os.dup(fd)) as ours:
        if ours.family == socket.AF_UNIX:
            if not sys.platform.startswith("linux"):
                raise UnseenError("only Linux tells whose a Unix socket is")
            # struct ucred: process, user and group of who listens. See unix(7).
            raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED_BYTES)
            pids = {int.from_bytes(raw[:4], "little")}
        else:
            try:
                pids = listening_pids(ours.getpeername()[1])
            except UnseenError as error:
                raise UnseenError(f"no permission to look for the process of {what}") from error
    found = []
    for pid in sorted(pid for pid in pids if pid is not None):
        try:
            found.append(psutil.Process(pid))
        except psutil.Error:
            continue
    if not found:
        raise UnseenError(f"the process of {what} is not to be seen on this machine")
    return found


def program_of(processes: "list[psutil.Process]") -> str | None:
    """What the first of them that still runs is called."""
    import psutil

    for process in processes:
        try:
            return process.name()
        except psutil.Error:
            continue
    return None
