"""Servers started for one run and removed after it, however it ends: context managers.

    with EmbeddedPostgres() as server:
        print(server.url)

A process beside ours, the keeper, owns each server and its files (`keeper.py`); `kept.py` is what all kinds
have in common. Importing this package loads none of them: each comes with its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig
    from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
    from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig

__all__ = [
    "EmbeddedPostgres",
    "EmbeddedSurreal",
    "PgBouncer",
    "PgBouncerConfig",
    "PostgresConfig",
    "SurrealConfig",
]

_HOMES: Final = {
    "EmbeddedPostgres": "pool_bench.servers.postgres",
    "EmbeddedSurreal": "pool_bench.servers.surreal.server",
    "PgBouncer": "pool_bench.servers.pgbouncer",
    "PgBouncerConfig": "pool_bench.servers.pgbouncer",
    "PostgresConfig": "pool_bench.servers.postgres",
    "SurrealConfig": "pool_bench.servers.surreal.server",
}


def __getattr__(name: str) -> object:
    """One of the servers, imported when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
