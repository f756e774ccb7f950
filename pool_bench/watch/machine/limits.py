"""What of this machine can keep connections from growing, read from the kernel in some milliseconds.

Nothing here connects to anything. The processes that listen at the other end are looked for once, because
that takes a look at every descriptor of every process; afterwards only their own are counted. Of a process of
another account Linux tells the limit, and from 6.2 on how many descriptors are open, but not which.
"""

import re
import socket
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pool_bench.stats.walls import AcceptQueue, Evidence, MemoryUse, ServerProcess, Use
from pool_bench.targets import Target
from pool_bench.watch.machine.listeners import owners
from pool_bench.watch.machine.queues import (
    Listening,
    Reaching,
    dropped_requests,
    listening_at,
    listening_on,
    reaching,
)

_PROC: Final = Path("/proc")
_GROUPS: Final = Path("/sys/fs/cgroup")
_RESOLVE_S: Final = 2.0
_FILES: Final = re.compile(r"^Max open files\s+(\d+|unlimited)", re.MULTILINE)
_KILLED: Final = re.compile(r"^oom_kill (\d+)", re.MULTILINE)
# What the kernel gives a group without a limit in version 1: the largest number of whole pages.
_NO_LIMIT: Final = 1 << 60
_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")
_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where connections go to: a TCP port at any of some addresses, or a Unix socket's path."""

    addresses: frozenset[str]
    port: int = 0
    path: str = ""

    @property
    def words(self) -> str:
        """What its queue is called."""
        return f"the socket {self.path.replace(chr(0), '@')}" if self.path else f"port {self.port}"


class LimitsReader:
    """Reads the limits on the way to some targets.

    Args:
        targets: where connections go to; the first host of each.
        source_ips: how many local addresses they come from.
    """

    def __init__(self, targets: Sequence[Target], source_ips: int = 0) -> None:
        self._ways = destinations_of(targets)
        self._sources = max(source_ips, 1)
        self._local = {way for way in self._ways if way.path or _is_here(way.addresses)}
        self._pids: list[int] = []
        self._dropped = self._killed = 0
        self.begin()

    @property
    def servers(self) -> int:
        """How many places connections go to."""
        return max(len(self._ways), 1)

    @property
    def is_here(self) -> bool:
        """Whether all of the targets are on this machine."""
        return len(self._local) == len(self._ways)

    def begin(self) -> None:
        """Count what is dropped and killed from now on, and look who listens."""
        self._dropped, self._killed = dropped_requests(), killed_processes()
        self._pids = owners({queue.inode for way in self._local for queue in _listening(way)})

    def processes(self) -> list[ServerProcess]:
        """The processes of this machine that listen where the targets are, as far as they are to be seen."""
        if self._local and not any(_is_running(pid) for pid in self._pids):
            self._pids = owners({queue.inode for way in self._local for queue in _listening(way)})
        return [process for pid in self._pids if (process := process_of(pid)) is not None]

    def queues(self) -> list[AcceptQueue]:
        """The accept queues of this machine that the targets have."""
        return [
            AcceptQueue(way.words, queue.waiting, queue.limit)
            for way in self._local
            for queue in _listening(way)
        ]

    def ports(self) -> tuple[Use | None, int]:
        """Local ports in use to the busiest address of the targets, and our requests without an answer."""
        reached = [way_in for way in self._ways if not way.path for way_in in _reaching(way)]
        have = local_port_count()
        if have is None or not reached:
            return None, sum(way_in.unanswered for way_in in reached)
        taken = max(way_in.taken for way_in in reached)
        return Use(have * self._sources, taken), sum(way_in.unanswered for way_in in reached)

    def look(self, own_pids: Sequence[int]) -> Evidence:
        """All of it, as evidence that lacks what only the run knows.

        Args:
            own_pids: the processes that connect.
        """
        processes = self.processes()
        ports, unanswered = self.ports()
        files = [use for pid in own_pids if (use := files_of(pid)) is not None]
        return Evidence(
            held=0,
            in_flight=0,
            # Each has a limit of its own: the fullest one fails first.
            own_files=min(files, key=lambda use: use.limit - use.used, default=None),
            processes=processes,
            queues=self.queues(),
            dropped=max(dropped_requests() - self._dropped, 0),
            unanswered=unanswered,
            ports=ports,
            memory=memory_of([*own_pids, *self._pids]),
            killed=max(killed_processes() - self._killed, 0),
            is_here=self.is_here,
        )


def destinations_of(targets: Sequence[Target]) -> list[Destination]:
    """Where connections to `targets` go; blocks for two seconds at most where a name is to be looked up."""
    ways: dict[tuple[str, int, str], Destination] = {}
    for target in targets:
        first = target.ways[0]
        key = (first.name, first.port, first.path)
        if key not in ways:
            addresses = frozenset[str]() if first.path else _addresses(first.name)
            ways[key] = Destination(addresses, first.port, first.path)
    return list(ways.values())


def _addresses(name: str) -> frozenset[str]:
    with suppress(ValueError):
        return frozenset({str(ip_address(name.partition("%")[0]))})
    addresses: set[str] = set()

    def resolve() -> None:
        with suppress(OSError):
            addresses.update(
                str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            )

    # In a thread, for the resolver has no limit of time.
    thread = threading.Thread(target=resolve, name="pool-bench-limits", daemon=True)
    thread.start()
    thread.join(_RESOLVE_S)
    return frozenset(addresses)


def _is_here(addresses: Iterable[str]) -> bool:
    import psutil

    ours = {address.address for ones in psutil.net_if_addrs().values() for address in ones}
    return any(address in ours or ip_address(address).is_loopback for address in addresses)


def _listening(way: Destination) -> list[Listening]:
    try:
        if way.path:
            return listening_at(way.path)
        return [
            queue
            for queue in listening_on(way.port)
            if queue.address in way.addresses or ip_address(queue.address).is_unspecified
        ]
    except OSError:
        return []


def _reaching(way: Destination) -> list[Reaching]:
    try:
        return [way_in for way_in in reaching(way.port) if way_in.address in way.addresses]
    except OSError:
        return []


def process_of(pid: int, proc: Path = _PROC) -> ServerProcess | None:
    """What is to be seen of a process; None where it is gone."""
    stat = _text(proc / str(pid) / "stat")
    if not stat:
        return None
    name = stat.partition("(")[2].rpartition(")")[0]
    state = stat.rpartition(")")[2].split()[0]
    # Linux has this file where it was built with CONFIG_PROC_CHILDREN, as distributions do.
    forks = bool(_text(proc / str(pid) / "task" / str(pid) / "children").strip())
    return ServerProcess(name, pid, files_of(pid, proc), stopped=state in ("T", "t"), forks=forks)


def _is_running(pid: int) -> bool:
    return (_PROC / str(pid)).is_dir()


def files_of(pid: int, proc: Path = _PROC) -> Use | None:
    """How many descriptors a process may have and has; None where there is no limit, or it is not seen."""
    directory = proc / str(pid)
    match = _FILES.search(_text(directory / "limits"))
    if match is None or match[1] == "unlimited":
        return None
    try:
        used = sum(1 for _ in (directory / "fd").iterdir())
    except OSError:
        # It belongs to another account. The size is their number from Linux 6.2 on, and 0 before.
        try:
            used = (directory / "fd").stat().st_size
        except OSError:
            return None
        if not used:
            return None
    return Use(int(match[1]), used)


def local_port_count(path: Path = _PORT_RANGE) -> int | None:
    """How many local ports the system hands out for each address; None where it does not say."""
    numbers = _text(path).split()
    return int(numbers[1]) - int(numbers[0]) + 1 if len(numbers) == 2 else None


def longest_queue(path: Path = _SOMAXCONN) -> int | None:
    """The bound on every accept queue, net.core.somaxconn; None where the system does not say."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def killed_processes(proc: Path = _PROC) -> int:
    """Processes that the kernel has killed for want of memory since it was started."""
    match = _KILLED.search(_text(proc / "vmstat"))
    return 0 if match is None else int(match[1])


def memory_of(pids: Iterable[int], proc: Path = _PROC, groups: Path = _GROUPS) -> list[MemoryUse]:
    """Memory of this machine, and of the control groups of `pids` that have a limit."""
    uses = {}
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _text(proc / "meminfo"), re.MULTILINE))
    if "MemTotal" in sizes and "MemAvailable" in sizes:
        total = int(sizes["MemTotal"]) << 10
        uses[Path()] = MemoryUse("this machine", total, total - (int(sizes["MemAvailable"]) << 10))
    for pid in pids:
        for group in _memory_groups(_text(proc / str(pid) / "cgroup"), groups):
            if group not in uses and (use := _group_memory(group)) is not None:
                uses[group] = use
    return list(uses.values())


def _memory_groups(membership: str, root: Path) -> list[Path]:
    """Directories of the groups that may limit memory, from the innermost up to the root."""
    groups = []
    for line in membership.splitlines():
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        group = base / inside.strip("/")
        # In a container the path may be that of the host, of which only the root is to be seen.
        groups += [
            directory
            for directory in (group, *group.parents)
            if directory.is_relative_to(base) and directory.is_dir()
        ]
    return groups


def _group_memory(group: Path) -> MemoryUse | None:
    limit = _text(group / "memory.max") or _text(group / "memory.limit_in_bytes")
    used = _text(group / "memory.current") or _text(group / "memory.usage_in_bytes")
    if not limit.strip().isdigit() or not used.strip().isdigit() or int(limit) >= _NO_LIMIT:
        return None
    # Files that were not read lately make room at once.
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", _text(group / "memory.stat"), re.MULTILINE)
    spare = 0 if cached is None else int(cached[1])
    return MemoryUse(f"the control group {group.name}", int(limit), max(int(used) - spare, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
