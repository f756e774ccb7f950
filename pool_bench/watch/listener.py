"""Which process serves a local port, and how many connections it has, from what the kernel tells.

For servers that have nothing like `pg_stat_activity`: asking the kernel costs the server nothing, and is
answered however busy that is. A loopback address may lead into a container or a tunnel, so a process only
counts as the server if it is one that we know.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pool_bench.targets_surreal import SurrealTarget
from pool_bench.watch.backends import UnseenError

if TYPE_CHECKING:
    import psutil

_PROGRAM: Final = "surreal"
# The server of `surreal-bench serve`, which is a Python.
_GATEWAY: Final = "pool_bench.servers.surreal_gateway"
# The kernel's numbers for states of TCP (include/net/tcp_states.h). Of the others no socket belongs to a
# process any more, or not yet.
_ESTABLISHED: Final = b"01"
_CLOSE_WAIT: Final = b"08"
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


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
        listening = psutil.net_connections("tcp")
    except psutil.Error as error:
        raise UnseenError("no permission to look for the server's process") from error
    pids = {one.pid for one in listening if one.status == psutil.CONN_LISTEN and _meets(one.laddr, target)}
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


def _meets(listening: "tuple[str, int] | tuple[()]", target: SurrealTarget) -> bool:
    """Whether a connection to the loopback address of `target` arrives where somebody listens."""
    if not listening or listening[1] != target.port:
        return False
    address = ipaddress.ip_address(listening[0])
    return address.is_loopback or address.is_unspecified


def _is_surreal(process: "psutil.Process") -> bool:
    return process.name().startswith(_PROGRAM) or _GATEWAY in process.cmdline()


def count_connections(port: int, tables: Iterable[Path] = _TABLES) -> dict[str, int]:
    """Connections that have `port` as their local end: `open`, and `closing` where only the client has ended.

    Takes about 1.4 ms of CPU for each thousand connections of this machine, those in TIME_WAIT included.

    Args:
        port: the server's.
        tables: where the kernel lists connections; those that are missing are passed over.

    Raises:
        UnseenError: this system does not tell.
    """
    # Only a local end is followed by an address. See proc_net_tcp.txt in the kernel's documentation.
    line = re.compile(rb"([0-9A-F]+:%04X [0-9A-F]+:[0-9A-F]{4}) (\w\w) " % port)
    # By the addresses of both ends: the kernel lists a page at a time, and where sockets come and go between
    # two of them it may list some twice.
    states: dict[bytes, bytes] = {}
    seen = False
    for table in tables:
        try:
            states.update(line.findall(table.read_bytes()))
            seen = True
        except OSError:
            continue  # without IPv6 there is no such table
    if not seen:
        raise UnseenError("only Linux tells which connections a server has")
    found = Counter(states.values())
    counts = {"open": found[_ESTABLISHED], "closing": found[_CLOSE_WAIT]}
    return {name: count for name, count in counts.items() if count}
