"""The SurrealDB of one run: that it serves, and that nothing of it stays behind."""

import asyncio
import os
import signal
import socket
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from surrealdb import AsyncSurreal
from surrealdb.errors import NotAllowedError

from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers import host
from pool_bench.servers.leftovers import MARKER
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig, parse_bind
from tests.support.leftovers import assert_nothing_left
from tests.support.server_programs import StartProgram
from tests.support.servers import StartSurreal

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# Serves in the foreground, and prints what it started.
_SERVE = """
import json, sys
from pool_bench.servers.surreal.server import SurrealConfig, serve

def started(server):
    facts = {"directory": str(server.directory), "pids": [server.pid, server.kept.pid], "port": server.port}
    print(json.dumps(facts), flush=True)

serve(SurrealConfig(port=PORT), started)
print("served", flush=True)
"""
_PASSWORD = "correct horse battery staple"


async def _query(server: EmbeddedSurreal, text: str = "RETURN 1", password: str | None = None) -> Any:
    async with AsyncSurreal(server.url) as client:
        await client.signin({"username": server.user, "password": password or server.password})
        await client.use("main", "main")
        return await client.query(text)


def _get(port: int, path: str) -> tuple[int, bytes, Message]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


# -- serving ---------------------------------------------------------------------------------------------


async def test_it_answers_a_query(surreal: EmbeddedSurreal) -> None:
    assert await _query(surreal, "RETURN 6 * 7") == 42


def test_it_says_that_its_engine_is_embedded(surreal: EmbeddedSurreal) -> None:
    assert surreal.version.startswith("embedded SurrealDB engine 3.")
    number = surreal.version.rpartition(" ")[2]
    status, body, headers = _get(surreal.port, "/version")
    assert (status, body.decode()) == (200, f"surrealdb-{number}+embedded")
    assert headers["Server"] == f"{surreal.version} (pool-bench)"


def test_it_is_healthy(surreal: EmbeddedSurreal) -> None:
    assert _get(surreal.port, "/health")[:2] == (200, b"")


async def test_two_at_once_have_data_of_their_own(surreal: EmbeddedSurreal) -> None:
    with EmbeddedSurreal() as other:
        await _query(other, "CREATE ours:1")
        assert await _query(other, "SELECT VALUE id FROM ours") != []
        assert "ours" not in (await _query(surreal, "INFO FOR DB"))["tables"]


async def test_any_user_and_password_can_be_roots(start_surreal: StartSurreal) -> None:
    user, password = "ro'ot`⟩\\", "p'\"\\`$x\nü"
    server = start_surreal(SurrealConfig(user=user, password=password))
    assert await _query(server, "RETURN 1") == 1
    with pytest.raises(NotAllowedError):
        await _query(server, password="p")
    server.stop()


async def test_a_restart_forgets_the_data(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig(password=_PASSWORD))
    await _query(server, "CREATE kept:1")
    server.restart()
    assert "kept" not in (await _query(server, "INFO FOR DB"))["tables"]
    server.stop()


async def test_a_store_in_a_directory_outlives_the_server_and_keeps_its_root_user(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with EmbeddedSurreal(SurrealConfig(path=store, password=_PASSWORD)) as server:
        await _query(server, "CREATE kept:1 SET answer = 42")
    with EmbeddedSurreal(SurrealConfig(path=store, password="another")) as server:
        assert await _query(server, "SELECT VALUE answer FROM kept", password=_PASSWORD) == [42]
        with pytest.raises(NotAllowedError):
            await _query(server)


async def test_one_slow_query_stalls_no_other_socket(surreal: EmbeddedSurreal) -> None:
    async with AsyncSurreal(surreal.url) as slow, AsyncSurreal(surreal.url) as quick:
        for client in (slow, quick):
            await client.signin({"username": surreal.user, "password": surreal.password})
            await client.use("main", "main")
        # Work, not sleep: it occupies a thread of the engine. More of it where this process stood still.
        for turns in (200_000, 2_000_000, 10_000_000):
            work = asyncio.create_task(slow.query(f"FOR $i IN 0..{turns} {{ LET $x = $i * 2; }}; RETURN 1"))
            answered = 0
            while not work.done():
                await quick.query("RETURN 1")
                answered += 1
            await work
            if answered >= 10:
                break
        assert answered >= 10


# -- mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"user": ""}, "user"),
        ({"password": ""}, "password"),
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"certificate": Path("c.pem")}, "certificate and key"),
        ({"key": Path("k.pem")}, "certificate and key"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_options_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SurrealConfig(**wrong)


@pytest.mark.parametrize(
    ("bind", "expected"),
    [("127.0.0.1:8000", ("127.0.0.1", 8000)), ("[::1]:80", ("::1", 80)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_to_bind_to_is_read(bind: str, expected: tuple[str, int]) -> None:
    assert parse_bind(bind) == expected


@pytest.mark.parametrize(
    "bind", ["", ":1", "8000", "127.0.0.1", "::1:80", "127.0.0.1:0", "a:65536", "a b:80"]
)
def test_a_wrong_address_to_bind_to_is_refused(bind: str) -> None:
    with pytest.raises(UsageError, match="--bind"):
        parse_bind(bind)


def test_a_port_that_somebody_has_is_a_start_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedSurreal(SurrealConfig(port=taken.getsockname()[1]))
        with pytest.raises(ServerStartError, match="address already in use"):
            server.start()


def test_a_store_that_cannot_be_opened_is_a_start_error_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    server = EmbeddedSurreal(SurrealConfig(path=file / "store", password=_PASSWORD))
    with pytest.raises(ServerStartError, match="SurrealDB did not start") as failure:
        server.start()
    assert _PASSWORD not in str(failure.value)
    with pytest.raises(RuntimeError, match="is not started"):
        _ = server.directory


def test_a_certificate_that_is_none_is_a_start_error(tmp_path: Path) -> None:
    file = tmp_path / "not.pem"
    file.write_text("not PEM")
    with pytest.raises(ServerStartError, match=r"OSError: certificate .*not\.pem, .*SSLError") as failure:
        EmbeddedSurreal(SurrealConfig(certificate=file, key=file)).start()
    assert "Traceback" not in str(failure.value)


def test_a_password_is_in_no_argument_environment_file_log_or_repr() -> None:
    config = SurrealConfig(password=_PASSWORD)
    with EmbeddedSurreal(config) as server:
        for pid in (server.pid, server.kept.pid):
            seen = psutil.Process(pid)
            assert _PASSWORD not in repr((seen.cmdline(), seen.environ()))
        files = [path for path in server.directory.rglob("*") if path.is_file()]
        assert set(files) == {server.kept.log, server.directory / MARKER}
        assert _PASSWORD not in (server.directory / MARKER).read_text()
        assert _PASSWORD not in server.log() + server.url + server.http_url + repr(server) + repr(config)


# -- in the foreground -----------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_serves_until_a_signal_and_leaves_nothing(
    start_program: StartProgram, number: signal.Signals
) -> None:
    port = host.free_port()
    child = start_program(_SERVE.replace("PORT", str(port)))
    assert child.facts["port"] == port
    assert _get(port, "/health")[0] == 200
    child.process.send_signal(number)
    out, _err = child.process.communicate(timeout=60)
    assert (child.process.returncode, out) == (0, b"served\n")
    assert_nothing_left(child.directory, child.pids)


@posix
def test_in_the_foreground_the_end_of_the_server_is_an_error(start_program: StartProgram) -> None:
    child = start_program(_SERVE.replace("PORT", str(host.free_port())))
    os.kill(child.pids[0], signal.SIGKILL)
    _out, err = child.process.communicate(timeout=60)
    assert child.process.returncode == 1
    assert b"SurrealDB ended by itself" in err
    assert_nothing_left(child.directory, child.pids)


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux has this policy")
def test_no_thread_of_the_server_preempts_another_when_it_wakes(surreal: EmbeddedSurreal) -> None:
    threads = [int(entry.name) for entry in Path(f"/proc/{surreal.pid}/task").iterdir()]
    assert len(threads) > 1
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
