"""Connections through asyncpg: what an application that uses it pays."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from pool_bench.drivers.base import DriverName
from pool_bench.drivers.last_words import LastWords
from pool_bench.drivers.tls import make_context
from pool_bench.errors import ConnectError, FailureKind, Phase, kind_of_os_error, kind_of_sqlstate
from pool_bench.targets import Target

if TYPE_CHECKING:
    import asyncpg


class AsyncpgOptions(TypedDict):
    """What `asyncpg.connect` is told of a target; holds the password."""

    host: list[str]
    port: list[int]
    user: str
    password: str | None
    database: str
    ssl: ssl.SSLContext | str
    direct_tls: bool
    server_settings: dict[str, str]


class _Options(AsyncpgOptions):
    timeout: None


class AsyncpgConnection:
    """One asyncpg connection behind the driver protocol.

    Attributes:
        touched: whether it was used since somebody last set this to False.
    """

    __slots__ = ("_raw", "touched")

    def __init__(self, raw: "asyncpg.Connection") -> None:
        self._raw = raw
        self.touched = True

    @property
    def raw(self) -> "asyncpg.Connection":
        """asyncpg's own object; to ask for it counts as use."""
        self.touched = True
        return self._raw

    def in_transaction(self) -> bool:
        """Whether a transaction is open, by the server's last ReadyForQuery."""
        if self._raw.is_closed():
            return False
        is_open: bool = self._raw.is_in_transaction()
        return is_open

    async def ping(self) -> None:
        """`SELECT 1` by the simple protocol."""
        await self.execute("SELECT 1")

    async def execute(self, sql: str) -> None:
        """Run `sql` by the simple protocol; rows are thrown away."""
        try:
            await self.raw.execute(sql)
        except Exception as error:
            raise connect_error(error, Phase.QUERY) from error

    async def reset(self) -> None:
        """asyncpg's own reset: roll back, release locks, close cursors, RESET ALL."""
        try:
            await self.raw.reset()
        except Exception as error:
            raise connect_error(error, Phase.QUERY) from error

    async def close(self) -> None:
        """Send Terminate and wait until the transport is gone."""
        try:
            await self._raw.close()
        except Exception:
            self._raw.terminate()

    def terminate(self) -> None:
        """Drop the transport."""
        self._raw.terminate()

    def is_closed(self) -> bool:
        """Whether asyncpg knows it to be closed."""
        closed: bool = self._raw.is_closed()
        return closed

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once when the connection ends.

        An idle asyncpg connection throws away what its server says before it ends it, so what arrives
        is looked at on its way to asyncpg.
        """
        self._raw._transport.set_protocol(_Overhear(self._raw._protocol, lost))


class _Overhear(asyncio.Protocol):
    """Stands between a transport and asyncpg's protocol, and remembers the server's last words."""

    __slots__ = ("_lost", "_protocol", "_words")

    def __init__(self, protocol: asyncio.Protocol, lost: Callable[[ConnectError], None]) -> None:
        self._protocol = protocol
        self._lost: Callable[[ConnectError], None] | None = lost
        self._words = LastWords()

    def data_received(self, data: bytes) -> None:
        is_end = self._words.hear(data)
        self._protocol.data_received(data)
        if is_end and self._words.said is not None:
            # Now, for until the stream ends asyncpg would take a query, and stumble over its own state.
            # Not at once, for a query under way is to be told first.
            asyncio.get_running_loop().call_soon(self._tell, self._words.said)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._tell(self._words.said or _end_of(exc))

    def _tell(self, error: ConnectError) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(error)


def _end_of(exc: Exception | None) -> ConnectError:
    """Why a connection ended whose server said nothing."""
    if isinstance(exc, OSError):
        return ConnectError(_os_kind(exc, str(exc)), Phase.HOLD, exc.strerror or str(exc))
    return ConnectError(FailureKind.CLOSED, Phase.HOLD, "the server closed the connection")


class AsyncpgDriver:
    """Opens asyncpg connections to one target.

    Raises:
        UsageError: a certificate file is unusable.
    """

    name: DriverName = "asyncpg"

    def __init__(self, target: Target) -> None:
        # Now, or the first connection would pay for it.
        import asyncpg  # noqa: F401

        self._options = _Options(**asyncpg_options(target), timeout=None)

    async def connect(self) -> AsyncpgConnection:
        """Open one connection.

        Raises:
            ConnectError: it could not be opened.
        """
        import asyncpg

        try:
            return AsyncpgConnection(await asyncpg.connect(**self._options))
        except Exception as error:
            raise connect_error(error, Phase.CONNECT) from error


def asyncpg_options(target: Target) -> AsyncpgOptions:
    """Everything `asyncpg.connect` must be told to connect to `target`; holds the password.

    Raises:
        UsageError: a certificate file is unusable.
    """
    startup = target.startup_parameters()
    return AsyncpgOptions(
        host=[host.address or host.name for host in target.hosts],
        port=[host.port for host in target.hosts],
        user=target.user,
        password=target.password_for(target.hosts[0]),
        database=target.dbname,
        ssl=_ssl(target),
        direct_tls=target.sslnegotiation == "direct",
        server_settings={k: v for k, v in startup.items() if k not in ("user", "database")},
    )


def _ssl(target: Target) -> ssl.SSLContext | str:
    """Modes that fall back are asyncpg's own business; strict ones get a context like libpq's."""
    if target.sslmode in ("disable", "allow", "prefer"):
        return target.sslmode
    return make_context(target)


def connect_error(error: Exception, phase: Phase) -> ConnectError:
    """What went wrong in asyncpg, in this package's terms."""
    import asyncpg

    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, asyncpg.exceptions.ConnectionDoesNotExistError):
        return ConnectError(FailureKind.CLOSED, phase, message)
    if isinstance(error, asyncpg.PostgresError):
        state: str | None = error.sqlstate
        return ConnectError(kind_of_sqlstate(state, message), phase, message, sqlstate=state)
    if isinstance(error, socket.gaierror) or (isinstance(error, UnicodeError) and phase is Phase.CONNECT):
        return ConnectError(FailureKind.DNS, phase, message)
    if isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in message:
        return ConnectError(FailureKind.TLS, phase, message)
    if isinstance(error, OSError):
        return ConnectError(_os_kind(error, message), phase, message)
    if isinstance(error, asyncpg.exceptions.InternalClientError):
        return ConnectError(FailureKind.PROTOCOL, phase, message)
    return ConnectError(FailureKind.OTHER, phase, message)


def _os_kind(error: OSError, message: str) -> FailureKind:
    # With several addresses asyncio puts all errors into one message, without an errno.
    numbered = re.search(r"\[Errno (\d+)\]", message)
    if error.errno is None and numbered is not None:
        return kind_of_os_error(OSError(int(numbered[1]), message))
    if error.errno is None and isinstance(error, ConnectionError):
        return FailureKind.RESET if isinstance(error, ConnectionResetError) else FailureKind.CLOSED
    return kind_of_os_error(error)
