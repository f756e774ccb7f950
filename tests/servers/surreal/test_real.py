"""The drivers, the official client and the tool against a real `surreal`, where one is on the path."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from surrealdb import AsyncSurreal

from pool_bench.drivers.surreal.client import SurrealClientDriver
from pool_bench.drivers.surreal.driver import SurrealDriver
from pool_bench.servers.host import free_port
from pool_bench.targets.surreal import SurrealTarget, surreal_target
from tests.support.commands import run_tool

_START_S = 60.0
_PLACE = "bench"


def _is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def real_surreal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SurrealTarget]:
    """A `surreal` of this machine, in memory, for root only."""
    program = shutil.which("surreal")
    if program is None:
        pytest.skip("no surreal on the path: see https://surrealdb.com/install")
    port, password = free_port(), secrets.token_hex(8)
    directory = tmp_path_factory.mktemp("surreal")
    environment = os.environ | {"SURREAL_USER": "root", "SURREAL_PASS": password}
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "start", "--bind", f"127.0.0.1:{port}", "--no-banner", "memory"],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + _START_S
            while not _is_healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"surreal did not start: {Path(log.name).read_text()[-500:]}")
                time.sleep(0.05)
            yield surreal_target(
                f"ws://127.0.0.1:{port}",
                namespace=_PLACE,
                database=_PLACE,
                user="root",
                password=password,
                environ={},
            )
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
async def place(real_surreal: SurrealTarget) -> SurrealTarget:
    """The target, once its namespace and database are there."""
    async with AsyncSurreal(real_surreal.url) as client:
        await client.signin({"username": "root", "password": real_surreal.password or ""})
        await client.query(f"DEFINE NAMESPACE IF NOT EXISTS {_PLACE}")
        await client.use(_PLACE, _PLACE)
        await client.query(f"DEFINE DATABASE IF NOT EXISTS {_PLACE}")
    return real_surreal


@pytest.mark.parametrize("auth", ["signin", "token"])
async def test_connections_open_query_and_close(place: SurrealTarget, auth: str) -> None:
    driver = SurrealDriver(place, auth="token" if auth == "token" else "signin", connect_timeout_s=30.0)
    await driver.prepare()
    connection = await driver.connect()
    await connection.execute("RETURN 1")
    assert "embedded" not in await connection.version()
    await connection.close()
    assert all(connection.phases_ns[phase] >= 0 for phase in driver.phases if phase in connection.phases_ns)


async def test_sessions_of_the_official_client_are_restored(place: SurrealTarget) -> None:
    connection = await SurrealClientDriver(place).connect()
    await connection.raw.let("who", "Ada")
    await connection.reset()
    assert await connection.query("RETURN $who") in (None, [None])
    await connection.close()


def test_the_tool_measures_it_and_does_not_call_it_embedded(place: SurrealTarget, tmp_path: Path) -> None:
    outcome = run_tool(
        *("connect", "--url", place.url, "--namespace", _PLACE, "--database", _PLACE),
        *("-c", "2", "-d", "300ms", "--warmup", "0", "--no-save"),
        cwd=tmp_path,
        env={"SURREAL_USER": "root", "SURREAL_PASS": place.password or ""},
        command="surreal_bench",
    )
    assert outcome.code == 0, outcome.stderr
    assert "embedded" not in outcome.stdout + outcome.stderr
