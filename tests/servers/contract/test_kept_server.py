"""What holds of every server that a run starts for itself: it serves, and nothing of it stays behind."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from pool_bench.errors import ServerStartError
from pool_bench.servers import host, kept
from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig, find_pgbouncer
from pool_bench.servers.postgres import EmbeddedPostgres
from pool_bench.servers.surreal.server import EmbeddedSurreal
from tests.support.leftovers import assert_nothing_left, nothing_is_left_of_a_start, processes_of
from tests.support.server_programs import PGBOUNCER, POSTGRES, SURREAL, ServerCode, StartProgram, environment
from tests.support.servers import missing_server

Server = EmbeddedPostgres | PgBouncer | EmbeddedSurreal

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


def _speaks_postgres(port: int) -> bool:
    # An SSLRequest: a server that is alive answers it with one letter.
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(bytes.fromhex("0000000804d2162f"))
        return connection.recv(1) == b"N"


def _is_healthy(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that is put to the test.

    Attributes:
        make: makes one, not yet started.
        answers: whether there is one at a port.
        code: how a program makes one.
        first_file: what there is once its start has begun, below the directory for temporary files.
    """

    make: Callable[[], Server]
    answers: Callable[[int], bool]
    code: ServerCode
    first_file: str


KINDS = {
    "PostgreSQL": Kind(EmbeddedPostgres, _speaks_postgres, POSTGRES, "pool-bench-*/data/base"),
    "PgBouncer": Kind(
        lambda: PgBouncer(PgBouncerConfig(backend_port=1)), _speaks_postgres, PGBOUNCER, "pool-bench-*/*.ini"
    ),
    # Its log is made for the process that is to serve, before that is there.
    "SurrealDB": Kind(EmbeddedSurreal, _is_healthy, SURREAL, "pool-bench-*/server.log"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server in turn."""
    name: str = request.param
    if name == "PgBouncer":
        try:
            find_pgbouncer()
        except ServerStartError:
            missing_server("PgBouncer", "pgbouncer")
    return KINDS[name]


def test_two_at_once_have_a_port_and_a_directory_each_and_listen_on_loopback_only(kind: Kind) -> None:
    with kind.make() as one, kind.make() as other:
        assert one.port != other.port
        assert one.directory != other.directory
        for server in (one, other):
            assert kind.answers(server.port)
            listening = [
                connection.laddr
                for connection in psutil.Process(server.pid).net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            ]
            assert listening == [("127.0.0.1", server.port)]


def test_a_port_that_is_taken_is_replaced_by_another(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        free_port = host.free_port
        monkeypatch.setattr(kept, "free_port", lambda: next(ports, 0) or free_port())
        # A start that waited for the taken port would not be done in time.
        with kind.make() as server:
            assert server.port != taken.getsockname()[1]
            assert kind.answers(server.port)


def test_a_server_is_restarted_at_its_port_also_where_it_was_killed(kind: Kind) -> None:
    server = kind.make()
    with pytest.raises(RuntimeError, match="is not started"):
        server.restart()
    server.stop()
    with server:
        port, pid, directory = server.port, server.pid, server.directory
        with pytest.raises(RuntimeError, match="started already"):
            server.start()
        with socket.create_connection(("127.0.0.1", port)):
            server.restart()
        assert (server.port, server.directory) == (port, directory)
        assert server.pid != pid
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        assert server.port == port
        assert kind.answers(port)


# SurrealDB's is a Python of ours.
@root
@pytest.mark.parametrize("kind", ["PostgreSQL", "PgBouncer"], indirect=True)
def test_as_root_a_server_runs_as_nobody(kind: Kind) -> None:
    account = host.server_account()
    assert account is not None
    with kind.make() as server:
        assert psutil.Process(server.pid).uids() == (account.uid,) * 3
        assert psutil.Process(server.pid).gids() == (account.gid,) * 3
        assert server.directory.stat().st_uid == account.uid


@posix
def test_an_open_socket_does_not_keep_a_server_from_stopping(kind: Kind) -> None:
    with kind.make() as server:
        directory, pids = server.directory, [server.pid, server.kept.pid]
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /rpc HTTP/1.1\r\nHost: half a request")
            server.stop()
        assert_nothing_left(directory, pids)


@pytest.mark.parametrize(
    ("then", "bare", "status"),
    [
        ("pass", False, 0),
        ("raise ValueError('on purpose')", False, 1),
        ("sys.exit(5)", False, 5),
        ("os._exit(6)", False, 6),
        ("pass", True, 0),
        ("raise ValueError('on purpose')", True, 1),
    ],
)
def test_nothing_is_left_when_the_program_ends_by_itself(
    kind: Kind, start_program: StartProgram, then: str, bare: bool, status: int
) -> None:
    program = start_program(kind.code.program(then, bare=bare))
    assert program.process.wait(60) == status
    assert_nothing_left(program.directory, program.pids)


@posix
@pytest.mark.parametrize(
    ("number", "bare"),
    [
        (signal.SIGINT, False),
        (signal.SIGINT, True),
        # They end it where it stands, whatever block that is in.
        (signal.SIGTERM, False),
        (signal.SIGHUP, True),
        (signal.SIGKILL, False),
    ],
)
def test_nothing_is_left_when_a_signal_ends_the_program(
    kind: Kind, start_program: StartProgram, number: signal.Signals, bare: bool
) -> None:
    program = start_program(kind.code.program("signal.pause()", bare=bare))
    assert kind.answers(program.facts["port"])
    assert processes_of(program.directory)
    # To the whole group, as Ctrl-C and a closing terminal do.
    os.killpg(program.process.pid, number)
    assert program.process.wait(60) == -number
    assert_nothing_left(program.directory, program.pids)


@posix
def test_a_forked_process_that_lives_on_does_not_keep_a_server_alive(
    kind: Kind, start_program: StartProgram
) -> None:
    code = kind.code.program(
        "print('forked' if os.fork() else '', flush=True); signal.pause()",
        bare=False,
    )
    program = start_program(code)
    assert program.process.stdout is not None
    while program.process.stdout.readline() != b"forked\n":
        pass
    group = program.process.pid
    os.kill(group, signal.SIGKILL)
    program.process.wait(60)
    try:
        assert_nothing_left(program.directory, program.pids)
        # Raises ProcessLookupError if the forked process has gone as well.
        os.killpg(group, 0)
    finally:
        os.killpg(group, signal.SIGKILL)


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_a_signal_ends_the_program_while_the_server_starts(
    kind: Kind, number: signal.Signals
) -> None:
    def has_begun(place: Path) -> bool:
        return bool(list(place.glob(kind.first_file)))

    # A start may be over before one that is held up has sent the signal.
    assert any(
        nothing_is_left_of_a_start(kind.code.starting, environment(), number, has_begun) for _ in range(3)
    )
