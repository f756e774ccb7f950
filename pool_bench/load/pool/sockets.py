"""The sockets of this process, so that connections which outlive their pool are seen."""

import os
import stat
from typing import Final

_DESCRIPTORS: Final = "/proc/self/fd"


def open_sockets() -> frozenset[int] | None:
    """The inode of each socket of this process; None where the system does not say.

    On Linux every socket has one of its own (`socket:[N]` in proc_pid_fd(5)); elsewhere they cannot be told
    apart like that.
    """
    try:
        names = os.listdir(_DESCRIPTORS)  # noqa: PTH208  # their names are numbers, not paths
    except OSError:
        return None  # another system, or no descriptor left to look with
    found = set()
    for name in names:
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # it was that of the listing itself
        if stat.S_ISSOCK(status.st_mode):
            found.add(status.st_ino)
    return frozenset(found)
