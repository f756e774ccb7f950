"""PgBouncer's administration console: its pools, its lists, and its settings.

https://www.pgbouncer.org/usage.html#show-commands. The console has a database of its own, `pgbouncer`, which
shows up among the pools with our own connection as its client; neither is counted.
"""

from dataclasses import replace
from typing import Final

from pool_bench.targets.postgres import PostgresTarget
from pool_bench.watch.postgres.client import WatchClient

_DATABASE: Final = "pgbouncer"
_LIMITS: Final = ("max_client_conn", "listen_backlog", "default_pool_size", "query_wait_timeout")


def console_target(admin: PostgresTarget) -> PostgresTarget:
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


def show_limits(console: WatchClient) -> dict[str, int]:
    """PgBouncer's settings that are numbers and limit clients, such as `max_client_conn`, `listen_backlog`.

    Raises:
        ConnectError: there was no answer.
    """
    from psycopg.rows import dict_row

    settings = {row["key"]: str(row["value"]) for row in console.ask("SHOW CONFIG", dict_row)}
    return {name: int(settings[name]) for name in _LIMITS if settings.get(name, "").isdigit()}


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
