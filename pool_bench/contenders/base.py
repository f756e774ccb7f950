"""The one seam through which load reaches a pool, and what all contenders are told alike.

A contender leases by an asynchronous context manager, as its users do, with nothing of ours in between:
a layer of ours would be measured as if it were the pool. Errors therefore leave it as they are, and
`as_error` says afterwards what they were.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar

from pool_bench.errors import ConnectError, Phase
from pool_bench.targets import Target

ContenderName = Literal["reference", "asyncpg", "psycopg", "sqlalchemy", "naive", "shared", "purreal"]
# Those of PostgreSQL.
CONTENDER_NAMES: Final[tuple[ContenderName, ...]] = (
    "reference",
    "asyncpg",
    "psycopg",
    "sqlalchemy",
    "naive",
)

# Those of SurrealDB.
SURREAL_CONTENDER_NAMES: Final[tuple[ContenderName, ...]] = ("reference", "shared", "naive", "purreal")

ResetMode = Literal["own", "always", "never"]
RESET_MODES: Final[tuple[ResetMode, ...]] = ("own", "always", "never")

L = TypeVar("L")
T_co = TypeVar("T_co", bound=Target, covariant=True)

# Those that can have fewer connections than `size`, and then get more as they are asked for.
RANGED: Final[tuple[ContenderName, ...]] = ("reference", "asyncpg", "psycopg")

# Those that prepare what they run, and those of them that know no other way.
PREPARE: Final[tuple[ContenderName, ...]] = ("psycopg", "sqlalchemy")
ALWAYS_PREPARE: Final[tuple[ContenderName, ...]] = ("sqlalchemy",)
# invalid_sql_statement_name, duplicate_prepared_statement
_UNPREPARED: Final = ("26000", "42P05")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContenderConfig(Generic[T_co]):
    """What all contenders are told alike; everything else is each pool's own default.

    Attributes:
        target: where connections go.
        size: connections to have at most.
        min_size: connections to keep at least, of those in `RANGED`; None for as many as `size`.
        timeout_s: bound on one acquire, seconds.
        reset: what happens to a connection on its return: `own` is what the pool does by itself,
            `always` one round trip that resets the session, `never` none.
        prepared: whether a pool may prepare statements as it does by itself.
    """

    target: T_co
    size: int
    timeout_s: float = 5.0
    reset: ResetMode = "own"
    prepared: bool = True
    min_size: int | None = None

    @property
    def least(self) -> int:
        """Connections to keep at least."""
        return self.size if self.min_size is None else self.min_size


def opened_at_first(name: ContenderName, size: int) -> int:
    """How many connections `Contender.open` opens where pools have `size`."""
    # Without a pool it is one to see whether there is anybody.
    return 1 if name in ("shared", "naive") else size


def explained(error: ConnectError) -> ConnectError:
    """`error`, with what helps where a statement that was prepared is not found, or is there already."""
    if error.sqlstate not in _UNPREPARED:
        return error
    words = f"{error.message} · behind a pooler that gives each transaction another session: --no-prepared"
    return ConnectError(error.kind, error.phase, words, sqlstate=error.sqlstate)


class Contender(Protocol[L]):
    """A pool under load; `L` is what it leases.

    Attributes:
        opens: the connections it opened.
    """

    opens: "Opens"

    @property
    def name(self) -> ContenderName:
        """The name on the command line and in results."""

    @property
    def version(self) -> str:
        """Of the package it is from."""

    @property
    def behaviour(self) -> str:
        """What it does on checkout and on return, beyond moving a connection, in words."""

    @property
    def size(self) -> int:
        """Connections it holds now."""

    @property
    def in_use(self) -> int | None:
        """Connections that are leased, by its own count; None where it has none."""

    async def open(self) -> None:
        """Open the pool with all its connections.

        Raises:
            Exception: it does not open; `as_error` knows why.
        """

    def lease(self) -> AbstractAsyncContextManager[L]:
        """Acquire on entry, return on exit; raises what the pool raises."""

    async def execute(self, leased: L, sql: str) -> None:
        """Run one query in autocommit, and take its rows in."""

    async def close(self) -> None:
        """Close the pool and its connections, politely; the caller bounds the time."""

    def as_error(self, error: Exception, phase: Phase) -> ConnectError:
        """What `error`, raised by the above during `phase`, was."""


class Opens:
    """Counts connections being opened, in the same way for all contenders.

    Attributes:
        opened, failed: attempts that ended so.
        opening: attempts under way; `opening_peak` the most at once.
    """

    __slots__ = ("failed", "opened", "opening", "opening_peak")

    def __init__(self) -> None:
        self.opened = 0
        self.failed = 0
        self.opening = 0
        self.opening_peak = 0

    @asynccontextmanager
    async def count(self) -> AsyncIterator[None]:
        """Count what happens inside as one attempt."""
        self.opening += 1
        self.opening_peak = max(self.opening_peak, self.opening)
        try:
            yield
        except BaseException:
            self.failed += 1
            raise
        else:
            self.opened += 1
        finally:
            self.opening -= 1
