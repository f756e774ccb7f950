"""How many cores processes of this machine use, from Linux's `/proc`.

A backend that lives for two milliseconds is never seen by a look a second. But the postmaster waits for its
children, and the kernel adds what each had used to its `cutime` and `cstime`: with those, and with what the
living ones have used so far, nothing is lost. See proc(5), `/proc/pid/stat`.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pool_bench.stats.server import CpuUse
from pool_bench.watch.machine.processes import UnseenError, children_of

if TYPE_CHECKING:
    import psutil

# Of many threads, those that have been there longest.
_MOST_THREADS: Final = 256
# Of many backends those that have been there longest: a set that stays the same from look to look. What a
# backend beyond them uses is counted once it has ended.
_MOST_CHILDREN: Final = 256
# Fifty ticks of a hundredth of a second, on two cores.
_SHORTEST_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Reading:
    """CPU seconds used so far, by whom; `at` is when, seconds of the monotonic clock."""

    at: float
    machine: float
    server: tuple[int, float, float] | None
    poolers: dict[int, float]


class CpuMeter:
    """Says how many cores are in use, from look to look. Used by one thread."""

    def __init__(self) -> None:
        self._last: _Reading | None = None
        self._threads: dict[int, ThreadMeter] = {}

    def look(self, postmaster: "psutil.Process | None", poolers: "Sequence[psutil.Process]") -> CpuUse | None:
        """Cores in use since the last call that gave a figure, or the first; None at that one.

        None, too, where the last figure is so fresh that a tick of the kernel's clock would count for much:
        what was used meanwhile is in the next one.

        Args:
            postmaster: PostgreSQL's, where it is on this machine.
            poolers: the processes of the pooler or proxy, where they are on this machine.

        Raises:
            UnseenError: this system does not tell what ended processes have used.
        """
        reading = _Reading(
            at=time.monotonic(),
            machine=_machine_s(),
            server=None if postmaster is None else _server_s(postmaster.pid),
            poolers={process.pid: used for process in poolers if (used := _pooler_s(process)) is not None},
        )
        last = self._last
        if last is not None and reading.at - last.at < _SHORTEST_S:
            return None
        self._last = reading
        busiest = [
            self._threads.setdefault(process.pid, ThreadMeter()).look(process.pid) for process in poolers
        ]
        if last is None:
            return None
        wall_s = reading.at - last.at
        cores = float(os.cpu_count() or 1)
        server = postmasters = None
        # After a restart it is another process, which has used next to nothing.
        if reading.server is not None and last.server is not None and reading.server[0] == last.server[0]:
            server = max(reading.server[2] - last.server[2], 0) / wall_s
            postmasters = max(reading.server[1] - last.server[1], 0) / wall_s
        each = [
            max(used - last.poolers[pid], 0) / wall_s
            for pid, used in reading.poolers.items()
            if pid in last.poolers
        ]
        return CpuUse(
            # What a process had used is told by ticks, and of many children some are told late.
            machine=min(max(reading.machine - last.machine, 0) / wall_s, cores),
            server=None if server is None else min(server, cores),
            postmaster=None if postmasters is None else min(postmasters, 1.0),
            pooler=min(sum(each), cores) if each else None,
            pooler_busiest=max((share for share in busiest if share is not None), default=None),
        )


class ThreadMeter:
    """Says how busy the busiest thread of a process is, from look to look. Used by one thread."""

    def __init__(self) -> None:
        self._last: tuple[float, dict[tuple[int, int], float]] | None = None

    def look(self, pid: int | None) -> float | None:
        """Cores that the busiest thread of `pid` has used since the last call, 0 to 1; None if unknown."""
        at = time.monotonic()
        used = {} if pid is None else {(pid, thread): _thread_s(pid, thread) for thread in _threads_of(pid)}
        reading = at, {name: seconds for name, seconds in used.items() if seconds is not None}
        last = self._last
        if last is not None and at - last[0] < _SHORTEST_S / 2:
            return None
        self._last = reading
        if last is None:
            return None
        each = [seconds - last[1][name] for name, seconds in reading[1].items() if name in last[1]]
        return min(max(each) / (at - last[0]), 1.0) if each else None


def _threads_of(pid: int) -> list[int]:
    try:
        return sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())[:_MOST_THREADS]
    except OSError:
        return []


def _thread_s(pid: int, thread: int) -> float | None:
    times = _read_stat(Path(f"/proc/{pid}/task/{thread}/stat"))
    return None if times is None else times[0]


def _machine_s() -> float:
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # The kernel counts guests as users, too.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _server_s(pid: int) -> tuple[int, float, float] | None:
    """A postmaster's number, what it has used itself, and with all its children; None where it has ended."""
    if not Path("/proc/self/stat").exists():
        raise UnseenError("only Linux tells what processes that have ended had used")
    # It first: a child that ends meanwhile is left out now and counted at the next look, never twice.
    times = _stat_s(pid)
    if times is None:
        return None
    own, ended = times
    alive = 0.0
    try:
        children = children_of(pid)
    except UnseenError:
        return None
    for child in children[:_MOST_CHILDREN]:
        used = _stat_s(child)
        if used is not None:
            alive += used[0]
    return pid, own, own + ended + alive


def _stat_s(pid: int) -> tuple[float, float] | None:
    """What a process has used itself, and its ended children, seconds; None where it has ended."""
    return _read_stat(Path(f"/proc/{pid}/stat"))


def _read_stat(file: Path) -> tuple[float, float] | None:
    try:
        text = file.read_bytes()
    except OSError:
        return None
    # A process may be called anything, so its name ends at the last bracket.
    fields = text[text.rindex(b")") + 2 :].split()
    user, system, ended_user, ended_system = (int(field) for field in fields[11:15])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + system) / ticks, (ended_user + ended_system) / ticks


def _pooler_s(process: "psutil.Process") -> float | None:
    import psutil

    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)
