"""Answers to authentication requests, up to whole recorded sessions."""

import os
from typing import Literal

import pytest

from pool_bench.pgwire import (
    NEED_DATA,
    AuthenticationError,
    Authenticator,
    Connection,
    Credentials,
    ScramKeyCache,
    State,
)
from pool_bench.pgwire import events as ev
from pool_bench.pgwire.scram import ChannelBinding, ScramClient, ScramKeys, derive_keys
from tests.pgwire.test_scram import Server
from tests.support.postgres_messages import GREETING, SASL, authentication, drain, reached, recordings

SECRET = "correct horse battery staple"
SHA = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
Binding = Literal["disable", "prefer", "require"]


def credentials(password: str | None = "pencil", binding: Binding = "prefer") -> Credentials:  # noqa: S107
    return Credentials(user="user", password=password, channel_binding=binding)


def test_md5_is_computed_as_in_a_recorded_session() -> None:
    authenticator = Authenticator(Credentials(user="md5er", password="pencil"))
    answer = authenticator.answer(ev.AuthenticationMD5Password(b"p4\x94\xc9"))
    assert answer == ev.Password(b"md5d6d18dd543fbfa9a0becf8d9078bb1cd")


def test_a_plain_password_is_sent_as_it_is() -> None:
    authenticator = Authenticator(credentials("pä\udcff\u00ad"))
    answer = authenticator.answer(ev.AuthenticationCleartextPassword())
    assert answer == ev.Password(b"p\xc3\xa4\xff\xc2\xad")


_STATEMENT = (
    "SELECT i, 'x' FROM generate_series(1, 3) i; DO $$ BEGIN RAISE NOTICE 'hello'; END $$; SELECT 1/0"
)


@pytest.mark.parametrize(
    ("name", "user", "password"),
    [
        ("trust", "postgres", None),
        ("md5er", "md5er", "pencil"),
        ("plain", "plain", "pencil"),
        ("scrammer", "scrammer", "pencil"),
        ("wrong", "scrammer", "pen"),
    ],
)
def test_a_session_recorded_with_postgresql_is_repeated_byte_for_byte(
    name: str, user: str, password: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(size)))
    connection = Connection()
    authenticator = Authenticator(Credentials(user=user, password=password))
    turns = iter(recordings()[name])
    parameters = {"user": user, "database": "postgres", "application_name": "rec"}
    outgoing: ev.ClientEvent | None = ev.Startup(parameters)
    to_do: list[ev.ClientEvent] = [ev.Terminate()]
    if name == "trust":
        to_do.insert(0, ev.Query(_STATEMENT))
    heard: list[ev.ServerEvent] = []
    while outgoing is not None:
        side, data = next(turns)
        assert (side, connection.send(outgoing)) == ("client", data)
        outgoing = None
        side, data = next(turns)
        assert side == "server"
        connection.receive_data(data)
        for event in drain(connection):
            heard.append(event)
            if isinstance(event, ev.ReadyForQuery):
                outgoing = to_do.pop(0)
            elif "Authentication" in type(event).__name__:
                outgoing = authenticator.answer(event) or outgoing
    assert next(turns, None) is None
    if name == "wrong":
        assert isinstance(heard[-1], ev.ErrorResponse)
        assert (heard[-1].sqlstate, connection.state) == ("28P01", State.FAILED)
        return
    assert connection.state is State.CLOSED
    assert ev.ParameterStatus("server_version", "18.6") in heard
    assert sum(isinstance(event, ev.ParameterStatus) for event in heard) == 15
    assert heard[-1] == ev.ConnectionClosed(True)
    if name == "trust":
        assert ev.CommandComplete("SELECT 3", 3, 36) in heard
        assert ev.CommandComplete("DO", 0, 0) in heard
        kinds = [type(event) for event in heard]
        assert kinds.count(ev.NoticeResponse) == kinds.count(ev.ErrorResponse) == 1


def _offer(
    mechanisms: tuple[str, ...], binding: Binding, certificate_hash: bytes | None
) -> ev.SASLInitialResponse:
    answer = Authenticator(credentials(binding=binding), certificate_hash).answer(
        ev.AuthenticationSASL(mechanisms)
    )
    assert isinstance(answer, ev.SASLInitialResponse)
    return answer


@pytest.mark.parametrize(
    ("mechanisms", "binding", "certificate_hash", "mechanism", "header"),
    [
        ((SHA,), "prefer", None, SHA, b"n,,"),
        ((SHA,), "disable", None, SHA, b"n,,"),
        # The server does not offer what we could do: it is told, in case somebody removed it.
        ((SHA,), "prefer", b"hash", SHA, b"y,,"),
        ((SHA,), "disable", b"hash", SHA, b"n,,"),
        ((PLUS, SHA), "prefer", b"hash", PLUS, b"p=tls-server-end-point,,"),
        ((PLUS, SHA), "require", b"hash", PLUS, b"p=tls-server-end-point,,"),
        ((PLUS, SHA), "disable", b"hash", SHA, b"n,,"),
        # A certificate whose algorithm has no such hash cannot be bound to.
        ((PLUS, SHA), "prefer", b"", SHA, b"n,,"),
        ((SHA, "FUTURE"), "prefer", None, SHA, b"n,,"),
    ],
)
def test_the_strongest_mechanism_both_sides_can_do_is_chosen(
    mechanisms: tuple[str, ...],
    binding: Binding,
    certificate_hash: bytes | None,
    mechanism: str,
    header: bytes,
) -> None:
    answer = _offer(mechanisms, binding, certificate_hash)
    assert answer.mechanism == mechanism
    assert answer.data.startswith(header + b"n=,r=")


@pytest.mark.parametrize(
    ("mechanisms", "binding", "certificate_hash", "why"),
    [
        ((PLUS, SHA), "prefer", None, "without TLS"),
        ((SHA,), "require", b"hash", "required, but the server does not offer"),
        ((PLUS, SHA), "require", b"", "required, but the server does not offer"),
        ((SHA,), "require", None, "required, but the server does not offer"),
        (("FUTURE", "X\x1b"), "prefer", None, r"offers only FUTURE, X\?"),
        (("",), "prefer", None, "no mechanism"),
        ((PLUS,), "disable", b"hash", "offers only SCRAM-SHA-256-PLUS"),
    ],
)
def test_an_offer_that_cannot_be_taken_is_refused(
    mechanisms: tuple[str, ...], binding: Binding, certificate_hash: bytes | None, why: str
) -> None:
    with pytest.raises(AuthenticationError, match=why):
        _offer(mechanisms, binding, certificate_hash)


@pytest.mark.parametrize("password", [None, ""])
@pytest.mark.parametrize(
    "request_",
    [
        ev.AuthenticationCleartextPassword(),
        ev.AuthenticationMD5Password(b"salt"),
        ev.AuthenticationSASL((SHA,)),
    ],
)
def test_a_wanted_password_that_was_not_given_is_an_error(
    password: str | None, request_: ev.ServerEvent
) -> None:
    with pytest.raises(AuthenticationError, match="none was given"):
        Authenticator(credentials(password)).answer(request_)


def test_required_channel_binding_is_not_met_by_a_password_or_by_nothing() -> None:
    for request in (
        ev.AuthenticationCleartextPassword(),
        ev.AuthenticationMD5Password(b"salt"),
        ev.AuthenticationOk(),
    ):
        with pytest.raises(AuthenticationError, match="channel binding is required"):
            Authenticator(credentials(binding="require"), b"hash").answer(request)


def test_required_channel_binding_is_met_only_by_a_server_that_has_proven_itself() -> None:
    server = Server(b"pencil", certificate_hash=b"hash")
    authenticator = Authenticator(credentials(binding="require"), b"hash")
    first = authenticator.answer(ev.AuthenticationSASL((PLUS, SHA)))
    assert isinstance(first, ev.SASLInitialResponse)
    final = authenticator.answer(ev.AuthenticationSASLContinue(server.challenge(first.data)))
    assert isinstance(final, ev.SASLResponse)
    with pytest.raises(AuthenticationError, match="did without"):
        authenticator.answer(ev.AuthenticationOk())
    assert authenticator.answer(ev.AuthenticationSASLFinal(server.finish(final.data))) is None
    assert authenticator.answer(ev.AuthenticationOk()) is None


def test_a_method_that_is_not_spoken_here_is_named() -> None:
    with pytest.raises(AuthenticationError, match="SSPI"):
        Authenticator(credentials()).answer(ev.AuthenticationUnsupported("SSPI"))


def test_an_event_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(AuthenticationError, match="ReadyForQuery"):
        Authenticator(credentials()).answer(ev.ReadyForQuery("I"))


@pytest.mark.parametrize(
    "request_", [ev.AuthenticationSASLContinue(b"r=x"), ev.AuthenticationSASLFinal(b"v=")]
)
def test_an_exchange_that_was_not_begun_cannot_go_on(request_: ev.ServerEvent) -> None:
    with pytest.raises(AuthenticationError, match="not begun"):
        Authenticator(credentials()).answer(request_)


def test_a_proof_without_a_challenge_proves_nothing() -> None:
    authenticator = Authenticator(credentials())
    authenticator.answer(ev.AuthenticationSASL((SHA,)))
    with pytest.raises(AuthenticationError, match="does not know the password"):
        authenticator.answer(ev.AuthenticationSASLFinal(b"v="))


def test_connection_and_authenticator_log_in_together() -> None:
    server = Server(b"pencil")
    connection = reached((ev.Startup({"user": "user"}), b""))
    connection.receive_data(SASL)
    offer = connection.next_event()
    assert isinstance(offer, ev.AuthenticationSASL)
    authenticator = Authenticator(
        Credentials(user="user", password="pencil", channel_binding="disable", cache=ScramKeyCache())
    )
    first = authenticator.answer(offer)
    assert isinstance(first, ev.SASLInitialResponse)
    connection.send(first)
    connection.receive_data(authentication(11, server.challenge(first.data)))
    challenge = connection.next_event()
    assert isinstance(challenge, ev.AuthenticationSASLContinue)
    final = authenticator.answer(challenge)
    assert isinstance(final, ev.SASLResponse)
    connection.send(final)
    connection.receive_data(authentication(12, server.finish(final.data)) + GREETING)
    proof = connection.next_event()
    assert isinstance(proof, ev.AuthenticationSASLFinal)
    assert authenticator.answer(proof) is None
    assert connection.next_event() == ev.AuthenticationOk()
    assert drain(connection)[-1] == ev.ReadyForQuery("I")
    assert connection.next_event() is NEED_DATA


def test_no_secret_is_in_any_repr() -> None:
    cache = ScramKeyCache()
    keys = cache.keys(SECRET.encode(), b"salt", 1)
    authenticator = Authenticator(Credentials(user="u", password=SECRET, cache=cache))
    first = authenticator.answer(ev.AuthenticationSASL((SHA,)))
    shown = [
        Credentials(user="u", password=SECRET, cache=cache),
        authenticator,
        first,
        ev.Password(SECRET.encode()),
        ev.SASLInitialResponse(SHA, SECRET.encode()),
        ev.SASLResponse(SECRET.encode()),
        ev.BackendKeyData(1, SECRET.encode()),
        ScramClient(SECRET.encode(), ChannelBinding(b"n,,"), cache),
        cache,
        keys,
        derive_keys(SECRET.encode(), b"salt", 1),
    ]
    for thing in shown:
        text = repr(thing) + str(thing)
        assert SECRET not in text
        for key in (keys.client, keys.stored, keys.server):
            assert key.hex() not in text
            assert repr(key)[2:-1] not in text
    assert repr(ScramKeys(b"abc", b"def", b"ghi")) == "ScramKeys()"
