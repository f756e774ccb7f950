"""PgBouncer's administration console: its pools, its lists, and where its processes are.

https://www.pgbouncer.org/usage.html#show-commands. The console has a database of its own, `pgbouncer`, which
shows up among the pools with our own connection as its client; neither is counted.
"""

import os
import socket
import sys
from dataclasses import replace
from typing import Final

from pool_bench.targets import Target
from pool_bench.watch.backends import UnseenError
from pool_bench.watch.client import WatchClient

_DATABASE: Final = "pgbouncer"
_PROGRAM: Final = "pgbouncer"
_UCRED_BYTES: Final = 12


def console_target(admin: Target) -> Target:
    """The console of the PgBouncer at `admin`, whatever database that names: no other one is a console."""
    return replace(admin, dbname=_DATABASE)


def show_pools(console: WatchClient) -> dict[str, int]:
    """The figures of all pools, added up; `maxwait_us` is the longest wait of any, microseconds.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import dict_row

    totals: dict[str, int] = {}
    longest_us = 0
    for row in console.ask("SHOW POOLS", dict_row):
        if row["database"] == _DATABASE:
            continue
        longest_us = max(longest_us, row.pop("maxwait") * 1_000_000 + row.pop("maxwait_us", 0))
        for name, value in row.items():
            if isinstance(value, int):
                totals[name] = totals.get(name, 0) + value
    return totals | {"maxwait_us": longest_us}


def show_totals(console: WatchClient) -> dict[str, int]:
    """What PgBouncer has counted since its start, over all databases; times in microseconds.

    Versions before 1.23 do not count `server_assignment_count`.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import dict_row

    totals: dict[str, int] = {}
    for row in console.ask("SHOW STATS_TOTALS", dict_row):
        if row["database"] == _DATABASE:
            continue
        for name, value in row.items():
            if name != "database":
                totals[name] = totals.get(name, 0) + int(value)
    return totals


def show_lists(console: WatchClient) -> dict[str, int]:
    """How many of each thing PgBouncer has; our own connection is not among `used_clients`.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import dict_row

    lists = {row["list"]: int(row["items"]) for row in console.ask("SHOW LISTS", dict_row)}
    if "used_clients" in lists:
        lists["used_clients"] -= 1
    return lists


def find_pooler(console: WatchClient) -> list[int]:
    """The process numbers of the PgBouncers on this machine behind an open `console`.

    There are several where they share a port (`so_reuseport`).

    Raises:
        UnseenError: it is not on this machine, or belongs to another account.
    """
    import psutil

    fd = console.socket_fd
    if fd is None or not console.is_local or sys.platform == "win32":
        raise UnseenError("PgBouncer is not on this machine")
    with socket.socket(fileno=os.dup(fd)) as ours:
        if ours.family == socket.AF_UNIX:
            if not sys.platform.startswith("linux"):
                raise UnseenError("only Linux tells whose a Unix socket is")
            # struct ucred: process, user and group of who listens. See unix(7).
            raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED_BYTES)
            pids = {int.from_bytes(raw[:4], "little")}
        else:
            port = ours.getpeername()[1]
            try:
                listening = psutil.net_connections("tcp")
            except psutil.Error as error:
                raise UnseenError("no permission to look for PgBouncer's process") from error
            pids = {
                one.pid
                for one in listening
                if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,) and one.pid is not None
            }
    found = [pid for pid in sorted(pids) if _is_pooler(pid)]
    if not found:
        raise UnseenError("PgBouncer's process is not to be seen on this machine")
    return found


def _is_pooler(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).name() == _PROGRAM
    except psutil.Error:
        return False
