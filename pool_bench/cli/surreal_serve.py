"""The embedded SurrealDB as a server of its own, in the foreground."""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from pool_bench.cli.params import EXIT_OK
from pool_bench.cli.work import tell
from pool_bench.drivers.surreal import SurrealDriver
from pool_bench.errors import UsageError
from pool_bench.servers.surreal import EmbeddedSurreal, parse_bind, serve
from pool_bench.targets_surreal import surreal_target

_PASSWORD_VARIABLE: Final = "SURREAL_PASS"  # noqa: S105  # the name of one
_DEFAULT_PASSWORD: Final = "root"  # noqa: S105  # that of SurrealDB's own examples; we listen on loopback
_LOCAL: Final = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What to serve; see the options of `surreal-bench serve`."""

    bind: str
    user: str
    password: str | None = field(repr=False)
    path: Path | None
    certificate: Path | None
    key: Path | None
    namespace: str
    database: str


def serve_forever(served: Served) -> int:
    """Serve until SIGINT or SIGTERM, with a namespace and a database made.

    Returns:
        The exit code.

    Raises:
        ServerStartError: it did not start, or ended without being asked to.
        ConnectError: it started, and does not let us in.
        UsageError: an option cannot be right.
    """
    password = served.password or os.environ.get(_PASSWORD_VARIABLE) or _DEFAULT_PASSWORD
    if not served.namespace or not served.database:
        raise UsageError("--namespace and --database must not be empty")
    host, _port = parse_bind(served.bind)
    if not host.startswith(_LOCAL):
        tell(f"warning: {served.bind} can be reached from other machines; this server is for local use")

    def ready(server: EmbeddedSurreal) -> None:
        asyncio.run(_make_place(server, served.namespace, served.database))
        place = f"namespace {served.namespace}, database {served.database}"
        click.echo(f"{server.version}, at {server.url}, user {server.user}, {place}; Ctrl-C ends it")

    serve(
        served.bind,
        served.user,
        password,
        served.path,
        ready,
        certificate=served.certificate,
        key=served.key,
    )
    return EXIT_OK


async def _make_place(server: EmbeddedSurreal, namespace: str, database: str) -> None:
    """Select them, which makes them; over what may be a certificate for another name than ours."""
    target = surreal_target(
        server.url,
        user=server.user,
        password=server.password,
        namespace=namespace,
        database=database,
        verify=False,
        environ={},
    )
    connection = await SurrealDriver(target).connect()
    await connection.close()
