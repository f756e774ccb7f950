"""What one look at a SurrealDB gathers: its process's CPU and memory, and its connections.

All of it is the kernel's word. SurrealDB has nothing like `pg_stat_activity`, and whoever asked it would be a
connection more; so nothing is asked of it, and nothing of it is seen from another machine.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pool_bench.stats.server import CpuUse, ServerMemory, ServerObservation, ServerSample
from pool_bench.stats.timeline import Coarsening
from pool_bench.targets.surreal import SurrealTarget
from pool_bench.watch.machine.cpu import CpuMeter, ThreadMeter
from pool_bench.watch.machine.memory import pss_bytes
from pool_bench.watch.machine.processes import UnseenError, process_of
from pool_bench.watch.machine.sockets import count_connections
from pool_bench.watch.sampler import When
from pool_bench.watch.surreal.process import find_surreal, is_here

if TYPE_CHECKING:
    import psutil


class SurrealSampler:
    """Gathers a `ServerObservation`, look by look. Used by one thread.

    Args:
        targets: the targets of the run; the server of the first one is looked at.
        local_pid: its process, where it was started by us; None has it found on this machine.

    Attributes:
        side: what was seen so far.
    """

    def __init__(self, targets: Sequence[SurrealTarget], local_pid: int | None = None) -> None:
        self.side: Final = ServerObservation(cores=os.cpu_count(), one_process=True)
        self._timeline: Final[Coarsening[ServerSample]] = Coarsening()
        self._target = targets[0]
        self._local_pid = local_pid
        self._meter = CpuMeter()
        self._threads = ThreadMeter()
        self._process: psutil.Process | None = None
        # Why it is not to be seen; then it is not looked for again.
        self._hidden: str | None = None
        # Since when nobody listens, seconds since the watching began.
        self._away_s: float | None = None
        self._connections_before: int | None = None
        if any((target.host, target.port) != (self._target.host, self._target.port) for target in targets):
            self.side.note(f"there are several servers: only the first, {self._target}, was watched")

    def sample(self, t: float, when: When | None = None) -> None:
        """Look at everything; see `Sampler`."""
        process = self._find(t)
        states = self._count()
        if when is not None and process is not None:
            self._measure(process.pid, when, states)
        connections = None if states is None else sum(states.values())
        if when == "before":
            self._connections_before = self.side.in_use_before = connections
        elif when == "after":
            self.side.in_use_after = connections
        self.side.seconds.append(ServerSample(t=round(t, 3), states=states or {}, cpu=self._use_cpu(process)))
        self._timeline.seal(self.side.seconds, keep=0)

    def begin(self, origin_s: float, wall_s: float, *, expected: bool = False) -> None:
        """Learn when the run's own clock is at 0; see `Sampler`."""
        self.side.origin_s = round(origin_s, 3)

    def forget_before(self) -> None:
        """Leave out the look before the run: it came too late to show only what was there before."""
        self.side.in_use_before = self._connections_before = None
        self.side.memory.pop("before", None)

    def surplus(self, t: float) -> int:
        """How many connections there are more than before the run; 0 where that is not known."""
        states = self._count()
        if states is None or self._connections_before is None:
            return 0
        return max(sum(states.values()) - self._connections_before, 0)

    def finish(self) -> None:
        """Say what could not be seen."""
        if self._away_s is not None:
            since = f" from {self._away_s:.0f} s on" if self._away_s else ""
            self.side.note(f"no process listened on port {self._target.port} of this machine{since}")

    def _find(self, t: float) -> "psutil.Process | None":
        """The server's process; after a restart it is another one, which has to be found."""
        if self._hidden is not None:
            return None
        if self._process is not None and self._process.is_running():
            return self._process
        if self._local_pid is not None:
            pid, self._local_pid = self._local_pid, None
            self._process = process_of(pid)
            if self._process is not None:
                return self._process
        try:
            self._process = find_surreal(self._target)
        except UnseenError as error:
            self._hidden = str(error)
            self.side.note(f"the server was not watched: {error}")
            return None
        if self._process is not None:
            self._away_s = None
        elif self._away_s is None:
            self._away_s = t
        return self._process

    def _count(self) -> dict[str, int] | None:
        if not is_here(self._target):
            return None
        try:
            return count_connections(self._target.port)
        except UnseenError as error:
            self.side.note(f"connections were not counted: {error}")
            return None

    def _measure(self, pid: int, when: When, states: dict[str, int] | None) -> None:
        try:
            size = pss_bytes(pid)
        except UnseenError as error:
            self.side.note(f"memory of the server was not measured: {error}")
            return
        if size is not None and states is not None:
            self.side.memory[when] = ServerMemory(
                processes=1,
                total_bytes=size,
                backends=sum(states.values()),
                idle_backend_bytes=None,
                sampled=1,
            )

    def _use_cpu(self, process: "psutil.Process | None") -> CpuUse | None:
        busiest = self._threads.look(None if process is None else process.pid)
        try:
            use = self._meter.look(process, [])
        except UnseenError as error:
            self.side.note(f"CPU of the server was not measured: {error}")
            return None
        # It forks nothing, so what a postmaster alone would use says nothing here.
        return None if use is None else replace(use, postmaster=None, server_thread=busiest)
