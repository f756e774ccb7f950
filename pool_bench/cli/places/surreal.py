"""Which SurrealDB a command means: `--url`, else SURREAL_URL, else an embedded one."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from pool_bench.cli.advice import SURREAL as ADVICE
from pool_bench.cli.options.rounds import OPTION, SURREAL, Variant, read_variants
from pool_bench.cli.options.surreal import SurrealOptions
from pool_bench.cli.places.base import Config, Site, Transport
from pool_bench.cli.status import entered
from pool_bench.drivers.base import DriverName
from pool_bench.errors import ConnectError, FailureKind, Phase, PoolBenchError, UsageError
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.priority import GIVE_WAY
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.postgres import PostgresTarget
from pool_bench.targets.surreal import URL_VARIABLE, AuthMode, SurrealTarget, surreal_target
from pool_bench.watch.surreal.process import is_here

if TYPE_CHECKING:
    from pool_bench.watch.watcher import Watcher

_CONNECTING_SHARE: Final = 0.9
# What the embedded server is used with where nothing was named.
EMBEDDED_NAMESPACE: Final = "bench"
EMBEDDED_DATABASE: Final = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealPlace:
    """Where the targets come from.

    Attributes:
        targets: what the user named; empty for the embedded server.
        origin: says so in words.
        options: what they say of the server.
    """

    targets: tuple[SurrealTarget, ...]
    origin: str
    options: SurrealOptions

    @property
    def is_embedded(self) -> bool:
        """True where no server was named."""
        return not self.targets

    @property
    def is_here(self) -> bool:
        """Whether all targets are on this machine."""
        return all(map(is_here, self.targets))

    @contextmanager
    def serve(
        self,
        *,
        tool: str,
        connections: int,
        ending: int = 0,
        log_setup: bool = False,
    ) -> "Iterator[SurrealSite]":
        """The place with its server; see `Place.serve`."""
        options = self.options
        if not self.is_embedded:
            yield SurrealSite(targets=self.targets, origin=self.origin, auth=options.auth)
            return
        embedded = EmbeddedSurreal(
            SurrealConfig(
                user=options.user or "root",
                password=options.password or secrets.token_urlsafe(12),
                niceness=GIVE_WAY,
            )
        )
        with entered("starting an embedded SurrealDB engine", embedded) as server:
            target = embedded_surreal_target(server, options)
            yield SurrealSite(targets=(target,), origin=self.origin, auth=options.auth, pid=server.pid)

    def check_driver(self, driver: DriverName, *, holding: bool = False) -> None:
        """Make sure that `driver` does what the options say.

        Args:
            holding: whether it is to hold connections.

        Raises:
            UsageError: it does not.
        """
        if driver != "surrealdb":
            return
        if self.options.auth != "signin":
            raise UsageError(f"--auth {self.options.auth} needs --driver surreal")
        for target in self.targets if holding else ():
            from pool_bench.drivers.surreal.client import check_holdable

            check_holdable(target)

    def read_variants(self, texts: Sequence[str], spec: ConnectSpec) -> tuple[Variant, ...]:
        """The settings that `--interleave` measures in turn with `spec`.

        Raises:
            UsageError: one is malformed, or cannot be.
        """
        variants = read_variants(texts, lambda url: read_url(self.options, url), SURREAL)
        for variant in variants:
            changed = variant.apply(spec)
            if changed.driver == "surrealdb" and changed.auth != "signin":
                raise UsageError(f"{OPTION} {variant.name}: auth {changed.auth} needs driver surreal")
            for target in changed.surreal_targets if changed.auth != "none" else ():
                target.credentials()
        self.check_ca_file(target for variant in variants for target in variant.apply(spec).surreal_targets)
        return variants

    def check_ca_file(self, others: Iterable[SurrealTarget] = ()) -> None:
        """Make sure that somebody's certificate is checked with `--ca-file`.

        Args:
            others: targets of other settings.

        Raises:
            UsageError: there is no TLS anywhere.
        """
        if self.options.ca_file is None or any(target.is_secure for target in (*self.targets, *others)):
            return
        missing = "the embedded server has no TLS"
        if not self.is_embedded:
            schemes = dict.fromkeys(f"{target.scheme}://" for target in self.targets)
            missing = f"no TLS with {' and '.join(schemes)}"
        raise UsageError(f"--ca-file needs a wss:// or https:// URL: {missing}")

    def check_pool(self) -> None:
        """Make sure that pools can be put under load there.

        Raises:
            UsageError: they cannot.
        """
        if len(self.targets) > 1:
            raise UsageError("--url is given more than once; a pool has one target")
        if self.options.auth == "token":
            raise UsageError("--auth token: the clients that are lent sign in with user and password")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealSite(Site):
    """A place whose server is there; see `Site`.

    Attributes:
        targets: what to connect to.
        origin: as of the place.
        auth: how connections sign in.
        pid: the embedded server's process, None where a server was named.
    """

    advice: ClassVar = ADVICE
    # What is only silent is measured all the same.
    hopeless: ClassVar = frozenset(FailureKind) - {FailureKind.TIMEOUT}
    steps: ClassVar = (
        *(Phase.RESOLVE, Phase.TCP, Phase.TLS, Phase.UPGRADE, Phase.SIGNIN, Phase.USE),
        *(Phase.QUERY, Phase.CLOSE),
    )

    targets: tuple[SurrealTarget, ...]
    origin: str
    auth: AuthMode
    pid: int | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether the server is ours."""
        return self.pid is not None

    def config(self) -> Config:
        """What a result file's `config` says of the place."""
        first = self.targets[0]
        names: Config = {"namespace": first.namespace, "database": first.database}
        return {"target_from": self.origin, "auth": self.auth} | names

    def words(self, index: int) -> str:
        """One target in words, with namespace and database."""
        target = self.targets[index]
        names = (("namespace", target.namespace), ("database", target.database))
        selected = "".join(f", {what} {name}" for what, name in names if name is not None)
        return f"{target}{selected}, auth {self.auth}"

    async def ask(self, index: int, limit_s: float) -> dict[str, str]:
        """What the server says it is; see `Site.ask`. Our own has namespace and database made."""
        import asyncio

        from pool_bench.drivers.surreal.preflight import inspect

        target = self.targets[index]
        # A little less for connecting, as only the driver knows the step at which it waited in vain.
        look = inspect(
            target, self.auth, create=self.is_embedded, connect_timeout_s=limit_s * _CONNECTING_SHARE
        )
        try:
            async with asyncio.timeout(limit_s):
                seen = await look
        except TimeoutError:
            message = f"no answer after {limit_s:g} s"
            raise ConnectError(FailureKind.TIMEOUT, Phase.CONNECT, message) from None
        if seen.missing is not None:
            raise PoolBenchError(f"{target}: {seen.missing}")
        return {"product": seen.info.product, "version": seen.info.version}

    def probe(self, index: int) -> ConnectSpec:
        """A connection that runs `RETURN 1`."""
        return ConnectSpec(targets=(self.targets[index],), driver="surreal", auth=self.auth, query="RETURN 1")

    def watcher(
        self,
        wanted: int,
        *,
        admin: PostgresTarget | None = None,
        find_console: bool = True,
    ) -> "Watcher":
        """A watcher of the first target's server; see `Site.watcher`."""
        from pool_bench.watch.watcher import watch_surreal

        return watch_surreal(self.targets, self.pid)

    def transport(self, greeting: Mapping[str, str]) -> Transport:
        """A WebSocket, or HTTP."""
        return Transport(protocol="ws" if self.targets[0].is_websocket else "http")


def find_surreal(options: SurrealOptions) -> SurrealPlace:
    """The targets that `options` names, or the environment.

    Raises:
        UsageError: a URL is malformed, or it lacks what signing in takes.
    """
    _refuse_empty(options)
    urls: tuple[str | None, ...] = options.urls
    origin = "--url"
    if not urls:
        if not os.environ.get(URL_VARIABLE):
            if options.level != "root":
                raise UsageError("--level needs --url: the embedded server has its root user only")
            if options.database is not None and options.namespace is None:
                raise UsageError("--database needs --namespace")
            if options.password == "":
                raise UsageError("--pass must not be empty: the embedded server takes no empty password")
            return SurrealPlace(targets=(), origin="embedded", options=options)
        urls, origin = (None,), URL_VARIABLE
    targets = tuple(read_url(options, url) for url in urls)
    for target in targets:
        if options.auth != "none":
            target.credentials()
    return SurrealPlace(targets=targets, origin=origin, options=options)


def _refuse_empty(options: SurrealOptions) -> None:
    """Make sure that no name is empty, before a server is asked for what has none.

    Raises:
        UsageError: one is.
    """
    names = {
        "--user": options.user,
        "--namespace": options.namespace,
        "--database": options.database,
        "--ca-file": options.ca_file,
    }
    for option, name in names.items():
        if name == "":
            raise UsageError(f"{option} must not be empty")


def read_url(options: SurrealOptions, url: str | None) -> SurrealTarget:
    """A URL with what the options and the environment add to it; None takes the environment's.

    Raises:
        UsageError: it is malformed.
    """
    return surreal_target(
        url,
        namespace=options.namespace,
        database=options.database,
        user=options.user,
        password=options.password,
        level=options.level,
        ca_file=options.ca_file,
        verify=options.verify,
        environ=os.environ,
    )


def embedded_surreal_target(server: EmbeddedSurreal, options: SurrealOptions) -> SurrealTarget:
    """The target that the embedded server is; the environment has no say in it."""
    named = options.namespace is not None
    return surreal_target(
        server.url,
        user=server.user,
        password=server.password,
        namespace=options.namespace if named else EMBEDDED_NAMESPACE,
        database=options.database if named else EMBEDDED_DATABASE,
        environ={},
    )
