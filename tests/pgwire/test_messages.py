"""Golden bytes: https://www.postgresql.org/docs/current/protocol-message-formats.html."""

import pytest

from pool_bench.pgwire import NEED_DATA, Connection, RemoteProtocolError, State
from pool_bench.pgwire import events as ev
from pool_bench.pgwire import messages as m
from tests.support.postgres_messages import GREETING, QUERY, STARTUP, drain, error, message, reached, row


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        (ev.SSLRequest(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (ev.Startup({"user": "u", "database": "d"}), b"\0\0\0\x1b\0\3\0\0user\0u\0database\0d\0\0"),
        (ev.Startup({"user": "ü"}, minor=2), b"\0\0\0\x11\0\3\0\2user\0\xc3\xbc\0\0"),
        (ev.Startup({"user": "\udcff"}), b"\0\0\0\x10\0\3\0\0user\0\xff\0\0"),
        (ev.Password(b"pencil"), b"p\0\0\0\x0bpencil\0"),
        (
            ev.SASLInitialResponse("SCRAM-SHA-256", b"n,,n=,r=x"),
            b"p\0\0\0\x1fSCRAM-SHA-256\0\0\0\0\x09n,,n=,r=x",
        ),
        (ev.SASLResponse(b"c=biws"), b"p\0\0\0\x0ac=biws"),
        (ev.Query("SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0"),
        (ev.Terminate(), b"X\0\0\0\x04"),
    ],
)
def test_client_events_have_the_bytes_of_the_documentation(event: ev.ClientEvent, encoded: bytes) -> None:
    assert event.encoded == encoded


def test_a_zero_byte_is_refused_where_it_would_end_a_string() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        ev.Query("SELECT '\0'")
    with pytest.raises(ValueError, match="zero byte"):
        ev.Startup({"user": "a\0database\0b"})


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"\0\0\0\0", ev.AuthenticationOk()),
        (b"\0\0\0\2", ev.AuthenticationUnsupported("Kerberos V5")),
        (b"\0\0\0\3", ev.AuthenticationCleartextPassword()),
        (b"\0\0\0\5abcd", ev.AuthenticationMD5Password(b"abcd")),
        (b"\0\0\0\7", ev.AuthenticationUnsupported("GSSAPI")),
        (b"\0\0\0\x08token", ev.AuthenticationUnsupported("GSSAPI")),
        (b"\0\0\0\x09", ev.AuthenticationUnsupported("SSPI")),
        (b"\0\0\0\x0aSCRAM-SHA-256\0\0", ev.AuthenticationSASL(("SCRAM-SHA-256",))),
        (b"\0\0\0\x0aA\0B\0\0", ev.AuthenticationSASL(("A", "B"))),
        (b"\0\0\0\x0br=1", ev.AuthenticationSASLContinue(b"r=1")),
        (b"\0\0\0\x0cv=1", ev.AuthenticationSASLFinal(b"v=1")),
    ],
)
def test_authentication_requests_are_told_apart_by_their_code(payload: bytes, event: ev.ServerEvent) -> None:
    assert m.authentication(payload) == event


@pytest.mark.parametrize(
    ("parsed", "event"),
    [
        (m.parameter_status(b"TimeZone\0UTC\0"), ev.ParameterStatus("TimeZone", "UTC")),
        (m.parameter_status(b"name\0\xff\0"), ev.ParameterStatus("name", "\N{REPLACEMENT CHARACTER}")),
        (m.backend_key_data(b"\xff\0\0\1abcd"), ev.BackendKeyData(0xFF000001, b"abcd")),
        (m.ready_for_query(b"I"), ev.ReadyForQuery("I")),
        (m.ready_for_query(b"T"), ev.ReadyForQuery("T")),
        (m.ready_for_query(b"E"), ev.ReadyForQuery("E")),
        (m.negotiate_protocol_version(b"\0\3\0\0\0\0\0\0"), ev.NegotiateProtocolVersion(0, ())),
        (
            m.negotiate_protocol_version(b"\0\0\0\2\0\0\0\1_pq_.x\0"),
            ev.NegotiateProtocolVersion(2, ("_pq_.x",)),
        ),
        (m.notification_response(b"\0\0\0\7c\0p\0"), ev.NotificationResponse(7, "c", "p")),
        (m.error_response(b"SERROR\0C42601\0\0"), ev.ErrorResponse({"S": "ERROR", "C": "42601"})),
        # Some poolers leave the last byte out.
        (m.error_response(b"SERROR\0C42601\0"), ev.ErrorResponse({"S": "ERROR", "C": "42601"})),
        (m.error_response(b"\0"), ev.ErrorResponse({})),
        (m.notice_response(b"Mhello\0\0"), ev.NoticeResponse({"M": "hello"})),
    ],
)
def test_server_messages_become_events(parsed: ev.ServerEvent, event: ev.ServerEvent) -> None:
    assert parsed == event


def test_a_command_tag_is_one_string() -> None:
    assert m.command_tag(b"SELECT 1\0") == "SELECT 1"


@pytest.mark.parametrize(
    ("parse", "payload"),
    [
        (m.authentication, b"\0\0\0"),
        (m.authentication, b"\0\0\0\0x"),
        (m.authentication, b"\0\0\0\5abc"),
        (m.authentication, b"\0\0\0\x0aSCRAM-SHA-256\0"),
        (m.authentication, b"\0\0\0\x0a"),
        (m.authentication, b"\0\0\0\x63"),
        (m.authentication, b"\xff\xff\xff\xff"),
        (m.error_response, b""),
        (m.error_response, b"SERROR"),
        (m.error_response, b"\0\0"),
        (m.notice_response, b"Sx\0\0Cy\0\0"),
        (m.parameter_status, b"a\0"),
        (m.parameter_status, b"a\0b\0c\0"),
        (m.parameter_status, b"a\0b"),
        (m.backend_key_data, b"\0\0\0\1abc"),
        (m.backend_key_data, bytes(261)),
        (m.ready_for_query, b""),
        (m.ready_for_query, b"X"),
        (m.ready_for_query, b"II"),
        (m.negotiate_protocol_version, b"\0\3\0\0"),
        (m.negotiate_protocol_version, b"\0\2\0\0\0\0\0\0"),
        (m.negotiate_protocol_version, b"\0\3\0\0\0\0\0\2a\0"),
        (m.negotiate_protocol_version, b"\0\3\0\0\xff\xff\xff\xff"),
        (m.notification_response, b"\0\0"),
        (m.notification_response, b"\0\0\0\1c\0"),
        (m.notification_response, b"\0\0\0\1c"),
        (m.command_tag, b""),
        (m.command_tag, b"SELECT"),
        (m.command_tag, b"SELECT\0 1\0"),
    ],
)
def test_a_payload_that_does_not_fit_its_type_is_refused(parse: object, payload: bytes) -> None:
    assert callable(parse)
    with pytest.raises(RemoteProtocolError):
        parse(payload)


def test_an_error_says_what_it_is_on_one_printable_line() -> None:
    event = ev.ErrorResponse({"S": "FEHLER", "V": "ERROR", "C": "53300", "M": "too\nmany \x1b[31m clients"})
    assert (event.sqlstate, event.severity) == ("53300", "ERROR")
    assert event.message == "too many \N{REPLACEMENT CHARACTER}[31m clients"
    assert ev.ErrorResponse({"S": "FEHLER"}).severity == "FEHLER"
    assert ev.ErrorResponse({}).message == ""


@pytest.mark.parametrize("code", ["", "5330", "533000", "5330\n", "\x1b[31m", "\uff15" * 5])
def test_a_code_that_is_no_sqlstate_is_not_passed_on(code: str) -> None:
    assert ev.ErrorResponse({"C": code}).sqlstate is None


def test_an_endless_message_is_cut() -> None:
    text = ev.ErrorResponse({"M": "x" * 100_000}).message
    assert len(text) == 1000
    assert text.endswith("x…")


def test_rows_are_counted_for_their_own_statement() -> None:
    connection = reached((STARTUP, GREETING))
    connection.send(QUERY)
    connection.receive_data(row(b"abc") + row(b"") + message("C", b"SELECT 2\0") + message("I"))
    assert drain(connection) == [ev.CommandComplete("SELECT 2", 2, 3), ev.CommandComplete("", 0, 0)]


def test_rows_of_a_failed_statement_are_not_added_to_the_next_one() -> None:
    connection = reached(
        (STARTUP, GREETING), (QUERY, row(b"lost") + error("division by zero") + message("Z", b"I"))
    )
    connection.send(QUERY)
    connection.receive_data(row(b"x") + message("C", b"SELECT 1\0"))
    assert drain(connection) == [ev.CommandComplete("SELECT 1", 1, 1)]


def test_a_query_that_wants_data_is_refused() -> None:
    connection = reached((STARTUP, GREETING), (QUERY, b""))
    connection.receive_data(message("G", b"\0\0\0"))
    with pytest.raises(RemoteProtocolError, match="COPY"):
        connection.next_event()


def test_the_end_of_the_stream_is_clean_only_between_messages() -> None:
    for data, clean in ((b"", True), (b"Z\0", False)):
        connection = reached((STARTUP, GREETING))
        if data:
            connection.receive_data(data)
        connection.receive_data(b"")
        assert drain(connection) == [ev.ConnectionClosed(clean)]
        assert connection.state is State.CLOSED


def test_the_end_of_the_stream_in_a_skipped_row_is_not_clean() -> None:
    connection = reached((STARTUP, GREETING), (QUERY, row(b"x" * 100)[:50]))
    assert not connection.trailing_data
    connection.receive_data(b"")
    assert drain(connection) == [ev.ConnectionClosed(False)]


def test_what_follows_the_end_is_thrown_away() -> None:
    connection = reached((STARTUP, GREETING))
    connection.receive_data(b"")
    assert drain(connection) == [ev.ConnectionClosed(True)]
    connection.receive_data(error("too late"))
    assert connection.next_event() is NEED_DATA
    assert not connection.trailing_data


def test_a_new_connection_needs_data() -> None:
    assert Connection().next_event() is NEED_DATA
