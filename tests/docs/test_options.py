"""`docs/options.md` lists every option of every command."""

import pytest

from tests.support.options_page import Row, commands, listed, rows_of

COMMANDS = {name: (command, ctx) for name, command, ctx in commands()}


def test_every_command_is_listed_and_no_other() -> None:
    assert list(listed()) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_names_and_defaults_of_all_options_are_those_of_the_command(name: str) -> None:
    expected = [Row(row.names, row.default) for row in rows_of(*COMMANDS[name])]
    assert listed()[name] == expected, "uv run python -m tests.support.options_page"
