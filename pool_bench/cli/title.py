"""Keeps passwords out of the process list and the result file."""

import sys
from collections.abc import Sequence
from typing import Final

from pool_bench.targets import redact

_OPTION: Final = "--pass"
_HIDDEN: Final = "***"


def hide_secrets() -> None:
    """Rewrite this process's command line where it holds a password.

    Other users see the original for the moment before this runs, and other processes that were
    given it (a shell, `uv run`) still show it: PGPASSWORD, SURREAL_PASS or a password file never do.
    """
    shown = list(shown_arguments(sys.argv))
    if shown != sys.argv:
        import setproctitle

        setproctitle.setproctitle(" ".join(shown))


def shown_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line without its passwords: those in URLs, and what `--pass` says."""
    shown = []
    is_password = False
    for word in arguments:
        if is_password:
            shown.append(_HIDDEN)
        elif word.startswith(f"{_OPTION}="):
            shown.append(f"{_OPTION}={_HIDDEN}")
        else:
            shown.append(redact(word))
        is_password = word == _OPTION and not is_password
    return tuple(shown)
