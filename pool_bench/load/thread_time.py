"""What the kernel says of this thread's time: how long it ran, waited for a core, was throttled, was stolen.

Sources: proc(5) `/proc/pid/task/tid/schedstat` (Documentation/scheduler/sched-stats.rst: time on a CPU, time
waiting to run, both nanoseconds), `/proc/stat` (steal, in ticks), `cpu.stat` of the control groups that this
process is in (version 2: `throttled_usec`, version 1: `throttled_time`, nanoseconds). Files are opened once:
the load may leave no descriptor, and on a kernel that has none of them there is nothing to tell.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_V2: Final = re.compile(rb"^throttled_usec (\d+)$", re.MULTILINE)
_V1: Final = re.compile(rb"^throttled_time (\d+)$", re.MULTILINE)
_CPU_LINE: Final = re.compile(rb"^cpu(\d+) ([\d ]+)$", re.MULTILINE)
_ENOUGH: Final = 1 << 16


class KeptFile:
    """A file of the kernel that is read again and again; b"" where there is none, or no more."""

    def __init__(self, path: Path | str) -> None:
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return

    def read(self) -> bytes:
        """What it says now."""
        if self._fd < 0:
            return b""
        try:
            return os.pread(self._fd, _ENOUGH, 0)
        except OSError:
            return b""

    def close(self) -> None:
        """Give the descriptor back; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class ThreadTime:
    """How long the thread that made it has run and has waited for a core."""

    def __init__(self) -> None:
        self._file = KeptFile("/proc/thread-self/schedstat")
        self.known = bool(self._file.read())

    def waited_ns(self) -> int:
        """How long it could have run and had no core, nanoseconds since it began; 0 if not told."""
        parts = self._file.read().split()
        return int(parts[1]) if len(parts) >= 2 else 0

    @staticmethod
    def ran_ns() -> int:
        """How long it ran, nanoseconds since it began."""
        return time.thread_time_ns()

    def close(self) -> None:
        """Give the descriptor back."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class MachineReading:
    """What the machine said at one moment, seconds since it or the group began.

    Attributes:
        busy_s: CPU time used on the cores this process may use, by all.
        stolen_s: the same, taken by the hypervisor; mean of those cores.
        throttled_s: time for which this process's control groups were throttled.
    """

    busy_s: float = 0.0
    stolen_s: float = 0.0
    throttled_s: float = 0.0


class MachineTime:
    """Reads what happened to all on the cores that this process may use."""

    def __init__(self) -> None:
        self._cpus = usable_cpus()
        self.cores = usable_cores()
        self._stat = KeptFile("/proc/stat")
        self._groups = [KeptFile(path) for path in cpu_stat_files(_text("/proc/self/cgroup"))]

    def read(self) -> MachineReading:
        """What it says now."""
        busy_s, stolen_s = cpu_seconds(self._stat.read(), self._cpus, os.sysconf("SC_CLK_TCK"))
        throttled = [throttled_seconds(group.read()) for group in self._groups]
        # A group is throttled with any above it.
        return MachineReading(busy_s, stolen_s, max(throttled, default=0.0))

    def close(self) -> None:
        """Give the descriptors back."""
        for file in (self._stat, *self._groups):
            file.close()


def usable_cpus() -> frozenset[int]:
    """Numbers of the CPUs that this process may run on; empty where the system does not tell."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def usable_cores() -> float:
    """How many cores this process may use at once, by affinity and quota."""
    count = len(usable_cpus()) or os.cpu_count() or 1
    quota = cpu_quota()
    return float(count) if quota is None else min(float(count), quota)


def cpu_seconds(stat: bytes, cpus: frozenset[int], ticks: int) -> tuple[float, float]:
    """Seconds used and mean seconds stolen of `cpus`, by `/proc/stat`; 0 where it does not tell."""
    busy = stolen = count = 0
    for match in _CPU_LINE.finditer(stat):
        if int(match[1]) not in cpus:
            continue
        # user nice system idle iowait irq softirq steal; guests are in user and nice already.
        values = [int(value) for value in match[2].split()]
        count += 1
        busy += sum(values[:3]) + sum(values[5:7])
        stolen += values[7] if len(values) > 7 else 0
    return busy / ticks, (stolen / ticks / count if count else 0.0)


def throttled_seconds(stat: bytes) -> float:
    """For how long a control group was throttled, seconds added up over its cores, by its `cpu.stat`."""
    if found := _V2.search(stat):
        return int(found[1]) / 1e6
    if found := _V1.search(stat):
        return int(found[1]) / 1e9
    return 0.0


def cpu_stat_files(membership: str, root: Path = Path("/sys/fs/cgroup")) -> list[Path]:
    """`cpu.stat` of the control groups of `/proc/self/cgroup`, and of those above them, that are there."""
    return [group / "cpu.stat" for group in _cpu_groups(membership, root) if (group / "cpu.stat").exists()]


def cpu_quota(membership: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores the control groups of this process may use at once; None without a limit.

    See `cpu.max` in Documentation/admin-guide/cgroup-v2.rst, `cpu.cfs_quota_us` in scheduler/sched-bwc.rst.
    """
    limits = []
    for group in _cpu_groups(_text("/proc/self/cgroup") if membership is None else membership, root):
        quota, _, period = _text(group / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (_text(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _cpu_groups(membership: str, root: Path) -> list[Path]:
    """Directories of the groups that may limit the CPU, from the innermost up to the root."""
    found = []
    for line in membership.splitlines():
        _, controllers, inside = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        bases = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        base = next((base for base in bases if base.is_dir()), None)
        if base is None:
            continue
        group = base / inside.strip("/")
        # In a container the path may be that of the host, of which only the root is to be seen.
        found += [one for one in (group, *group.parents) if one.is_relative_to(base) and one.is_dir()]
    return list(dict.fromkeys(found))


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
