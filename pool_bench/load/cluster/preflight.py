"""What must be alike on all machines before they generate one load together, and who differs.

`look` runs on a worker, in its event loop: it only reads.
"""

import hashlib
import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import pool_bench
from pool_bench.drivers.network.local_ports import port_range
from pool_bench.load.thread_time import usable_cores

# What takes part in measuring, and what carries it.
PACKAGES: Final = (
    *("aiohttp", "asyncpg", "cbor2", "distributed", "msgspec", "numpy", "psycopg"),
    *("surrealdb", "uvloop", "websockets"),
)
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one machine is like.

    Attributes:
        host: its name.
        machine: which running system that is; workers that share it share its cores and ports.
        versions: of Python, of this package and its code, and of what it uses, by name.
        files: the hard limit on open files of a process; None without one.
        ports: the lowest and the highest local port; None where the system does not tell.
        cores: that the worker may use, in whole ones.
        cpus: their numbers; empty where the system does not keep processes on cores.
        clock: how its monotonic clock is read.
        source_ips: those of the addresses asked about that are its own.
    """

    host: str
    machine: str
    versions: Mapping[str, str] = field(hash=False)
    files: int | None
    ports: tuple[int, int] | None
    cores: int
    cpus: tuple[int, ...]
    clock: str
    source_ips: tuple[str, ...] = ()

    def compared(self) -> dict[str, str]:
        """What must be alike, in words by name."""
        files = "unlimited" if self.files is None else f"{self.files:,}"
        ports = "unknown" if self.ports is None else "{}-{}".format(*self.ports)
        here = {"open files": files, "local ports": ports, "cores": f"{self.cores}", "clock": self.clock}
        return {**self.versions, **here}


def look(source_ips: tuple[str, ...] = ()) -> Facts:
    """What this machine is like.

    Args:
        source_ips: addresses of which to see whether they are its own.
    """
    return Facts(
        host=socket.gethostname(),
        machine=_machine(),
        versions={"Python": platform.python_version(), "pool_bench": _own_version(), **_versions()},
        files=_file_limit(),
        ports=port_range(),
        cores=max(int(usable_cores()), 1),
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (),
        clock=time.get_clock_info("perf_counter").implementation,
        source_ips=tuple(filter(_is_ours, source_ips)),
    )


def _machine() -> str:
    """The running system and its network: containers of one system have ports of their own."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(_BOOT_ID.read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/net").readlink()))
    return " ".join(parts)


def _own_version() -> str:
    """Our version, and a few digits that stand for our code: what is installed from a checkout may differ."""
    digest = hashlib.sha256()
    root = Path(pool_bench.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return f"{pool_bench.__version__} (code {digest.hexdigest()[:8]})"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def _file_limit() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def _is_ours(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def differences(ours: Facts, workers: Mapping[str, Facts]) -> list[str]:
    """What is not alike, a line each; none where they may generate one load together.

    Versions are compared with ours, since snapshots come from there to here; what machines are like only
    between workers, since this one generates nothing.

    Args:
        ours: of the machine that asks.
        workers: of each worker, by address.
    """
    lines = []
    for address, facts in workers.items():
        for name, value in facts.versions.items():
            if value != ours.versions.get(name):
                lines.append(f"{name} is {value} on {facts.host} ({address}), {ours.versions.get(name)} here")
    compared = {address: facts.compared() for address, facts in workers.items()}
    for name in next(iter(compared.values()), {}):
        values = Counter(facts[name] for facts in compared.values())
        if name in ours.versions or len(values) < 2:
            continue
        usual = values.most_common(1)[0][0]
        for address, facts in workers.items():
            if compared[address][name] != usual:
                lines.append(
                    f"{name}: {compared[address][name]} on {facts.host} ({address}), {usual} on others"
                )
    return lines
