"""What is connected to: PostgreSQL and SurrealDB URLs as their own clients read them.

    target = from_url("postgresql://app@db.example/app")

`postgres.py` and `surreal.py` have the two kinds and read their URLs without any I/O; what libpq looks up on
the machine (user name, socket directory, password and service files) is `machine.py`'s. Printing a target
never shows a password, and `redact` removes it from any other text.
"""

import os
from collections.abc import Mapping
from typing import Final, TypeVar, overload

from pool_bench.errors import UsageError
from pool_bench.targets.postgres import PostgresTarget, redact, shown_url
from pool_bench.targets.surreal import SCHEMES, SurrealTarget, surreal_target

__all__ = ["PostgresTarget", "SurrealTarget", "Target", "from_url", "redact"]

Target = PostgresTarget | SurrealTarget


_Kind = TypeVar("_Kind", PostgresTarget, SurrealTarget)
_PRODUCTS: Final[Mapping[type[Target], str]] = {PostgresTarget: "PostgreSQL", SurrealTarget: "SurrealDB"}


@overload
def from_url(url: str, env: Mapping[str, str] = ...) -> Target: ...
@overload
def from_url(url: str, env: Mapping[str, str] = ..., *, kind: type[_Kind]) -> _Kind: ...
def from_url(url: str, env: Mapping[str, str] = os.environ, *, kind: type[_Kind] | None = None) -> Target:
    """The target that a URL names; its scheme says which kind.

    Args:
        url: `postgresql://` or `postgres://`, as libpq reads it, or a SurrealDB's `ws://`, `wss://`, `http://`
            or `https://`.
        env: what the URL leaves out is taken from here: libpq's `PG*` variables, or `SURREAL_USER`,
            `SURREAL_PASS`, `SURREAL_NAMESPACE` and `SURREAL_DATABASE`.
        kind: the one that is wanted, for who can use no other.

    Raises:
        UsageError: the URL, a variable or a service file is malformed or asks for something unsupported, or
            the URL is not of that kind; one line, without a password.
    """
    target = _read(url, env)
    if kind is not None and not isinstance(target, kind):
        raise UsageError(f"{shown_url(url)} is not a {_PRODUCTS[kind]} URL")
    return target


def _read(url: str, env: Mapping[str, str]) -> Target:
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
