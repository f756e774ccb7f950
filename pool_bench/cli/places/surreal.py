"""Which SurrealDB a command means: `--url`, else SURREAL_URL, else an embedded one."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from pool_bench.cli.options.rounds import OPTION, SURREAL, Variant, read_variants
from pool_bench.cli.options.surreal import SurrealOptions
from pool_bench.cli.session import notify
from pool_bench.cli.status import busy, entered
from pool_bench.drivers.base import DriverName
from pool_bench.errors import ConnectError, FailureKind, PoolBenchError, UsageError
from pool_bench.load.run import StopSwitch
from pool_bench.load.spec import ConnectSpec
from pool_bench.servers.priority import GIVE_WAY
from pool_bench.servers.surreal.server import EmbeddedSurreal, SurrealConfig
from pool_bench.targets.surreal import URL_VARIABLE, AuthMode, SurrealTarget, surreal_target

_PROBE_TIMEOUT_S: Final = 4.5
# What the embedded server is used with where nothing was named.
EMBEDDED_NAMESPACE: Final = "bench"
EMBEDDED_DATABASE: Final = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealPlace:
    """Where the targets come from.

    Attributes:
        targets: what the user named; empty for the embedded server.
        origin: says so in words.
        server: what the options say.
    """

    targets: tuple[SurrealTarget, ...]
    origin: str
    server: SurrealOptions

    @property
    def is_embedded(self) -> bool:
        """True where no server was named."""
        return not self.targets

    def check_driver(self, driver: DriverName, *, holding: bool = False) -> None:
        """Make sure that `driver` does what the options say.

        Args:
            holding: whether it is to hold connections.

        Raises:
            UsageError: it does not.
        """
        if driver != "surrealdb":
            return
        if self.server.auth != "signin":
            raise UsageError(f"--auth {self.server.auth} needs --driver surreal")
        for target in self.targets if holding else ():
            from pool_bench.drivers.surreal.held_client import check_holdable

            check_holdable(target)

    def read_variants(self, texts: Sequence[str], spec: ConnectSpec) -> tuple[Variant, ...]:
        """The settings that `--interleave` measures in turn with `spec`.

        Raises:
            UsageError: one is malformed, or cannot be.
        """
        variants = read_variants(texts, lambda url: read_url(self.server, url), SURREAL)
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
        if self.server.ca_file is None or any(target.is_secure for target in (*self.targets, *others)):
            return
        said = "the embedded server has no TLS"
        if not self.is_embedded:
            schemes = dict.fromkeys(f"{target.scheme}://" for target in self.targets)
            said = f"there is no TLS with {' and '.join(schemes)}"
        raise UsageError(f"--ca-file needs a wss:// or https:// URL: {said}")

    def check_pool(self) -> None:
        """Make sure that pools can be put under load there.

        Raises:
            UsageError: they cannot.
        """
        if len(self.targets) > 1:
            raise UsageError("--url: pools are put under load at one server")
        if self.server.auth == "token":
            raise UsageError("--auth token: the clients that are lent sign in with user and password")


def find_surreal(server: SurrealOptions) -> SurrealPlace:
    """The targets that `server` names, or the environment.

    Raises:
        UsageError: a URL is malformed, or it lacks what signing in takes.
    """
    _refuse_empty(server)
    urls: tuple[str | None, ...] = server.urls
    origin = "--url"
    if not urls:
        if not os.environ.get(URL_VARIABLE):
            if server.level != "root":
                raise UsageError("--level needs --url: the embedded server has its root user only")
            if server.database is not None and server.namespace is None:
                raise UsageError("--database needs --namespace")
            if server.password == "":
                raise UsageError("--pass must not be empty: the embedded server takes no empty password")
            return SurrealPlace(targets=(), origin="embedded", server=server)
        urls, origin = (None,), URL_VARIABLE
    targets = tuple(read_url(server, url) for url in urls)
    for target in targets:
        if server.auth != "none":
            target.credentials()
    return SurrealPlace(targets=targets, origin=origin, server=server)


def _refuse_empty(server: SurrealOptions) -> None:
    """Make sure that no name is empty, before a server is asked for what has none.

    Raises:
        UsageError: one is.
    """
    names = {
        "--user": server.user,
        "--namespace": server.namespace,
        "--database": server.database,
        "--ca-file": server.ca_file,
    }
    for option, name in names.items():
        if name == "":
            raise UsageError(f"{option} must not be empty")


def read_url(server: SurrealOptions, url: str | None) -> SurrealTarget:
    """A URL with what the options and the environment add to it; None takes the environment's.

    Raises:
        UsageError: it is malformed.
    """
    return surreal_target(
        url,
        namespace=server.namespace,
        database=server.database,
        user=server.user,
        password=server.password,
        level=server.level,
        ca_file=server.ca_file,
        verify=server.verify,
        environ=os.environ,
    )


def serve_surreal(place: SurrealPlace) -> "AbstractContextManager[EmbeddedSurreal | None]":
    """The embedded server where no target was named; else nothing.

    Raises:
        ServerStartError: on entry, the server does not start.
    """
    if not place.is_embedded:
        return nullcontext()
    server = place.server
    embedded = EmbeddedSurreal(
        SurrealConfig(
            user=server.user or "root",
            password=server.password or secrets.token_urlsafe(12),
            niceness=GIVE_WAY,
        )
    )
    return entered("starting an embedded SurrealDB engine", embedded)


def surreal_targets_of(place: SurrealPlace, server: EmbeddedSurreal | None) -> tuple[SurrealTarget, ...]:
    """The targets of `place`, or what `serve_surreal` has started for it."""
    if server is None:
        return place.targets
    return (embedded_surreal_target(server, place.server),)


def embedded_surreal_target(server: EmbeddedSurreal, said: SurrealOptions) -> SurrealTarget:
    """The target that the embedded server is; the environment has no say in it."""
    named = said.namespace is not None
    return surreal_target(
        server.url,
        user=server.user,
        password=server.password,
        namespace=said.namespace if named else EMBEDDED_NAMESPACE,
        database=said.database if named else EMBEDDED_DATABASE,
        environ={},
    )


def ask_surrealdb(
    target: SurrealTarget,
    auth: AuthMode,
    stop: StopSwitch,
    *,
    timeout_s: float,
    embedded: bool,
    keep_going: bool = False,
) -> dict[str, str]:
    """Say on stderr what the server says it is.

    Args:
        stop: lets the user give up waiting for the answer.
        timeout_s: bound on the answer, seconds; less than five at most are waited.
        embedded: whether it is ours; its namespace and database are then made.
        keep_going: measure also what cannot be measured as it was named.

    Returns:
        Product and version, {} where it gave no answer in time, which is measured all the same.

    Raises:
        PoolBenchError: it cannot be used like this: nobody is there, or we may not come in.
    """
    import asyncio

    from pool_bench.cli.preflight import run_briefly
    from pool_bench.drivers.surreal.preflight import Preflight, inspect

    async def ask_it() -> Preflight:
        question = asyncio.ensure_future(inspect(target, auth, create=embedded))
        with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
            asyncio.get_running_loop().add_reader(stop.fileno(), question.cancel)
        async with asyncio.timeout(min(_PROBE_TIMEOUT_S, timeout_s)):
            return await question

    try:
        with busy(f"connecting to {target}", only_terminals=True):
            look = run_briefly(ask_it())
    except ConnectError as error:
        if keep_going or error.kind is FailureKind.TIMEOUT:
            notify(f"first connection to {target}: {error}")
            return {}
        raise PoolBenchError(f"{target}: {error}") from None
    except TimeoutError:
        notify(f"first connection to {target}: no answer yet")
        return {}
    except asyncio.CancelledError:
        return {}  # stopped by the user
    if look.missing is not None:
        raise PoolBenchError(f"{target}: {look.missing}")
    found = {"product": look.info.product, "version": look.info.version}
    if embedded:
        found["embedded"] = "yes"
    notify(f"{look.info.product} {look.info.version}, at {target}{place_words(target)}")
    return found


def place_words(target: SurrealTarget) -> str:
    """`, namespace bench, database bench`; "" where none is selected."""
    words = (("namespace", target.namespace), ("database", target.database))
    return "".join(f", {what} {name}" for what, name in words if name is not None)
