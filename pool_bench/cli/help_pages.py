"""Help pages: options in groups, each with its whole text, and a first page that a person reads to its end.

A command with more options than a page has lines shows the texts of those that most people need, as many as
fit, and names the others by group; `--help-all` has the text of all. Words are never broken: a URL in a text
stays in one piece, however narrow the terminal.

Made of Click's own parts: what libraries for groups of options lack is the first page, and their import costs
every start of every command.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from pool_bench.cli.options.types import EXIT_USAGE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# What fits on a page; the longest are those of commands with forty options.
PAGE_LINES: Final = 60
_WIDEST_NAME: Final = 26
_INDENT: Final = "  "
# What Click calls whole numbers.
_NUMBER: Final = re.compile(r"INTEGER( RANGE)?$")


@dataclass(frozen=True, slots=True)
class Section:
    """Options that answer one question.

    Attributes:
        title: the question.
        names: their long names, in the order in which they are shown.
    """

    title: str
    names: tuple[str, ...]


SECTIONS: Final = (
    Section(
        "Target",
        (
            *("--url", "--bind", "--user", "--pass", "--namespace", "--database", "--level", "--auth"),
            *("--ca-file", "--verify", "--path", "--certificate", "--key", "--allow-host"),
            *("--sign-in-within", "--metrics", "--protocol", "--tls"),
            *("--source-ip", "--resolve", "--by-address", "--reserve", "--pgbouncer-admin"),
        ),
    ),
    Section(
        "Load",
        (
            *("--pool", "--scenario", "--concurrency", "--concurrency-min", "--concurrency-max"),
            *("--connections", "--clients", "--size", "--sizes", "--driver", "--query", "--hold", "--reset"),
            *("--no-prepared",),
            *("--stress", "--outage", "--keepalive", "--keepalive-query", "--active", "--reconnect"),
            *("--batch-size", "--batch-pause", "--open-concurrency", "--scram-cache"),
            *("--processes", "--pin", "--cluster"),
        ),
    ),
    Section(
        "Rate",
        (
            *("--rate", "--find-max", "--slo", "--max-rate", "--ramp", "--steps", "--spike", "--arrivals"),
            *("--seed", "--max-in-flight"),
        ),
    ),
    Section(
        "Time",
        (
            *("--duration", "--warmup", "--grace", "--connect-timeout", "--give-up", "--timeout"),
            *("--interval", "--wait-between-runs"),
        ),
    ),
    Section("Comparison", ("--rounds", "--interleave", "--fail-on-regression", "--allow")),
    Section(
        "Checks",
        ("--threshold", "--abort-on-fail", "--require-valid", "--keep-going", "--watch", "--calibrate"),
    ),
    Section(
        "Output",
        (
            *("--verbose", "--quiet", "--name", "--output-dir", "--output-name", "--json", "--plot"),
            *("--plot-format", "--summary", "--per-process", "--no-save"),
        ),
    ),
)
OTHERS: Final = "More options"
HELP: Final = Section("Help", ("--help", "--help-all", "--version"))
# On the first page as many of these as fit are whole, the first ones first.
FIRST: Final = (
    *("--help", "--help-all", "--url", "--concurrency", "--connections", "--pool", "--scenario", "--clients"),
    *("--size", "--sizes", "--duration", "--rate", "--find-max", "--slo", "--verbose", "--query", "--driver"),
    *("--json", "--rounds", "--concurrency-min", "--concurrency-max", "--threshold"),
)


class _Pages:
    """What commands and groups have in common: how their help looks."""

    def get_help(self, ctx: click.Context) -> str:
        """The first page."""
        return page(ctx)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and `--help-all`."""
        params: list[click.Parameter] = super().get_params(ctx)  # type: ignore[misc]
        return [*params, _HELP_ALL]


class Command(_Pages, click.Command):
    """A command with such help."""


class Group(_Pages, click.Group):
    """A group of commands with such help."""

    command_class = Command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; where a command is needed and missing, show which there are: bad usage all the same."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(EXIT_USAGE)
        return super().parse_args(ctx, args)


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
                raise click.UsageError(f"unknown command {args[0]!r} (choose from {known})", ctx)
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


def _show_all(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(page(ctx, everything=True), color=ctx.color)
        ctx.exit()


_HELP_ALL: Final = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show the text of every option.",
)


def page(ctx: click.Context, *, everything: bool = False) -> str:
    """The help of the context's command, in lines of at most the terminal's width.

    Args:
        everything: the text of every option, however many lines that takes.
    """
    width = ctx.make_formatter().width
    options = {_long_name(param): param for param in ctx.command.get_params(ctx) if _is_shown(param, ctx)}
    whole = _page(ctx, options, options, width)
    first = [name for name in FIRST if name in options]
    while not everything and whole.count("\n") >= PAGE_LINES and first:
        whole = _page(ctx, options, first, width)
        del first[-1]
    return whole


def _page(ctx: click.Context, options: dict[str, click.Parameter], whole: Iterable[str], width: int) -> str:
    """A page on which the options named in `whole` have their texts."""
    whole = frozenset(whole)
    blocks = [_usage(ctx, width), _description(ctx.command, width), _commands(ctx, width)]
    left_out: list[tuple[str, str]] = []
    for section in (*_sections(options), HELP):
        names = [name for name in section.names if name in options]
        blocks.append(_options(ctx, section.title, [options[name] for name in names if name in whole], width))
        rest = [name for name in names if name not in whole]
        if rest:
            left_out.append((section.title, ", ".join(rest)))
    if left_out:
        # Above the options about help itself, which say how to see their texts.
        blocks.insert(-1, _definitions("Further options, with --help-all", left_out, width, widest=12))
    if ctx.command.epilog:
        blocks.append(_wrap(ctx.command.epilog, width))
    return "\n\n".join("\n".join(lines) for lines in blocks if lines)


def _sections(options: Iterable[str]) -> list[Section]:
    known = {name for section in (*SECTIONS, HELP) for name in section.names}
    return [*SECTIONS, Section(OTHERS, tuple(name for name in options if name not in known))]


def _is_shown(param: click.Parameter, ctx: click.Context) -> bool:
    return isinstance(param, click.Option) and param.get_help_record(ctx) is not None


def _long_name(param: click.Parameter) -> str:
    return max(param.opts, key=len)


def _usage(ctx: click.Context, width: int) -> list[str]:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    return _wrap(f"Usage: {ctx.command_path} {pieces}", width, after=" " * 7)


def _description(command: click.Command, width: int) -> list[str]:
    """The text of a command, with examples as they were written."""
    lines: list[str] = []
    for paragraph in textwrap.dedent(command.help or "").strip().split("\n\n"):
        if lines:
            lines.append("")
        if paragraph.lstrip().startswith("\b"):
            for line in paragraph.split("\n")[1:]:
                # Two columns are for the backslash, with which it can be pasted all the same.
                parts = _wrap(line.strip(), width - 2, first=_INDENT * 2, after=_INDENT * 4)
                lines += [*(f"{part} \\" for part in parts[:-1]), *parts[-1:]]
        else:
            lines += _wrap(" ".join(paragraph.split()), width, first=_INDENT, after=_INDENT)
    return lines


def _commands(ctx: click.Context, width: int) -> list[str]:
    command = ctx.command
    if not isinstance(command, click.Group):
        return []
    rows = []
    for name in command.list_commands(ctx):
        listed = command.get_command(ctx, name)
        if listed is not None and not listed.hidden:
            rows.append((name, " ".join((listed.help or "").strip().partition("\n\n")[0].split())))
    return _definitions("Commands", rows, width)


def _options(ctx: click.Context, title: str, options: Sequence[click.Parameter], width: int) -> list[str]:
    records = (option.get_help_record(ctx) for option in options)
    rows = [(_NUMBER.sub("N", record[0]), record[1]) for record in records if record is not None]
    return _definitions(title, rows, width)


def _definitions(
    title: str, rows: Sequence[tuple[str, str]], width: int, *, widest: int = _WIDEST_NAME
) -> list[str]:
    """Terms with their texts beside them; under them where a term is too long for that."""
    if not rows:
        return []
    room = min(max(len(name) for name, _ in rows), widest)
    lines = [f"{title}:"]
    margin = " " * (room + 2 * len(_INDENT))
    for name, text in rows:
        wrapped = _wrap(text, width, first=margin, after=margin)
        if len(name) <= room and wrapped:
            lines += [f"{_INDENT}{name:<{room}}{_INDENT}{wrapped[0].lstrip()}", *wrapped[1:]]
        else:
            lines += [f"{_INDENT}{name}", *wrapped]
    return lines


def _wrap(text: str, width: int, *, first: str = "", after: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    )
