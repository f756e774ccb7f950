"""Which targets a command means: URLs, else the environment, else an embedded server."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from pool_bench.cli.session import notify
from pool_bench.cli.status import busy, entered
from pool_bench.errors import ConnectError, PoolBenchError, UsageError
from pool_bench.load.run import StopSwitch
from pool_bench.servers.postgres import EmbeddedPostgres, PostgresConfig
from pool_bench.servers.priority import GIVE_WAY
from pool_bench.targets.machine import read_postgres_url
from pool_bench.targets.postgres import NAMING_VARIABLES, PostgresTarget, parse_target
from pool_bench.watch.postgres.setup_log import SETTINGS

# Connections to the embedded server beyond those the run holds: reserved slots, a look from outside,
# and backends of drivers that do not wait until the server has closed.
_SPARE_CONNECTIONS: Final = 50
_PROBE_TIMEOUT_S: Final = 5.0


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


def serve(
    place: PostgresPlace, *, connections: int, ending: int = 0, log_setup: bool = False
) -> "AbstractContextManager[EmbeddedPostgres | None]":
    """The embedded server, sized for `connections`, where no target was named; else nothing.

    Args:
        ending: backends that may still be there although their client has gone.
        log_setup: have it log its own time for setting each connection up.

    Raises:
        ServerStartError: on entry, the server does not start.
    """
    if not place.is_embedded:
        return nullcontext()
    size = max(100, connections + ending + _SPARE_CONNECTIONS)
    server = EmbeddedPostgres(
        PostgresConfig(max_connections=size, settings=SETTINGS if log_setup else {}, niceness=GIVE_WAY)
    )
    return entered("starting an embedded PostgreSQL", server)


def targets_of(
    place: PostgresPlace, server: EmbeddedPostgres | None, *, tool: str
) -> tuple[PostgresTarget, ...]:
    """The targets of `place`, or what `serve` has started for it."""
    if server is None:
        return place.targets
    return (embedded_target(server, application_name=tool),)


def ask(
    target: PostgresTarget,
    stop: StopSwitch,
    *,
    timeout_s: float,
    embedded: bool,
    keep_going: bool | None = None,
) -> dict[str, str]:
    """Say on stderr what the server says it is.

    Args:
        stop: lets the user give up waiting for the answer.
        timeout_s: bound on each host and address, and on the answer, seconds; five at most are waited.
        keep_going: measure also what cannot be measured as it was named; None where there is no such option.

    Returns:
        Product, version and what stands in between, {} where it gave no answer and is measured all the same.

    Raises:
        PoolBenchError: nobody is there, or nobody lets us in: a line that says what to do.
    """
    import asyncio
    import contextlib

    from pool_bench.cli.advice import ADVICE, DEAD
    from pool_bench.cli.preflight import run_briefly
    from pool_bench.drivers.wire.driver import ask_server
    from pool_bench.watch.postgres.route import look_between

    async def ask_it() -> dict[str, str]:
        limit_s = min(_PROBE_TIMEOUT_S, timeout_s)
        question = asyncio.ensure_future(ask_server(target, connect_timeout_s=limit_s))
        with contextlib.suppress(NotImplementedError):  # Windows cannot watch a pipe
            asyncio.get_running_loop().add_reader(stop.fileno(), question.cancel)
        info = await question
        server = {"product": info.product, "version": info.version}
        if info.tls:
            server["tls"] = info.tls
        if not embedded:
            between = await asyncio.to_thread(look_between, target, limit_s)
            if between.words:
                server["through"] = between.words
        return server

    try:
        with busy(f"connecting to {target}", only_terminals=True):
            server = run_briefly(ask_it())
    except ConnectError as error:
        failed = f"first connection to {target} failed: {error}"
        if error.kind in DEAD and not keep_going:
            anyway = "" if keep_going is None else " (--keep-going measures it anyway)"
            raise PoolBenchError(f"{failed}; {ADVICE[error.kind]}{anyway}") from None
        notify(failed)
        return {}
    except asyncio.CancelledError:
        return {}  # stopped by the user
    if embedded:
        server["embedded"] = "yes"
    words = f"{server['product']} {server['version']}".strip()
    how = ", embedded" if embedded else f", through {server['through']}" if "through" in server else ""
    notify(f"{words}{how}, at {target}")
    return server


def embedded_target(server: EmbeddedPostgres, *, application_name: str) -> PostgresTarget:
    """The target that the embedded server is; the environment has no say in it."""
    return parse_target(server.url, env={"PGAPPNAME": application_name}, default_user="postgres")
