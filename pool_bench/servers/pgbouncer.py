"""A PgBouncer for one run, in front of any PostgreSQL; for tests and for the project's own benchmarks.

The program comes from the system's package `pgbouncer`: there is no wheel of it.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers.host import LOOPBACK, fits_socket
from pool_bench.servers.kept import Keeper, KeptServer, Readiness, StopStep

# Not "any": it makes everybody who connects an administrator.
BouncerAuth = Literal["trust", "plain", "md5", "scram-sha-256", "cert", "hba"]

_VERSION: Final = re.compile(r"PgBouncer (\d+)\.(\d+)(\S*)")
_COMMAND_TIMEOUT_S: Final = 30.0
_STOP_WAIT_S: Final = 5.0
_OUR_SETTINGS: Final = frozenset(
    {"listen_addr", "listen_port", "unix_socket_dir", "auth_type", "auth_file", "logfile", "pidfile", "user"}
    | {"max_client_conn", "default_pool_size"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PgBouncerConfig:
    """What PgBouncer to start, and in front of what.

    Attributes:
        backend_port: the server's port.
        backend_host: the server's address, or the directory of its Unix socket.
        users: passwords by user name, for clients and for the server alike; may be empty with `trust`.
        auth_type: how clients must authenticate.
        max_client_conn: clients that it accepts.
        default_pool_size: server connections for each user and database.
        settings: further settings of the section [pgbouncer], by name (`pool_mode`).
        start_timeout_s: seconds to wait until it listens.

    Raises:
        UsageError: a value cannot be right.
    """

    backend_port: int
    backend_host: str = LOOPBACK
    users: Mapping[str, str] = field(default_factory=lambda: {"bench": ""}, repr=False)
    auth_type: BouncerAuth = "trust"
    max_client_conn: int = 100
    default_pool_size: int = 20
    settings: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if name in _OUR_SETTINGS:
                raise UsageError(f"settings: {name} is set by PgBouncer's own start")
            if "\n" in name + value or "=" in name:
                raise UsageError(f"settings: {name!r} does not fit on one line of an ini file")
        if any("\n" in name + password for name, password in self.users.items()):
            raise UsageError("users: names and passwords must be single lines")


class PgBouncer(KeptServer):
    """PgBouncer on a free port of 127.0.0.1 and on a Unix socket, in a directory of its own.

    As root it runs as `nobody`. All its users may look at its console (database `pgbouncer`); where they
    need a password, they may give it orders there as well. However this process ends, it is stopped and its
    directory removed.
    """

    product = "PgBouncer"

    def __init__(self, config: PgBouncerConfig) -> None:
        super().__init__()
        self.config: Final = config
        self._program = ""
        self._stop_signal = "SIGTERM"

    @property
    def url(self) -> str:
        """A URL to the first user's `postgres` database over TCP, without a password."""
        user = next(iter(self.config.users), "bench")
        return f"postgresql://{user}@{self.host}:{self.port}/postgres?sslmode=disable"

    def restart(self) -> None:
        """End all connections, stop, and start again on the same port; `pid` changes.

        Raises:
            ServerStartError: it did not start again; nothing is removed before `stop`.
            RuntimeError: it is not started.
        """
        self.kept.stop()
        self._relaunch_on_same_port()

    def _start(self) -> None:
        self._program = find_pgbouncer()
        keeper = self._keeper = Keeper(self.product, longest_name=".s.PGSQL.65535")
        if fits_socket(keeper.directory / ".s.PGSQL.65535"):
            self.socket_dir = keeper.directory
        version = _VERSION.search(keeper.run([self._program, "--version"], timeout_s=_COMMAND_TIMEOUT_S))
        if version is not None:
            self.version = "".join((version[1], ".", version[2], version[3]))
            # From 1.23 on SIGTERM waits until all clients have left and SIGQUIT leaves at once; before,
            # SIGTERM leaves at once.
            if (int(version[1]), int(version[2])) >= (1, 23):
                self._stop_signal = "SIGQUIT"
        keeper.write("userlist.txt", _userlist(self.config.users))
        self._launch_on_free_port()

    def _launch(self, port: int) -> int:
        ini = self.kept.write("pgbouncer.ini", self._ini(port))
        address = re.escape(f"{self.host}:{port}")
        return self.kept.start(
            [self._program, str(ini)],
            # It carries on when it could listen on the Unix socket only.
            ready=Readiness(
                file=self.kept.log,
                pattern=rf"\[{{pid}}\] LOG listening on {address}\b",
                failed=rf"\[{{pid}}\] WARNING cannot listen on {address}\b",
            ),
            stop=[StopStep(_STOP_WAIT_S, signal=self._stop_signal)],
            timeout_s=self.config.start_timeout_s,
        )

    def _ini(self, port: int) -> str:
        config = self.config
        settings = {
            "ignore_startup_parameters": "extra_float_digits,options",
            **({} if "admin_users" in config.settings else self._console_users()),
            **config.settings,
            "listen_addr": self.host,
            "listen_port": str(port),
            "unix_socket_dir": "" if self.socket_dir is None else str(self.socket_dir),
            "auth_type": config.auth_type,
            "auth_file": str(self.directory / "userlist.txt"),
            "max_client_conn": str(config.max_client_conn),
            "default_pool_size": str(config.default_pool_size),
        }
        lines = [
            "[databases]",
            f"* = host={config.backend_host} port={config.backend_port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        return "\n".join(lines) + "\n"

    def _console_users(self) -> dict[str, str]:
        """Who may use the console: with `trust` everybody on the machine can come as any user."""
        users = ",".join(self.config.users)
        return {"stats_users" if self.config.auth_type == "trust" else "admin_users": users}


def find_pgbouncer() -> str:
    """The path of the system's `pgbouncer`, which Debian keeps where only root's PATH leads.

    Raises:
        ServerStartError: it is not installed.
    """
    program = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if program is None:
        raise ServerStartError(
            "PgBouncer did not start: there is no pgbouncer on PATH; install the package pgbouncer, "
            "for example with apt-get install pgbouncer"
        )
    return program


def _userlist(users: Mapping[str, str]) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    return "".join(f"{quote(name)} {quote(password)}\n" for name, password in users.items())
