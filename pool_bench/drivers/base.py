"""The protocol that every way of opening a connection follows.

`load/` and the pool know connections only through it. A driver turns whatever its library raises
into `ConnectError`, so that failures are counted alike whichever driver saw them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Protocol

from pool_bench.cleaning import clean
from pool_bench.errors import ConnectError, FailureKind, LeaseOverError, Phase

DriverName = Literal["wire", "asyncpg", "psycopg", "surreal", "surrealdb"]
# Those that speak to PostgreSQL.
DRIVER_NAMES: tuple[DriverName, ...] = ("wire", "asyncpg", "psycopg")
# Those that speak to SurrealDB.
SURREAL_DRIVER_NAMES: tuple[DriverName, ...] = ("surreal", "surrealdb")

# What drivers show that hide the steps of a connect.
COARSE_PHASES = (Phase.CONNECT, Phase.QUERY, Phase.CLOSE)
_MAX_NAME_CHARACTERS = 100


def given_up_in(given_up: BaseException, phase: Phase) -> None:
    """Have whoever cancelled a connect learn the step it was at, where its driver knows.

    Args:
        given_up: the `asyncio.CancelledError` on its way up, which must stay the same object and class:
            timeouts know theirs by it.
        phase: the step.
    """
    given_up.args = (phase,)


def phase_given_up(given_up: BaseException) -> Phase | None:
    """The step that a cancelled connect was at, None where its driver does not tell."""
    return next((arg for arg in given_up.args if isinstance(arg, Phase)), None)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself.

    Attributes:
        product: such as `PostgreSQL`.
        version: such as `18.6`.
        pooled: True where something between us and the server answered for it.
        tls: the version of TLS that we had, as `TLSv1.3`; "" without.
    """

    product: str
    version: str
    pooled: bool
    tls: str = ""

    def __post_init__(self) -> None:
        # A server may call itself anything, and what it says is shown.
        object.__setattr__(self, "product", clean(self.product, _MAX_NAME_CHARACTERS))
        object.__setattr__(self, "version", clean(self.version, _MAX_NAME_CHARACTERS))


class _LentAgain:
    """Stands in the place of a session that a handle has no part in any more; fails whatever it is asked."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise LeaseOverError(
            "this connection was given back to its pool, its lease is over; acquire() one again"
        )


LENT_AGAIN: Final = _LentAgain()


def beyond_limit(limit_s: float, *, outcome: str = "was cancelled") -> str:
    """What to say of a query that did not end within `limit_s` seconds, and what became of it."""
    return f"the query did not end within {limit_s:g} s (query_timeout), and {outcome}"


class Connection(Protocol):
    """One open connection, used by one task at a time."""

    __slots__ = ()

    @property
    def address(self) -> str:
        """Where it is open to, of a connection that is; "" where its driver does not tell."""
        return ""

    @property
    def passed_over(self) -> tuple[tuple[str, FailureKind], ...]:
        """The addresses that were tried before, and what was wrong there, where its driver tells."""
        return ()

    @property
    def phases_ns(self) -> dict[Phase, int] | None:
        """How long each of the driver's phases took, nanoseconds; None where its driver hides them."""
        return None

    async def ping(self) -> None:
        """Make one cheap round trip.

        Raises:
            ConnectError: the connection is of no further use.
        """

    async def execute(self, sql: str) -> None:
        """Run one query and throw its rows away.

        Raises:
            ConnectError: it failed.
        """

    async def reset(self) -> None:
        """Give back the session as new: no transaction, no settings, no locks.

        Raises:
            ConnectError: the connection is of no further use.
        """

    async def close(self) -> None:
        """End the connection politely; never raises, and safe to call again."""

    def terminate(self) -> None:
        """End the connection at once, without a word to the server; never raises or waits."""

    def is_closed(self) -> bool:
        """True where the connection is known to be unusable."""


class WatchedConnection(Connection, Protocol):
    """A connection that tells when its server ends it, also while nobody asks it anything."""

    __slots__ = ()

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once, in the event loop, when the connection ends without our asking."""


class Driver(Protocol):
    """Opens connections to one target.

    Attributes:
        bounds_itself: whether it bounds the time at each of its addresses, so that its caller is not to.
    """

    bounds_itself: bool = False

    @property
    def name(self) -> DriverName:
        """The name on the command line and in results."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The steps that a connection by this driver can have and that it tells apart, in order."""
        return COARSE_PHASES

    async def prepare(self) -> None:
        """Do what is done once for all connections; `connect` does it itself where it was not done.

        Raises:
            ConnectError: it failed.
        """
        return  # most have nothing of the kind

    async def connect(self) -> Connection:
        """Open one connection; the caller bounds the time.

        Raises:
            ConnectError: it could not be opened.
        """
