"""The SurrealDB of one run: that it serves, and that nothing of it stays behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from surrealdb import AsyncSurreal
from surrealdb.errors import NotAllowedError

import pool_bench
from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers import host
from pool_bench.servers import kept as process
from pool_bench.servers.leftovers import MARKER
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig, parse_bind
from tests.support.leftovers import assert_nothing_left, nothing_is_left_of_a_start, processes_of
from tests.support.servers import StartSurreal

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

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


def test_it_listens_on_loopback_only(surreal: EmbeddedSurreal) -> None:
    listening = [c for c in psutil.Process(surreal.pid).net_connections("tcp") if c.status == "LISTEN"]
    assert [each.laddr for each in listening] == [("127.0.0.1", surreal.port)]


async def test_two_at_once_have_a_port_a_directory_and_data_each(surreal: EmbeddedSurreal) -> None:
    with EmbeddedSurreal() as other:
        assert other.port != surreal.port
        assert other.directory != surreal.directory
        await _query(other, "CREATE ours:1")
        assert await _query(other, "SELECT VALUE id FROM ours") != []
        assert "ours" not in (await _query(surreal, "INFO FOR DB"))["tables"]


def test_a_port_that_is_taken_is_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        free_port = host.free_port
        monkeypatch.setattr(process, "free_port", lambda: next(ports, 0) or free_port())
        with EmbeddedSurreal() as server:
            assert server.port != taken.getsockname()[1]
            assert server.is_running()


async def test_any_user_and_password_can_be_roots(start_surreal: StartSurreal) -> None:
    user, password = "ro'ot`⟩\\", "p'\"\\`$x\nü"
    server = start_surreal(SurrealConfig(user=user, password=password))
    assert await _query(server, "RETURN 1") == 1
    with pytest.raises(NotAllowedError):
        await _query(server, password="p")
    server.stop()


async def test_a_restart_keeps_the_port_and_forgets_the_data(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig(password=_PASSWORD))
    await _query(server, "CREATE kept:1")
    port, pid = server.port, server.pid
    server.restart()
    assert (server.port, server.pid != pid) == (port, True)
    assert "kept" not in (await _query(server, "INFO FOR DB"))["tables"]
    server.stop()


async def test_a_server_that_was_killed_can_be_restarted(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig())
    os.kill(server.pid, signal.SIGKILL)
    server.restart()
    assert await _query(server) == 1
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


# -- leaving nothing behind ------------------------------------------------------------------------------

_CHILD = """
import json, os, signal, sys, time
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig, serve

def started(server):
    facts = {"directory": str(server.directory), "pids": [server.pid, server.kept.pid], "port": server.port}
    print(json.dumps(facts), flush=True)

def leave():
    THEN

if MODE == "bare":
    server = EmbeddedSurreal()
    server.start()
    started(server)
    leave()
elif MODE == "with":
    with EmbeddedSurreal() as server:
        started(server)
        leave()
else:
    serve(SurrealConfig(port=int(MODE)), started)
    print("served", flush=True)
"""


def _environment() -> dict[str, str]:
    places = [str(Path(pool_bench.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}


@dataclass
class _Child:
    """A process of its own that has started a server."""

    process: "subprocess.Popen[bytes]"
    facts: dict[str, Any]

    @property
    def directory(self) -> Path:
        return Path(self.facts["directory"])

    @property
    def pids(self) -> list[int]:
        return list(self.facts["pids"])


StartChild = Callable[..., _Child]


@pytest.fixture
def start_child() -> Iterator[StartChild]:
    """Start a Python that starts a server and then does `then`.

    The mode is `with` for a with block, `bare` for none, or the port of `serve`.
    """
    children: list[subprocess.Popen[bytes]] = []

    def start(then: str = "signal.pause()", *, mode: str = "with") -> _Child:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD.replace("THEN", then).replace("MODE", repr(mode))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            # A group of its own, to be sent signals the way a terminal does it.
            start_new_session=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stderr is not None
        line = child.stdout.readline()
        assert line, child.stderr.read().decode()
        return _Child(child, json.loads(line))

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("then", "mode", "status"),
    [
        ("pass", "with", 0),
        ("raise ValueError('on purpose')", "with", 1),
        ("os._exit(6)", "with", 6),
        ("pass", "bare", 0),
        ("raise ValueError('on purpose')", "bare", 1),
    ],
)
def test_nothing_is_left_when_the_program_ends_by_itself(
    start_child: StartChild, then: str, mode: str, status: int
) -> None:
    child = start_child(then, mode=mode)
    assert child.process.wait(60) == status
    assert_nothing_left(child.directory, child.pids)


@posix
@pytest.mark.parametrize(
    ("number", "mode"),
    [
        (signal.SIGINT, "with"),
        (signal.SIGINT, "bare"),
        # They end it where it stands, whatever block that is in.
        (signal.SIGTERM, "with"),
        (signal.SIGHUP, "bare"),
        (signal.SIGKILL, "with"),
    ],
)
def test_nothing_is_left_when_a_signal_ends_the_program(
    start_child: StartChild, number: signal.Signals, mode: str
) -> None:
    child = start_child(mode=mode)
    assert processes_of(child.directory)
    # To the whole group, as Ctrl-C and a closing terminal do.
    os.killpg(child.process.pid, number)
    assert child.process.wait(60) == -number
    assert_nothing_left(child.directory, child.pids)


# Whoever is slow to send the signal finds it started, and is told so.
_STARTING = """
import signal, sys
from pathlib import Path
from pool_bench.servers.surreal.server import EmbeddedSurreal

server = EmbeddedSurreal()
server.start()
Path(sys.argv[1]).touch()
signal.pause()
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_a_signal_ends_the_program_while_the_server_starts(
    number: signal.Signals,
) -> None:
    def has_begun(place: Path) -> bool:
        # Made for the process that is to serve, before that is there.
        return bool(list(place.glob("pool-bench-*/server.log")))

    # A start may be over before one that is held up has sent the signal.
    assert any(nothing_is_left_of_a_start(_STARTING, _environment(), number, has_begun) for _ in range(3))


@posix
def test_an_open_socket_does_not_keep_the_server_from_stopping(start_surreal: StartSurreal) -> None:
    server = start_surreal(SurrealConfig())
    directory, pids = server.directory, [server.pid, server.kept.pid]
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET /rpc HTTP/1.1\r\nHost: half a request")
        server.stop()
    assert_nothing_left(directory, pids)


# -- in the foreground -----------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_serves_until_a_signal_and_leaves_nothing(
    start_child: StartChild, number: signal.Signals
) -> None:
    port = host.free_port()
    child = start_child(mode=str(port))
    assert child.facts["port"] == port
    assert _get(port, "/health")[0] == 200
    child.process.send_signal(number)
    out, _err = child.process.communicate(timeout=60)
    assert (child.process.returncode, out) == (0, b"served\n")
    assert_nothing_left(child.directory, child.pids)


@posix
def test_in_the_foreground_the_end_of_the_server_is_an_error(start_child: StartChild) -> None:
    child = start_child(mode=str(host.free_port()))
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
