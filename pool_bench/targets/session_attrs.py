"""Which servers `target_session_attrs` names, by what they say of themselves.

From PostgreSQL 14 on a server reports `in_hot_standby` and `default_transaction_read_only` at start-up, and
again with the next answer after either has changed
(https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC). Older ones do not, and through a
pooler it may be what another session was told once, so that an open connection has to be asked as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
# What is refused on a standby and in a read-only session, `read_only_sql_transaction`: also in a transaction
# that its user has made read-only, so that it proves nothing.
_REFUSED: Final = "25006"
_IN_RECOVERY: Final = "pg_catalog.pg_is_in_recovery()"
_READ_ONLY: Final = "pg_catalog.current_setting('default_transaction_read_only')::pg_catalog.bool"


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


@dataclass(slots=True)
class Fitness:
    """Whether the server of an open connection is still of the sort that `attrs` names.

    Attributes:
        attrs: what was asked for.
        in_doubt: it has refused to write since it was asked last.
    """

    attrs: SessionAttrs
    in_doubt: bool = False
    _answer: bool | None = None

    @property
    def may_be_lost(self) -> bool:
        """Whether it can turn into a server that `attrs` rules out."""
        return self.attrs not in CONTENT

    @property
    def question(self) -> str | None:
        """What to ask it: a statement that gives one row where it `is_restricted`, else none.

        None where any server will do.
        """
        if not self.may_be_lost:
            return None
        restricted = f"{_IN_RECOVERY} OR {_READ_ONLY}" if "read" in self.attrs else _IN_RECOVERY
        return f"SELECT 1 WHERE {restricted}"

    def answered(self, rows: int) -> None:
        """Note how many `rows` the question gave."""
        self._answer = rows > 0
        self.in_doubt = False

    def refused(self, sqlstate: str | None) -> None:
        """Note that a statement failed, by its SQLSTATE."""
        if sqlstate == _REFUSED and self.may_be_lost:
            self.in_doubt = True

    def complaint(self, reported: Callable[[str], str | None]) -> str | None:
        """Why to leave it, by what it `reported` and answered last; None for no reason known."""
        if not self.may_be_lost:
            return None
        for restricted in (is_restricted(self.attrs, reported), self._answer):
            if restricted is not None and (words := complaint(self.attrs, restricted)) is not None:
                return words
        return None
