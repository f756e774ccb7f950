"""Which processes of this machine listen at the other end of a connection."""

import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from pool_bench.watch.postgres.backends import UnseenError
from pool_bench.watch.postgres.client import WatchClient

if TYPE_CHECKING:
    import psutil

_UCRED_BYTES: Final = 12


def listeners(client: WatchClient, what: str) -> "list[psutil.Process]":
    """The processes that accept connections where `client` has one; several may share a port.

    Args:
        client: has an open connection.
        what: what they are to a person, such as `PgBouncer`.

    Raises:
        UnseenError: they are not on this machine, or belong to another account.
    """
    import psutil

    fd = client.socket_fd
    if fd is None or not client.is_local or sys.platform == "win32":
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
                one.pid
                for one in listening
                if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid is not None
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
