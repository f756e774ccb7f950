"""What commands ask of the place where their targets are, whatever those speak.

A `Place` is what the user named, or that nothing was named; a `Site` is that place with its server there,
for as long as the command needs it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Protocol

from pool_bench.cli.preflight import run_briefly
from pool_bench.cli.status import busy, notify
from pool_bench.errors import ConnectError, FailureKind, Phase, PoolBenchError
from pool_bench.load.run import StopSwitch
from pool_bench.targets import Target
from pool_bench.targets.postgres import PostgresTarget, SslMode

if TYPE_CHECKING:
    from pool_bench.cli.walls import KnownLimits
    from pool_bench.load.spec import ConnectSpec
    from pool_bench.watch.watcher import Watcher

# What a result file's `config` says.
Config = dict[str, str | int | float | bool | list[str] | None]
# Stops and starts a server, and calls what it is given between the two.
Restart = Callable[[Callable[[], None]], None]

_GREETING_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """What a calibration speaks with its null server, to be like the runs.

    Attributes:
        protocol: of SurrealDB's drivers.
        sslmode: of PostgreSQL's.
    """

    protocol: Literal["ws", "http"] = "ws"
    sslmode: SslMode = "disable"


class Place(Protocol):
    """Where a command's targets come from."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the user named; empty for the embedded server."""

    @property
    def origin(self) -> str:
        """Says so in words."""

    @property
    def is_embedded(self) -> bool:
        """True where no server was named."""

    @property
    def is_here(self) -> bool:
        """Whether all targets are on this machine."""

    def serve(
        self, *, tool: str, connections: int, ending: int = 0, log_setup: bool = False
    ) -> "AbstractContextManager[Site]":
        """The place with its server: where no target was named an embedded one is started.

        Args:
            tool: the application name of its connections, where the server has such.
            connections: how many it has to have room for.
            ending: connections that it may still have although their client has gone.
            log_setup: have PostgreSQL log its own time for setting each connection up.

        Raises:
            ServerStartError: on entry, the server does not start.
        """


class Site(ABC):
    """A place whose server is there; what only one sort of server has is not there by default.

    Attributes:
        targets: what to connect to.
        advice: what to do about a failure of a kind.
        hopeless: failures that say that the target was named wrongly, or is not there: measuring would
            count the same answer all the time.
        steps: those of one connection, in their order.
    """

    advice: ClassVar[Mapping[FailureKind, str]]
    hopeless: ClassVar[frozenset[FailureKind]]
    steps: ClassVar[tuple[Phase, ...]]

    targets: tuple[Target, ...]

    @property
    @abstractmethod
    def is_embedded(self) -> bool:
        """Whether the server is ours."""

    @property
    def restart(self) -> Restart | None:
        """Restarts the server, where it is ours and can be restarted."""
        return None

    @abstractmethod
    def config(self) -> Config:
        """What a result file's `config` says of the place."""

    @abstractmethod
    def words(self, index: int) -> str:
        """One target in words, with what is used there."""

    @abstractmethod
    async def ask(self, index: int, limit_s: float) -> dict[str, str]:
        """What the server at one target says it is: product, version, and what stands in between.

        Args:
            index: which of `targets`.
            limit_s: bound on each host and address, and on the answer, seconds.

        Raises:
            ConnectError: it cannot be reached, or does not let us in.
            PoolBenchError: what is to be used there does not exist.
        """

    @abstractmethod
    def probe(self, index: int) -> "ConnectSpec":
        """The settings of a connection to one target that shows whether it can be used."""

    @abstractmethod
    def watcher(
        self, wanted: int, *, admin: PostgresTarget | None = None, find_console: bool = True
    ) -> "Watcher":
        """A watcher of the server of the first target.

        Args:
            wanted: connections that the run opens at most.
            admin: PgBouncer's console, where the user named one.
            find_console: where the target turns out to be a pooler, try whether it has a console for us.
        """

    def guard(
        self,
        shares: Sequence[int],
        *,
        reserve: bool,
        watched: bool,
        admin: PostgresTarget | None,
        timeout_s: float,
    ) -> "tuple[tuple[int, ...], KnownLimits]":
        """The connections that may be held, and what servers say of their limits; blocks for some seconds.

        Args:
            shares: how many connections each target is to have.
            reserve: leave the server's reserved slots, and some more, free.
            watched: one more connection is the watcher's.
            admin: PgBouncer's console, where the user named one.
            timeout_s: bound on each look, seconds.

        Raises:
            PoolBenchError: no connection may be opened at all.
        """
        from pool_bench.cli.walls import KnownLimits

        return tuple(shares), KnownLimits()

    def shares_sessions(self, timeout_s: float) -> bool:
        """Whether each transaction may meet another session, as behind a pooler in transaction mode."""
        return False

    @abstractmethod
    def transport(self, greeting: Mapping[str, str]) -> Transport:
        """How runs come to the server, of which `greeting` is what it said first."""

    def greet(self, stop: StopSwitch, *, timeout_s: float, keep_going: bool | None = None) -> dict[str, str]:
        """Say on stderr what the first of the targets that can be used says it is, and return it.

        Args:
            stop: lets the user give up waiting for the answer.
            timeout_s: bound on each host and address, and on the answer, seconds; five at most are waited.
            keep_going: measure also what cannot be measured as it was named; None where there is no such
                option.

        Returns:
            Product, version and what stands in between, {} where it gave no answer and is measured all the
            same.

        Raises:
            PoolBenchError: none of them can be used as it was named: a line that says what to do.
        """
        *others, last = range(len(self.targets))
        for index in others:
            try:
                return self._greet(index, stop, timeout_s, keep_going)
            except PoolBenchError as error:
                notify(str(error))
        return self._greet(last, stop, timeout_s, keep_going)

    def _greet(
        self, index: int, stop: StopSwitch, timeout_s: float, keep_going: bool | None
    ) -> dict[str, str]:
        # Of no use to `--help`, for which it takes too long.
        import asyncio

        async def ask() -> dict[str, str]:
            answer = asyncio.ensure_future(self.ask(index, min(_GREETING_TIMEOUT_S, timeout_s)))
            with suppress(NotImplementedError):  # Windows cannot watch a pipe
                asyncio.get_running_loop().add_reader(stop.fileno(), answer.cancel)
            return await answer

        target = self.targets[index]
        try:
            with busy(f"connecting to {target}", only_terminals=True):
                greeting = run_briefly(ask())
        except ConnectError as error:
            failed = f"first connection to {target} failed: {error}"
            if error.kind in self.hopeless and not keep_going:
                anyway = "" if keep_going is None else " (--keep-going measures it anyway)"
                advice = f"; {self.advice[error.kind]}" if error.kind in self.advice else ""
                raise PoolBenchError(f"{failed}{advice}{anyway}") from None
            notify(failed)
            return {}
        except asyncio.CancelledError:
            return {}  # stopped by the user
        if self.is_embedded:
            greeting["embedded"] = "yes"
        notify(f"{greeting_words(greeting)}, at {self.words(index)}")
        return greeting


def greeting_words(greeting: Mapping[str, str]) -> str:
    """What a server said it is: `PostgreSQL 18.1, through PgBouncer`."""
    how = f", through {greeting['through']}" if "through" in greeting else ""
    how = ", embedded" if "embedded" in greeting else how
    return f"{greeting['product']} {greeting['version']}".strip() + how
