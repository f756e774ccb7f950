"""Keeps passwords out of the process list and the result file."""

import sys
from collections.abc import Sequence
from typing import Final

from pool_bench.targets.postgres import redact, shown_url

_OPTION: Final = "--pass"
_URL_OPTIONS: Final = ("--url", "-u", "--pgbouncer-admin")
_HIDDEN: Final = "***"


def mask_process_title() -> None:
    """Rewrite this process's command line where it holds a password.

    Other users see the original for the moment before this runs, and other processes that were
    given it (a shell, `uv run`) still show it: PGPASSWORD, SURREAL_PASS or a password file never do.
    """
    shown = list(redacted_argv(sys.argv))
    if shown != sys.argv:
        import setproctitle

        setproctitle.setproctitle(" ".join(shown))


def redacted_argv(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line without its passwords: those in URLs, and what `--pass` says."""
    shown = []
    is_password = is_url = False
    for word in arguments:
        name, equals, value = word.partition("=")
        if is_password:
            shown.append(_HIDDEN)
        elif is_url:
            shown.append(shown_url(word))
        elif equals and name in _URL_OPTIONS:
            shown.append(f"{name}={shown_url(value)}")
        elif word.startswith(f"{_OPTION}="):
            shown.append(f"{_OPTION}={_HIDDEN}")
        else:
            shown.append(redact(word))
        is_password, is_url = (
            word == _OPTION and not is_password,
            word in _URL_OPTIONS and not is_url and not is_password,
        )
    return tuple(shown)
