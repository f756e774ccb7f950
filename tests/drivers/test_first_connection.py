"""A driver's own imports must not be part of its first connection."""

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, sys
from pool_bench.drivers.{name} import {driver}
from pool_bench.errors import ConnectError
from pool_bench.targets.postgres import parse_target

async def main():
    target = parse_target("postgresql://u@127.0.0.1:1/d?sslmode=disable", env={{}}, default_user="u")
    driver = {driver}(target)
    before = set(sys.modules)
    try:
        await driver.connect()
    except ConnectError:
        print(sorted(set(sys.modules) - before))

asyncio.run(main())
"""


@pytest.mark.parametrize(("name", "driver"), [("asyncpg", "AsyncpgDriver"), ("psycopg", "PsycopgDriver")])
def test_the_first_connection_imports_nothing(name: str, driver: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(name=name, driver=driver)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.strip() == "[]"
