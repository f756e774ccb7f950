"""Every option of every command, as Click has them, and as `docs/options.md` lists them.

uv run python -m tests.support.options_page    # writes the tables of the page anew
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import click

from tests.support.documents import ROOT

PAGE: Final = ROOT / "docs" / "options.md"
BEGIN: Final = "## Every option\n"
# Every command has these; the page says so once.
EVERYWHERE: Final = ("--help", "--help-all", "--version")
TOOLS: Final = {
    "pg-connection-bench": "pg_connection_bench",
    "pg-connection-load": "pg_connection_load",
    "surreal-bench": "surreal_bench",
    "pool-bench": "pool_bench.__main__",
}
_ROW: Final = re.compile(r"^\| (?P<names>`-.*?) \| (?P<default>.*?) \| .* \|$", re.MULTILINE)
_EXTRA: Final = re.compile(r"\s*\[(?:default: (?P<default>[^\];]*))?(?:(?:; )?(?:required|[\d\sx<>=]+))?\]$")
_COMMAND: Final = re.compile(r"^### `(.+)`$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """An option.

    Attributes:
        names: all of them, with what takes the value's place.
        default: in words, "" for none.
        text: what it does.
    """

    names: str
    default: str
    text: str = ""


def tool(name: str) -> click.Command:
    """The Click command of a console script."""
    command = import_module(TOOLS[name]).cli
    assert isinstance(command, click.Command)
    return command


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command with its full name."""
    for name in TOOLS:
        yield from _commands(name, tool(name), None)


def _commands(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    ctx = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent)
    yield name, command, ctx
    if isinstance(command, click.Group):
        for sub in command.list_commands(ctx):
            child = command.get_command(ctx, sub)
            assert child is not None
            yield from _commands(f"{name} {sub}", child, ctx)


def rows_of(command: click.Command, ctx: click.Context) -> list[Row]:
    """The options of a command, without those that every command has."""
    return [
        _row(param, ctx)
        for param in command.get_params(ctx)
        if isinstance(param, click.Option) and not param.hidden and not set(param.opts) & set(EVERYWHERE)
    ]


def _row(option: click.Option, ctx: click.Context) -> Row:
    record = option.get_help_record(ctx)
    assert record is not None
    names, text = record
    text = " ".join(text.split())
    # Limits and defaults stand at the end of the text, where they are shown at all.
    shown = _EXTRA.search(text)
    default = _default(option, ctx) or (shown["default"] or "" if shown else "")
    return Row(_cell(names), _cell(default), _EXTRA.sub("", text).replace("|", "\\|"))


def _default(option: click.Option, ctx: click.Context) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.get_default(ctx)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float):
        return str(value)
    return ""


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def tables() -> str:
    """The tables of all commands, as Markdown."""
    parts = []
    for name, command, ctx in commands():
        rows = rows_of(command, ctx)
        summary = " ".join((command.help or "").split("\n\n", 1)[0].replace("\b", "").split())
        part = f"### `{name}`\n\n{summary}\n"
        if rows:
            lines = "".join(f"| {row.names} | {row.default} | {row.text} |\n" for row in rows)
            part += f"\n| option | default | |\n|---|---|---|\n{lines}"
        parts.append(part)
    return "\n".join(parts)


def listed() -> dict[str, list[Row]]:
    """What the page lists, by command; without the texts."""
    _, *parts = _COMMAND.split(PAGE.read_text(encoding="utf-8").partition(BEGIN)[2])
    return {
        name: [Row(match["names"], match["default"]) for match in _ROW.finditer(text)]
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


if __name__ == "__main__":
    head, begin, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    introduction = rest.partition("\n### ")[0]
    PAGE.write_text(f"{head}{begin}{introduction}\n{tables()}", encoding="utf-8")
