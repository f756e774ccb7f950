"""SCRAM against the RFCs' examples and against a server written from RFC 5802."""

import base64
import hashlib
import hmac
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_bench.pgwire import AuthenticationError, ScramKeyCache
from pool_bench.pgwire import scram as module
from pool_bench.pgwire.scram import ChannelBinding, ScramClient, derive_keys, saslprep

PLAIN = ChannelBinding(b"n,,")

# RFC 7677, section 3.
RFC_NONCE = b"rOprNGfwEbeRWgbNEkqO"
RFC_CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
RFC_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
RFC_PROOF = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@dataclass
class Server:
    """The server's side, RFC 5802 section 3, with what PostgreSQL makes of it."""

    password: bytes
    salt: bytes = b"0123456789abcdef"
    iterations: int = 7
    certificate_hash: bytes = b""

    def challenge(self, first: bytes) -> bytes:
        if first.startswith(b"p="):
            header = b"p=tls-server-end-point,,"
        else:
            header = first[:3]
            assert header in (b"n,,", b"y,,")
        self.binding = header + (self.certificate_hash if header[:1] == b"p" else b"")
        self.first_bare = first.removeprefix(header)
        name, nonce = self.first_bare.split(b",")
        assert name == b"n="
        self.nonce = nonce[2:] + b"and-more"
        salt = base64.b64encode(self.salt)
        self.sent = b"r=" + self.nonce + b",s=" + salt + b",i=" + str(self.iterations).encode()
        return self.sent

    def finish(self, final: bytes) -> bytes:
        without_proof, _, proof = final.rpartition(b",p=")
        binding, nonce = without_proof.split(b",")
        if base64.b64decode(binding[2:]) != self.binding:
            return b"e=channel-bindings-dont-match"
        assert nonce == b"r=" + self.nonce
        salted = hashlib.pbkdf2_hmac("sha256", self.password, self.salt, self.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored = hashlib.sha256(client_key).digest()
        message = self.first_bare + b"," + self.sent + b"," + without_proof
        signature = hmac.digest(stored, message, "sha256")
        recovered = bytes(a ^ b for a, b in zip(base64.b64decode(proof), signature, strict=True))
        if hashlib.sha256(recovered).digest() != stored:
            return b"e=invalid-proof"
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        return b"v=" + base64.b64encode(hmac.digest(server_key, message, "sha256"))


def _client_of_the_rfc() -> ScramClient:
    client = ScramClient(b"pencil", PLAIN, None, nonce=RFC_NONCE)
    # The example names the user, PostgreSQL does not.
    client._first_bare = b"n=user,r=" + RFC_NONCE
    return client


def test_the_example_of_rfc_7677_comes_out() -> None:
    client = _client_of_the_rfc()
    assert client.first() == b"n,,n=user,r=" + RFC_NONCE
    assert client.final(RFC_CHALLENGE) == RFC_FINAL
    client.verify(RFC_PROOF)


def test_the_keys_of_the_example_of_rfc_7677_come_out() -> None:
    keys = derive_keys(b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    message = b"n=user,r=" + RFC_NONCE + b"," + RFC_CHALLENGE + b"," + RFC_FINAL.partition(b",p=")[0]
    assert hashlib.sha256(keys.client).digest() == keys.stored
    assert b"v=" + base64.b64encode(hmac.digest(keys.server, message, "sha256")) == RFC_PROOF


def test_the_user_is_left_to_the_startup_message() -> None:
    assert ScramClient(b"x", PLAIN, None, nonce=b"abc").first() == b"n,,n=,r=abc"


def test_nonces_are_not_used_twice() -> None:
    nonces = {ScramClient(b"x", PLAIN, None).first() for _ in range(100)}
    assert len(nonces) == 100


@given(
    password=st.binary(min_size=1, max_size=30),
    salt=st.binary(min_size=1, max_size=20),
    iterations=st.integers(1, 20),
    binding=st.sampled_from(
        [PLAIN, ChannelBinding(b"y,,"), ChannelBinding(b"p=tls-server-end-point,,", b"\0,certificate=hash")]
    ),
    cached=st.booleans(),
)
@settings(deadline=None)
def test_client_and_server_prove_themselves_to_each_other(
    password: bytes, salt: bytes, iterations: int, binding: ChannelBinding, cached: bool
) -> None:
    server = Server(password, salt, iterations, binding.data)
    client = ScramClient(password, binding, ScramKeyCache() if cached else None)
    client.verify(server.finish(client.final(server.challenge(client.first()))))


def test_another_password_is_noticed_on_both_sides() -> None:
    server = Server(b"right")
    client = ScramClient(b"wrong", PLAIN, None)
    answer = server.finish(client.final(server.challenge(client.first())))
    assert answer == b"e=invalid-proof"
    with pytest.raises(AuthenticationError, match="invalid-proof"):
        client.verify(answer)


def test_another_certificate_is_noticed_by_the_server() -> None:
    server = Server(b"right", certificate_hash=b"the server's own")
    client = ScramClient(b"right", ChannelBinding(b"p=tls-server-end-point,,", b"the attacker's"), None)
    answer = server.finish(client.final(server.challenge(client.first())))
    with pytest.raises(AuthenticationError, match="channel-bindings-dont-match"):
        client.verify(answer)


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"v=",
        b"v=====",
        b"v=not base64",
        b"v=\xff\xff",
        b"v=" + base64.b64encode(bytes(32)),
        b"x=" + RFC_PROOF[2:],
        RFC_PROOF[:-2],
        RFC_PROOF[2:],
    ],
)
def test_a_server_without_the_right_signature_does_not_know_the_password(proof: bytes) -> None:
    client = _client_of_the_rfc()
    client.final(RFC_CHALLENGE)
    with pytest.raises(AuthenticationError, match="does not know the password"):
        client.verify(proof)


@pytest.mark.parametrize("proof", [b"v=", b"v=====", RFC_PROOF])
def test_no_proof_is_right_before_the_challenge_is_answered(proof: bytes) -> None:
    with pytest.raises(AuthenticationError, match="does not know the password"):
        _client_of_the_rfc().verify(proof)


def test_extensions_behind_the_signature_are_passed_over() -> None:
    client = _client_of_the_rfc()
    client.final(RFC_CHALLENGE + b",x=future")
    client = _client_of_the_rfc()
    client.final(RFC_CHALLENGE)
    client.verify(RFC_PROOF + b",x=future")


@pytest.mark.parametrize(
    ("challenge", "why"),
    [
        (b"", "malformed"),
        (b",,", "malformed"),
        (b"r=abcd", "malformed"),
        (b"r=abcd,s=c2FsdA==", "malformed"),
        (b"m=must,r=abcd,s=c2FsdA==,i=1", "malformed"),
        (b"s=c2FsdA==,r=abcd,i=1", "malformed"),
        (b"r=abc,s=c2FsdA==,i=1", "does not extend"),
        (b"r=,s=c2FsdA==,i=1", "does not extend"),
        (b"r=xabc,s=c2FsdA==,i=1", "does not extend"),
        (b"r=abcd,s=c2FsdA==,i=0", "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=-1", "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=", "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=1.5", "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=10000001", "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=" + b"9" * 5000, "out of bounds"),
        (b"r=abcd,s=c2FsdA==,i=\xb2", "out of bounds"),
        (b"r=abcd,s=c2Fs dA==,i=1", "not base64"),
        (b"r=abcd,s=c2FsdA,i=1", "not base64"),
        (b"r=abcd,s=\xff\xff\xff\xff,i=1", "not base64"),
    ],
)
def test_a_challenge_that_is_none_is_refused(challenge: bytes, why: str) -> None:
    with pytest.raises(AuthenticationError, match=why):
        ScramClient(b"x", PLAIN, None, nonce=b"abc").final(challenge)


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=20).map(lambda data: b"r=abcd,s=" + data)))
def test_no_challenge_raises_anything_else(challenge: bytes) -> None:
    client = ScramClient(b"x", PLAIN, None, nonce=b"abc")
    try:
        client.final(challenge)
    except AuthenticationError as error:
        assert str(error).isprintable()  # noqa: PT017 - it need not be raised


@given(st.binary(max_size=100))
def test_no_proof_raises_anything_else(proof: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ScramClient(b"x", PLAIN, None).verify(proof)
    assert str(caught.value).isprintable()


def test_an_error_of_the_server_is_passed_on_without_control_characters() -> None:
    with pytest.raises(AuthenticationError, match=r"other-error\?\[31m"):
        _client_of_the_rfc().verify(b"e=other-error\x1b[31m")


def test_the_cache_gives_the_keys_that_are_derived_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ScramKeyCache()
    expected = derive_keys(b"pencil", b"salt", 3)
    assert cache.keys(b"pencil", b"salt", 3) == expected
    monkeypatch.setattr(module, "derive_keys", lambda *_: pytest.fail("derived again"))
    assert cache.keys(b"pencil", b"salt", 3) is cache.keys(b"pencil", b"salt", 3) == expected


def test_the_cache_tells_passwords_salts_and_counts_apart() -> None:
    cache = ScramKeyCache()
    keys = {
        cache.keys(password, salt, count).client
        for password in (b"a", b"b")
        for salt in (b"c", b"d")
        for count in (1, 2)
    }
    assert len(keys) == 8


def test_the_cache_forgets_the_oldest_keys() -> None:
    cache = ScramKeyCache()
    for number in range(1030):
        cache.keys(b"pencil", str(number).encode(), 1)
    assert repr(cache) == "ScramKeyCache(1024 keys)"
    assert (b"pencil", b"1029", 1) in cache._keys
    assert (b"pencil", b"5", 1) not in cache._keys


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013, section 3.
        ("I\u00adX", b"IX"),
        ("user", b"user"),
        ("USER", b"USER"),
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        # Prohibited: PostgreSQL takes the bytes as they are.
        ("\u0007", b"\x07"),
        ("\u0627\u0031", b"\xd8\xa71"),
        # Other spaces become one, composed and decomposed letters the same.
        ("a\u00a0b", b"a b"),
        ("a\u3000b", b"a b"),
        ("u\u0308", b"\xc3\xbc"),
        ("\u00fc", b"\xc3\xbc"),
        ("\u0627\u0628", b"\xd8\xa7\xd8\xa8"),
        ("\u0627a\u0628", b"\xd8\xa7a\xd8\xa8"),
        # Unassigned in Unicode 3.2, nothing left, not UTF-8.
        ("\U0001f600", b"\xf0\x9f\x98\x80"),
        ("\u00ad", b"\xc2\xad"),
        ("\udcff", b"\xff"),
        ("\ud800\udcff", b"\xed\xa0\x80\xed\xb3\xbf"),
        ("", b""),
    ],
)
def test_passwords_are_prepared_as_postgresql_does(text: str, prepared: bytes) -> None:
    assert saslprep(text) == prepared


@given(st.text(st.characters(exclude_categories=[]), max_size=20))
@settings(max_examples=500)
def test_any_text_can_be_prepared(text: str) -> None:
    prepared = saslprep(text)
    assert bool(prepared) == bool(text)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_printable_ascii_is_left_alone(text: str) -> None:
    assert saslprep(text) == text.encode("ascii")
