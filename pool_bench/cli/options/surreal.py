"""Options that name a SurrealDB, with the same names and words in all commands of `surreal-bench`."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

import click

from pool_bench.cli.help_pages import Group
from pool_bench.drivers.base import SURREAL_DRIVER_NAMES
from pool_bench.targets.surreal import AUTH_LEVELS, AUTH_MODES, AuthLevel, AuthMode

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from pool_bench.cli.places.surreal import SurrealOptions


class DefaultGroup(Group):
    """Commands of which the first is meant where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name in front, unless the group itself is asked something."""
        if not args and ctx.resilient_parsing:
            # A shell completes the first word, which may become a command.
            return super().parse_args(ctx, args)
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not args or (args[0] not in self.commands and args[0] not in own):
            if args and not args[0].startswith("-"):
                known = ", ".join(self.commands)
                raise click.UsageError(f"there is no command {args[0]!r}; there are {known}", ctx)
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Commands, and what the default takes, since it need not be named."""
        found = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return found
        default = next(iter(self.commands.values()))
        known = {item.value for item in found}
        more = default.shell_complete(click.Context(default, parent=ctx), incomplete)
        return [*found, *(item for item in more if item.value not in known)]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were made."""
        return list(self.commands)


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


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name the server; `command` gets them as one function that makes a `Server`."""

    @click.option(
        "--url",
        "-u",
        "urls",
        multiple=True,
        metavar="URL",
        help="ws://, wss://, http:// or https://host:port; repeat it to use several in turn. Without it: "
        "SURREAL_URL, else an embedded SurrealDB engine is started, used and removed.",
    )
    @click.option("--user", metavar="NAME", help="Whom to sign in as. [SURREAL_USER]")
    @click.option(
        "--pass",
        "password",
        metavar="PASSWORD",
        help="Better from SURREAL_PASS: others may read a command line.",
    )
    @click.option("--namespace", metavar="NAME", help="Namespace to select. [SURREAL_NAMESPACE]")
    @click.option("--database", metavar="NAME", help="Database to select. [SURREAL_DATABASE]")
    @click.option(
        "--level",
        type=click.Choice(AUTH_LEVELS),
        default="root",
        show_default=True,
        help="Where the user was defined.",
    )
    @click.option("--ca-file", metavar="FILE", help="PEM file with the authorities to trust instead.")
    @click.option(
        "--verify/--no-verify", default=True, show_default=True, help="Check the server's certificate."
    )
    @auth_option
    @wraps(command)
    def with_server(
        *args: object,
        urls: tuple[str, ...],
        user: str | None,
        password: str | None,
        namespace: str | None,
        database: str | None,
        level: AuthLevel,
        ca_file: str | None,
        verify: bool,
        auth: AuthMode,
        **kwargs: object,
    ) -> None:
        def make_server() -> "SurrealOptions":
            from pool_bench.cli.places.surreal import SurrealOptions

            return SurrealOptions(
                urls=urls,
                user=user,
                password=password,
                namespace=namespace,
                database=database,
                level=level,
                ca_file=ca_file,
                verify=verify,
                auth=auth,
            )

        command(*args, make_server=make_server, **kwargs)

    return with_server
