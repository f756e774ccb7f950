"""Processes of this machine, by number and by parent."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


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
