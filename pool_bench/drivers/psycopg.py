"""Connections through psycopg 3 and libpq: what an application that uses it pays."""

import asyncio
import re
import socket
from collections.abc import Callable, Generator
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pool_bench.drivers.base import DriverName
from pool_bench.drivers.tls import make_context
from pool_bench.errors import ConnectError, FailureKind, Phase, kind_of_os_error, kind_of_sqlstate
from pool_bench.targets import Target

if TYPE_CHECKING:
    import psycopg

_Result = TypeVar("_Result")

# DISCARD ALL without DEALLOCATE ALL, of which psycopg takes notice the first time only: from the second on
# it would use statements that the server has forgotten (seen with 3.3.9).
_DISCARD: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES"
)

# libpq gives no SQLSTATE for a connection that failed, only the text.
_KIND_BY_TEXT: Final = (
    (r"connection refused|no such file or directory", FailureKind.REFUSED),
    (r"too many (clients|connections)|remaining connection slots|no more connections", "53300"),
    (r"is starting up|not yet accepting connections|in recovery mode", "57P03"),
    (r"is shutting down", "57P03"),
    (r"terminating connection", "57P01"),
    (r"password authentication failed|no password supplied|no such user", "28P01"),
    (r"no pg_hba\.conf entry|authentication failed|role .* does not exist", "28000"),
    (r"requires a valid client certificate", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"too many open files", FailureKind.CLIENT_FDS),
    (r"cannot assign requested address", FailureKind.CLIENT_PORTS),
    (r"timeout expired|timed out", FailureKind.TIMEOUT),
    (r"reset by peer|broken pipe", FailureKind.RESET),
    (r"server closed the connection|unexpected eof|connection.* is (closed|lost)", FailureKind.CLOSED),
    (r"could not translate host name|resolve host|name or service|name resolution", FailureKind.DNS),
    (r"\bssl\b|certificate|\btls\b", FailureKind.TLS),
    (r"received invalid|unexpected (message|response)|protocol", FailureKind.PROTOCOL),
)


class PsycopgConnection:
    """One psycopg connection behind the driver protocol.

    Attributes:
        touched: whether it was used since somebody last set this to False.
    """

    __slots__ = ("_last_words", "_lost", "_raw", "_watched_fd", "touched")

    def __init__(self, raw: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
        self._raw = raw
        self.touched = True
        self._lost: Callable[[ConnectError], None] | None = None
        self._last_words: ConnectError | None = None
        self._watched_fd = -1

    @property
    def raw(self) -> "psycopg.AsyncConnection[tuple[object, ...]]":
        """psycopg's own object; to ask for it counts as use."""
        self.touched = True
        return self._raw

    def in_transaction(self) -> bool:
        """Whether a transaction is open, or a command under way, as libpq knows."""
        # IDLE is 0 (libpq-fe.h, PGTransactionStatusType), and so the only one that is false.
        return bool(self._raw.pgconn.transaction_status)

    async def ping(self) -> None:
        """`SELECT 1`."""
        await self.execute("SELECT 1")

    async def execute(self, sql: str) -> None:
        """Run `sql`; rows are thrown away."""
        import psycopg

        try:
            # Bytes pass where only literals are allowed as text: this is the user's own query.
            await self.raw.execute(sql.encode())
        except psycopg.Error as error:
            failure, said = connect_error(error, Phase.QUERY), self._last_words
            if said is not None and failure.kind in (FailureKind.CLOSED, FailureKind.RESET):
                failure = ConnectError(said.kind, Phase.QUERY, said.message, sqlstate=said.sqlstate)
            raise failure from error
        finally:
            # psycopg has put its own reader in the place of ours, and taken it away again.
            self._listen()

    async def reset(self) -> None:
        """Roll back, then what DISCARD ALL does, but for psycopg's own prepared statements."""
        import psycopg

        try:
            await self.raw.rollback()
            await self.raw.execute(_DISCARD, prepare=False)
        except psycopg.Error as error:
            raise connect_error(error, Phase.QUERY) from error

    async def close(self) -> None:
        """Send Terminate and close the socket without waiting for the server, as libpq does."""
        self._ignore()
        await self._raw.close()

    def terminate(self) -> None:
        """Close the socket."""
        self._ignore()
        self._raw.pgconn.finish()

    def is_closed(self) -> bool:
        """Whether psycopg knows it to be closed."""
        return self._raw.closed

    def watch(self, lost: Callable[[ConnectError], None]) -> None:
        """Call `lost` once when the connection ends; psycopg itself looks only when it is asked something."""
        self._lost = lost
        self._raw.add_notice_handler(self._noticed)
        self._listen()

    def _listen(self) -> None:
        if self._lost is not None and not self._raw.closed:
            self._watched_fd = self._raw.fileno()
            asyncio.get_running_loop().add_reader(self._watched_fd, self._readable)

    def _ignore(self) -> None:
        self._lost = None
        if self._watched_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._watched_fd)
            self._watched_fd = -1

    def _readable(self) -> None:
        import psycopg

        pgconn = self._raw.pgconn
        try:
            pgconn.consume_input()
            pgconn.is_busy()  # makes libpq read what it has taken in, notices included
        except psycopg.Error as error:
            self._end(self._last_words or connect_error(error, Phase.HOLD))
            return
        if self._last_words is not None:
            self._end(self._last_words)

    def _noticed(self, diagnostic: "psycopg.errors.Diagnostic") -> None:
        state, message = diagnostic.sqlstate, diagnostic.message_primary or ""
        kind = kind_of_sqlstate(state, message)
        # A crash is announced by a warning only. It is only noted: libpq, which is calling us, goes on with
        # the connection afterwards, so that it must not be closed here.
        if diagnostic.severity_nonlocalized in ("FATAL", "PANIC") or kind is FailureKind.SERVER_SHUTDOWN:
            self._last_words = ConnectError(kind, Phase.HOLD, " ".join(message.split()), sqlstate=state)

    def _end(self, error: ConnectError) -> None:
        lost = self._lost
        self._ignore()
        if lost is not None:
            lost(error)


class PsycopgDriver:
    """Opens psycopg connections to one target.

    Raises:
        UsageError: a certificate file is unusable.
    """

    name: DriverName = "psycopg"

    def __init__(self, target: Target) -> None:
        # Now, or the first connection would pay for the import.
        _connection_class()
        if target.sslmode != "disable" and not all(host.is_unix for host in target.hosts):
            # libpq reads the files for each connection; what is wrong with them is said once, before.
            make_context(target)
        self._options = libpq_options(target)

    async def connect(self) -> PsycopgConnection:
        """Open one connection in autocommit mode.

        Raises:
            ConnectError: it could not be opened.
        """
        from psycopg.conninfo import make_conninfo

        try:
            raw = await _connection_class().connect(make_conninfo(**self._options), autocommit=True)
        except Exception as error:
            raise connect_error(error, Phase.CONNECT) from error
        return PsycopgConnection(raw)


def libpq_options(target: Target) -> dict[str, str]:
    """Everything libpq must be told to connect to `target`; holds the password."""
    hosts = target.hosts
    given: dict[str, str | None] = {
        "host": ",".join(host.name for host in hosts),
        "hostaddr": ",".join(host.address or "" for host in hosts)
        if any(host.address for host in hosts)
        else None,
        "port": ",".join(str(host.port) for host in hosts),
        "user": target.user,
        "dbname": target.dbname,
        "password": target.password_for(hosts[0]),
        "sslmode": target.sslmode,
        "sslnegotiation": target.sslnegotiation if target.sslnegotiation != "postgres" else None,
        "sslrootcert": target.sslrootcert,
        "sslcert": target.sslcert,
        "sslkey": target.sslkey,
        "sslpassword": target.sslpassword,
        "sslsni": None if target.sslsni else "0",
        "ssl_min_protocol_version": target.ssl_min_protocol_version,
        "ssl_max_protocol_version": target.ssl_max_protocol_version,
        "channel_binding": target.channel_binding,
        "gssencmode": "disable",
        "application_name": target.application_name or None,
        "client_encoding": target.client_encoding,
        "options": target.options,
        "load_balance_hosts": "random" if target.load_balance_hosts else None,
    }
    return {key: value for key, value in given.items() if value is not None}


@cache
def _connection_class() -> "type[psycopg.AsyncConnection[tuple[object, ...]]]":
    import psycopg
    from psycopg import waiting

    class Connection(psycopg.AsyncConnection[tuple[object, ...]]):
        """A connection that a cancelled query closes.

        psycopg's own asks the server to cancel the query, and waits ten seconds for a server that is silent.
        """

        async def wait(
            self, gen: Generator[Any, Any, _Result], interval: float = 0.1, timeout: float | None = None
        ) -> _Result:
            # Older versions know no timeout, and pass none.
            limit = {} if timeout is None else {"timeout": timeout}
            try:
                return await waiting.wait_async(gen, self.pgconn.socket, interval=interval, **limit)
            except asyncio.CancelledError:
                self.pgconn.finish()
                raise

    return Connection


def _unexplained(phase: Phase, message: str) -> ConnectError:
    """libpq 18 gives no reason where it could not make a socket: whether we can make one shows it."""
    try:
        socket.socket().close()
    except OSError as error:
        return ConnectError(kind_of_os_error(error), phase, error.strerror or message)
    return ConnectError(FailureKind.OTHER, phase, message)


def connect_error(error: Exception, phase: Phase) -> ConnectError:
    """What went wrong in psycopg or libpq, in this package's terms."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeError) and phase is Phase.CONNECT:
        return ConnectError(FailureKind.DNS, phase, f"not a host name: {text}")
    # Behind "FATAL:" stands the server's own message; before it, libpq's address book.
    message = re.sub(r"^.*?(?:FATAL|ERROR):\s*", "", text)
    state: str | None = getattr(error, "sqlstate", None)
    if state is not None:
        return ConnectError(kind_of_sqlstate(state, message), phase, message, sqlstate=state)
    if "no error details" in text:
        return _unexplained(phase, message)
    for pattern, meaning in _KIND_BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            if isinstance(meaning, FailureKind):
                return ConnectError(meaning, phase, message)
            return ConnectError(kind_of_sqlstate(meaning, message), phase, message, sqlstate=meaning)
    return ConnectError(FailureKind.OTHER, phase, message)
