"""A SurrealDB with zero set-up: the real engine of `surrealdb-embedded`, served by a process of its own.

The server is `gateway.py`. Its password travels in a file that only its account can read and that is
gone once it has been read; everybody on the machine can read the arguments of a process.
"""

import contextlib
import ipaddress
import json
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers.host import LOOPBACK
from pool_bench.servers.kept import Keeper, KeptServer, Readiness, StopStep
from pool_bench.servers.priority import give_way

_GATEWAY: Final = "pool_bench.servers.surreal.gateway"
_READY: Final = r"\[{pid}\] embedded SurrealDB engine \S+ listens on port \d+\n"
_VERSION: Final = re.compile(r"embedded SurrealDB engine (\S+) listens on port (\d+)\n")
_STOP_WAIT_S: Final = 6.0
_BIND: Final = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+):(?P<port>\d{1,5})")
_WATCH_EVERY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealConfig:
    """What SurrealDB to start, and how.

    Attributes:
        user: the root user; a store that has one already keeps it.
        password: of that user.
        path: the directory of a SurrealKV store, which stays; None keeps everything in memory.
        host: the address to listen on.
        port: its port; None is a free one.
        certificate: a PEM file with the certificate chain, for `wss://` and `https://`; None is without TLS.
        key: the PEM file of its key.
        sign_in_within_s: seconds until a connection is closed that has not signed in; 0 is never.
        allowed_hosts: host names, besides this machine's own and `localhost`, by which clients reach it.
        start_timeout_s: seconds to wait until the started server is ready.
        niceness: from 1 to 19, makes it give way to others on this machine; 0 leaves its priority alone.

    Raises:
        UsageError: a value cannot be right.
    """

    user: str = "root"
    password: str = field(default="root", repr=False)
    path: Path | None = None
    host: str = LOOPBACK
    port: int | None = None
    certificate: Path | None = None
    key: Path | None = None
    sign_in_within_s: float = 0.0
    allowed_hosts: tuple[str, ...] = ()
    start_timeout_s: float = 60.0
    niceness: int = 0

    def __post_init__(self) -> None:
        if not self.user:
            raise UsageError("user must not be empty")
        if not self.password:
            raise UsageError("password must not be empty")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("certificate and key go together")
        if self.port is not None and not 1 <= self.port <= 65_535:
            raise UsageError(f"port must be between 1 and 65535, not {self.port}")


class EmbeddedSurreal(KeptServer):
    """A SurrealDB server with the embedded engine, by default on a free port of 127.0.0.1.

    It runs as our own account, since it has to read our Python packages. However this process ends, the
    server is stopped; its data is gone unless a path was given.

    Args:
        config: what to start; None is the default of everything.
    """

    product = "SurrealDB"

    def __init__(self, config: SurrealConfig | None = None) -> None:
        super().__init__()
        self.config: Final = SurrealConfig() if config is None else config

    @property
    def user(self) -> str:
        """The root user's name."""
        return self.config.user

    @property
    def password(self) -> str:
        """The root user's password."""
        return self.config.password

    @property
    def url(self) -> str:
        """The server's URL for WebSockets, without `/rpc`, user or password."""
        return f"{'ws' if self.config.certificate is None else 'wss'}://{self._authority}"

    @property
    def http_url(self) -> str:
        """The server's URL for HTTP, without `/rpc`, user or password."""
        return f"{'http' if self.config.certificate is None else 'https'}://{self._authority}"

    def restart(self) -> None:
        """Stop and start the server on the same port; what was in memory is lost, and `pid` changes.

        Raises:
            ServerStartError: it did not start again; nothing is removed before `stop`.
            RuntimeError: the server is not started.
        """
        self.kept.stop()
        self._relaunch_on_same_port()

    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        import psutil

        try:
            return self.pid > 0 and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def _authority(self) -> str:
        # Whoever listens everywhere can be reached here.
        host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(self.config.host, self.config.host)  # noqa: S104
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _start(self) -> None:
        self._keeper = Keeper(self.product, drop_root=False)
        if self.config.port is None:
            self._launch_on_free_port()
        else:
            self.pid = self._launch(self.config.port)
            self.port = self.config.port
        started = _VERSION.search(self.log())
        assert started is not None  # noqa: S101 - what it waited for to be ready
        self.version = f"embedded SurrealDB engine {started[1]}"

    def _launch(self, port: int) -> int:
        config = self.config
        content = {
            "host": config.host,
            "port": port,
            "store": "mem://" if config.path is None else f"surrealkv://{config.path.absolute()}",
            "user": config.user,
            "password": config.password,
            "certificate": None if config.certificate is None else str(config.certificate.absolute()),
            "key": None if config.key is None else str(config.key.absolute()),
            "sign_in_within_s": config.sign_in_within_s,
            "allowed_hosts": config.allowed_hosts,
        }
        file = self.kept.write("gateway.json", json.dumps(content))
        try:
            pid = self.kept.start(
                [sys.executable, "-P", "-m", _GATEWAY, str(file)],
                ready=Readiness(file=self.kept.log, pattern=_READY),
                stop=[StopStep(_STOP_WAIT_S, signal="SIGTERM")],
                timeout_s=config.start_timeout_s,
                # Whatever this process can import it can, too.
                env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        finally:
            file.unlink(missing_ok=True)
        if config.niceness:
            give_way(pid, config.niceness)
        return pid


def serve(config: SurrealConfig, ready_callback: Callable[[EmbeddedSurreal], None]) -> None:
    """Serve in the foreground until SIGINT or SIGTERM; to be called in the main thread.

    Args:
        config: what to serve, its port included.
        ready_callback: called once with the server when it answers.

    Raises:
        ServerStartError: it did not start, or ended without being asked to.
        UsageError: a value cannot be right.
    """
    if config.port is None:
        raise UsageError("a server that others are to find has a port")
    _check_free(config.host, config.port)
    with _stop_signals() as stop, EmbeddedSurreal(config) as server:
        ready_callback(server)
        while not select.select([stop], [], [], _WATCH_EVERY_S)[0]:
            if not server.is_running():
                raise ServerStartError(f"{server.product} ended by itself\n  {server.log().strip()}")


def parse_bind(bind: str) -> tuple[str, int]:
    """Address and port of `--bind`; the brackets of an IPv6 address are taken off.

    Raises:
        UsageError: it is not of the form ADDRESS:PORT.
    """
    parts = _BIND.fullmatch(bind)
    if parts is None or not 1 <= int(parts["port"]) <= 65_535:
        raise UsageError(f"--bind must be ADDRESS:PORT, such as 127.0.0.1:8000, not {bind!r}")
    host = parts["host"].strip("[]")
    try:
        socket.getaddrinfo(host, int(parts["port"]), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--bind: {host!r} is not an address") from None
    return host, int(parts["port"])


def is_loopback(host: str) -> bool:
    """Whether whoever listens there can be reached from this machine alone.

    Raises:
        UsageError: it is no address.
    """
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(f"--bind: {host!r} is not an address") from None
    return all(
        ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in addresses
    )


def _check_free(host: str, port: int) -> None:
    """Make sure that one can listen there, so that nothing is started for nothing.

    Raises:
        ServerStartError: one cannot.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _type, _protocol, _name, address in addresses:
        try:
            # As the server does it: with SO_REUSEADDR, and IPv6 apart from IPv4.
            with socket.create_server((str(address[0]), port), family=family):
                pass
        except OSError as error:
            reason = str(error) if error.errno is None else os.strerror(error.errno).lower()
            raise ServerStartError(f"cannot listen on {host} port {port}: {reason}") from None


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that SIGINT and SIGTERM make readable instead of what they did before.

    An event would not do: a handler that sets what its own thread is about to wait for may wait for itself.
    """
    signalled, tell = socket.socketpair()
    tell.setblocking(False)

    def handle(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            tell.send(b"!")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signalled
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signalled.close()
        tell.close()
