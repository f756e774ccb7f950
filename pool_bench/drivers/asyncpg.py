"""Connections through asyncpg: what an application that uses it pays."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NotRequired, Self, TypedDict, cast
from urllib.parse import quote

from pool_bench.drivers.backend_messages import BackendMessageTap
from pool_bench.drivers.base import LENT_AGAIN, Connection, Driver, DriverName, beyond_limit
from pool_bench.drivers.network.failures import reported_error
from pool_bench.drivers.network.tls import postgres_context
from pool_bench.drivers.refusals import check_settings
from pool_bench.errors import ConnectError, FailureKind, Phase, QueryTimeoutError, kind_of_os_error
from pool_bench.targets.addresses import label_of
from pool_bench.targets.postgres import PostgresTarget, SessionAttrs
from pool_bench.targets.session_attrs import Fitness

if TYPE_CHECKING:
    from pool_bench.drivers.asyncpg_session import Session


_LENT_AGAIN: Final = cast("Session", LENT_AGAIN)


class AsyncpgOptions(TypedDict):
    """What `asyncpg.connect` is told of a target; holds the password."""

    dsn: str | None
    host: list[str]
    port: list[int]
    user: str
    password: str | None
    database: str
    ssl: ssl.SSLContext | str
    direct_tls: bool
    server_settings: dict[str, str]
    target_session_attrs: NotRequired[str]


class _Options(AsyncpgOptions):
    timeout: None


class AsyncpgConnection(Connection):
    """One asyncpg connection behind the driver protocol.

    Args:
        raw: asyncpg's own object.
        attrs: of which sort its server is to be.

    Attributes:
        touched: whether it was used since somebody last set this to False.
    """

    __slots__ = ("_fitness", "_raw", "_tapped", "touched")

    def __init__(self, raw: "Session", attrs: SessionAttrs = "any") -> None:
        self._raw = raw
        self._fitness = Fitness(attrs)
        self._tapped: _TappedProtocol | None = None
        self.touched = True

    @property
    def raw(self) -> "Session":
        """asyncpg's own object; to ask for it counts as use."""
        self.touched = True
        return self._raw

    def renewed(self) -> Self:
        """A new handle of this session; this one refuses from now on."""
        fresh = object.__new__(type(self))
        fresh._raw = self._raw
        fresh._fitness = self._fitness
        fresh._tapped = self._tapped
        fresh.touched = self.touched
        self._raw = _LENT_AGAIN
        return fresh

    def in_transaction(self) -> bool:
        """Whether a transaction is open, by the server's last ReadyForQuery."""
        if self._raw.is_closed():
            return False
        is_open: bool = self._raw.is_in_transaction()
        return is_open

    @property
    def may_turn_unfit(self) -> bool:
        """Whether its server may become one that `target_session_attrs` rules out."""
        return self._fitness.may_be_lost

    @property
    def in_doubt(self) -> bool:
        """Whether it has refused to write since the last `ping`, which finds out why."""
        return self._fitness.in_doubt

    def unfit(self) -> str | None:
        """Why its server is not of the wanted sort any more, by its last answers; None where it is."""
        settings = self._raw.get_settings()
        return self._fitness.complaint(lambda name: getattr(settings, name, None))

    @property
    def address(self) -> str:
        """Where it is open to, of a connection that is; "" where that cannot be told."""
        peer = self._raw._transport.get_extra_info("peername")
        return label_of(peer) if peer else ""

    async def ping(self) -> None:
        """`SELECT 1`, or what sort of server it is, by the simple protocol."""
        question = self._fitness.question
        if question is None:
            await self.execute("SELECT 1")
            return
        # The rows of the simple protocol are thrown away, but its tag counts them: `SELECT 0`.
        tag = await self._run(question)
        self._fitness.answered(int(tag.rpartition(" ")[2]))

    async def execute(self, sql: str) -> None:
        """Run `sql` by the simple protocol; rows are thrown away."""
        await self._run(sql)

    async def _run(self, sql: str) -> str:
        raw = self.raw
        execute = raw.execute
        try:
            tag: str = await execute(sql)
        except Exception as error:
            if isinstance(error, TimeoutError) and raw.query_timeout is not None:
                raise QueryTimeoutError(beyond_limit(raw.query_timeout)) from error
            failure = connect_error(error, Phase.QUERY)
            self._fitness.refused(failure.sqlstate)
            raise failure from error
        return tag

    async def reset(self) -> None:
        """Roll back, then what DISCARD ALL does, but for asyncpg's own prepared statements."""
        reset = self.raw.reset
        try:
            await reset()
        except Exception as error:
            raise connect_error(error, Phase.QUERY) from error

    def begin_reset(self, ended: Callable[[BaseException | None], None]) -> bool:
        """Begin what `reset` does, without a task.

        Args:
            ended: called once, with None or the ConnectError.

        Returns:
            False where only `reset` will do; nothing was begun then.
        """

        def told(error: BaseException | None) -> None:
            ended(connect_error(error, Phase.QUERY) if isinstance(error, Exception) else error)

        return self._raw.begin_reset(told)

    def limit_queries(self, seconds: float | None) -> None:
        """Cancel each query that takes longer, those of `raw` included; None for no limit."""
        self._raw.limit_queries(seconds)

    def settle(self) -> None:
        """Let the codecs and callbacks that have been set until now outlast every reset."""
        self._raw.settle()

    async def close(self) -> None:
        """Send Terminate and wait until the transport is gone."""
        close = self._raw.close
        self._ignore()
        try:
            await close()
        except Exception:
            self._raw.terminate()

    def terminate(self) -> None:
        """Drop the transport."""
        terminate = self._raw.terminate
        self._ignore()
        terminate()

    def is_closed(self) -> bool:
        """Whether asyncpg knows it to be closed."""
        closed: bool = self._raw.is_closed()
        return closed

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once when the connection ends, or in a moment where it has ended.

        An idle asyncpg connection throws away what its server says before it ends it, so what arrives
        is looked at on its way to asyncpg.
        """
        if self.is_closed():
            asyncio.get_running_loop().call_soon(lost, _end_of(None))
            return
        self._tapped = _TappedProtocol(self._raw._protocol, lost)
        self._raw._transport.set_protocol(self._tapped)

    def _ignore(self) -> None:
        """Tell of no end any more: it is our own."""
        if self._tapped is not None:
            self._tapped.ignore()


class _TappedProtocol(asyncio.Protocol):
    """Stands between a transport and asyncpg's protocol, and remembers the server's last words."""

    __slots__ = ("_lost", "_protocol", "_tap")

    def __init__(self, protocol: asyncio.Protocol, lost: Callable[[ConnectError], None]) -> None:
        self._protocol = protocol
        self._lost: Callable[[ConnectError], None] | None = lost
        self._tap = BackendMessageTap()

    def ignore(self) -> None:
        """Tell nobody any more."""
        self._lost = None

    def data_received(self, data: bytes) -> None:
        is_end = self._tap.feed(data)
        self._protocol.data_received(data)
        if is_end and self._tap.last_error is not None:
            # Now, for until the stream ends asyncpg would take a query, and stumble over its own state.
            # Not at once, for a query under way is to be told first.
            asyncio.get_running_loop().call_soon(self._tell, self._tap.last_error)

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._tell(self._tap.last_error or _end_of(exc))

    def _tell(self, error: ConnectError) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(error)


def _end_of(exc: Exception | None) -> ConnectError:
    """Why a connection ended whose server said nothing."""
    if isinstance(exc, OSError):
        return ConnectError(_os_kind(exc, str(exc)), Phase.HOLD, exc.strerror or str(exc))
    return ConnectError(FailureKind.CLOSED, Phase.HOLD, "the server closed the connection")


class AsyncpgDriver(Driver):
    """Opens asyncpg connections to one target.

    Args:
        target: where to.
        statement_cache_size: prepared statements that a connection keeps; 0 suits a pooler that gives each
            transaction another session, None is asyncpg's own choice.

    Raises:
        UsageError: a certificate file is unusable.
    """

    name: DriverName = "asyncpg"

    def __init__(self, target: PostgresTarget, *, statement_cache_size: int | None = None) -> None:
        # Now, or the first connection would pay for it.
        from pool_bench.drivers.asyncpg_session import Session

        self._class = Session
        self._cache = {} if statement_cache_size is None else {"statement_cache_size": statement_cache_size}
        self._options = _Options(**asyncpg_options(target), timeout=None)
        # Of several addresses asyncpg does not say which one it failed at.
        self._address = target.only_address
        self._attrs = target.target_session_attrs

    async def connect(self) -> AsyncpgConnection:
        """Open one connection.

        Raises:
            ConnectError: it could not be opened.
        """
        import asyncpg

        try:
            raw = await asyncpg.connect(**self._options, **self._cache, connection_class=self._class)
            return AsyncpgConnection(raw, self._attrs)
        except Exception as error:
            raise connect_error(error, Phase.CONNECT).at(self._address) from error


def asyncpg_options(target: PostgresTarget) -> AsyncpgOptions:
    """Everything `asyncpg.connect` must be told to connect to `target`; holds the password.

    Raises:
        UsageError: a certificate file is unusable, or the target asks for what asyncpg does not do.
    """
    check_settings("asyncpg", (target,))
    startup = target.startup_parameters()
    options = AsyncpgOptions(
        dsn=_dsn(target),
        host=[host.address or host.name for host in target.hosts],
        port=[host.port for host in target.hosts],
        user=target.user,
        password=target.shared_password("asyncpg"),
        database=target.dbname,
        ssl=_ssl(target),
        direct_tls=target.sslnegotiation == "direct",
        server_settings={k: v for k, v in startup.items() if k not in ("user", "database")},
    )
    if target.target_session_attrs != "any":
        options["target_session_attrs"] = target.target_session_attrs
    return options


_FALLBACK: Final = ("allow", "prefer")


def _ssl(target: PostgresTarget) -> ssl.SSLContext | str:
    """Modes that fall back are asyncpg's own business; strict ones get a context like libpq's."""
    if target.sslmode == "disable" or target.sslmode in _FALLBACK:
        return target.sslmode
    return postgres_context(target)


def _dsn(target: PostgresTarget) -> str | None:
    """What asyncpg must know to make its own context, which it does in the modes that fall back.

    These settings it takes from a DSN only; what it is told apart from it goes before.
    """
    if target.sslmode not in _FALLBACK:
        return None
    if not all(host.is_unix for host in target.hosts):
        # asyncpg reads the files for each connection; what is wrong with them is said once, before.
        postgres_context(target)
    given = {
        "sslcert": target.sslcert,
        "sslkey": target.sslkey,
        "sslpassword": target.sslpassword,
        "ssl_min_protocol_version": target.ssl_min_protocol_version,
        "ssl_max_protocol_version": target.ssl_max_protocol_version,
    }
    named = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items() if value)
    return f"postgresql:///?{named}"


def connect_error(error: Exception, phase: Phase) -> ConnectError:
    """What went wrong in asyncpg, in this package's terms."""
    import asyncpg

    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, asyncpg.exceptions.ConnectionDoesNotExistError):
        return ConnectError(FailureKind.CLOSED, phase, message)
    if isinstance(error, asyncpg.PostgresError):
        words = " ".join((error.message or message).split())
        return reported_error(words, phase, sqlstate=error.sqlstate, detail=error.detail, hint=error.hint)
    if isinstance(error, socket.gaierror) or (isinstance(error, UnicodeError) and phase is Phase.CONNECT):
        return ConnectError(FailureKind.DNS, phase, message)
    if isinstance(error, ssl.SSLError) or "rejected SSL upgrade" in message:
        return ConnectError(FailureKind.TLS, phase, message)
    if isinstance(error, OSError):
        return ConnectError(_os_kind(error, message), phase, message)
    if isinstance(error, asyncpg.exceptions.TargetServerAttributeNotMatched):
        return ConnectError(FailureKind.SESSION_ATTRS, phase, message)
    # A session that its server has ended leaves asyncpg in the middle of an operation that has no end.
    lost = "another operation" in message or "connection is closed" in message
    if lost and isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return ConnectError(FailureKind.CLOSED, phase, message)
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
