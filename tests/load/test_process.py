"""What the process of a generator is made of: its imports are part of what every run costs."""

import subprocess
import sys

import pytest

_OF_THE_PARENT = ("click", "rich", "matplotlib", "msgspec", "psutil", "psycopg", "asyncpg", "surrealdb")
_PACKAGES = ("cli", "report", "results", "compare", "servers", "watch")
_LOADS = ("pool_bench.load.connect.dials", "pool_bench.load.connect.open_dials", "pool_bench.load.hold.wire")


@pytest.mark.parametrize("load", _LOADS)
def test_it_imports_nothing_of_the_command_that_started_it(load: str) -> None:
    code = f"import sys, pool_bench.load.process, {load}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert load in modules
    assert not modules & {*_OF_THE_PARENT, *(f"pool_bench.{name}" for name in _PACKAGES)}
