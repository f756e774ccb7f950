"""What commands and scripted servers import sooner or later; for `forkserver.py`."""

import gc
import importlib
import pkgutil
from types import ModuleType

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401

import pool_bench.cli
import pool_bench.report


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


_import_all(pool_bench.cli)
_import_all(pool_bench.report)
for name in (
    *("pg_connection_bench", "pg_connection_load", "surreal_bench", "pool_bench.__main__"),
    *(
        "pool_bench.load.process",
        "pool_bench.servers.scripted.postgres",
        "pool_bench.servers.scripted.surreal",
    ),
    *("aiohttp", "asyncpg", "hdrh.histogram", "psutil", "psycopg", "surrealdb", "uvloop"),
):
    importlib.import_module(name)

# Forks look for garbage among what is theirs, and share the pages of all else.
gc.collect()
gc.freeze()
