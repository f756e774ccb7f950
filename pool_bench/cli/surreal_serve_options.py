"""Options of `surreal-bench serve`: where to listen, and what to serve."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pool_bench.cli.params import OutputPath

if TYPE_CHECKING:
    from pool_bench.cli.surreal_serve import Served


def serve_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add them; `command` gets them as one function that makes a `Served`."""

    @click.option(
        "--bind", default="127.0.0.1:8000", show_default=True, metavar="ADDRESS:PORT", help="Where to listen."
    )
    @click.option("--user", default="root", show_default=True, metavar="NAME", help="The root user to make.")
    @click.option(
        "--pass",
        "password",
        metavar="PASSWORD",
        help="Its password; better from SURREAL_PASS: others may read a command line. [default: root]",
    )
    @click.option(
        "--path",
        type=OutputPath(),
        metavar="DIRECTORY",
        help="A SurrealKV store to keep the data in. [default: in memory, gone afterwards]",
    )
    @click.option(
        "--certificate", type=OutputPath(), metavar="FILE", help="PEM file, for wss:// and https://."
    )
    @click.option("--key", type=OutputPath(), metavar="FILE", help="PEM file of its key.")
    @click.option(
        "--namespace", default="bench", show_default=True, metavar="NAME", help="Namespace to make."
    )
    @click.option("--database", default="bench", show_default=True, metavar="NAME", help="Database to make.")
    @wraps(command)
    def with_served(
        *args: object,
        bind: str,
        user: str,
        password: str | None,
        path: Path | None,
        certificate: Path | None,
        key: Path | None,
        namespace: str,
        database: str,
        **kwargs: object,
    ) -> None:
        def make_served() -> "Served":
            from pool_bench.cli.surreal_serve import Served

            return Served(
                bind=bind,
                user=user,
                password=password,
                path=path,
                certificate=certificate,
                key=key,
                namespace=namespace,
                database=database,
            )

        command(*args, make_served=make_served, **kwargs)

    return with_served
