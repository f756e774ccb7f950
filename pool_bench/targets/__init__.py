"""What is connected to: PostgreSQL and SurrealDB URLs as their own clients read them.

    target = from_url("postgresql://app@db.example/app")

`postgres.py` and `surreal.py` have the two kinds and read their URLs without any I/O; what libpq looks up on
the machine (user name, socket directory, password and service files) is `machine.py`'s. Printing a target
never shows a password, and `redact` removes it from any other text.
"""

import os
from collections.abc import Mapping

from pool_bench.errors import UsageError
from pool_bench.targets.postgres import PostgresTarget, redact, shown_url
from pool_bench.targets.surreal import SCHEMES, SurrealTarget, surreal_target

__all__ = ["PostgresTarget", "SurrealTarget", "Target", "from_url", "redact"]

Target = PostgresTarget | SurrealTarget


def from_url(url: str, env: Mapping[str, str] = os.environ) -> Target:
    """The target that a URL names; its scheme says which kind.

    Args:
        url: `postgresql://` or `postgres://`, as libpq reads it, or a SurrealDB's `ws://`, `wss://`, `http://`
            or `https://`.
        env: what the URL leaves out is taken from here: libpq's `PG*` variables, or `SURREAL_USER`,
            `SURREAL_PASS`, `SURREAL_NAMESPACE` and `SURREAL_DATABASE`.

    Raises:
        UsageError: the URL, a variable or a service file is malformed or asks for something unsupported; one
            line, without a password.
    """
    scheme, mark, _ = url.partition("://")
    if mark and scheme.lower() in SCHEMES:
        return surreal_target(url, environ=env)
    if mark and scheme not in ("postgresql", "postgres"):
        raise UsageError(
            f"{shown_url(url)} is neither a PostgreSQL URL (postgresql://user@host:port/database) nor a "
            "SurrealDB URL (ws://host:port)"
        )
    from pool_bench.targets.machine import read_postgres_url

    return read_postgres_url(url, env)
