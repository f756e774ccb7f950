"""How failures are told apart."""

import errno

import pytest

from pool_bench.errors import ConnectError, FailureKind, Phase, kind_of_os_error, kind_of_sqlstate


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ECONNREFUSED, ""), "refused"),
        (FileNotFoundError(errno.ENOENT, ""), "refused"),
        (BlockingIOError(errno.EAGAIN, ""), "refused"),
        (OSError(errno.ECONNRESET, ""), "reset"),
        (BrokenPipeError(errno.EPIPE, ""), "reset"),
        (OSError(errno.ETIMEDOUT, ""), "timeout"),
        (OSError(errno.EMFILE, ""), "client_fds"),
        (OSError(errno.ENFILE, ""), "client_fds"),
        (OSError(errno.EADDRNOTAVAIL, ""), "client_ports"),
        (OSError(errno.EACCES, ""), "other"),
        # asyncio raises these without an errno.
        (TimeoutError(), "timeout"),
        (ConnectionRefusedError(), "refused"),
        (ConnectionResetError("Connection lost"), "reset"),
        (OSError("Multiple exceptions"), "other"),
    ],
)
def test_socket_errors_are_told_apart(error: OSError, kind: str) -> None:
    assert kind_of_os_error(error) == FailureKind(kind)


@pytest.mark.parametrize(
    ("sqlstate", "message", "kind"),
    [
        ("53300", "sorry, too many clients already", "too_many_connections"),
        ("57P01", "terminating connection due to administrator command", "server_shutdown"),
        ("57P02", "", "server_shutdown"),
        ("57P03", "the database system is starting up", "server_starting"),
        ("28P01", "", "auth"),
        ("28000", "", "auth"),
        ("3D000", "", "no_database"),
        ("57P04", "", "no_database"),
        ("57P05", "", "idle_timeout"),
        ("57014", "canceling statement due to statement timeout", "timeout"),
        # PgBouncer.
        ("08P01", "no more connections allowed (max_client_conn)", "too_many_connections"),
        ("08P01", "database is disabled", "server_shutdown"),
        ("08P01", "SASL authentication failed", "auth"),
        ("08P01", "query_wait_timeout", "timeout"),
        ("08P01", "bad packet", "protocol"),
        ("22012", "division by zero", "other"),
        # What a query says is not about its connection.
        ("P0001", "too many connections, password authentication failed, timeout", "other"),
        (None, "could not fork", "other"),
    ],
)
def test_sqlstates_are_told_apart(sqlstate: str | None, message: str, kind: str) -> None:
    assert kind_of_sqlstate(sqlstate, message) == FailureKind(kind)


def test_a_failure_says_what_where_and_why() -> None:
    error = ConnectError(FailureKind.AUTH, Phase.AUTH, "no", sqlstate="28P01")
    assert str(error) == "auth during auth: no (SQLSTATE 28P01)"
    assert str(ConnectError(FailureKind.DNS, Phase.RESOLVE, "no")) == "dns during resolve: no"


def test_57p03_is_a_shutdown_where_the_message_says_so_and_a_start_otherwise() -> None:
    ending = kind_of_sqlstate("57P03", "the database system is shutting down")
    beginning = kind_of_sqlstate("57P03", "the database system is starting up")
    assert (ending, beginning) == (FailureKind.SERVER_SHUTDOWN, FailureKind.SERVER_STARTING)
