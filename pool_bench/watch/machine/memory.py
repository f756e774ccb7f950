"""Memory of a server's processes as proportional set size, from Linux's `/proc`.

PostgreSQL's processes share most of what they map. The proportional set size (PSS) divides a shared page by
how many processes map it, so that the sizes of all of them add up to what they really occupy; resident sizes
would count the shared buffers once for each backend. See proc(5), `smaps_rollup`.

Reading it makes the kernel walk the page tables of a process: about 0.1 ms for a small one, far more where
large shared buffers are mapped. So of many processes of one sort some are looked at and the rest is taken to
be like them, and the time is bounded.
"""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pool_bench.stats.server import PoolerMemory, ServerMemory
from pool_bench.watch.machine.processes import UnseenError, children_of

_MOST: Final = 200
_BUDGET_S: Final = 1.0
_PSS: Final = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Backend:
    """A client backend: its process number, whether it is idle, and whether it is the one that answers us."""

    pid: int
    is_idle: bool
    is_ours: bool


@dataclass(frozen=True, slots=True)
class _Sample:
    """Processes of one sort: how many are there, how many were read, and their sizes together, bytes."""

    processes: int = 0
    read: int = 0
    read_bytes: int = 0

    @property
    def mean_bytes(self) -> float | None:
        return self.read_bytes / self.read if self.read else None

    @property
    def total_bytes(self) -> float:
        return (self.mean_bytes or 0) * self.processes


def pss_bytes(pid: int) -> int | None:
    """The proportional set size of a process, bytes; None where it has ended.

    Raises:
        UnseenError: it may not be read, or this system has no such figure.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except PermissionError as error:
        raise UnseenError("no permission to read it: run as the server's account or as root") from error
    except ProcessLookupError:
        return None
    except OSError as error:
        if Path(f"/proc/{pid}").exists():
            raise UnseenError("this kernel does not tell proportional set sizes") from error
        if not Path("/proc/self").exists():
            raise UnseenError("only Linux tells proportional set sizes") from error
        return None
    match = _PSS.search(text)
    return int(match[1]) * 1024 if match is not None else None


def measure_postgres(postmaster: int, backends: Sequence[Backend]) -> ServerMemory:
    """Measure a postmaster and its processes but the one that serves us; takes about a second at most.

    Args:
        postmaster: its process number.
        backends: client backends, as the server lists them.

    Raises:
        UnseenError: the processes may not be read, or have ended.
    """
    children = set(children_of(postmaster))
    present = [backend for backend in backends if backend.pid in children and not backend.is_ours]
    idle = [backend.pid for backend in present if backend.is_idle]
    busy = [backend.pid for backend in present if not backend.is_idle]
    others = [postmaster, *sorted(children.difference(backend.pid for backend in backends))]
    begin = time.monotonic()
    samples = [
        _sample(pids, begin + share * _BUDGET_S) for pids, share in ((others, 0.3), (busy, 0.5), (idle, 1.0))
    ]
    if samples[0].read == 0:
        raise UnseenError("the server has ended")
    idle_mean = samples[-1].mean_bytes
    return ServerMemory(
        processes=sum(sample.processes for sample in samples),
        total_bytes=round(sum(sample.total_bytes for sample in samples)),
        backends=samples[1].processes + samples[2].processes,
        idle_backend_bytes=None if idle_mean is None else round(idle_mean),
        sampled=sum(sample.read for sample in samples),
    )


def measure_pooler(pids: Sequence[int], clients: int) -> PoolerMemory:
    """Measure the processes of a pooler that has so many clients.

    Raises:
        UnseenError: they may not be read, or have ended.
    """
    sizes = [size for pid in pids if (size := pss_bytes(pid)) is not None]
    if not sizes:
        raise UnseenError("the pooler has ended")
    return PoolerMemory(processes=len(sizes), total_bytes=sum(sizes), clients=clients)


def measure_one(pid: int, connections: int) -> ServerMemory | None:
    """Measure a server that is one process and has so many connections; None where it has ended.

    Raises:
        UnseenError: it may not be read.
    """
    size = pss_bytes(pid)
    if size is None:
        return None
    return ServerMemory(
        processes=1, total_bytes=size, backends=connections, idle_backend_bytes=None, sampled=1
    )


def _sample(pids: Sequence[int], deadline: float) -> _Sample:
    """Read up to 200 of `pids`, spread evenly, until the deadline; one in any case."""
    step = max(len(pids) / _MOST, 1.0)
    chosen = [pids[int(index * step)] for index in range(min(len(pids), _MOST))]
    # Where the time does not suffice, those that were read are spread over all as well.
    random.Random(0).shuffle(chosen)
    gone = read = total = 0
    for pid in chosen:
        size = pss_bytes(pid)
        if size is None:
            gone += 1
        else:
            read += 1
            total += size
        if read and time.monotonic() > deadline:
            break
    present = len(pids) if len(pids) > len(chosen) else len(pids) - gone
    return _Sample(present, read, total)
