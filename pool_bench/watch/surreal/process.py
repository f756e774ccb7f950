"""Which process serves a local port, and how many connections it has, from what the kernel tells.

For servers that have nothing like `pg_stat_activity`: asking the kernel costs the server nothing, and is
answered however busy that is. A loopback address may lead into a container or a tunnel, so a process only
counts as the server if it is one that we know.
"""

import ipaddress
from typing import TYPE_CHECKING, Final

from pool_bench.targets.surreal import SurrealTarget
from pool_bench.watch.machine.listeners import listening_pids
from pool_bench.watch.machine.processes import UnseenError

if TYPE_CHECKING:
    import psutil

_PROGRAM: Final = "surreal"
# The server of `surreal-bench serve`, which is a Python.
_GATEWAY: Final = "pool_bench.servers.surreal.gateway"


def is_here(target: SurrealTarget) -> bool:
    """Whether the address of `target` is plainly of this machine."""
    if target.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(target.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def find_surreal(target: SurrealTarget) -> "psutil.Process | None":
    """The SurrealDB on this machine that listens at `target`; None where nobody listens now.

    Raises:
        UnseenError: it is not on this machine, or belongs to another account.
    """
    import psutil

    if not is_here(target):
        raise UnseenError("the server is not on this machine")
    try:
        pids = listening_pids(target.port, _is_met)
    except UnseenError as error:
        raise UnseenError("no permission to look for the server's process") from error
    if not pids:
        return None
    if pids == {None}:
        raise UnseenError(
            f"the process that listens on port {target.port} belongs to another account: run as that one or "
            "as root"
        )
    others = []
    for pid in sorted(pid for pid in pids if pid is not None):
        try:
            process = psutil.Process(pid)
            if _is_surreal(process):
                return process
            others.append(process.name())
        except psutil.Error:
            continue
    if others:
        raise UnseenError(f"what listens on port {target.port} of this machine is {others[0]}, no SurrealDB")
    return None


def _is_met(listening: str) -> bool:
    """Whether a connection to a loopback address arrives where somebody listens."""
    address = ipaddress.ip_address(listening)
    return address.is_loopback or address.is_unspecified


def _is_surreal(process: "psutil.Process") -> bool:
    return process.name().startswith(_PROGRAM) or _GATEWAY in process.cmdline()
