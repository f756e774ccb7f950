"""Keeps passwords out of the process list."""

import sys

from pool_bench.targets import redact


def hide_secrets() -> None:
    """Rewrite this process's command line where it holds a password.

    Other users see the original for the moment before this runs, and other processes that were
    given it (a shell, `uv run`) still show it: PGPASSWORD or a password file never do.
    """
    shown = [redact(word) for word in sys.argv]
    if shown != sys.argv:
        import setproctitle

        setproctitle.setproctitle(" ".join(shown))
