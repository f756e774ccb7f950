"""Programs of their own that start a server, to see what of it outlives them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pool_bench

# Prints what it started, then does `then`.
_PROGRAM = """
import json, os, signal, sys, time
SETUP

def started(server):
    pids = [server.pid, server.kept.pid]
    facts = {"directory": str(server.directory), "pids": pids, "port": server.port, **FACTS}
    print(json.dumps(facts), flush=True)

def leave():
    THEN

if BARE:
    server = MAKE
    server.start()
    started(server)
    leave()
else:
    with MAKE as server:
        started(server)
        leave()
"""
# Whoever is slow to send the signal finds it started, and is told so.
_STARTING = """
import signal, sys
from pathlib import Path
SETUP

server = MAKE
server.start()
Path(sys.argv[1]).touch()
signal.pause()
"""


@dataclass(frozen=True, slots=True)
class ServerCode:
    """How a program makes a server.

    Attributes:
        setup: imports, and whatever else comes first.
        make: an expression for the server, not yet started.
        facts: an expression for a dict of what else is to be known of `server`.
    """

    setup: str
    make: str
    facts: str = "{}"

    def _filled(self, program: str) -> str:
        return program.replace("SETUP", self.setup).replace("MAKE", self.make).replace("FACTS", self.facts)

    def program(self, then: str, *, bare: bool) -> str:
        """Starts it, and does `then`: within a `with` block of it, or with none where it is `bare`."""
        return self._filled(_PROGRAM).replace("THEN", then).replace("BARE", str(bare))

    @property
    def starting(self) -> str:
        """Starts it, and makes the file that the argument names."""
        return self._filled(_STARTING)


POSTGRES = ServerCode(
    setup="""
import socket
from pool_bench.servers.postgres import EmbeddedPostgres

def answer(server):
    # An SSLRequest: a server that is alive answers it with one letter.
    with socket.create_connection((server.host, server.port), 30) as connection:
        connection.sendall(bytes.fromhex("0000000804d2162f"))
        return connection.recv(1).decode()
""",
    make="EmbeddedPostgres()",
    facts="""{
        "uid": os.geteuid(), "exe_below": str(server._binaries.bin_dir), "answered": answer(server)
    }""",
)
PGBOUNCER = ServerCode(
    "from pool_bench.servers.pgbouncer import PgBouncer, PgBouncerConfig",
    "PgBouncer(PgBouncerConfig(backend_port=1))",
)
SURREAL = ServerCode("from pool_bench.servers.surreal.server import EmbeddedSurreal", "EmbeddedSurreal()")


def environment(*first: Path) -> dict[str, str]:
    """Our environment, with Python looking for packages in the given places, this checkout, and as before."""
    places = [*map(str, first), str(Path(pool_bench.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    paths = os.pathsep.join(place for place in places if place)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class Program:
    """A process of its own that has started a server, and what it says of it."""

    process: "subprocess.Popen[bytes]"
    facts: dict[str, Any]

    @property
    def directory(self) -> Path:
        """The server's."""
        return Path(self.facts["directory"])

    @property
    def pids(self) -> list[int]:
        """The server's process, and its keeper's."""
        return list(self.facts["pids"])


StartProgram = Callable[..., Program]


@pytest.fixture
def start_program() -> Iterator[StartProgram]:
    """Start a Python on some code that prints facts once its server runs; further options are Popen's."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        code: str, *, python: str = sys.executable, pythonpath: tuple[Path, ...] = (), **options: Any
    ) -> Program:
        process = subprocess.Popen(
            [python, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(*pythonpath),
            # A group of its own, to be sent signals the way a terminal does it.
            start_new_session=True,
            **options,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        return Program(process, json.loads(line))

    yield start
    for process in started:
        process.kill()
        process.communicate()
