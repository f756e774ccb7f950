"""What this machine allows: open files, raised as far as they go, and local ports."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pool_bench.errors import UsageError
from pool_bench.targets_surreal import AnyTarget, SurrealTarget

# Pipes, the event loop, the executor's lookups, logs, and what libraries open for themselves.
_SPARE_FILES: Final = 64


def raise_file_limit(connections: int, *, option: str) -> None:
    """Make room for `connections` sockets in this process and those it starts.

    Raises:
        UsageError: the hard limit is too low; names `option` and the way out.
    """
    if sys.platform == "win32":
        return
    import resource

    need = connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and need > hard:
        raise UsageError(
            f"{option} {connections:,} needs {need:,} open files, but the hard limit is {hard:,}: "
            "lower it, or raise the limit (ulimit -Hn, LimitNOFILE=, /etc/security/limits.conf)"
        )
    if soft != unlimited and soft < need:
        # macOS refuses an unlimited soft limit even where the hard one is.
        wanted = need if hard == unlimited else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def local_ports() -> int | None:
    """How many local ports the system hands out by itself, for each address; None where it does not say."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return None
    return int(high) - int(low) + 1


def local_ports_note(
    targets: Sequence[AnyTarget], connections: Sequence[int], source_ips: Sequence[str]
) -> str | None:
    """What to do where connections need more local ports than there are; None where they suffice.

    A port serves once for each pair of addresses, and each server port (RFC 9293, section 3.4: a
    connection is named by both its ends).

    Args:
        connections: how many to each of `targets`.
        source_ips: local addresses to connect from; empty where the system chooses one.
    """
    ports = local_ports()
    if ports is None:
        return None
    needed: Counter[tuple[str, int]] = Counter()
    for target, count in zip(targets, connections, strict=True):
        if (server := _address(target)) is not None:
            needed[server] += count
    most = max(needed.values(), default=0)
    have = ports * max(len(source_ips), 1)
    if most <= have:
        return None
    return (
        f"{most:,} connections to one server need as many local ports, but there are {have:,}: give more "
        "addresses of this machine with --source-ip, or widen net.ipv4.ip_local_port_range"
    )


def _address(target: AnyTarget) -> tuple[str, int] | None:
    """Where connections go to; None for a Unix socket, which has no port."""
    if isinstance(target, SurrealTarget):
        return target.host, target.port
    host = target.hosts[0]
    return None if host.is_unix else (host.address or host.name, host.port)
