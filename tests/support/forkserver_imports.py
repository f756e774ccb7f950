"""What commands and known servers import sooner or later; for `forkserver.py`."""

import importlib
import pkgutil

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401

import pool_bench.cli
import pool_bench.report

for package in (pool_bench.cli, pool_bench.report):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
for name in (
    *("pg_connection_bench", "pg_connection_load", "surreal_bench", "pool_bench.__main__"),
    *("pool_bench.servers.scripted.postgres", "pool_bench.servers.scripted.surreal"),
):
    importlib.import_module(name)
