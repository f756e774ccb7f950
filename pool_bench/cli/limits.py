"""The limit on open files: raised as far as allowed, and checked before anything is opened."""

import sys
from typing import Final

from pool_bench.errors import UsageError

# Pipes, the event loop, the executor's lookups, logs, and what libraries open for themselves.
_SPARE_FILES: Final = 64


def raise_file_limit(connections: int, *, option: str) -> None:
    """Make room for `connections` sockets in this process and those it starts.

    Raises:
        UsageError: the hard limit is too low; names `option` and the way out.
    """
    if sys.platform == "win32":
        return
    import resource

    need = connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if hard != unlimited and need > hard:
        raise UsageError(
            f"{option} {connections:,} needs {need:,} open files, but the hard limit is {hard:,}: "
            "lower it, or raise the limit (ulimit -Hn, LimitNOFILE=, /etc/security/limits.conf)"
        )
    if soft != unlimited and soft < need:
        # macOS refuses an unlimited soft limit even where the hard one is.
        wanted = need if hard == unlimited else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
