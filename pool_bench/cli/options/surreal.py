"""Options that name a SurrealDB, with the same names and words in all commands of `surreal-bench`."""

from dataclasses import dataclass, field

import click

from pool_bench.cli.options.gathering import gathered
from pool_bench.drivers.base import SURREAL_DRIVER_NAMES
from pool_bench.targets.surreal import AUTH_LEVELS, AUTH_MODES, AuthLevel, AuthMode


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrealOptions:
    """What the options say of the server; None where they do not.

    Attributes:
        urls: several are used in turn.
        user, password, namespace, database, level, ca_file, verify: as `SurrealTarget` has them.
        auth: how connections sign in.
    """

    urls: tuple[str, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    namespace: str | None = None
    database: str | None = None
    level: AuthLevel = "root"
    ca_file: str | None = None
    verify: bool = True
    auth: AuthMode = "signin"


auth_option = click.option(
    "--auth",
    type=click.Choice(AUTH_MODES),
    default="signin",
    show_default=True,
    help="signin: user and password on each connection, whose hashing the server pays for; token: sign "
    "in once, then send the token; none: stay anonymous.",
)

surreal_driver_option = click.option(
    "--driver",
    type=click.Choice(SURREAL_DRIVER_NAMES),
    default="surreal",
    show_default=True,
    help="How connections are opened: surreal (this tool's own, cheapest, sees every phase), or what an "
    "application using the official client surrealdb pays.",
)


# The command gets them as one `SurrealOptions`, named `server`.
server_options = gathered(
    "server",
    SurrealOptions,
    click.option(
        "--url",
        "-u",
        "urls",
        multiple=True,
        metavar="URL",
        help="ws://, wss://, http:// or https://host:port; repeat it to use several in turn. Without it: "
        "SURREAL_URL, else an embedded SurrealDB engine is started, used and removed.",
    ),
    click.option("--user", metavar="NAME", help="The user to sign in as. [SURREAL_USER]"),
    click.option(
        "--pass",
        "password",
        metavar="PASSWORD",
        help="Better from SURREAL_PASS: others may read a command line.",
    ),
    click.option("--namespace", metavar="NAME", help="Namespace to select. [SURREAL_NAMESPACE]"),
    click.option("--database", metavar="NAME", help="Database to select. [SURREAL_DATABASE]"),
    click.option(
        "--level",
        type=click.Choice(AUTH_LEVELS),
        default="root",
        show_default=True,
        help="Where the user was defined.",
    ),
    click.option("--ca-file", metavar="FILE", help="PEM file with the authorities to trust instead."),
    click.option(
        "--verify/--no-verify", default=True, show_default=True, help="Check the server's certificate."
    ),
    auth_option,
)
