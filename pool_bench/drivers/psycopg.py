"""Connections through psycopg 3 and libpq: what an application that uses it pays."""

import asyncio
import math
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, Self, cast

from pool_bench.cleaning import clean
from pool_bench.drivers.base import LENT_AGAIN, Connection, Driver, DriverName
from pool_bench.drivers.network.failures import reported_error
from pool_bench.drivers.network.local_ports import LOCAL_PORTS
from pool_bench.drivers.network.tls import postgres_context
from pool_bench.drivers.refusals import check_settings, has_protocol_3_2
from pool_bench.errors import (
    ConnectError,
    FailureKind,
    Phase,
    QueryTimeoutError,
    kind_of_os_error,
    kind_of_sqlstate,
    kind_of_words,
)
from pool_bench.targets.addresses import label_of
from pool_bench.targets.postgres import PostgresTarget, SessionAttrs
from pool_bench.targets.session_attrs import Fitness

if TYPE_CHECKING:
    import psycopg

    from pool_bench.drivers.psycopg_session import Session

# psycopg takes whole seconds, and two for less.
_LEAST_TIMEOUT_S: Final = 2

# DISCARD ALL without DEALLOCATE ALL, of which psycopg takes notice the first time only: from the second on
# it would use statements that the server has forgotten (seen with 3.3.9).
_DISCARD: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "
    "SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES"
)

_PREPARED: Final = "SELECT quote_ident(name) FROM pg_catalog.pg_prepared_statements WHERE from_sql"

# libpq gives no SQLSTATE for a connection that failed, only the text.
_KIND_BY_TEXT: Final = (
    (r"session is (not )?read-only|server is (not )?in hot standby mode", FailureKind.SESSION_ATTRS),
    (r"connection refused|no such file or directory", FailureKind.REFUSED),
    (r"too many (clients|connections)|remaining connection slots", "53300"),
    (r"is starting up|not yet accepting connections|in recovery mode", "57P03"),
    (r"database system is shutting down", "57P03"),
    (r"is shutting down", FailureKind.SERVER_SHUTDOWN),
    (r"terminating connection", "57P01"),
    (r"password authentication failed|no password supplied", "28P01"),
    (r"no pg_hba\.conf entry|pg_hba\.conf rejects|authentication failed|role .* does not exist", "28000"),
    (r"requires a valid client certificate", "28000"),
    (r"database .* does not exist", "3D000"),
    (r"too many open files", FailureKind.CLIENT_FDS),
    (r"cannot assign requested address", FailureKind.CLIENT_PORTS),
    (r"timeout expired|timed out", FailureKind.TIMEOUT),
    (r"reset by peer|broken pipe", FailureKind.RESET),
    (
        r"server closed the connection|unexpected eof|eof detected|connection.* is (closed|lost)",
        FailureKind.CLOSED,
    ),
    (r"could not translate host name|resolve host|name or service|name resolution", FailureKind.DNS),
    (r"\bssl\b|certificate|\btls\b", FailureKind.TLS),
    (r"received invalid|unexpected (message|response)|protocol", FailureKind.PROTOCOL),
)


# How a connection that was open ends for libpq; under TLS that is an error of TLS.
_LOST: Final = (FailureKind.CLOSED, FailureKind.RESET, FailureKind.TLS)


class PsycopgConnection(Connection):
    """One psycopg connection behind the driver protocol.

    Args:
        raw: psycopg's own object.
        attrs: of which sort its server is to be.

    Attributes:
        touched: whether it was used since somebody last set this to False.
    """

    __slots__ = ("_fitness", "_has_prepared", "_last_error", "_lost", "_raw", "_watched_fd", "touched")

    def __init__(self, raw: "Session", attrs: SessionAttrs = "any") -> None:
        self._raw = raw
        self._fitness = Fitness(attrs)
        self.touched = True
        self._has_prepared = False
        self._lost: Callable[[ConnectError], None] | None = None
        self._last_error: ConnectError | None = None
        self._watched_fd = -1

    @property
    def raw(self) -> "Session":
        """psycopg's own object; to ask for it counts as use."""
        self.touched = True
        return self._raw

    def renewed(self) -> Self:
        """A new handle of this session; this one refuses from now on, unless it is watched."""
        if self._lost is not None:
            return self
        fresh = object.__new__(type(self))
        fresh._raw, fresh.touched, fresh._has_prepared = self._raw, self.touched, self._has_prepared
        fresh._lost, fresh._last_error, fresh._watched_fd = None, self._last_error, -1
        fresh._fitness = self._fitness
        self._raw = cast("Session", LENT_AGAIN)
        return fresh

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
        pgconn = self._raw.pgconn

        def reported(name: str) -> str | None:
            value = pgconn.parameter_status(name.encode())
            return None if value is None else value.decode()

        return self._fitness.complaint(reported)

    @property
    def address(self) -> str:
        """Where it is open to, of a connection that is."""
        return _address_of(self._raw.pgconn)

    def in_transaction(self) -> bool:
        """Whether a transaction is open, or a command under way, as libpq knows."""
        # IDLE is 0 (libpq-fe.h, PGTransactionStatusType), and so the only one that is false.
        return bool(self._raw.pgconn.transaction_status)

    async def ping(self) -> None:
        """`SELECT 1`, or what sort of server it is."""
        question = self._fitness.question
        if question is None:
            await self.execute("SELECT 1")
        else:
            self._fitness.answered(await self._run(question))

    async def execute(self, sql: str) -> None:
        """Run `sql`; rows are thrown away."""
        await self._run(sql)

    async def _run(self, sql: str) -> int:
        """How many rows there were."""
        import psycopg

        if "repare" in sql or "REPARE" in sql:
            self._has_prepared = True
        execute = self.raw.execute
        try:
            # Bytes pass where only literals are allowed as text: this is the user's own query.
            cursor = await execute(sql.encode())
        except psycopg.Error as error:
            if isinstance(error, TimeoutError):
                raise QueryTimeoutError(str(error)) from error
            failure, last = connect_error(error, Phase.QUERY), self._last_error
            if last is not None and failure.kind in _LOST:
                failure = ConnectError(last.kind, Phase.QUERY, last.message, sqlstate=last.sqlstate)
            self._fitness.refused(failure.sqlstate)
            raise failure from error
        finally:
            # psycopg has put its own reader in the place of ours, and taken it away again.
            self._listen()
        return cursor.rowcount

    def limit_queries(self, seconds: float | None) -> None:
        """Cancel each query that takes longer, those of `raw` included; None for no limit."""
        self._raw.query_timeout = seconds

    async def reset(self) -> None:
        """Roll back, then what DISCARD ALL does, but for the statements that `raw` has prepared."""
        import psycopg

        try:
            await self.raw.rollback()
            await self.raw.execute(_DISCARD, prepare=False)
            if self._has_prepared:
                await self._deallocate()
        except psycopg.Error as error:
            raise connect_error(error, Phase.QUERY) from error

    async def _deallocate(self) -> None:
        """Forget what was prepared in SQL; psycopg's own statements are its to forget."""
        cursor = await self.raw.execute(_PREPARED, prepare=False)
        for (name,) in await cursor.fetchall():
            await self.raw.execute(f"DEALLOCATE {name}".encode(), prepare=False)
        await self.raw.rollback()
        self._has_prepared = False

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
        """Call `lost` once when the connection ends, or in a moment where it has ended.

        psycopg itself looks only when it is asked something.
        """
        if self._raw.closed:
            ended = ConnectError(FailureKind.CLOSED, Phase.HOLD, "the server closed the connection")
            asyncio.get_running_loop().call_soon(lost, self._last_error or ended)
            return
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
            self._end(self._last_error or connect_error(error, Phase.HOLD))
            return
        if self._last_error is not None:
            self._end(self._last_error)

    def _noticed(self, diagnostic: "psycopg.errors.Diagnostic") -> None:
        state, message = diagnostic.sqlstate, diagnostic.message_primary or ""
        kind = kind_of_sqlstate(state, message)
        # A crash is announced by a warning only. It is only noted: libpq, which is calling us, goes on with
        # the connection afterwards, so that it must not be closed here.
        if diagnostic.severity_nonlocalized in ("FATAL", "PANIC") or kind is FailureKind.SERVER_SHUTDOWN:
            self._last_error = reported_error(
                " ".join(message.split()),
                Phase.HOLD,
                sqlstate=state,
                detail=diagnostic.message_detail,
                hint=diagnostic.message_hint,
            )

    def _end(self, error: ConnectError) -> None:
        lost = self._lost
        self._ignore()
        if lost is not None:
            lost(error)


class PsycopgDriver(Driver):
    """Opens psycopg connections to one target.

    Args:
        target: where to.
        connect_timeout_s: bound on each host and address where there may be several, seconds; below two,
            which psycopg does not take, the caller's bound holds for all of them together.

    Attributes:
        bounds_itself: psycopg sees to that bound.

    Raises:
        UsageError: a certificate file is unusable.
    """

    name: DriverName = "psycopg"

    def __init__(self, target: PostgresTarget, *, connect_timeout_s: float | None = None) -> None:
        # Now, or the first connection would pay for the import.
        _connection_class()
        if target.sslmode != "disable" and not all(host.is_unix for host in target.hosts):
            # libpq reads the files for each connection; what is wrong with them is said once, before.
            postgres_context(target)
        self._options = libpq_options(target)
        self._address = target.only_address
        self._attrs = target.target_session_attrs
        limit_s = connect_timeout_s or 0.0
        self.bounds_itself = limit_s >= _LEAST_TIMEOUT_S and not target.has_one_address
        if self.bounds_itself:
            self._options["connect_timeout"] = str(math.ceil(limit_s))

    async def connect(self) -> PsycopgConnection:
        """Open one connection in autocommit mode.

        Raises:
            ConnectError: it could not be opened.
        """
        import psycopg
        from psycopg.conninfo import make_conninfo

        try:
            raw = await _connection_class().connect(make_conninfo(**self._options), autocommit=True)
        except Exception as error:
            # Neither is kept in a variable: with the traceback that would be a cycle around the connection.
            raise connect_error(error, Phase.CONNECT).at(self._address or _address_in(error)) from error
        # libpq makes its sockets itself: that the system had to search for their ports can only be seen. A
        # connection that has ended already has none.
        with suppress(psycopg.Error):
            LOCAL_PORTS.look_at(raw.fileno())
        return PsycopgConnection(raw, self._attrs)


def _address_of(pgconn: "psycopg.pq.abc.PGconn") -> str:
    import psycopg

    try:
        port, address, host = int(pgconn.port or 0), pgconn.hostaddr.decode(), pgconn.host.decode()
    except psycopg.Error:
        return ""  # it has ended already, and has none
    return label_of((address, port)) if address else f"{host}/.s.PGSQL.{port}"


def _address_in(error: Exception) -> str:
    """Where a connect failed; "" where psycopg does not say."""
    pgconn = getattr(error, "pgconn", None)
    return "" if pgconn is None else _address_of(pgconn)


def libpq_options(target: PostgresTarget) -> dict[str, str]:
    """Everything libpq must be told to connect to `target`; holds the password.

    Raises:
        UsageError: this libpq cannot honour a setting.
    """
    check_settings("psycopg", (target,))
    hosts = target.hosts
    given: dict[str, str | None] = {
        "host": ",".join(host.name for host in hosts),
        "hostaddr": ",".join(host.address or "" for host in hosts)
        if any(host.address for host in hosts)
        else None,
        "port": ",".join(str(host.port) for host in hosts),
        "user": target.user,
        "dbname": target.dbname,
        "password": target.shared_password("psycopg"),
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
        "max_protocol_version": target.max_protocol_version if has_protocol_3_2() else None,
        "load_balance_hosts": "random" if target.load_balance_hosts else None,
        "target_session_attrs": None if target.target_session_attrs == "any" else target.target_session_attrs,
    }
    return {key: value for key, value in given.items() if value is not None}


@cache
def _connection_class() -> "type[Session]":
    from pool_bench.drivers.psycopg_session import Session

    return Session


def _unexplained(phase: Phase, message: str) -> ConnectError:
    """libpq 18 gives no reason where it could not make a socket: whether we can make one shows it."""
    try:
        socket.socket().close()
    except OSError as error:
        return ConnectError(kind_of_os_error(error), phase, error.strerror or message)
    return ConnectError(FailureKind.OTHER, phase, message)


def _guess_sqlstate(text: str, kind: FailureKind) -> str | None:
    """The SQLSTATE that PostgreSQL gives to these words, None where they are others'."""
    if "server login" in text:
        return None  # PgBouncer quotes what its server said
    for pattern, meaning in _KIND_BY_TEXT:
        if not isinstance(meaning, FailureKind) and re.search(pattern, text, re.IGNORECASE):
            return meaning if kind_of_sqlstate(meaning, text) is kind else None
    return None


def connect_error(error: Exception, phase: Phase) -> ConnectError:
    """What went wrong in psycopg or libpq, in this package's terms."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeError) and phase is Phase.CONNECT:
        return ConnectError(FailureKind.DNS, phase, f"not a host name: {text}")
    # Behind "FATAL:" stands the server's own message; before it, libpq's address book.
    message = re.sub(r"^.*?(?:FATAL|ERROR):\s*", "", text)
    import psycopg

    diag = error.diag if isinstance(error, psycopg.Error) else None
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is not None and diag is not None:
        words = " ".join((diag.message_primary or message).split())
        return reported_error(
            words, phase, sqlstate=state, detail=diag.message_detail, hint=diag.message_hint
        )
    if message != text and (kind := kind_of_words(message.partition(" HINT:")[0])) is not None:
        message = re.sub(r" (DETAIL|HINT): +", r" · \1: ", message)
        return ConnectError(kind, phase, clean(message), sqlstate=_guess_sqlstate(text, kind))
    if "no error details" in text:
        return _unexplained(phase, message)
    for pattern, meaning in _KIND_BY_TEXT:
        if re.search(pattern, text, re.IGNORECASE):
            if isinstance(meaning, FailureKind):
                return ConnectError(meaning, phase, message)
            return ConnectError(kind_of_sqlstate(meaning, message), phase, message, sqlstate=meaning)
    return ConnectError(FailureKind.OTHER, phase, message)
