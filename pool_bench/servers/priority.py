"""Makes a server that shares its client's cores give way to it.

A client that waits for a core reports that as the server's latency. The embedded server is there to be
measured by a client on the same cores, so the client goes first: it takes little, the server has the rest.

On Linux a niceness counts within a group of processes. With autogroups (sched(7)) every session is a group of
its own, and the server has one, so the group's niceness is what counts; without them it is the processes'.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

# With it the client is on time beside fifty busy backends on two cores, and the server still gets a fourth of
# a core that others want as well.
GIVE_WAY: Final = 5


def give_way(pid: int, niceness: int) -> None:
    """Lower the priority of a process, its children and its session, where that can be done.

    Args:
        pid: leader of its session; what it starts later inherits it all.
        niceness: from 1 to 19.
    """
    if not hasattr(os, "setpriority"):
        return
    for process in (pid, *_children(pid)):
        for thread in _threads(process):
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, thread, niceness)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


def _threads(pid: int) -> list[int]:
    """Numbers of a process's threads, each of which has a niceness of its own on Linux."""
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return [pid]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
