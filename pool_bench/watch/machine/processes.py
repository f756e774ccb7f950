"""Processes of this machine: by number, by parent, and by what listens at the other end of a connection."""

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import psutil

_UCRED_BYTES: Final = 12


class UnseenError(Exception):
    """Something cannot be seen; the message says why, for a person."""


def process_of(pid: int) -> "psutil.Process | None":
    """The process that has this number now, None where none has."""
    import psutil

    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def children_of(pid: int) -> list[int]:
    """The process numbers of a process's children, those first that began first.

    Raises:
        UnseenError: there is no such process.
    """
    import psutil

    try:
        # One file; the way without it looks at every process of the machine.
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_bytes().split()]
    except OSError:
        pass
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error as error:
        raise UnseenError("the server has ended") from error


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
    with socket.socket(fileno=os.dup(fd)) as ours:
        if ours.family == socket.AF_UNIX:
            if not sys.platform.startswith("linux"):
                raise UnseenError("only Linux tells whose a Unix socket is")
            # struct ucred: process, user and group of who listens. See unix(7).
            raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED_BYTES)
            pids = {int.from_bytes(raw[:4], "little")}
        else:
            port = ours.getpeername()[1]
            try:
                listening = psutil.net_connections("tcp")
            except psutil.Error as error:
                raise UnseenError(f"no permission to look for the process of {what}") from error
            pids = {
                connection.pid
                for connection in listening
                if connection.status == psutil.CONN_LISTEN
                and connection.laddr[1:] == (port,)
                and connection.pid is not None
            }
    found = []
    for pid in sorted(pids):
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
