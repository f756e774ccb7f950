"""What this machine allows: open files, raised as far as they go, and local ports."""

import sys
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from math import ceil
from pathlib import Path
from typing import Final

from pool_bench.drivers.base import DriverName
from pool_bench.errors import UsageError
from pool_bench.targets import Target

_SETTINGS: Final = Path("/proc/sys/net/ipv4")
# TCP_TIMEWAIT_LEN of Linux (RFC 9293, section 3.4.2, says two segment lifetimes); with reuse a port is free
# for a new connection once the timestamps differ, after a second (net.ipv4.tcp_tw_reuse).
_TIME_WAIT_S: Final = 60.0
_REUSE_S: Final = 1.0

# The official client opens a connection for each request over HTTP: to sign in, to select, and to query.
_CLIENT_REQUESTS: Final = 3

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


def room_for_files(most: int) -> int:
    """`most`, or as many connections as the hard limit on open files has room for; at least one."""
    if sys.platform == "win32":
        return most
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return most if hard == resource.RLIM_INFINITY else max(min(most, hard - _SPARE_FILES), 1)


def local_ports() -> int | None:
    """How many local ports the system hands out by itself, for each address; None where it does not say."""
    try:
        low, high = (_SETTINGS / "ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return None
    return int(high) - int(low) + 1


def local_ports_note(
    targets: Sequence[Target],
    connections: Sequence[int],
    source_ips: Sequence[str],
    *,
    taken: int = 0,
) -> str | None:
    """What to do where connections need more local ports than there are; None where they suffice.

    A port serves once for each pair of addresses, and each server port (RFC 9293, section 3.4: a
    connection is named by both its ends).

    Args:
        connections: how many to each of `targets`.
        source_ips: local addresses to connect from; empty where the system chooses one.
        taken: ports to that server which are in use already.
    """
    ports = local_ports()
    if ports is None:
        return None
    needed: Counter[tuple[str, int]] = Counter()
    for target, count in zip(targets, connections, strict=True):
        first = target.ways[0]
        if not first.path:
            needed[first.name, first.port] += count
    most = max(needed.values(), default=0)
    have = ports * max(len(source_ips), 1)
    if most <= have - taken:
        return None
    used = f", {taken:,} of them in use" if taken else ""
    return (
        f"{most:,} connections to one server need as many local ports, but there are {have:,}{used}: give "
        "more addresses of this machine with --source-ip, or widen net.ipv4.ip_local_port_range"
    )


def time_wait_s(target: Target, driver: DriverName) -> float:
    """How long a closed connection to `target` keeps its local port from a new one, seconds."""
    if not target.client_closes_first(driver):
        return 0.0
    try:
        reuse = (_SETTINGS / "tcp_tw_reuse").read_text().strip()
    except OSError:
        reuse = "0"
    # 2, the default of Linux since 4.19, means loopback only.
    if reuse == "1" or (reuse == "2" and is_loopback(target)):
        return _REUSE_S
    return _TIME_WAIT_S


def is_loopback(target: Target) -> bool:
    """Whether the first host of `target` is plainly this machine."""
    first = target.ways[0]
    if first.path:
        return True
    try:
        return ip_address(first.name).is_loopback
    except ValueError:
        return first.name == "localhost"


def time_wait_note(
    targets: Sequence[Target], driver: DriverName, *, concurrency: int, rate: float | None, seconds: float
) -> str | None:
    """What to do where opening and closing connections needs more local ports than there are.

    Connections in flight have a port each; a connection that this side closed first keeps its own for a
    minute longer. Nothing is known of the rate of a closed loop: there only the first is counted.

    Args:
        targets: used in turn.
        driver: how connections are opened and closed.
        concurrency: connections in flight at most.
        rate: connections begun a second, None in a closed loop.
        seconds: how long that goes on; 0 for no end.
    """
    ports = local_ports()
    if ports is None:
        return None
    needed: Counter[tuple[str, int]] = Counter()
    longest_s = 0.0
    for target in targets:
        first = target.ways[0]
        if first.path:
            continue
        wait_s = time_wait_s(target, driver)
        closed = 0.0 if rate is None else rate * (min(wait_s, seconds) if seconds else wait_s)
        if driver == "surrealdb" and wait_s:
            closed *= _CLIENT_REQUESTS
        needed[first.name, first.port] += ceil((concurrency + closed) / len(targets))
        longest_s = max(longest_s, wait_s)
    most = max(needed.values(), default=0)
    if most <= ports:
        return None
    if rate is None or not longest_s:
        return (
            f"{concurrency:,} connections in flight need as many local ports for each server, but there are "
            f"{ports:,}: lower the concurrency, or widen net.ipv4.ip_local_port_range"
        )
    # Targets of one command are all of one kind.
    way_out = targets[0].server_closes_with
    return (
        f"at {rate:,.0f}/s {driver} needs {most:,} local ports, because each closed connection keeps its own "
        f"for {longest_s:g} s (TIME_WAIT), but there are {ports:,}: lower the rate, set "
        f"net.ipv4.tcp_tw_reuse = 1, widen net.ipv4.ip_local_port_range, or use {way_out}"
    )
