"""Which targets a command means: URLs, else the environment, else an embedded server."""

import ipaddress
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pool_bench.cli.advice import POSTGRES
from pool_bench.cli.places.base import Config, Restart, Site, Transport
from pool_bench.cli.preflight import run_briefly
from pool_bench.cli.status import entered
from pool_bench.errors import FailureKind, Phase, UsageError
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.servers.priority import GIVE_WAY
from pool_bench.targets.machine import read_postgres_url
from pool_bench.targets.postgres import NAMING_VARIABLES, Host, PostgresTarget, parse_target
from pool_bench.watch.postgres.setup_log import SETTINGS

if TYPE_CHECKING:
    from pool_bench.cli.walls import KnownLimits
    from pool_bench.load.spec import ConnectSpec
    from pool_bench.watch.watcher import Watcher

# Connections to the embedded server beyond those the run holds: reserved slots, a look from outside,
# and backends of drivers that do not wait until the server has closed.
_SPARE_CONNECTIONS: Final = 50
_LOOK_TIMEOUT_S: Final = 5.0
# For a look at what the target does with sessions.
_SHARING_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """Where the targets come from.

    Attributes:
        targets: what the user named; empty for the embedded server.
        origin: says so in words.
    """

    targets: tuple[PostgresTarget, ...]
    origin: str

    @property
    def is_embedded(self) -> bool:
        """True where no server was named."""
        return not self.targets

    @property
    def is_here(self) -> bool:
        """Whether all targets are on this machine."""
        return all(_is_here(host) for target in self.targets for host in target.hosts)

    @contextmanager
    def serve(
        self, *, tool: str, connections: int, ending: int = 0, log_setup: bool = False
    ) -> "Iterator[PostgresSite]":
        """The place with its server; see `Place.serve`."""
        if not self.is_embedded:
            yield PostgresSite(targets=self.targets, origin=self.origin)
            return
        size = max(100, connections + ending + _SPARE_CONNECTIONS)
        settings = SETTINGS if log_setup else {}
        embedded = EmbeddedPostgres(
            PostgresConfig(max_connections=size, settings=settings, niceness=GIVE_WAY)
        )
        with entered("starting an embedded PostgreSQL", embedded) as server:
            yield PostgresSite(
                targets=(embedded_target(server, application_name=tool),),
                origin=self.origin,
                server=server,
                setup_log=server.kept.log if log_setup else None,
            )


def _is_here(host: Host) -> bool:
    name = host.address or host.name
    # A path is a Unix socket's directory, `@` begins an abstract one.
    if name.startswith(("/", "@")) or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSite(Site):
    """A place whose server is there; see `Site`.

    Attributes:
        targets: what to connect to.
        origin: as of the place.
        server: the embedded server, None where one was named.
        setup_log: its log, where it says how long it took to set connections up.
    """

    advice: ClassVar = POSTGRES
    # What is full, starting up, slow or silent is a state of a server, and a reason to measure it.
    hopeless: ClassVar = frozenset(
        (FailureKind.REFUSED, FailureKind.DNS, FailureKind.AUTH, FailureKind.NO_DATABASE, FailureKind.TLS)
    )
    steps: ClassVar = (
        *(Phase.RESOLVE, Phase.TCP, Phase.TLS, Phase.AUTH, Phase.READY),
        *(Phase.QUERY, Phase.CLOSE),
    )

    targets: tuple[PostgresTarget, ...]
    origin: str
    server: EmbeddedPostgres | None = None
    setup_log: Path | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether the server is ours."""
        return self.server is not None

    @property
    def restart(self) -> Restart | None:
        """Restarts the embedded server."""
        server = self.server
        return None if server is None else lambda stopped: server.restart(stopped=stopped)

    def config(self) -> Config:
        """What a result file's `config` says of the place."""
        return {"target_from": self.origin}

    def words(self, index: int) -> str:
        """One target in words."""
        return str(self.targets[index])

    async def ask(self, index: int, limit_s: float) -> dict[str, str]:
        """What the server says it is; see `Site.ask`."""
        import asyncio

        from pool_bench.drivers.wire.driver import ask_server
        from pool_bench.watch.postgres.route import look_between

        target = self.targets[index]
        info = await ask_server(target, connect_timeout_s=limit_s)
        greeting = {"product": info.product, "version": info.version}
        if info.tls:
            greeting["tls"] = info.tls
        if not self.is_embedded:
            between = await asyncio.to_thread(look_between, target, limit_s)
            if between.words:
                greeting["through"] = between.words
        return greeting

    def probe(self, index: int) -> "ConnectSpec":
        """A connection that runs `SELECT 1`."""
        from pool_bench.load.spec import ConnectSpec

        return ConnectSpec(targets=(self.targets[index],), query="SELECT 1")

    def watcher(
        self, wanted: int, *, admin: PostgresTarget | None = None, find_console: bool = True
    ) -> "Watcher":
        """A watcher of the first target's server; see `Site.watcher`."""
        from pool_bench.watch.watcher import watch_postgres

        return watch_postgres(
            self.targets,
            admin,
            None if self.server is None else self.server.pid,
            setup_log=self.setup_log,
            find_console=find_console,
            wanted=wanted,
        )

    def guard(
        self,
        shares: Sequence[int],
        *,
        reserve: bool,
        watched: bool,
        admin: PostgresTarget | None,
        timeout_s: float,
    ) -> "tuple[tuple[int, ...], KnownLimits]":
        """The connections that may be held, and what the servers say of their limits; see `Site.guard`."""
        from pool_bench.cli.reserve import look_at_servers, respect_reserved_slots
        from pool_bench.cli.walls import KnownLimits

        if not (reserve or watched):
            return tuple(shares), KnownLimits()
        slots = look_at_servers(self.targets, min(timeout_s, _LOOK_TIMEOUT_S))
        if reserve:
            shares = respect_reserved_slots(self.targets, shares, slots, watched=watched)
        first = self.targets[0]
        return tuple(shares), KnownLimits.of(first, slots[first.hosts], admin)

    def shares_sessions(self, timeout_s: float) -> bool:
        """Whether each transaction may meet another session; our own server has nothing before it."""
        from pool_bench.watch.postgres.sharing import shares_sessions

        return not self.is_embedded and bool(
            run_briefly(shares_sessions(self.targets[0], min(_SHARING_TIMEOUT_S, timeout_s)))
        )

    def transport(self, greeting: Mapping[str, str]) -> Transport:
        """With TLS where that is demanded, or the first connection had it."""
        sslmode = self.targets[0].sslmode
        if sslmode not in ("require", "verify-ca", "verify-full"):
            sslmode = "require" if "tls" in greeting else "disable"
        return Transport(sslmode=sslmode)


def find_targets(urls: tuple[str, ...], *, application_name: str) -> PostgresPlace:
    """The targets named by `--url`, else by DATABASE_URL, else by PGHOST, PGHOSTADDR, PGPORT or PGSERVICE.

    Raises:
        UsageError: a URL is malformed.
    """
    env = os.environ
    if urls:
        origin = "--url"
    elif env.get("DATABASE_URL"):
        urls, origin = (env["DATABASE_URL"],), "DATABASE_URL"
    elif any(env.get(name) for name in NAMING_VARIABLES):
        urls, origin = ("postgresql://",), "PG* variables"
    else:
        return PostgresPlace((), "embedded")
    try:
        return PostgresPlace(tuple(read_url(url, env, application_name) for url in urls), origin)
    except UsageError as error:
        raise UsageError(f"{origin}: {error}") from None


def find_console(url: str, *, application_name: str) -> PostgresTarget:
    """PgBouncer's administration console, as `--pgbouncer-admin` names it.

    Raises:
        UsageError: the URL is malformed.
    """
    try:
        return read_url(url, os.environ, application_name)
    except UsageError as error:
        raise UsageError(f"--pgbouncer-admin: {error}") from None


def read_url(url: str, env: Mapping[str, str], application_name: str) -> PostgresTarget:
    """Read one URL with what this machine adds to it: PG* variables, user name, password file.

    Raises:
        UsageError: the URL is malformed.
    """
    return read_postgres_url(url, {"PGAPPNAME": application_name, **env})


def embedded_target(server: EmbeddedPostgres, *, application_name: str) -> PostgresTarget:
    """The target that the embedded server is; the environment has no say in it."""
    return parse_target(server.url, env={"PGAPPNAME": application_name}, default_user="postgres")
