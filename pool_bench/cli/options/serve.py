"""Options of `surreal-bench serve`: where to listen, and what to serve."""

from dataclasses import dataclass, field
from pathlib import Path

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.cli.options.types import Duration, OutputPath


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
    sign_in_within_s: float
    allowed_hosts: tuple[str, ...]


# The command gets them as one `Served`, named `served`.
serve_options = gathered(
    "served",
    Served,
    click.option(
        "--bind", default="127.0.0.1:8000", show_default=True, metavar="ADDRESS:PORT", help="Where to listen."
    ),
    click.option("--user", default="root", show_default=True, metavar="NAME", help="The root user to make."),
    click.option(
        "--pass",
        "password",
        metavar="PASSWORD",
        help="Its password; better from SURREAL_PASS: others may read a command line. "
        "[default: one is made and shown once]",
    ),
    click.option(
        "--path",
        type=OutputPath(),
        metavar="DIRECTORY",
        help="A SurrealKV store to keep the data in. [default: in memory, gone afterwards]",
    ),
    click.option(
        "--certificate", type=OutputPath(), metavar="FILE", help="PEM file, for wss:// and https://."
    ),
    click.option("--key", type=OutputPath(), metavar="FILE", help="PEM file of its key."),
    click.option(
        "--namespace", default="bench", show_default=True, metavar="NAME", help="Namespace to make."
    ),
    click.option("--database", default="bench", show_default=True, metavar="NAME", help="Database to make."),
    click.option(
        "--allow-host",
        "allowed_hosts",
        multiple=True,
        metavar="NAME",
        help="A name by which clients reach it, besides this machine's own; may be repeated.",
    ),
    click.option(
        "--sign-in-within",
        "sign_in_within_s",
        type=Duration(zero=True),
        default="30s",
        show_default=True,
        help="Close what has not signed in by then; 0 lets it stay, as `load --auth none` needs.",
    ),
)
