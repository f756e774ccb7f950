"""What is legal when, from both sides."""

import pytest

from pool_bench.pgwire import NEED_DATA, Connection, LocalProtocolError, RemoteProtocolError, State
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.state import CLIENT, SERVER
from tests.support.postgres_messages import (
    CHALLENGE,
    EXCHANGES,
    FINAL,
    FIRST,
    GREETING,
    KEY,
    NOTICE,
    NOTIFICATION,
    OK,
    PASSWORD,
    PROOF,
    QUERY,
    READY,
    SASL,
    STARTUP,
    TERMINATE,
    authentication,
    by_bytes,
    drain,
    error,
    message,
    play,
    reached,
    report,
    row,
    whole,
)

CLIENT_EVENTS: tuple[ev.ClientEvent, ...] = (
    ev.SSLRequest(),
    STARTUP,
    PASSWORD,
    FIRST,
    FINAL,
    QUERY,
    TERMINATE,
)

SERVER_MESSAGES: dict[type[ev.ServerEvent], bytes] = {
    ev.NegotiateProtocolVersion: message("v", b"\0\3\0\0\0\0\0\0"),
    ev.AuthenticationOk: OK,
    ev.AuthenticationCleartextPassword: authentication(3),
    ev.AuthenticationMD5Password: authentication(5, b"salt"),
    ev.AuthenticationSASL: SASL,
    ev.AuthenticationSASLContinue: CHALLENGE,
    ev.AuthenticationSASLFinal: PROOF,
    ev.AuthenticationUnsupported: authentication(9),
    ev.ParameterStatus: report("a", "b"),
    ev.BackendKeyData: KEY,
    ev.ReadyForQuery: READY,
    ev.ErrorResponse: error("no"),
    ev.NoticeResponse: NOTICE,
    ev.NotificationResponse: NOTIFICATION,
    ev.CommandComplete: message("C", b"SELECT 1\0"),
}


def in_state(state: State) -> Connection:
    scram: list[tuple[ev.ClientEvent, bytes]] = [(STARTUP, SASL), (FIRST, CHALLENGE), (FINAL, PROOF)]
    ways: dict[State, list[tuple[ev.ClientEvent, bytes]]] = {
        State.NEW: [],
        State.TLS_ASKED: [(ev.SSLRequest(), b"")],
        State.TLS_ANSWERED: [(ev.SSLRequest(), b"S")],
        State.STARTING: [(STARTUP, b"")],
        State.PASSWORD_WANTED: [(STARTUP, authentication(3))],
        State.PASSWORD_SENT: [(STARTUP, authentication(3)), (PASSWORD, b"")],
        State.SASL_WANTED: scram[:1],
        State.SASL_STARTED: [*scram[:1], (FIRST, b"")],
        State.SASL_CHALLENGED: scram[:2],
        State.SASL_ANSWERED: [*scram[:2], (FINAL, b"")],
        State.SASL_PROVEN: scram,
        State.AUTHENTICATED: [(STARTUP, OK)],
        State.READY: [(STARTUP, GREETING)],
        State.QUERYING: [(STARTUP, GREETING), (QUERY, b"")],
        State.FAILED: [(STARTUP, error("no"))],
        State.TERMINATED: [(STARTUP, GREETING), (TERMINATE, b"")],
    }
    if state is State.CLOSED:
        connection = reached()
        connection.receive_data(b"")
        drain(connection)
    elif state is State.BROKEN:
        connection = reached((STARTUP, b""))
        connection.receive_data(b"????????")
        with pytest.raises(RemoteProtocolError):
            connection.next_event()
    else:
        connection = reached(*ways[state])
    assert connection.state is state
    return connection


@pytest.mark.parametrize("state", State)
def test_what_the_client_may_not_say_now_is_refused_and_changes_nothing(state: State) -> None:
    for event in CLIENT_EVENTS:
        connection = in_state(state)
        following = CLIENT.get((state, type(event)))
        if following is None:
            with pytest.raises(LocalProtocolError, match=f"{type(event).__name__} while {state.name}"):
                connection.send(event)
            assert connection.state is state
        else:
            assert connection.send(event) == event.encoded
            assert connection.state is following


@pytest.mark.parametrize("state", State)
def test_what_the_server_may_not_say_now_breaks_the_connection(state: State) -> None:
    for kind, data in SERVER_MESSAGES.items():
        connection = in_state(state)
        connection.receive_data(data)
        if state is State.CLOSED:
            assert connection.next_event() is NEED_DATA
        elif kind in SERVER.get(state, {}):
            assert type(connection.next_event()) is kind
            assert connection.state in (state, SERVER[state][kind])
        else:
            with pytest.raises(RemoteProtocolError):
                connection.next_event()
            assert connection.state is State.BROKEN


def test_the_table_has_a_row_for_every_state_that_can_hear() -> None:
    assert set(SERVER) == set(State) - {State.CLOSED, State.BROKEN}


def test_a_broken_connection_stays_broken_and_keeps_nothing() -> None:
    connection = in_state(State.BROKEN)
    connection.receive_data(OK * 1000)
    assert not connection.trailing_data
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="before"):
            connection.next_event()


@pytest.mark.parametrize("unknown", [b"\0", b"1", b"2", b"t", b"\xff", b"W", b"s"])
def test_an_unknown_message_breaks_the_connection(unknown: bytes) -> None:
    for state in State:
        if state in (State.CLOSED, State.BROKEN):
            continue
        connection = in_state(state)
        connection.receive_data(message(unknown.decode("latin-1"), b"body"))
        with pytest.raises(RemoteProtocolError):
            connection.next_event()


@pytest.mark.parametrize(
    "shortcut",
    [
        [(STARTUP, SASL), (FIRST, OK)],
        [(STARTUP, SASL), (FIRST, CHALLENGE + OK)],
        [(STARTUP, SASL), (FIRST, CHALLENGE), (FINAL, OK)],
        [(STARTUP, SASL), (FIRST, PROOF)],
        [(STARTUP, SASL + OK)],
        [(STARTUP, authentication(3) + OK)],
        [(STARTUP, authentication(5, b"salt") + OK)],
        [(STARTUP, READY)],
        [(STARTUP, SASL), (FIRST, CHALLENGE), (FINAL, CHALLENGE)],
        [(STARTUP, SASL), (FIRST, CHALLENGE), (FINAL, PROOF + READY)],
    ],
)
def test_a_server_cannot_skip_a_step_of_authentication(shortcut: list[tuple[ev.ClientEvent, bytes]]) -> None:
    for split in (whole, by_bytes):
        with pytest.raises(RemoteProtocolError):
            play(shortcut, split)


@pytest.mark.parametrize("answer", [b"S", b"N"])
def test_data_behind_the_answer_to_an_ssl_request_is_refused(answer: bytes) -> None:
    together = in_state(State.TLS_ASKED)
    together.receive_data(answer + b"R")
    with pytest.raises(RemoteProtocolError, match="unencrypted"):
        together.next_event()
    apart = in_state(State.TLS_ASKED)
    apart.receive_data(answer)
    assert apart.next_event() == ev.SSLAnswer(answer == b"S")
    apart.receive_data(b"R")
    with pytest.raises(RemoteProtocolError, match="unasked"):
        apart.next_event()


@pytest.mark.parametrize("byte", [b"\0", b"X", b"R", b"\xff"])
def test_another_answer_to_an_ssl_request_is_refused(byte: bytes) -> None:
    connection = in_state(State.TLS_ASKED)
    connection.receive_data(byte)
    with pytest.raises(RemoteProtocolError, match="SSLRequest"):
        connection.next_event()


def test_a_server_that_speaks_first_is_refused() -> None:
    connection = Connection()
    connection.receive_data(b"2")
    with pytest.raises(RemoteProtocolError, match="unasked, while NEW"):
        connection.next_event()


def test_a_text_in_place_of_a_message_is_the_error_of_a_server_that_cannot_start() -> None:
    for name in ("no process", "no process for an answer to SSLRequest"):
        event = play(EXCHANGES[name])[0]
        assert isinstance(event, ev.ErrorResponse)
        assert event.message.startswith("could not fork new process")
        assert event.sqlstate is None


def test_a_text_without_an_end_is_refused_in_time() -> None:
    connection = in_state(State.STARTING)
    for _ in range(29):
        connection.receive_data(b"E" * 1000)
        assert connection.next_event() is NEED_DATA
    connection.receive_data(b"E" * 1000)
    with pytest.raises(RemoteProtocolError, match="without an end"):
        connection.next_event()


def test_rows_before_a_query_are_refused() -> None:
    connection = in_state(State.READY)
    connection.receive_data(row(b"x"))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()
