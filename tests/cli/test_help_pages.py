"""Help: groups, whole texts, a first page of sixty lines, and no word broken."""

import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO

import click
import pytest

import pg_connection_bench
import pg_connection_load
import surreal_bench
from pool_bench.cli.help_pages import PAGE_LINES, page
from tests.support.commands import run_tool

MAIN = import_module("pool_bench.__main__")
PROGRAMS: dict[str, click.Group] = {
    "pg-connection-bench": pg_connection_bench.cli,
    "pg-connection-load": pg_connection_load.cli,
    "surreal-bench": surreal_bench.cli,
    "pool-bench": MAIN.cli,
}
COMMANDS: dict[str, click.Command] = {
    **PROGRAMS,
    **{
        f"{program} {name}": command
        for program, group in PROGRAMS.items()
        for name, command in group.commands.items()
    },
}


@pytest.fixture(params=COMMANDS)
def ctx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[click.Context]:
    """A command as its help sees it on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    name: str = request.param
    with click.Context(COMMANDS[name], info_name=name, max_content_width=100) as one:
        yield one


def records(ctx: click.Context) -> list[tuple[str, str]]:
    found = (param.get_help_record(ctx) for param in ctx.command.get_params(ctx))
    return [record for record in found if record is not None]


def test_the_first_page_is_a_page_and_names_every_option(ctx: click.Context) -> None:
    text = page(ctx)
    assert text.count("\n") + 1 <= PAGE_LINES
    assert max(map(len, text.splitlines())) <= 80
    for names, _ in records(ctx):
        assert re.search(rf"(?<!\S){re.escape(names.split()[0].strip(',/'))}(?![\w-])", text) or any(
            re.search(rf"(?<!\S){re.escape(name)}(?![\w-])", text) for name in names.split() if "--" in name
        ), names
    # Who is on the first page finds the other one, and on neither is an option without a group.
    assert "--help-all" in text
    assert "More options" not in page(ctx, everything=True)


def test_all_of_the_help_has_every_text_whole_and_breaks_no_word(ctx: click.Context) -> None:
    text = page(ctx, everything=True)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for _, help_text in records(ctx):
        assert " ".join(help_text.split()) in words
    shown = set(words.replace(" \\ ", " ").split())
    assert set(re.sub("\b", "", ctx.command.help or "").split()) <= shown


def test_examples_that_are_too_long_can_be_pasted_all_the_same(ctx: click.Context) -> None:
    continued = page(ctx).replace("\\\n", " ")
    for line in (ctx.command.help or "").splitlines():
        if line.strip().startswith(tuple(PROGRAMS)):
            assert " ".join(line.split()) in [" ".join(one.split()) for one in continued.splitlines()]


def test_a_command_that_is_missing_gets_the_list_of_those_there_are() -> None:
    outcome = run_tool(command="pool_bench.__main__")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(
        "Usage: pool-bench [OPTIONS] COMMAND [ARGS]...\n\n  Put connection pools"
    )
    assert re.search(r"^  run +Measure pools under the same loads", outcome.stderr, re.MULTILINE)


def test_what_is_asked_for_in_whole_is_printed_by_every_command() -> None:
    for command in (*PROGRAMS.values(), MAIN.cli.commands["run"]):
        stream = StringIO()
        with redirect_stderr(stream), pytest.MonkeyPatch.context() as patch:
            shown: list[str] = []
            patch.setattr(click, "echo", lambda text, shown=shown, **_: shown.append(str(text)))
            assert command.main(["--help-all"], prog_name="it", standalone_mode=False) == 0
        assert shown[0].startswith("Usage: it ")


@pytest.mark.parametrize(
    ("program", "module", "words", "answers"),
    [
        ("pg-connection-bench", "pg_connection_bench", "--conc", {"--concurrency", "--concurrency-max"}),
        ("pg-connection-load", "pg_connection_load", "--driver ", {"wire", "asyncpg", "psycopg"}),
        ("surreal-bench", "surreal_bench", "--conc", {"--concurrency", "--concurrency-max"}),
        ("surreal-bench", "surreal_bench", "lo", {"load"}),
        ("pool-bench", "pool_bench.__main__", "co", {"compare"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(
    program: str, module: str, words: str, answers: set[str]
) -> None:
    name = f"_{program.replace('-', '_').upper()}_COMPLETE"
    source = run_tool(command=module, env={name: "bash_source"})
    assert source.code == 0, source.stderr
    assert f"{name}=bash_complete" in source.stdout
    line = f"{program} {words}"
    env = {name: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    completed = run_tool(command=module, env=env)
    assert completed.stderr == ""
    assert answers <= {one.partition(",")[2] for one in completed.stdout.splitlines()}
