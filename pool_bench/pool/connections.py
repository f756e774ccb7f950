"""What a pool needs of connections and of what opens them.

Everything is structural: the drivers of this package fit as they are, and so does any object with
these methods. What is optional is found out once for each connection, when it is opened.
"""

from collections.abc import Callable
from typing import Protocol, Self, TypeAlias, TypeVar, runtime_checkable


class PooledConnection(Protocol):
    """A connection that a pool can keep. Any exception of `ping` or `reset` ends its use."""

    async def ping(self) -> None:
        """Make one cheap round trip."""

    async def reset(self) -> None:
        """Give back the session as new: no transaction, no settings, no locks."""

    async def close(self) -> None:
        """End the connection politely."""

    def is_closed(self) -> bool:
        """True where the connection is known to be unusable; does no I/O."""


C = TypeVar("C", bound=PooledConnection)
C_co = TypeVar("C_co", bound=PooledConnection, covariant=True)


class Connector(Protocol[C_co]):
    """Opens connections; `pool_bench.drivers.base.Driver` is one."""

    async def connect(self) -> C_co:
        """Open one connection; the pool bounds the time. Any exception is a failed connect."""


@runtime_checkable
class Terminable(Protocol):
    """A connection that can be dropped without waiting."""

    def terminate(self) -> None:
        """End the connection at once, without a word to the server; never raises or waits."""


@runtime_checkable
class Executable(Protocol):
    """A connection that runs SQL given as text."""

    async def execute(self, sql: str) -> object:
        """Run `sql`."""


@runtime_checkable
class Tracked(Protocol):
    """A connection that knows whether it was used.

    Attributes:
        touched: set by the connection when anything is asked of it; cleared by the pool.
    """

    touched: bool


@runtime_checkable
class Transactional(Protocol):
    """A connection that knows, without asking the server, whether a transaction is open."""

    def in_transaction(self) -> bool:
        """True inside a transaction, a failed one included."""


@runtime_checkable
class Choosy(Protocol):
    """A connection that asks for a certain sort of server, as by `target_session_attrs`.

    Attributes:
        may_turn_unfit: whether there is any sort of server that it does not ask for.
    """

    @property
    def may_turn_unfit(self) -> bool: ...

    def unfit(self) -> str | None:
        """Why its server is of another sort, None where it fits or cannot be told; does no I/O."""


@runtime_checkable
class Doubtful(Protocol):
    """A connection whose server may have ceased to fit, by how it took a statement."""

    @property
    def in_doubt(self) -> bool:
        """Whether to find out, by a `ping`, after which it is in doubt no more."""


@runtime_checkable
class Settleable(Protocol):
    """A connection on whose own side something may outlast a reset."""

    def settle(self) -> None:
        """What it has been given until now, by `on_connect` say, is as good as new; does no I/O."""


@runtime_checkable
class Renewable(Protocol):
    """A connection whose session can be handed to a new handle."""

    def renewed(self) -> Self:
        """A new handle of this session; this one refuses from now on, and says why."""


Ended: TypeAlias = Callable[[BaseException | None], None]


@runtime_checkable
class SelfResetting(Protocol):
    """A connection whose reset needs no task of its own."""

    def begin_reset(self, ended: Ended) -> bool:
        """Begin what `reset` does, and call `ended` once: with None, or with what went wrong.

        Returns:
            False where only `reset` will do, as there is more than usual to undo; nothing was begun then.
        """


@runtime_checkable
class Bounded(Protocol):
    """A connection that can bound its queries."""

    def limit_queries(self, seconds: float | None) -> None:
        """From now on cancel each query that takes longer; None for no limit. Does no I/O."""


def limit_queries(connection: object, seconds: float | None) -> None:
    """Bound the queries on `connection`, or bound them no longer.

    Raises:
        TypeError: it cannot do that.
    """
    if not isinstance(connection, Bounded):
        raise TypeError("query_timeout needs connections that can bound their queries (limit_queries)")
    connection.limit_queries(seconds)


def settle(connection: object) -> None:
    """What `connection` has been given until now is to outlast its resets."""
    if isinstance(connection, Settleable):
        connection.settle()


def terminate(connection: object) -> None:
    """Drop `connection` at once where it can be dropped; whatever that raises is of no interest."""
    if isinstance(connection, Terminable):
        try:
            connection.terminate()
        except Exception:
            return


def as_executable(connection: object, what_for: str) -> Executable:
    """`connection`, as one that runs SQL.

    Raises:
        TypeError: it does not; the message names what needs it.
    """
    if not isinstance(connection, Executable):
        raise TypeError(f"{what_for} needs connections that can execute")
    return connection


def as_renewable(connection: object) -> Renewable | None:
    """`connection`, where its session can be handed to a new handle."""
    return connection if isinstance(connection, Renewable) else None


def reset_beginner(connection: object) -> Callable[[object, Ended], bool] | None:
    """`begin_reset` of the class of `connection`, where it has one; keeps no reference to it."""
    return getattr(type(connection), "begin_reset", None) if isinstance(connection, SelfResetting) else None


def as_tracked(connection: object) -> Tracked | None:
    """`connection`, where it can tell whether it was used."""
    return connection if isinstance(connection, Tracked) else None


def may_turn_unfit(connection: object) -> bool:
    """Whether the server of `connection` fits, and could cease to.

    One that does not fit when it is ready for use was made so by its user's own settings.
    """
    return isinstance(connection, Choosy) and connection.may_turn_unfit and unfitness(connection) is None


def unfitness(connection: object) -> str | None:
    """Why the server of `connection` does not fit any more, None where that is not known."""
    try:
        return connection.unfit() if isinstance(connection, Choosy) else None
    except Exception:
        # It has ended, which is found out elsewhere.
        return None


def is_in_doubt(connection: object) -> bool:
    """Whether the server of `connection` may have ceased to fit."""
    return isinstance(connection, Doubtful) and connection.in_doubt


def transaction_state(connection: object) -> bool | None:
    """Whether a transaction is open on `connection`, None where that cannot be known.

    One that fails to say counts as inside one: nothing of it is for the next borrower.
    """
    if not isinstance(connection, Transactional):
        return None
    try:
        return connection.in_transaction()
    except Exception:
        return True
