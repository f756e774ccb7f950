"""Which servers `target_session_attrs` names, by what they say of themselves.

From PostgreSQL 14 on a server reports `in_hot_standby` and `default_transaction_read_only` at start-up, and
again with the next answer after either has changed
(https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC).
"""

from collections.abc import Callable
from typing import Final

from pool_bench.targets.postgres import SessionAttrs

# What libpq says of a server that will not do, by what was wanted of it.
_UNSUITED: Final[dict[SessionAttrs, str]] = {
    "read-write": "session is read-only",
    "read-only": "session is not read-only",
    "primary": "server is in hot standby mode",
    "standby": "server is not in hot standby mode",
    "prefer-standby": "server is not in hot standby mode",
}
# Any server will do in the end, so that none is to be left for another.
CONTENT: Final[tuple[SessionAttrs, ...]] = ("any", "prefer-standby")


def is_restricted(attrs: SessionAttrs, reported: Callable[[str], str | None]) -> bool | None:
    """Whether the server is a standby or, where `attrs` asks about that, the session read-only.

    Args:
        reported: the value of a parameter as the server reported it last, None where it never did.

    Returns:
        None where the server did not say.
    """
    standby = reported("in_hot_standby")
    if attrs not in ("read-write", "read-only"):
        return None if standby is None else standby == "on"
    read_only = reported("default_transaction_read_only")
    return None if standby is None or read_only is None else "on" in (standby, read_only)


def complaint(attrs: SessionAttrs, restricted: bool | None) -> str | None:
    """Why a server that `is_restricted` will not do, None where it will."""
    suits = restricted is (attrs in ("read-only", "standby", "prefer-standby"))
    return None if suits else f"{_UNSUITED[attrs]} (target_session_attrs={attrs})"


def unfit(attrs: SessionAttrs, reported: Callable[[str], str | None]) -> str | None:
    """Why an open connection is to be left, by what its server `reported` last; None for no reason known."""
    if attrs in CONTENT:
        return None
    restricted = is_restricted(attrs, reported)
    return None if restricted is None else complaint(attrs, restricted)
